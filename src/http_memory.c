/*
 * http_memory.c
 *		Memory that is wiped when it is freed.
 */
#include "postgres.h"

#include "crypto.h"
#include "http_memory.h"

/* The size stands before the bytes, in as much room as keeps them aligned. */
#define SIZE_ROOM 16

void *
cm_http_allocate(size_t n_bytes)
{
	char *block = n_bytes < SIZE_MAX - SIZE_ROOM ? malloc(n_bytes + SIZE_ROOM) : NULL;

	if (block == NULL)
		return NULL;
	memcpy(block, &n_bytes, sizeof(n_bytes));
	return block + SIZE_ROOM;
}

static size_t
get_size(const void *bytes)
{
	size_t n_bytes;

	memcpy(&n_bytes, (const char *) bytes - SIZE_ROOM, sizeof(n_bytes));
	return n_bytes;
}

void
cm_http_free(void *bytes)
{
	if (bytes == NULL)
		return;
	cm_crypto_wipe(bytes, get_size(bytes));
	free((char *) bytes - SIZE_ROOM);
}

void *
cm_http_reallocate(void *bytes, size_t n_bytes)
{
	void *moved = cm_http_allocate(n_bytes);

	if (moved == NULL || bytes == NULL)
		return moved;
	memcpy(moved, bytes, Min(n_bytes, get_size(bytes)));
	cm_http_free(bytes);
	return moved;
}

char *
cm_http_duplicate(const char *text)
{
	size_t n_bytes = strlen(text) + 1;
	char *copy = cm_http_allocate(n_bytes);

	return copy != NULL ? memcpy(copy, text, n_bytes) : NULL;
}

void *
cm_http_allocate_zeroed(size_t n, size_t size)
{
	void *bytes = size == 0 || n <= SIZE_MAX / size ? cm_http_allocate(n * size) : NULL;

	return bytes != NULL ? memset(bytes, 0, n * size) : NULL;
}
