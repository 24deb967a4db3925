/*
 * http.h
 *		HTTP/1.1 over unix sockets for an event loop; the only user of libcurl.
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
 */
#ifndef CM_HTTP_H
#define CM_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "endpoint.h"

typedef struct CmHttp CmHttp;
typedef struct CmHttpRequest CmHttpRequest;

/* What became of the exchange; the HTTP status is a separate matter. */
typedef enum CmHttpOutcome
{
	CM_HTTP_OK,		   /* a whole reply arrived, whatever its status */
	CM_HTTP_NOT_SENT,  /* not a byte of it reached the engine, nor
						* can it any more: safe to send again */
	CM_HTTP_TIMED_OUT, /* sent, perhaps acted on, no whole reply */
	CM_HTTP_CUT,	   /* likewise, the connection ended early */
	CM_HTTP_BAD_REPLY, /* likewise, what came is not HTTP */
	CM_HTTP_TOO_BIG,   /* likewise, longer than allowed */
	CM_HTTP_FAILED,	   /* never begun (out of memory, a call that is
						* not well formed): nothing was sent */
} CmHttpOutcome;

typedef struct CmHttpCall
{
	const CmEndpoint *endpoint; /* copied */
	const char *pool;			/* a name of the connection pool, used as URL
								 * host: [a-z0-9-]+, one per host row */
	const char *method;			/* "GET", "POST", "DELETE" */
	const char *path;			/* beginning with '/', escaped */
	const char *body;			/* JSON, or NULL for none; copied */
	size_t n_body;
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
