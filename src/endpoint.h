/*
 * endpoint.h
 *		Parses a host's connection string: unix:///path or tcp://host:port.
 *
 * Floor 0: pure; nothing is resolved or opened.
 */
#ifndef CM_ENDPOINT_H
#define CM_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

#define CM_ENDPOINT_MAX_NAME_BYTES 253 /* RFC 1035, without the root's dot */

typedef enum CmEndpointKind
{
	CM_ENDPOINT_UNIX, /* a socket file */
	CM_ENDPOINT_TCP	  /* host and port */
} CmEndpointKind;

typedef struct CmEndpoint
{
	CmEndpointKind kind;
	char path[108]; /* unix: absolute path, as sun_path takes it */
	char host[256]; /* tcp: name, IPv4, or IPv6 without brackets */
	bool host_is_ipv6;
	int port; /* tcp: 1..65535 */
} CmEndpoint;

/*
 * What a host's row says of how its engine is reached.  What is stored in the
 * database counts before the files of the directory.
 */
typedef struct CmHostAddress
{
	int host_id;
	const char *connection_string;
	bool tls_enabled;
	bool tls_verify;
	const char *tls_cert_path; /* directory; NULL: none */
	bool has_stored_tls;	   /* what follows is to be used */
	const char *ca;			   /* PEM; NULL: none */
	const char *cert;
	const char *key_sealed; /* n_key_sealed bytes; NULL: no client certificate */
	size_t n_key_sealed;
} CmHostAddress;

/*
 * false with one line (no final period) in error and, where there is advice,
 * a sentence in hint (else empty).  Refused: other schemes (http, https, ssh,
 * npipe, fd: each named in the hint with what to write instead), a relative
 * or over-long or unnormalised path (".." components, control characters),
 * a missing or bad port, user info, anything after the port.
 */
extern bool cm_endpoint_parse(const char *text, CmEndpoint *endpoint, char *error,
							  size_t error_size, char *hint, size_t hint_size);

/*
 * Is it this machine, as far as the text tells?  A name may lead anywhere, but
 * that of localhost.
 */
extern bool cm_endpoint_is_loopback(const CmEndpoint *endpoint);

/* Writes it for people: a path, host:port or [address]:port. */
extern void cm_endpoint_show(const CmEndpoint *endpoint, char *out, size_t out_size);

/*
 * Labels of letters, digits, "-" and "_", or an IPv4 address in its usual form.
 * The caller bounds the length.
 */
extern bool cm_endpoint_is_host_name(const char *host);

#endif /* CM_ENDPOINT_H */
