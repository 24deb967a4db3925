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
 * false with one line (no final period) in error and, where there is advice,
 * a sentence in hint (else empty).  Refused: other schemes (http, https, ssh,
 * npipe, fd: each named in the hint with what to write instead), a relative
 * or over-long or unnormalised path (".." components, control characters),
 * a missing or bad port, user info, anything after the port.
 */
extern bool cm_endpoint_parse(const char *text, CmEndpoint *endpoint, char *error,
							  size_t error_size, char *hint, size_t hint_size);

#endif /* CM_ENDPOINT_H */
