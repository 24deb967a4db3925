/*
 * endpoint.c
 *		Parses a host's connection string: unix:///path or tcp://host:port.
 *
 * Strict on purpose.  What passes here is later handed to libcurl and shown to
 * administrators, so that a form which two readers could take for two hosts
 * ("tcp://good@evil:1", "tcp://127.1:1") must not pass.  Messages do not repeat
 * the text: the caller knows it, and it may hold anything.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "endpoint.h"

#define MAX_LABEL_BYTES 63

/* Where the reasons for a refusal go. */
typedef struct Reason
{
	char *error;
	size_t error_size;
	char *hint;
	size_t hint_size;
} Reason;

/* What people write elsewhere, and what to write here. */
static const struct
{
	const char *scheme;
	const char *hint;
} refused_schemes[] = {
	{"http://", "Write tcp://host:port; tls_enabled says whether TLS is used."},
	{"https://", "Write tcp://host:port; tls_enabled says whether TLS is used."},
	{"ssh://", "Write tcp://host:port with TLS, or forward the engine's socket with ssh -L "
			   "and write unix:///path of the forwarded one."},
	{"mock://", "Such a host has executor_type => 'mock'; say so as well."},
	{"npipe://", "Named pipes exist on Windows only; write tcp://host:port with TLS."},
	{"fd://", "fd:// is what the engine listens on; write unix:///path of that socket."},
};

static bool
refuse(const Reason *reason, const char *error, const char *hint)
{
	snprintf(reason->error, reason->error_size, "%s", error);
	snprintf(reason->hint, reason->hint_size, "%s", hint);
	return false;
}

static bool
refuse_scheme(const char *text, const Reason *reason)
{
	char error[64];

	for (size_t i = 0; i < sizeof(refused_schemes) / sizeof(refused_schemes[0]); i++)
	{
		const char *scheme = refused_schemes[i].scheme;

		if (strncmp(text, scheme, strlen(scheme)) != 0)
			continue;
		snprintf(error, sizeof(error), "connection strings that begin with %s are not supported",
				 scheme);
		return refuse(reason, error, refused_schemes[i].hint);
	}
	if (text[0] == '/')
		return refuse(reason, "connection string has no scheme",
					  "Put unix:// before the path of the socket.");
	return refuse(reason, "connection string must begin with unix:// or tcp://",
				  "Write unix:///var/run/docker.sock or tcp://host:2376, in lower case.");
}

/* The path is absolute.  Empty components also are a trailing slash. */
static bool
is_normalised(const char *path)
{
	while (*path == '/')
	{
		size_t length = strcspn(path + 1, "/");

		if (length == 0 || (length == 1 && path[1] == '.') ||
			(length == 2 && path[1] == '.' && path[2] == '.'))
			return false;
		path += 1 + length;
	}
	return true;
}

static bool
parse_unix(const char *path, CmEndpoint *endpoint, const Reason *reason)
{
	size_t length = strlen(path);

	if (length == 0)
		return refuse(reason, "path of the socket is missing",
					  "Write unix:///var/run/docker.sock.");
	if (path[0] != '/')
		return refuse(reason, "path of the socket is not absolute",
					  "Write three slashes: unix:///var/run/docker.sock.");
	if (length >= sizeof(endpoint->path))
		return refuse(reason, "path of the socket is longer than 107 bytes",
					  "Sockets cannot have longer paths; make a shorter one or a symbolic link.");
	if (cm_chars_has_control(path))
		return refuse(reason, "path of the socket contains a control character", "");
	if (!is_normalised(path))
		return refuse(reason, "path of the socket is not in its plain form",
					  "Leave out \".\", \"..\", doubled slashes and a slash at the end.");

	endpoint->kind = CM_ENDPOINT_UNIX;
	memcpy(endpoint->path, path, length + 1);
	return true;
}

/* The whole text must be a port. */
static bool
parse_port(const char *text, CmEndpoint *endpoint, const Reason *reason)
{
	size_t n_digits = 0;
	int port = 0;

	while (n_digits < 6 && cm_chars_is_digit(text[n_digits]))
		port = port * 10 + (text[n_digits++] - '0');

	if (n_digits == 0 || n_digits > 5 || text[0] == '0' || port > 65535)
		return refuse(reason, "port is not a number from 1 to 65535", "");
	if (text[n_digits] != '\0')
		return refuse(reason, "nothing may follow the port",
					  "Write tcp://host:port without a path.");
	endpoint->port = port;
	return true;
}

static bool
is_host_label(const char *label, size_t length)
{
	if (length == 0 || length > MAX_LABEL_BYTES || label[0] == '-' || label[length - 1] == '-')
		return false;
	for (size_t i = 0; i < length; i++)
	{
		/* "_" is no hostname's, but names of containers have it */
		if (!cm_chars_is_alnum(label[i]) && label[i] != '-' && label[i] != '_')
			return false;
	}
	return true;
}

/*
 * Resolvers take "127.1", "0x7f.1" and "017700000001" for IPv4 addresses; so
 * does this, in order to refuse them.
 */
static bool
looks_like_ipv4(const char *host)
{
	const char *dot = strrchr(host, '.');
	const char *last = dot != NULL ? dot + 1 : host;

	if (last[0] == '0' && (last[1] == 'x' || last[1] == 'X'))
		return true;
	return last[strspn(last, "0123456789")] == '\0';
}

bool
cm_endpoint_is_host_name(const char *host)
{
	struct in_addr address;

	if (looks_like_ipv4(host))
		return inet_pton(AF_INET, host, &address) == 1;
	for (;;)
	{
		size_t length = strcspn(host, ".");

		if (!is_host_label(host, length))
			return false;
		if (host[length] == '\0')
			return true;
		host += length + 1;
	}
}

/* host: its first length bytes.  Brackets around IPv6 are gone already. */
static bool
set_host(const char *host, size_t length, CmEndpoint *endpoint, const Reason *reason)
{
	struct in6_addr address;

	if (length == 0)
		return refuse(reason, "host is missing", "Write tcp://host:port.");
	if (length > CM_ENDPOINT_MAX_NAME_BYTES)
		return refuse(reason, "host is longer than 253 bytes", "");
	memcpy(endpoint->host, host, length);
	endpoint->host[length] = '\0';

	if (endpoint->host_is_ipv6 && inet_pton(AF_INET6, endpoint->host, &address) != 1)
		return refuse(reason, "text in brackets is not an IPv6 address", "");
	if (!endpoint->host_is_ipv6 && !cm_endpoint_is_host_name(endpoint->host))
		return refuse(reason, "host is neither a host name nor an IPv4 address",
					  "Write a name, or an address in its usual form, as in 192.0.2.1.");
	return true;
}

/* Sets the host; NULL after a refusal, else what follows the host. */
static const char *
take_host(const char *text, CmEndpoint *endpoint, const Reason *reason)
{
	size_t length;

	endpoint->host_is_ipv6 = text[0] == '[';
	if (!endpoint->host_is_ipv6)
	{
		length = strcspn(text, ":/");
		return set_host(text, length, endpoint, reason) ? text + length : NULL;
	}

	text++;
	length = strcspn(text, "]");
	if (text[length] == '\0')
	{
		refuse(reason, "bracket around the host is not closed", "");
		return NULL;
	}
	return set_host(text, length, endpoint, reason) ? text + length + 1 : NULL;
}

static bool
parse_tcp(const char *text, CmEndpoint *endpoint, const Reason *reason)
{
	const char *colon = strchr(text, ':');

	if (strchr(text, '@') != NULL)
		return refuse(reason, "connection string must not name a user",
					  "The engine knows its clients by their TLS certificates; see tls_cert_path.");
	if (text[0] != '[' && colon != NULL && strchr(colon + 1, ':') != NULL)
		return refuse(reason, "host has more than one colon",
					  "IPv6 addresses stand in brackets: tcp://[::1]:2376.");

	endpoint->kind = CM_ENDPOINT_TCP;
	colon = take_host(text, endpoint, reason);
	if (colon == NULL)
		return false;
	if (*colon != ':')
		return refuse(reason, "port is missing",
					  "Engines listen on 2376 with TLS: tcp://host:2376.");
	return parse_port(colon + 1, endpoint, reason);
}

bool
cm_endpoint_parse(const char *text, CmEndpoint *endpoint, char *error, size_t error_size,
				  char *hint, size_t hint_size)
{
	Reason reason = {error, error_size, hint, hint_size};

	memset(endpoint, 0, sizeof(*endpoint));
	refuse(&reason, "", "");
	if (strncmp(text, "unix://", 7) == 0)
		return parse_unix(text + 7, endpoint, &reason);
	if (strncmp(text, "tcp://", 6) == 0)
		return parse_tcp(text + 6, endpoint, &reason);
	return refuse_scheme(text, &reason);
}

bool
cm_endpoint_is_loopback(const CmEndpoint *endpoint)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (endpoint->kind == CM_ENDPOINT_UNIX || strcmp(endpoint->host, "localhost") == 0)
		return true;
	if (endpoint->host_is_ipv6)
		return inet_pton(AF_INET6, endpoint->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
	return inet_pton(AF_INET, endpoint->host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

void
cm_endpoint_show(const CmEndpoint *endpoint, char *out, size_t out_size)
{
	if (endpoint->kind == CM_ENDPOINT_UNIX)
		snprintf(out, out_size, "%s", endpoint->path);
	else
		snprintf(out, out_size, endpoint->host_is_ipv6 ? "[%s]:%d" : "%s:%d", endpoint->host,
				 endpoint->port);
}
