/*
 * server.h
 *		As much of a server, and of an HTTP exchange, as the readers of an
 *		engine's replies need, for a program that is neither.
 *
 * The JSON parser, StringInfo and the encodings are PostgreSQL's own, from
 * libpgcommon and libpgport.  Memory contexts are lists of malloc'ed blocks, so
 * that the sanitizers see each block by itself.  Replies come from memory.
 */
#ifndef CM_FUZZ_SERVER_H
#define CM_FUZZ_SERVER_H

#include "postgres.h"

#include "http.h"

/* To be called before each input; frees what the one before left. */
extern void fuzz_reset_memory(void);

/* A reply whose bytes are all there (outcome CM_HTTP_OK), or a stream's first. */
extern CmHttpRequest *fuzz_reply_new(int status, const char *bytes, size_t n_bytes);
/* More of a stream's bytes. */
extern void fuzz_reply_feed(CmHttpRequest *request, const char *bytes, size_t n_bytes);
extern void fuzz_reply_free(CmHttpRequest *request);

#endif /* CM_FUZZ_SERVER_H */
