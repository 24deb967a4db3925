/*
 * http_tls.h
 *		What http.c asks of libcurl's TLS.
 *
 * Floor 2, for http*.c only.
 */
#ifndef CM_HTTP_TLS_H
#define CM_HTTP_TLS_H

#include <curl/curl.h>

#include "http.h"

#define CM_HTTP_SET_OPTION(easy, option, value)                            \
	do                                                                     \
	{                                                                      \
		CURLcode set_option_code_ = curl_easy_setopt(easy, option, value); \
                                                                           \
		if (set_option_code_ != CURLE_OK)                                  \
			return set_option_code_;                                       \
	} while (0)

/* One more user; NULL stays NULL. */
extern CmHttpTls *cm_http_tls_share(CmHttpTls *tls);

/* tls must be there for as long as easy has these options. */
extern CURLcode cm_http_tls_set_options(CURL *easy, const CmHttpTls *tls, bool wants_certificate);

/*
 * Why TLS failed by that code, words being libcurl's own for it; OTHER: not
 * known, or it is not TLS that failed.
 */
extern CmHttpCause cm_http_tls_cause(CURL *easy, CURLcode code, const char *words);

/* PEM, malloc'ed; NULL: there is none to be had. */
extern char *cm_http_tls_peer_certificate(CURL *easy);

#endif /* CM_HTTP_TLS_H */
