/*
 * http_tls.c
 *		TLS by libcurl: what it is given, and why it failed.
 *
 * Certificates and key go in as blobs from memory that is ours, so that the key
 * is nowhere but there (and where OpenSSL keeps it for a connection), and is
 * wiped at the end.  libcurl copies the CA and the certificate of a connection
 * that it keeps, in order to compare them, but not the key.
 *
 * Sessions are not resumed: a resumed one is not verified again, neither here
 * nor there.
 */
#include "postgres.h"

#include "http_tls.h"

#define MAX_CERTIFICATE_BYTES 65536

/* Of OpenSSL's X509_V_ERR_..., which libcurl gives out as numbers. */
#define VERIFY_UNSPECIFIED 1 /* libcurl's, for what it found itself */
#define VERIFY_NOT_YET_VALID 9
#define VERIFY_EXPIRED 10
#define VERIFY_INVALID_PURPOSE 26
#define VERIFY_HOST_MISMATCH 62
#define VERIFY_ADDRESS_MISMATCH 64

struct CmHttpTls
{
	int n_users;
	bool verify;
	char *ca;
	char *cert;
	char *key;
};

/* ---- what it is given ---- */

CmHttpTls *
cm_http_tls_new(bool verify, const char *ca, const char *cert, const char *key)
{
	CmHttpTls *tls = calloc(1, sizeof(CmHttpTls));

	if (tls == NULL)
		return NULL;
	tls->n_users = 1;
	tls->verify = verify;
	tls->ca = ca != NULL ? strdup(ca) : NULL;
	tls->cert = cert != NULL ? strdup(cert) : NULL;
	tls->key = key != NULL ? strdup(key) : NULL;
	if ((ca != NULL && tls->ca == NULL) || (cert != NULL && tls->cert == NULL) ||
		(key != NULL && tls->key == NULL))
	{
		cm_http_tls_release(tls);
		return NULL;
	}
	return tls;
}

CmHttpTls *
cm_http_tls_share(CmHttpTls *tls)
{
	if (tls != NULL)
		tls->n_users++;
	return tls;
}

void
cm_http_tls_release(CmHttpTls *tls)
{
	if (tls == NULL || --tls->n_users > 0)
		return;
	if (tls->key != NULL)
		explicit_bzero(tls->key, strlen(tls->key));
	free(tls->ca);
	free(tls->cert);
	free(tls->key);
	free(tls);
}

bool
cm_http_tls_has_client_cert(const CmHttpTls *tls)
{
	return tls != NULL && tls->cert != NULL;
}

const char *
cm_http_tls_ca(const CmHttpTls *tls)
{
	return tls->ca;
}

const char *
cm_http_tls_cert(const CmHttpTls *tls)
{
	return tls->cert;
}

static bool
is_same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool
cm_http_tls_equal(const CmHttpTls *a, const CmHttpTls *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->verify == b->verify && is_same_text(a->ca, b->ca) && is_same_text(a->cert, b->cert) &&
		   is_same_text(a->key, b->key);
}

static struct curl_blob
make_blob(char *text)
{
	struct curl_blob blob = {.data = text, .len = strlen(text), .flags = CURL_BLOB_NOCOPY};

	return blob;
}

/*
 * Without a path of its own Debian's libcurl trusts /etc/ssl/certs, too.  The
 * empty password keeps OpenSSL from asking a terminal for one.
 */
CURLcode
cm_http_tls_set_options(CURL *easy, const CmHttpTls *tls, bool wants_certificate)
{
	struct curl_blob blob;

	CM_HTTP_SET_OPTION(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	CM_HTTP_SET_OPTION(easy, CURLOPT_SSL_VERIFYPEER, tls->verify ? 1L : 0L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_SSL_VERIFYHOST, tls->verify ? 2L : 0L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_CERTINFO, wants_certificate ? 1L : 0L);
	if (tls->ca != NULL)
	{
		blob = make_blob(tls->ca);
		CM_HTTP_SET_OPTION(easy, CURLOPT_CAINFO_BLOB, &blob);
		CM_HTTP_SET_OPTION(easy, CURLOPT_CAPATH, NULL);
	}
	if (tls->cert != NULL)
	{
		blob = make_blob(tls->cert);
		CM_HTTP_SET_OPTION(easy, CURLOPT_SSLCERT_BLOB, &blob);
		CM_HTTP_SET_OPTION(easy, CURLOPT_SSLCERTTYPE, "PEM");
		blob = make_blob(tls->key);
		CM_HTTP_SET_OPTION(easy, CURLOPT_SSLKEY_BLOB, &blob);
		CM_HTTP_SET_OPTION(easy, CURLOPT_SSLKEYTYPE, "PEM");
		CM_HTTP_SET_OPTION(easy, CURLOPT_KEYPASSWD, "");
	}
	return CURLE_OK;
}

/* ---- why it failed ---- */

/* OpenSSL's reasons as libcurl quotes them; "alert" is what the other end said. */
static const struct
{
	const char *words;
	CmHttpCause cause;
} known_words[] = {
	{"wrong version number", CM_CAUSE_NOT_TLS},
	{"packet length too long", CM_CAUSE_NOT_TLS},
	{"unknown protocol", CM_CAUSE_NOT_TLS},
	{"http request", CM_CAUSE_NOT_TLS},
	{"alert protocol version", CM_CAUSE_TLS_VERSION},
	{"unsupported protocol", CM_CAUSE_TLS_VERSION},
	{"alert bad certificate", CM_CAUSE_CLIENT_REFUSED},
	{"alert unsupported certificate", CM_CAUSE_CLIENT_REFUSED},
	{"alert certificate", CM_CAUSE_CLIENT_REFUSED}, /* required, expired, revoked, unknown */
	{"alert unknown ca", CM_CAUSE_CLIENT_REFUSED},
	{"alert access denied", CM_CAUSE_CLIENT_REFUSED},
};

static CmHttpCause
find_cause(const char *words)
{
	for (int i = 0; i < lengthof(known_words); i++)
	{
		if (strstr(words, known_words[i].words) != NULL)
			return known_words[i].cause;
	}
	return CM_CAUSE_OTHER;
}

/* A wrong name is found by libcurl, or by OpenSSL, as the version has it. */
static CmHttpCause
judge_verification(CURL *easy)
{
	long result = 0;

	curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
	switch (result)
	{
		case 0:
		case VERIFY_UNSPECIFIED:
		case VERIFY_HOST_MISMATCH:
		case VERIFY_ADDRESS_MISMATCH:
			return CM_CAUSE_WRONG_NAME;
		case VERIFY_NOT_YET_VALID:
			return CM_CAUSE_NOT_YET_VALID;
		case VERIFY_EXPIRED:
			return CM_CAUSE_EXPIRED;
		case VERIFY_INVALID_PURPOSE:
			return CM_CAUSE_WRONG_PURPOSE;
		default:
			return CM_CAUSE_CA;
	}
}

CmHttpCause
cm_http_tls_cause(CURL *easy, CURLcode code, const char *words)
{
	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
			return judge_verification(easy);
		case CURLE_SSL_CACERT_BADFILE:
			return CM_CAUSE_OWN_CA;
		case CURLE_SSL_CERTPROBLEM:
			return CM_CAUSE_OWN_CERT;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
			return find_cause(words);
		default:
			return CM_CAUSE_OTHER;
	}
}

/* libcurl lists for each certificate, the engine's own first, "Field:value". */
char *
cm_http_tls_peer_certificate(CURL *easy)
{
	struct curl_certinfo *chain = NULL;

	if (curl_easy_getinfo(easy, CURLINFO_CERTINFO, &chain) != CURLE_OK || chain == NULL ||
		chain->num_of_certs < 1)
		return NULL;
	for (struct curl_slist *field = chain->certinfo[0]; field != NULL; field = field->next)
	{
		if (strncmp(field->data, "Cert:", 5) == 0)
			return strnlen(field->data, MAX_CERTIFICATE_BYTES) < MAX_CERTIFICATE_BYTES
					   ? strdup(field->data + 5)
					   : NULL;
	}
	return NULL;
}
