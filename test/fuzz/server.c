/*
 * server.c
 *		As much of a server as the readers of an engine's replies need.
 *
 * What they never come to, because it sends, waits or throws, ends the process.
 */
#include "postgres.h"

#include "common/fe_memutils.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "fuzz.h"
#include "server.h"

/* ---- memory ---- */

typedef struct Block
{
	struct Block *next;
	struct Block *previous;
	struct Context *context;
	size_t n_bytes;
} Block;

typedef struct Context
{
	MemoryContextData data; /* its firstchild, nextchild and parent are used */
	Block *first;
} Context;

static Context top_context;

MemoryContext CurrentMemoryContext = &top_context.data;

static void
unlink_block(Block *block)
{
	if (block->previous != NULL)
		block->previous->next = block->next;
	else
		block->context->first = block->next;
	if (block->next != NULL)
		block->next->previous = block->previous;
}

static void
link_block(Block *block, Context *context)
{
	block->context = context;
	block->previous = NULL;
	block->next = context->first;
	if (block->next != NULL)
		block->next->previous = block;
	context->first = block;
}

void *
palloc(Size n_bytes)
{
	Block *block = malloc(sizeof(Block) + n_bytes);

	REQUIRE(block != NULL && n_bytes <= MaxAllocSize);
	block->n_bytes = n_bytes;
	link_block(block, (Context *) CurrentMemoryContext);
	return block + 1;
}

void *
palloc0(Size n_bytes)
{
	return memset(palloc(n_bytes), 0, n_bytes);
}

static void *
resize_block(void *pointer, Size n_bytes)
{
	Block *block = (Block *) pointer - 1;
	Context *context = block->context;

	unlink_block(block);
	block = realloc(block, sizeof(Block) + n_bytes);
	REQUIRE(block != NULL);
	block->n_bytes = n_bytes;
	link_block(block, context);
	return block + 1;
}

void *
repalloc(void *pointer, Size n_bytes)
{
	REQUIRE(n_bytes <= MaxAllocSize);
	return resize_block(pointer, n_bytes);
}

void *
repalloc_huge(void *pointer, Size n_bytes)
{
	REQUIRE(n_bytes <= MaxAllocHugeSize);
	return resize_block(pointer, n_bytes);
}

void
pfree(void *pointer)
{
	Block *block = (Block *) pointer - 1;

	unlink_block(block);
	free(block);
}

char *
pnstrdup(const char *text, Size n_bytes)
{
	size_t length = strnlen(text, n_bytes);
	char *copy = palloc(length + 1);

	memcpy(copy, text, length);
	copy[length] = '\0';
	return copy;
}

char *
pstrdup(const char *text)
{
	return pnstrdup(text, strlen(text));
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size min_size, Size init_size,
							  Size max_size)
{
	Context *context = calloc(1, sizeof(Context));

	REQUIRE(context != NULL);
	context->data.parent = parent;
	context->data.nextchild = parent->firstchild;
	parent->firstchild = &context->data;
	return &context->data;
}

void
MemoryContextReset(MemoryContext context)
{
	while (context->firstchild != NULL)
		MemoryContextDelete(context->firstchild);
	while (((Context *) context)->first != NULL)
		pfree(((Context *) context)->first + 1);
}

void
MemoryContextDelete(MemoryContext context)
{
	MemoryContext *link = &context->parent->firstchild;

	REQUIRE(context != CurrentMemoryContext);
	MemoryContextReset(context);
	while (*link != context)
		link = &(*link)->nextchild;
	*link = context->nextchild;
	free(context);
}

void
fuzz_reset_memory(void)
{
	CurrentMemoryContext = &top_context.data;
	MemoryContextReset(CurrentMemoryContext);
}

/* ---- text ---- */

bool
pg_verify_mbstr(int encoding, const char *text, int n_bytes, bool no_error)
{
	REQUIRE(no_error);
	return pg_encoding_verifymbstr(encoding, text, n_bytes) == n_bytes;
}

/* As the server's, which is not in its libraries. */
void
escape_json(StringInfo to, const char *text)
{
	appendStringInfoCharMacro(to, '"');
	for (; *text != '\0'; text++)
	{
		if (*text == '"' || *text == '\\')
			appendStringInfo(to, "\\%c", *text);
		else if ((unsigned char) *text < ' ')
			appendStringInfo(to, "\\u%04x", (int) *text);
		else
			appendStringInfoCharMacro(to, *text);
	}
	appendStringInfoCharMacro(to, '"');
}

/* ---- what is never come to ---- */

volatile sig_atomic_t InterruptPending = false;
struct Latch *MyLatch;

void
ProcessInterrupts(void)
{
	abort();
}

void
ResetLatch(Latch *latch)
{
	abort();
}

int
WaitLatchOrSocket(Latch *latch, int events, pgsocket fd, long timeout_ms, uint32 wait_event_info)
{
	abort();
}

int64_t
cm_http_timeout_ms(const CmHttp *http)
{
	abort();
}

int
cm_http_fd(const CmHttp *http)
{
	abort();
}

bool
cm_http_drain(CmHttp *http)
{
	abort();
}

CmHttpRequest *
cm_http_start(CmHttp *http, const CmHttpCall *call)
{
	abort();
}

void
cm_http_append_escaped(StringInfo to, const char *text)
{
	abort();
}

/* ---- replies ---- */

struct CmHttpRequest
{
	int status;
	char *body; /* with a NUL behind it */
	size_t n_bytes;
};

CmHttpRequest *
fuzz_reply_new(int status, const char *bytes, size_t n_bytes)
{
	CmHttpRequest *request = calloc(1, sizeof(CmHttpRequest));

	REQUIRE(request != NULL);
	request->status = status;
	fuzz_reply_feed(request, bytes, n_bytes);
	return request;
}

/* Into memory of just that size. */
static void
set_body(CmHttpRequest *request, const char *a, size_t n_a, const char *b, size_t n_b)
{
	char *body = malloc(n_a + n_b + 1);

	REQUIRE(body != NULL);
	if (n_a > 0)
		memcpy(body, a, n_a);
	if (n_b > 0)
		memcpy(body + n_a, b, n_b);
	body[n_a + n_b] = '\0';
	free(request->body);
	request->body = body;
	request->n_bytes = n_a + n_b;
}

void
fuzz_reply_feed(CmHttpRequest *request, const char *bytes, size_t n_bytes)
{
	set_body(request, request->body, request->n_bytes, bytes, n_bytes);
}

void
fuzz_reply_free(CmHttpRequest *request)
{
	free(request->body);
	free(request);
}

void
cm_http_consume(CmHttpRequest *request, size_t n_bytes)
{
	REQUIRE(n_bytes <= request->n_bytes);
	set_body(request, request->body + n_bytes, request->n_bytes - n_bytes, NULL, 0);
}

const char *
cm_http_body(const CmHttpRequest *request, size_t *n_bytes)
{
	*n_bytes = request->n_bytes;
	return request->body;
}

int
cm_http_status(const CmHttpRequest *request)
{
	return request->status;
}

CmHttpOutcome
cm_http_outcome(const CmHttpRequest *request)
{
	return CM_HTTP_OK;
}

const char *
cm_http_error(const CmHttpRequest *request)
{
	return "";
}

const char *
cm_http_header(const CmHttpRequest *request, const char *name)
{
	return NULL;
}
