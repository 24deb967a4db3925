/*
 * diagnosis_tcp.c
 *		What can go wrong on the way to an engine by TCP and TLS, in words for
 *		people.
 *
 * Each cause has its own message, so that one knows at which end to look.
 */
#include "postgres.h"

#include <errno.h>

#include "diagnosis_tcp.h"

#define PORT_PLAIN 2375
#define PORT_TLS 2376
#define PORT_SWARM 2377

/* What is explained, and where it goes. */
typedef struct Case
{
	const CmEngine *engine;
	const CmHttpRequest *request;
	char where[300]; /* host:port */
	char words[300]; /* libcurl's own */
	CmDiagnosis *diagnosis;
} Case;

static void say(const Case *c, const char *hint, const char *format, ...) pg_attribute_printf(3, 4);

static void
say(const Case *c, const char *hint, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->diagnosis->error, sizeof(c->diagnosis->error), format, args);
	va_end(args);
	strlcpy(c->diagnosis->hint, hint, sizeof(c->diagnosis->hint));
}

/* People take one of Docker's ports for the other; "" where it is none. */
static const char *
hint_of_port(const Case *c)
{
	switch (c->engine->endpoint.port)
	{
		case PORT_SWARM:
			return " Port 2377 is Swarm's own; engines listen on 2376 with TLS.";
		case PORT_PLAIN:
			return c->engine->tls != NULL
					   ? " Port 2375 is by custom without TLS; engines listen on 2376 with it."
					   : "";
		case PORT_TLS:
			return c->engine->tls == NULL
					   ? " Port 2376 is by custom with TLS: leave tls_enabled to its default."
					   : "";
		default:
			return "";
	}
}

static void
add_hint_of_port(const Case *c)
{
	const char *hint = hint_of_port(c);

	if (c->diagnosis->hint[0] == '\0' && hint[0] != '\0')
		hint++; /* the space in front */
	strlcat(c->diagnosis->hint, hint, sizeof(c->diagnosis->hint));
}

/* ---- no connection ---- */

static void
explain_connect(const Case *c)
{
	int error = cm_http_os_error(c->request);

	if (error == ECONNREFUSED)
		say(c,
			"Nothing listens there: start the engine with --host tcp://0.0.0.0:2376 and --tlsverify, "
			"or correct the connection string of the host.",
			"connection to %s refused", c->where);
	else if (error != 0)
		say(c, "Check the address, and routes and firewalls in between.",
			"could not connect to %s: %s", c->where, strerror(error));
	else
		say(c, "Check the connection string of the host.", "could not connect to %s: %s", c->where,
			c->words);
	add_hint_of_port(c);
}

static bool
explain_no_connection(const Case *c)
{
	const char *host = c->engine->endpoint.host;

	switch (cm_http_cause(c->request))
	{
		case CM_CAUSE_NAME:
			say(c, "Correct the connection string, or make the name known by DNS or /etc/hosts.",
				"host name \"%s\" could not be resolved", host);
			return true;
		case CM_CAUSE_NAME_SLOW:
			say(c,
				"The name servers in /etc/resolv.conf of the database server do not answer; an IP "
				"address in the connection string needs none.",
				"host name \"%s\" could not be resolved in time", host);
			return true;
		case CM_CAUSE_CONNECT:
			explain_connect(c);
			return true;
		case CM_CAUSE_CONNECT_SLOW:
			say(c, "Nobody answers at that address: check it, and firewalls in between.",
				"connection to %s timed out", c->where);
			return true;
		case CM_CAUSE_NOT_LOOPBACK:
			say(c,
				"Whoever reaches an engine without TLS is root on its host. Use TLS (tls_enabled), "
				"or let the server's administrator set container_manager.allow_plain_tcp.",
				"connection to %s without TLS is not allowed: it is on another machine", c->where);
			return true;
		default:
			return false;
	}
}

/* ---- no TLS ---- */

static void
explain_ca(const Case *c)
{
	say(c,
		"ca.pem of tls_cert_path, or the ca of cm_set_host_tls, must be of the CA that issued the "
		"engine's certificate (dockerd --tlscert).",
		"certificate of %s is not issued by a trusted CA: %s", c->where, c->words);
}

static void
explain_wrong_name(const Case *c)
{
	char hint[512];

	snprintf(
		hint, sizeof(hint),
		"Issue the engine's certificate with \"%.200s\" among its subjectAltNames, or use a name "
		"that it has in the connection string.",
		c->engine->endpoint.host);
	say(c, hint, "certificate of %s is for another name: %s", c->where, c->words);
}

static bool
explain_certificate(const Case *c)
{
	switch (cm_http_cause(c->request))
	{
		case CM_CAUSE_CA:
			explain_ca(c);
			return true;
		case CM_CAUSE_EXPIRED:
			say(c,
				"Issue a new certificate for the engine and restart it; look at the clocks, too.",
				"certificate of %s has expired", c->where);
			return true;
		case CM_CAUSE_NOT_YET_VALID:
			say(c, "Look at the clocks of this machine and of the one that issued it.",
				"certificate of %s is not valid yet", c->where);
			return true;
		case CM_CAUSE_WRONG_NAME:
			explain_wrong_name(c);
			return true;
		case CM_CAUSE_WRONG_PURPOSE:
			say(c, "The engine's certificate needs the extended key usage serverAuth.",
				"certificate of %s is not for servers", c->where);
			return true;
		default:
			return false;
	}
}

static void
explain_client_refused(const Case *c)
{
	if (cm_http_tls_has_client_cert(c->engine->tls))
		say(c,
			"The certificate must be valid, for clientAuth, and issued by the CA that the engine "
			"has by --tlscacert.",
			"%s does not accept the client certificate: %s", c->where, c->words);
	else
		say(c,
			"Put cert.pem and key.pem into the directory of tls_cert_path, or give them by "
			"cm_set_host_tls.",
			"%s wants a client certificate, and none is given", c->where);
}

static bool
explain_no_tls(const Case *c)
{
	switch (cm_http_cause(c->request))
	{
		case CM_CAUSE_HANDSHAKE_SLOW:
			say(c, "What listens there hangs, or does not speak TLS.",
				"TLS handshake with %s timed out", c->where);
			break;
		case CM_CAUSE_NOT_TLS:
			say(c, "Start the engine with --tlsverify, or add the host with tls_enabled => false.",
				"%s does not speak TLS", c->where);
			break;
		case CM_CAUSE_TLS_VERSION:
			say(c, "TLS 1.2 or newer is needed.", "no version of TLS in common with %s", c->where);
			return true;
		case CM_CAUSE_OWN_CA:
			say(c, "ca.pem must hold certificates in PEM form.",
				"CA certificates cannot be used: %s", c->words);
			return true;
		case CM_CAUSE_OWN_CERT:
			say(c, "cert.pem must hold a certificate and key.pem its private key, in PEM form.",
				"client certificate and key cannot be used: %s", c->words);
			return true;
		case CM_CAUSE_CLIENT_REFUSED:
			explain_client_refused(c);
			return true;
		default:
			return explain_certificate(c);
	}
	add_hint_of_port(c);
	return true;
}

/* ---- an answer, or part of one ---- */

/*
 * An engine that dislikes our certificate may close so fast that its reason is
 * lost with the connection.
 */
static void
explain_closed(const Case *c)
{
	if (cm_http_tls_has_client_cert(c->engine->tls))
		say(c,
			"Engines do that with a client certificate that they do not accept: it must be valid, "
			"for clientAuth, and issued by the CA that the engine has by --tlscacert.",
			"%s closed the connection after the TLS handshake", c->where);
	else
		say(c,
			"Engines with --tlsverify do that where no client certificate is given: put cert.pem and "
			"key.pem into the directory of tls_cert_path, or give them by cm_set_host_tls.",
			"%s closed the connection after the TLS handshake", c->where);
}

static bool
explain_sent(const Case *c, const CmFault *fault)
{
	CmHttpOutcome outcome = cm_http_outcome(c->request);
	bool is_plain = c->engine->tls == NULL;

	if (is_plain && outcome == CM_HTTP_OK && fault->http_status == 400 &&
		strstr(fault->message, "HTTPS") != NULL)
		say(c, "Set tls_enabled => true for the host.",
			"%s speaks TLS, and the host is set to go without", c->where);
	else if (is_plain && fault->http_status == 0 &&
			 (outcome == CM_HTTP_CUT || outcome == CM_HTTP_BAD_REPLY))
	{
		say(c, "Where it speaks TLS, set tls_enabled => true for the host.",
			"what answers at %s does not speak HTTP: %s", c->where, c->words);
		add_hint_of_port(c);
	}
	else if (!is_plain && fault->http_status == 0 && outcome == CM_HTTP_CUT)
		explain_closed(c);
	else
		return false;
	return true;
}

bool
cm_diagnosis_explain_tcp(const CmEngine *engine, const CmHttpRequest *request, const CmFault *fault,
						 CmDiagnosis *diagnosis)
{
	Case c = {engine, request, "", "", diagnosis};

	cm_endpoint_show(&engine->endpoint, c.where, sizeof(c.where));
	cm_diagnosis_copy_line(c.words, sizeof(c.words), cm_http_curl_words(request));
	return explain_no_connection(&c) || explain_no_tls(&c) || explain_sent(&c, fault);
}
