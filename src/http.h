/*
 * http.h
 *		HTTP/1.1 over unix sockets, TCP and TLS for an event loop; the only user
 *		of libcurl, with http_tls.
 *
 * Floor 2.  One CmHttp per process: it hides all its sockets and timers behind
 * one epoll descriptor, so that a caller waits with one WaitEventSet on
 * {latch, postmaster death, cm_http_fd()} and no longer than
 * cm_http_timeout_ms(), then calls cm_http_drain().  Nothing here blocks, and
 * nothing is thrown once a request was handed over: what libcurl calls back
 * runs on malloc'ed memory and never reaches elog or palloc.
 *
 * A request is torn down by cm_http_finish() or cm_http_cancel(), exactly
 * once.  Replies are bounded: a plain request fails with CM_HTTP_TOO_BIG
 * beyond max_body_bytes; a stream is paused while max_body_bytes are unread.
 * Plain requests of one pool that take more than 128 MB together fail likewise.
 *
 * Each pool has connections of its own, which are closed when it has no request
 * any more and the next drain comes: no credentials and no dead connection of
 * one host row are ever used for another.
 */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "endpoint.h"

struct MemoryContextData;
struct StringInfoData;

typedef struct CmHttp CmHttp;
typedef struct CmHttpRequest CmHttpRequest;

/* What became of the exchange; the HTTP status is a separate matter. */
typedef enum CmHttpOutcome
{
	CM_HTTP_OK,		   /* a whole reply arrived, whatever its status */
	CM_HTTP_NOT_SENT,  /* not a byte of it reached the engine, nor
						* can it any more: safe to send again.  So
						* ends all that fails before a connection,
						* or its TLS, is there */
	CM_HTTP_TIMED_OUT, /* sent, perhaps acted on, no whole reply */
	CM_HTTP_CUT,	   /* likewise, the connection ended early */
	CM_HTTP_BAD_REPLY, /* likewise, what came is not HTTP */
	CM_HTTP_TOO_BIG,   /* likewise, longer than allowed */
	CM_HTTP_FAILED,	   /* never begun (out of memory, a call that is
						* not well formed): nothing was sent */
} CmHttpOutcome;

/*
 * Why it ended so, as far as it can be told for sure; what is not told here is
 * in cm_http_error().  Those of a connection that was not made come with
 * NOT_SENT; CLIENT_REFUSED with CUT as well, for under TLS 1.3 an engine looks
 * at our certificate only after the request is on its way.
 */
typedef enum CmHttpCause
{
	CM_CAUSE_OTHER,
	CM_CAUSE_NAME,			 /* the host's name is not known */
	CM_CAUSE_NAME_SLOW,		 /* nobody said in time */
	CM_CAUSE_CONNECT,		 /* connect() failed: cm_http_os_error() */
	CM_CAUSE_CONNECT_SLOW,	 /* nobody took the connection in time */
	CM_CAUSE_NOT_LOOPBACK,	 /* only_loopback, and the address is another one */
	CM_CAUSE_HANDSHAKE_SLOW, /* it connected, but no TLS came of it in time */
	CM_CAUSE_NOT_TLS,		 /* what answers does not speak TLS */
	CM_CAUSE_TLS_VERSION,	 /* nor a version of it that is allowed */
	CM_CAUSE_OWN_CA,		 /* our CA certificates cannot be used */
	CM_CAUSE_OWN_CERT,		 /* nor our certificate, or its key */
	CM_CAUSE_CA,			 /* the engine's certificate is not of our CA, */
	CM_CAUSE_EXPIRED,		 /* is not valid any more, */
	CM_CAUSE_NOT_YET_VALID,	 /* or not yet, */
	CM_CAUSE_WRONG_NAME,	 /* is for another host, */
	CM_CAUSE_WRONG_PURPOSE,	 /* or not for servers */
	CM_CAUSE_CLIENT_REFUSED	 /* it does not take our certificate, or misses it */
} CmHttpCause;

/*
 * What is needed for TLS with one engine.  Shared by counting; the key is
 * wiped with the last user.
 */
typedef struct CmHttpTls CmHttpTls;

/*
 * Texts are PEM and copied; NULL: the system's CAs, or no client certificate.
 * cert and key come together.  Nothing is checked here.  NULL: out of memory.
 */
extern CmHttpTls *cm_http_tls_new(bool verify, const char *ca, const char *cert, const char *key);
extern bool cm_http_tls_has_client_cert(const CmHttpTls *tls);
/* PEM, or NULL. */
extern const char *cm_http_tls_ca(const CmHttpTls *tls);
extern const char *cm_http_tls_cert(const CmHttpTls *tls);
extern bool cm_http_tls_equal(const CmHttpTls *a, const CmHttpTls *b);
extern void cm_http_tls_release(CmHttpTls *tls); /* NULL: nothing */

typedef struct CmHttpCall
{
	const CmEndpoint *endpoint; /* copied */
	const char *pool;			/* a name of the connection pool, used as URL
								 * host of a unix socket: [a-z0-9-]+ */
	CmHttpTls *tls;				/* NULL: plain HTTP; shared */
	bool only_loopback;			/* never connect to another machine */
	bool wants_certificate;		/* for cm_http_peer_certificate */
	const char *method;			/* "GET", "POST", "PUT", "DELETE" */
	const char *path;			/* beginning with '/', escaped */
	const char *body;			/* JSON, or NULL for none; copied */
	size_t n_body;
	bool is_tar;				/* the body is a tar archive */
	const char *registry_auth;	/* X-Registry-Auth, or NULL; copied */
	bool is_secret;				/* body is not to stay in memory when it was sent */
	bool fresh;					/* never on a reused connection: libcurl may
								 * silently send a request twice there */
	bool is_stream;				/* body is taken piecemeal, see below */
	int64_t timeout_ms;			/* for the whole exchange, 0: none (streams) */
	int64_t connect_timeout_ms; /* 0: ten seconds */
	size_t max_body_bytes;

	/*
	 * Called from cm_http_drain(), outside of libcurl's frames.
	 *
	 * on_bytes (streams only): the status is known, or bytes came; take them
	 * with cm_http_body and cm_http_consume.  What is left stays, and the
	 * next call comes when there is more, or at once where some was consumed
	 * of a paused stream and it is still too full to go on; there is a last
	 * one before on_done if anything is unread then.
	 *
	 * on_done: the exchange is over; the callee must call cm_http_finish() on
	 * it, then or later.
	 *
	 * Both may start, finish and cancel any request, the current one too, and
	 * may throw: the call then counts as made.  Whoever catches that should
	 * cancel the stream, which is not called again while it is paused.
	 */
	void (*on_bytes)(CmHttpRequest *request, void *arg);
	void (*on_done)(CmHttpRequest *request, void *arg);
	void *arg;
} CmHttpCall;

/* Throws on failure.  Freed when context is reset or deleted. */
extern CmHttp *cm_http_new(struct MemoryContextData *context);
extern int cm_http_fd(const CmHttp *http);

/* Milliseconds until libcurl wants to be called; -1: not before a socket moves. */
extern int64_t cm_http_timeout_ms(const CmHttp *http);

/*
 * Moves what can be moved without waiting and calls back.  Bounded work per
 * call; true where more is ready at once.
 */
extern bool cm_http_drain(CmHttp *http);

/*
 * Hands a request over.  Never fails visibly: what cannot be begun comes back
 * through on_done with CM_HTTP_FAILED (or NOT_SENT) from the next drain.
 * Throws only on out of memory.
 */
extern CmHttpRequest *cm_http_start(CmHttp *http, const CmHttpCall *call);

/* Frees a request that is over: its on_done was called, or is about to be. */
extern void cm_http_finish(CmHttpRequest *request);

/* Ends and frees a request that is under way; no callback comes any more. */
extern void cm_http_cancel(CmHttpRequest *request);

extern CmHttpOutcome cm_http_outcome(const CmHttpRequest *request);

/* The final status, known as soon as its headers are complete; 0: none yet. */
extern int cm_http_status(const CmHttpRequest *request);

/*
 * The unread body, NUL-terminated behind n_bytes; valid until the next consume,
 * drain, finish or cancel.
 */
extern const char *cm_http_body(const CmHttpRequest *request, size_t *n_bytes);

/* One line for people: what failed, or "". */
extern const char *cm_http_error(const CmHttpRequest *request);

extern CmHttpCause cm_http_cause(const CmHttpRequest *request);

/* libcurl's own words for what failed, printable ASCII, or "". */
extern const char *cm_http_curl_words(const CmHttpRequest *request);

/* The errno of CM_CAUSE_CONNECT. */
extern int cm_http_os_error(const CmHttpRequest *request);

/*
 * The engine's own certificate as PEM; NULL: not asked for, none, or this
 * request went over a connection that was there already.
 */
extern const char *cm_http_peer_certificate(const CmHttpRequest *request);

/* A reply header's value (Api-Version, ...), or NULL.  Only the first 32
 * headers of up to 256 bytes are kept. */
extern const char *cm_http_header(const CmHttpRequest *request, const char *name);

/*
 * Streams: drops the first n bytes of the body, which were read, and resumes a
 * paused stream (more bytes may be there when it returns).
 */
extern void cm_http_consume(CmHttpRequest *request, size_t n_bytes);

/* Appends text to a StringInfo, percent-escaped for a query or path part. */
extern void cm_http_append_escaped(struct StringInfoData *to, const char *text);

#endif /* CM_HTTP_H */
