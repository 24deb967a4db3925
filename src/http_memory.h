/*
 * http_memory.h
 *		Memory for libcurl and for what engines answer.
 *
 * Floor 2.  Requests may hold secrets, which libcurl copies where it likes, and an
 * engine tells them back in the environment of a container: whatever is freed here
 * is wiped.  As malloc() and its siblings: NULL where there is no memory; and of
 * one family, not to be mixed with those.
 */
#ifndef CM_HTTP_MEMORY_H
#define CM_HTTP_MEMORY_H

#include <stddef.h>

extern void *cm_http_allocate(size_t n_bytes);
extern void *cm_http_allocate_zeroed(size_t n, size_t size);
extern void *cm_http_reallocate(void *bytes, size_t n_bytes);
extern char *cm_http_duplicate(const char *text);
extern void cm_http_free(void *bytes);

#endif /* CM_HTTP_MEMORY_H */
