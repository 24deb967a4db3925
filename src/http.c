/*
 * http.c
 *		libcurl's multi interface behind one epoll descriptor.
 *
 * libcurl tells by callback which sockets it wants watched and when it wants
 * to be called next; we keep the sockets in an epoll set, which nests in the
 * caller's WaitEventSet, and the time as a deadline.  epoll_wait() is only
 * ever asked with timeout 0 here: who waits is the caller, who hears the latch.
 *
 * An error thrown through libcurl's frames would leave it corrupt.  So what it
 * calls back (watch_socket, set_deadline, open_socket, take_header, take_body)
 * uses malloc and plain lists only, and notes its findings in the request; the
 * users' callbacks run afterwards from the list "ready".  A request is taken
 * off that list before its user is called, who may free it or throw.
 *
 * libcurl keeps connections per multi handle, and shares one between requests
 * where it finds nothing that tells them apart.  So each pool has a multi handle
 * of its own; all of them watch their sockets in the one epoll set.
 */
#include "postgres.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "storage/fd.h"

#include "crypto.h"
#include "http.h"
#include "http_memory.h"
#include "http_tls.h"

/* CURLOPT_QUICK_EXIT came with 7.87. */
#define MIN_CURL_VERSION 0x075700
StaticAssertDecl(LIBCURL_VERSION_NUM >= MIN_CURL_VERSION, "libcurl 7.87 or newer is needed");

#define MAX_EVENTS 256			 /* taken from epoll at once */
#define MAX_ROUNDS 4			 /* of socket work per drain */
#define MAX_CALLS 256			 /* of users per drain */
#define MAX_IDLE_EASY 16		 /* libcurl handles kept for the next request */
#define MAX_IDLE_CONNECTIONS 16L /* per pool; descriptors cost the engine, too */
#define MIN_BODY_BYTES 4096		 /* first size of a buffer */
#define KEPT_BODY_BYTES 65536	 /* a stream's empty buffer above it is freed */
#define MAX_POOL_MB 128			 /* of one engine's replies, streams aside */
#define MAX_HEADER_BYTES 65536	 /* of one reply, interim ones included */
#define MAX_HEADERS 32			 /* kept for cm_http_header */
#define MAX_HEADER_LINE_BYTES 256
#define CONNECT_TIMEOUT_MS 10000 /* if unsaid */
#define KEEPALIVE_S 30L			 /* tcp: finds dead hosts under silent streams */

/*
 * A socket that is ready so many times in a row without libcurl doing anything
 * with it is left alone for a while: some versions do not drain an eventfd of
 * their own.
 */
#define MAX_IDLE_TURNS 1000
#define MUTE_MS 10

/* What is known of a descriptor; the table is indexed by it. */
typedef struct SocketWatch
{
	struct Pool *pool; /* whose it is */
	uint32 events;	   /* what libcurl waits for, 0: nothing */
	bool is_watched;   /* as far as we know, it is in epoll */
	int n_idle_turns;
	int64 muted_until_ms; /* 0: not muted */
} SocketWatch;

/* Requests to one engine, and its connections, for as long as there are any. */
typedef struct Pool
{
	dlist_node node;
	CmHttp *http;
	CURLM *multi;	   /* NULL: could not be rebuilt after an error */
	int64 deadline_ms; /* libcurl's next timer, -1: none */
	int n_requests;
	size_t n_bytes; /* of replies that are no streams */
	char name[FLEXIBLE_ARRAY_MEMBER];
} Pool;

struct CmHttp
{
	int epoll_fd;
	bool has_external_fd; /* epoll_fd is accounted with fd.c */
	struct curl_slist *headers_plain;
	struct curl_slist *headers_json;
	struct curl_slist *headers_tar;
	CURL *idle_easy[MAX_IDLE_EASY];
	int n_idle_easy;

	SocketWatch *watches;
	int n_watches;
	int n_muted;
	uint64 n_progress; /* counts libcurl's callbacks */
	bool has_resolver; /* libcurl may start threads */

	dlist_head pools;
	dlist_head requests; /* all */
	dlist_head ready;	 /* those whose user is to be called */
	MemoryContextCallback on_reset;
};

/* Why we, not libcurl, ended a transfer. */
typedef enum StopReason
{
	STOP_NONE,
	STOP_TOO_BIG,
	STOP_POOL_TOO_BIG,
	STOP_HEADERS,
	STOP_NO_MEMORY
} StopReason;

struct CmHttpRequest
{
	CmHttp *http;
	Pool *pool;
	dlist_node node; /* in requests */
	dlist_node ready_node;
	bool is_ready; /* in ready */
	CURL *easy;	   /* NULL: not or no longer under way */

	CmEndpoint endpoint;
	CmHttpTls *tls;
	bool only_loopback;
	bool wants_certificate;
	bool is_stream;
	bool is_secret;					/* its handle is not used again */
	struct curl_slist *own_headers; /* NULL: it has those of all */
	int64 timeout_ms;
	size_t max_body_bytes;
	void (*on_bytes)(CmHttpRequest *request, void *arg);
	void (*on_done)(CmHttpRequest *request, void *arg);
	void *arg;

	/* the reply */
	int next_status; /* of the headers that are being read */
	int status;		 /* once they are complete and final */
	size_t n_header_bytes;
	char *headers[MAX_HEADERS]; /* "name\0value" */
	int n_headers;
	char *body;
	size_t n_allocated;
	size_t start; /* what lies before was consumed */
	size_t n_unread;
	bool is_paused;
	bool has_news;		 /* for on_bytes */
	bool had_last_bytes; /* on_bytes was called after the end */

	/* the end */
	bool is_over;
	StopReason stop;
	int open_errno;		  /* of socket() */
	bool is_not_loopback; /* why there was no socket */
	int fd;				  /* the socket that was opened last, */
	bool is_connected;	  /* and whether anything was read from it, or tried to */
	CmHttpOutcome outcome;
	CmHttpCause cause;
	int os_errno; /* of what libcurl tried last */
	char *peer_certificate;
	char curl_error[CURL_ERROR_SIZE];
	char error[CURL_ERROR_SIZE + 256];
};

static int64
get_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
mark_ready(CmHttpRequest *request)
{
	if (request->is_ready)
		return;
	dlist_push_tail(&request->http->ready, &request->ready_node);
	request->is_ready = true;
}

static void
unmark_ready(CmHttpRequest *request)
{
	if (!request->is_ready)
		return;
	dlist_delete(&request->ready_node);
	request->is_ready = false;
}

static void
announce_bytes(CmHttpRequest *request)
{
	request->has_news = true;
	mark_ready(request);
}

/* ---- sockets and timer ---- */

static void
remove_watch(CmHttp *http, int fd)
{
	SocketWatch *watch = &http->watches[fd];

	/* Where the descriptor was closed meanwhile, epoll forgot it by itself. */
	if (watch->is_watched)
		(void) epoll_ctl(http->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	watch->is_watched = false;
	if (watch->muted_until_ms != 0)
		http->n_muted--;
	watch->muted_until_ms = 0;
}

/* Takes a socket out of epoll for a while. */
static void
mute_socket(CmHttp *http, int fd)
{
	remove_watch(http, fd);
	http->watches[fd].muted_until_ms = get_now_ms() + MUTE_MS;
	http->watches[fd].n_idle_turns = 0;
	http->n_muted++;
}

/*
 * Our knowledge of what epoll holds may be stale, because a number may have
 * been closed and given out again behind our back.  A socket that cannot be
 * added now (ENOMEM, ENOSPC) is tried again like a muted one.
 */
static void
add_watch(CmHttp *http, int fd)
{
	SocketWatch *watch = &http->watches[fd];
	struct epoll_event event = {.events = watch->events, .data.fd = fd};
	int operation = watch->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	int rc = epoll_ctl(http->epoll_fd, operation, fd, &event);

	if (rc < 0 && errno == ENOENT)
		rc = epoll_ctl(http->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	else if (rc < 0 && errno == EEXIST)
		rc = epoll_ctl(http->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	watch->is_watched = (rc == 0);
	if (rc < 0 && errno != EBADF)
		mute_socket(http, fd);
}

static bool
grow_watches(CmHttp *http, int fd)
{
	int n_new = Max(fd + 1, http->n_watches * 2);
	SocketWatch *grown;

	if (fd < http->n_watches)
		return true;
	grown = realloc(http->watches, n_new * sizeof(SocketWatch));
	if (grown == NULL)
		return false;
	memset(grown + http->n_watches, 0, (n_new - http->n_watches) * sizeof(SocketWatch));
	http->watches = grown;
	http->n_watches = n_new;
	return true;
}

/*
 * A socket that connects is waited for to become writable: one that is to be
 * read is past that.
 */
static void
note_connected(CURL *easy, curl_socket_t fd)
{
	CmHttpRequest *request = NULL;

	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request) == CURLE_OK &&
		request != NULL && request->fd == fd)
		request->is_connected = true;
}

/* CURLMOPT_SOCKETFUNCTION; -1 ends all transfers. */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	Pool *pool = arg;
	CmHttp *http = pool->http;
	uint32 events = 0;

	http->n_progress++;
	if (!grow_watches(http, fd))
		return -1;
	http->watches[fd].pool = pool;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
	{
		note_connected(easy, fd);
		events |= EPOLLIN;
	}
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;
	http->watches[fd].events = events;
	http->watches[fd].n_idle_turns = 0;
	if (events == 0 || http->watches[fd].muted_until_ms != 0)
		remove_watch(http, fd);
	if (events != 0)
		add_watch(http, fd);
	return 0;
}

static void
unmute_sockets(CmHttp *http)
{
	int64 now_ms;

	if (http->n_muted == 0)
		return;
	now_ms = get_now_ms();
	for (int fd = 0; fd < http->n_watches; fd++)
	{
		int64 until_ms = http->watches[fd].muted_until_ms;

		if (until_ms == 0 || until_ms > now_ms)
			continue;
		remove_watch(http, fd);
		if (http->watches[fd].events != 0)
			add_watch(http, fd);
	}
}

/* CURLMOPT_TIMERFUNCTION */
static int
set_deadline(CURLM *multi, long timeout_ms, void *arg)
{
	Pool *pool = arg;

	pool->deadline_ms = timeout_ms < 0 ? -1 : get_now_ms() + timeout_ms;
	return 0;
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
	{
		const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;

		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	}
	if (address->sa_family == AF_INET6)
	{
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *) address)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
	}
	return address->sa_family == AF_UNIX;
}

/*
 * CURLOPT_OPENSOCKETFUNCTION: libcurl's own does not set close-on-exec, and
 * here is where the address behind a name is known.
 */
static curl_socket_t
open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	CmHttpRequest *request = arg;
	int fd;

	request->http->n_progress++;
	request->is_not_loopback = request->only_loopback && !is_loopback(&address->addr);
	if (request->is_not_loopback)
		return CURL_SOCKET_BAD;
	fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
	request->open_errno = fd < 0 ? errno : 0;
	request->fd = fd;
	request->is_connected = false;
	return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* ---- the reply ---- */

/* Makes room for n_more bytes and a NUL behind the unread ones. */
static bool
reserve_body(CmHttpRequest *request, size_t n_more)
{
	size_t n_needed = request->n_unread + n_more + 1;
	size_t n_new = Max(request->n_allocated, MIN_BODY_BYTES);
	char *grown;

	if (request->start > 0 && request->start + n_needed > request->n_allocated)
	{
		memmove(request->body, request->body + request->start, request->n_unread);
		request->start = 0;
	}
	if (request->start + n_needed <= request->n_allocated)
		return true;
	while (n_new < n_needed)
		n_new *= 2;
	grown = cm_http_reallocate(request->body, n_new);
	if (grown == NULL)
		return false;
	request->body = grown;
	request->n_allocated = n_new;
	return true;
}

/*
 * One engine's replies are bounded together, too: it decides how many of those
 * to requests that are under way it makes as long as may be.
 */
static bool
is_pool_full(const CmHttpRequest *request, size_t n_more)
{
	return request->pool->n_bytes + n_more > (size_t) MAX_POOL_MB * 1024 * 1024;
}

/*
 * CURLOPT_WRITEFUNCTION; a short count ends the transfer.  A stream is paused
 * only when as much as allowed is unread already, not when this chunk would
 * exceed it: a reader that waits for the rest of a record must get it.
 */
static size_t
take_body(char *bytes, size_t size, size_t n_items, void *arg)
{
	CmHttpRequest *request = arg;
	size_t n_bytes = size * n_items;

	request->http->n_progress++;
	if (request->is_stream && request->n_unread >= request->max_body_bytes && request->n_unread > 0)
	{
		request->is_paused = true;
		announce_bytes(request);
		return CURL_WRITEFUNC_PAUSE;
	}
	if (!request->is_stream && n_bytes > request->max_body_bytes - request->n_unread)
	{
		request->stop = STOP_TOO_BIG;
		return 0;
	}
	if (!request->is_stream && is_pool_full(request, n_bytes))
	{
		request->stop = STOP_POOL_TOO_BIG;
		return 0;
	}
	if (!reserve_body(request, n_bytes))
	{
		request->stop = STOP_NO_MEMORY;
		return 0;
	}
	memcpy(request->body + request->start + request->n_unread, bytes, n_bytes);
	request->n_unread += n_bytes;
	if (!request->is_stream)
		request->pool->n_bytes += n_bytes;
	request->body[request->start + request->n_unread] = '\0';
	if (request->is_stream)
		announce_bytes(request);
	return n_bytes;
}

static void
drop_headers(CmHttpRequest *request)
{
	while (request->n_headers > 0)
		free(request->headers[--request->n_headers]);
}

/* Keeps "Name: value" as "name\0value"; what cannot be kept is left out. */
static void
keep_header(CmHttpRequest *request, const char *line, size_t n_bytes)
{
	const char *colon = memchr(line, ':', n_bytes);
	size_t value_at;
	char *kept;

	if (colon == NULL || request->n_headers == MAX_HEADERS || n_bytes > MAX_HEADER_LINE_BYTES)
		return;
	kept = malloc(n_bytes + 1);
	if (kept == NULL)
		return;
	value_at = colon - line + 1;
	while (value_at < n_bytes && (line[value_at] == ' ' || line[value_at] == '\t'))
		value_at++;
	memcpy(kept, line, colon - line);
	kept[colon - line] = '\0';
	memcpy(kept + (colon - line) + 1, line + value_at, n_bytes - value_at);
	kept[(colon - line) + 1 + n_bytes - value_at] = '\0';
	request->headers[request->n_headers++] = kept;
}

/* The empty line behind the headers: of an interim reply, or the real one. */
static void
end_headers(CmHttpRequest *request)
{
	if (request->next_status < 200)
		return;
	request->status = request->next_status;
	if (request->is_stream)
		announce_bytes(request);
}

/* "HTTP/1.1 200 OK": the three digits, or 0.  The line has no NUL behind it. */
static int
parse_status(const char *line, size_t n_bytes)
{
	const char *space = memchr(line, ' ', n_bytes);
	int status = 0;

	if (space == NULL || line + n_bytes - space < 4)
		return 0;
	for (int i = 1; i <= 3; i++)
	{
		if (space[i] < '0' || space[i] > '9')
			return 0;
		status = status * 10 + (space[i] - '0');
	}
	return status;
}

/* CURLOPT_HEADERFUNCTION: one whole line, also of trailers behind the body. */
static size_t
take_header(char *line, size_t size, size_t n_items, void *arg)
{
	CmHttpRequest *request = arg;
	size_t n_bytes = size * n_items;
	size_t n_text = n_bytes;

	request->http->n_progress++;
	request->n_header_bytes += n_bytes;
	if (request->n_header_bytes > MAX_HEADER_BYTES)
	{
		request->stop = STOP_HEADERS;
		return 0;
	}
	while (n_text > 0 && (line[n_text - 1] == '\n' || line[n_text - 1] == '\r'))
		n_text--;
	if (request->status != 0)
		return n_bytes; /* a trailer */
	if (n_text == 0)
		end_headers(request);
	else if (n_text > 5 && memcmp(line, "HTTP/", 5) == 0)
	{
		drop_headers(request);
		request->next_status = parse_status(line, n_text);
	}
	else
		keep_header(request, line, n_text);
	return n_bytes;
}

/* ---- the request ---- */

/*
 * What no request of ours wants of libcurl, and how it calls us back.  A thread
 * that looks up a name is left to itself when its request is over: to wait for
 * it would block for as long as name servers are silent.
 */
static CURLcode
set_common_options(CURL *easy, CmHttpRequest *request)
{
	CM_HTTP_SET_OPTION(easy, CURLOPT_NOSIGNAL, 1L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_QUICK_EXIT, 1L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_PROTOCOLS_STR, request->tls != NULL ? "https" : "http");
	CM_HTTP_SET_OPTION(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	CM_HTTP_SET_OPTION(easy, CURLOPT_HTTP09_ALLOWED, 0L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_FOLLOWLOCATION, 0L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_PATH_AS_IS, 1L);
	CM_HTTP_SET_OPTION(easy, CURLOPT_PROXY, "");
	CM_HTTP_SET_OPTION(easy, CURLOPT_NOPROXY, "*");
	CM_HTTP_SET_OPTION(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	CM_HTTP_SET_OPTION(easy, CURLOPT_USERAGENT, "container_manager");
	CM_HTTP_SET_OPTION(easy, CURLOPT_PRIVATE, request);
	CM_HTTP_SET_OPTION(easy, CURLOPT_ERRORBUFFER, request->curl_error);
	CM_HTTP_SET_OPTION(easy, CURLOPT_WRITEFUNCTION, take_body);
	CM_HTTP_SET_OPTION(easy, CURLOPT_WRITEDATA, request);
	CM_HTTP_SET_OPTION(easy, CURLOPT_HEADERFUNCTION, take_header);
	CM_HTTP_SET_OPTION(easy, CURLOPT_HEADERDATA, request);
	CM_HTTP_SET_OPTION(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	CM_HTTP_SET_OPTION(easy, CURLOPT_OPENSOCKETDATA, request);
	return CURLE_OK;
}

static bool
is_pool_name(const char *pool)
{
	return pool[0] != '\0' && pool[0] != '-' &&
		   strspn(pool, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(pool);
}

/* Nothing that would end the request line, or that libcurl would cut off. */
static bool
is_path(const char *path)
{
	if (path[0] != '/')
		return false;
	for (const char *p = path; *p; p++)
	{
		if (*p <= ' ' || *p > '~' || *p == '#')
			return false;
	}
	return true;
}

static CURLcode
set_url(CURL *easy, const CmHttpCall *call)
{
	const CmEndpoint *endpoint = call->endpoint;
	size_t n_url = strlen(call->pool) + strlen(call->path) + sizeof(endpoint->host) +
				   sizeof("https://[]:65535");
	char *url = malloc(n_url);
	CURLcode code;

	if (url == NULL)
		return CURLE_OUT_OF_MEMORY;
	if (endpoint->kind == CM_ENDPOINT_UNIX)
		snprintf(url, n_url, "http://%s%s", call->pool, call->path);
	else
		snprintf(url, n_url, endpoint->host_is_ipv6 ? "%s://[%s]:%d%s" : "%s://%s:%d%s",
				 call->tls != NULL ? "https" : "http", endpoint->host, endpoint->port, call->path);
	code = curl_easy_setopt(easy, CURLOPT_URL, url);
	free(url);
	return code;
}

static CURLcode
set_target(CURL *easy, const CmHttpCall *call)
{
	int64 connect_ms = call->connect_timeout_ms > 0 ? call->connect_timeout_ms : CONNECT_TIMEOUT_MS;

	if (!is_pool_name(call->pool) || !is_path(call->path) ||
		(call->tls != NULL && call->endpoint->kind == CM_ENDPOINT_UNIX))
		return CURLE_URL_MALFORMAT;
	if (call->endpoint->kind == CM_ENDPOINT_UNIX)
		CM_HTTP_SET_OPTION(easy, CURLOPT_UNIX_SOCKET_PATH, call->endpoint->path);
	else
	{
		CM_HTTP_SET_OPTION(easy, CURLOPT_TCP_KEEPALIVE, 1L);
		CM_HTTP_SET_OPTION(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
		CM_HTTP_SET_OPTION(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
	}
	CM_HTTP_SET_OPTION(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) Min(connect_ms, INT_MAX));
	CM_HTTP_SET_OPTION(easy, CURLOPT_TIMEOUT_MS, (long) Max(Min(call->timeout_ms, INT_MAX), 0));
	/* What was connected to before that was forbidden is not used either. */
	CM_HTTP_SET_OPTION(
		easy, CURLOPT_FRESH_CONNECT,
		(long) (call->fresh || (call->only_loopback && call->endpoint->kind == CM_ENDPOINT_TCP &&
								!cm_endpoint_is_loopback(call->endpoint))));
	CM_HTTP_SET_OPTION(easy, CURLOPT_FORBID_REUSE, (long) call->fresh);
	return set_url(easy, call);
}

/* The line is wiped; what libcurl keeps of it is wiped when it frees it. */
static bool
make_own_headers(CmHttpRequest *request, const char *registry_auth)
{
	size_t n_bytes = sizeof("X-Registry-Auth: ") + strlen(registry_auth);
	char *line = malloc(n_bytes);
	bool is_ok;

	if (line == NULL)
		return false;
	snprintf(line, n_bytes, "X-Registry-Auth: %s", registry_auth);
	request->own_headers = curl_slist_append(NULL, "Expect:");
	is_ok = request->own_headers != NULL &&
			curl_slist_append(request->own_headers, "Content-Type:") != NULL &&
			curl_slist_append(request->own_headers, line) != NULL;
	cm_crypto_wipe(line, n_bytes);
	free(line);
	return is_ok;
}

/*
 * A POST without body must say Content-Length: 0.  Else a length that is
 * announced and too big is refused before the body comes.
 */
static CURLcode
set_message(CmHttpRequest *request, CURL *easy, const CmHttpCall *call)
{
	const CmHttp *http = request->http;
	bool is_post = strcmp(call->method, "POST") == 0;

	if (call->method[0] == '\0' ||
		strspn(call->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != strlen(call->method))
		return CURLE_BAD_FUNCTION_ARGUMENT;
	if (call->body != NULL)
	{
		CM_HTTP_SET_OPTION(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) call->n_body);
		CM_HTTP_SET_OPTION(easy, CURLOPT_COPYPOSTFIELDS, call->body);
	}
	else if (is_post)
	{
		CM_HTTP_SET_OPTION(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) 0);
		CM_HTTP_SET_OPTION(easy, CURLOPT_POSTFIELDS, "");
	}
	if (strcmp(call->method, "HEAD") == 0)
		CM_HTTP_SET_OPTION(easy, CURLOPT_NOBODY, 1L);
	else if (!is_post)
		CM_HTTP_SET_OPTION(easy, CURLOPT_CUSTOMREQUEST, call->method);
	if (call->registry_auth != NULL && !make_own_headers(request, call->registry_auth))
		return CURLE_OUT_OF_MEMORY;
	CM_HTTP_SET_OPTION(easy, CURLOPT_HTTPHEADER,
					   request->own_headers ? request->own_headers
					   : call->is_tar		? http->headers_tar
					   : call->body			? http->headers_json
											: http->headers_plain);
	if (!call->is_stream)
		CM_HTTP_SET_OPTION(easy, CURLOPT_MAXFILESIZE_LARGE,
						   (curl_off_t) Min(call->max_body_bytes, PG_INT64_MAX));
	return CURLE_OK;
}

static CURL *
take_easy(CmHttp *http)
{
	if (http->n_idle_easy > 0)
		return http->idle_easy[--http->n_idle_easy];
	return curl_easy_init();
}

/*
 * A handle that met an error is not used again: curl_easy_reset() leaves its
 * errno in place, and after some a buffer that makes options fail.
 */
static void
return_easy(CmHttp *http, CURL *easy, bool is_clean)
{
	if (!is_clean || http->n_idle_easy == MAX_IDLE_EASY)
	{
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	http->idle_easy[http->n_idle_easy++] = easy;
}

/* Takes the request away from libcurl. */
static void
detach_easy(CmHttpRequest *request)
{
	CURL *easy = request->easy;

	if (easy == NULL)
		return;
	request->easy = NULL;
	curl_multi_remove_handle(request->pool->multi, easy);
	return_easy(request->http, easy, request->outcome == CM_HTTP_OK && !request->is_secret);
}

/* ---- how it ended ---- */

/* libcurl may quote what the engine sent. */
static const char *
describe_curl_code(CmHttpRequest *request, CURLcode code)
{
	if (request->curl_error[0] == '\0')
		return curl_easy_strerror(code);
	for (char *p = request->curl_error; *p; p++)
	{
		if (*p < ' ' || *p > '~')
			*p = '?';
	}
	return request->curl_error;
}

static CmHttpOutcome
classify_unsent(CURLcode code)
{
	switch (code)
	{
		case CURLE_OUT_OF_MEMORY:
		case CURLE_FAILED_INIT:
		case CURLE_URL_MALFORMAT:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_NOT_BUILT_IN:
		case CURLE_UNKNOWN_OPTION:
		case CURLE_BAD_FUNCTION_ARGUMENT:
			return CM_HTTP_FAILED;
		default:
			return CM_HTTP_NOT_SENT;
	}
}

static CmHttpOutcome
classify_sent(const CmHttpRequest *request, CURLcode code, long os_errno)
{
	switch (code)
	{
		case CURLE_OK:
			if (request->status != 0)
				return CM_HTTP_OK;
			/* libcurl is content with an end amid the headers, and with 101. */
			return request->next_status == 101 ? CM_HTTP_BAD_REPLY : CM_HTTP_CUT;
		case CURLE_OPERATION_TIMEDOUT:
			return CM_HTTP_TIMED_OUT;
		case CURLE_FILESIZE_EXCEEDED:
			return CM_HTTP_TOO_BIG;
		case CURLE_WRITE_ERROR:
			if (request->stop == STOP_TOO_BIG || request->stop == STOP_POOL_TOO_BIG)
				return CM_HTTP_TOO_BIG;
			return request->stop == STOP_HEADERS ? CM_HTTP_BAD_REPLY : CM_HTTP_CUT;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_BAD_FUNCTION_ARGUMENT:
			return CM_HTTP_BAD_REPLY;
		case CURLE_OUT_OF_MEMORY:
			/* That is also how it calls a header line without an end. */
			return request->status == 0 ? CM_HTTP_BAD_REPLY : CM_HTTP_CUT;
		case CURLE_RECV_ERROR:
			return os_errno == 0 && request->tls == NULL ? CM_HTTP_BAD_REPLY : CM_HTTP_CUT;
		default:
			return CM_HTTP_CUT;
	}
}

static void
describe_not_sent(CmHttpRequest *request, CURLcode code, long os_errno, char *text, size_t n_text)
{
	const CmEndpoint *endpoint = &request->endpoint;
	char reason[CURL_ERROR_SIZE];

	if (code == CURLE_OPERATION_TIMEDOUT)
		strlcpy(reason, "timed out", sizeof(reason));
	else if (request->is_not_loopback)
		strlcpy(reason, "not an address of this machine", sizeof(reason));
	else if (request->open_errno != 0)
		strlcpy(reason, strerror(request->open_errno), sizeof(reason));
	else if (os_errno != 0)
		strlcpy(reason, strerror((int) os_errno), sizeof(reason));
	else if (code == CURLE_COULDNT_CONNECT && endpoint->kind == CM_ENDPOINT_UNIX)
		/* The EAGAIN of a full queue is the one that libcurl does not keep. */
		strlcpy(reason, "too many connections are waiting there", sizeof(reason));
	else
		strlcpy(reason, describe_curl_code(request, code), sizeof(reason));

	if (endpoint->kind == CM_ENDPOINT_UNIX)
		snprintf(text, n_text, "could not connect to \"%s\": %s", endpoint->path, reason);
	else
		snprintf(text, n_text, "could not connect to %s port %d: %s", endpoint->host,
				 endpoint->port, reason);
}

static void
describe_end(CmHttpRequest *request, CURLcode code, long os_errno)
{
	char *text = request->error;
	size_t n_text = sizeof(request->error);

	switch (request->outcome)
	{
		case CM_HTTP_OK:
			break;
		case CM_HTTP_NOT_SENT:
			describe_not_sent(request, code, os_errno, text, n_text);
			break;
		case CM_HTTP_TIMED_OUT:
			snprintf(text, n_text, "timed out after %lld ms", (long long) request->timeout_ms);
			break;
		case CM_HTTP_CUT:
			if (request->stop == STOP_NO_MEMORY || code == CURLE_OUT_OF_MEMORY)
				snprintf(text, n_text, "out of memory while reading the reply");
			else
				snprintf(text, n_text, "connection closed before the reply was complete%s%s",
						 os_errno || request->tls ? ": " : "",
						 os_errno		? strerror((int) os_errno)
						 : request->tls ? describe_curl_code(request, code)
										: "");
			break;
		case CM_HTTP_BAD_REPLY:
			if (request->stop == STOP_HEADERS || code == CURLE_OUT_OF_MEMORY)
				snprintf(text, n_text, "reply headers are longer than %d bytes", MAX_HEADER_BYTES);
			else
				snprintf(text, n_text, "reply is not valid HTTP: %s",
						 code == CURLE_OK ? "unexpected status 101"
										  : describe_curl_code(request, code));
			break;
		case CM_HTTP_TOO_BIG:
			if (request->stop == STOP_POOL_TOO_BIG)
				snprintf(text, n_text, "replies of the engine take more than %d MB together",
						 MAX_POOL_MB);
			else
				snprintf(text, n_text, "reply is longer than %zu bytes", request->max_body_bytes);
			break;
		case CM_HTTP_FAILED:
			snprintf(text, n_text, "request could not be begun: %s",
					 describe_curl_code(request, code));
			break;
	}
}

/* How far a connection came that was not there in time. */
static CmHttpCause
judge_timeout(const CmHttpRequest *request)
{
	curl_off_t looked_up = 0;

	curl_easy_getinfo(request->easy, CURLINFO_NAMELOOKUP_TIME_T, &looked_up);
	if (looked_up == 0)
		return CM_CAUSE_NAME_SLOW;
	return request->is_connected ? CM_CAUSE_HANDSHAKE_SLOW : CM_CAUSE_CONNECT_SLOW;
}

static CmHttpCause
judge_cause(const CmHttpRequest *request, CURLcode code)
{
	if (request->outcome == CM_HTTP_NOT_SENT && code == CURLE_COULDNT_RESOLVE_HOST)
		return CM_CAUSE_NAME;
	if (request->outcome == CM_HTTP_NOT_SENT && code == CURLE_OPERATION_TIMEDOUT)
		return judge_timeout(request);
	if (request->outcome == CM_HTTP_NOT_SENT && code == CURLE_COULDNT_CONNECT)
		return request->is_not_loopback ? CM_CAUSE_NOT_LOOPBACK : CM_CAUSE_CONNECT;
	if (request->tls != NULL && code != CURLE_OK)
		return cm_http_tls_cause(request->easy, code, request->curl_error);
	return CM_CAUSE_OTHER;
}

/*
 * Whether anything was sent is asked of libcurl, not guessed from the code: it
 * counts every byte of a request's head that the kernel took, over all
 * connections it tried.  Of TLS it knows only what OpenSSL took as a whole;
 * there, anything may have been sent once the handshake is over.
 */
static bool
may_be_sent(const CmHttpRequest *request)
{
	long n_sent = 0;
	curl_off_t shook_hands = 0;

	if (request->easy == NULL)
		return false;
	curl_easy_getinfo(request->easy, CURLINFO_REQUEST_SIZE, &n_sent);
	if (request->tls != NULL)
		curl_easy_getinfo(request->easy, CURLINFO_APPCONNECT_TIME_T, &shook_hands);
	return n_sent > 0 || shook_hands > 0;
}

/* Notes how the transfer ended. */
static void
end_request(CmHttpRequest *request, CURLcode code)
{
	long os_errno = 0;

	if (request->easy != NULL &&
		(code == CURLE_COULDNT_CONNECT || code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR))
		curl_easy_getinfo(request->easy, CURLINFO_OS_ERRNO, &os_errno);
	request->os_errno = request->open_errno != 0 ? request->open_errno : (int) os_errno;
	if (code == CURLE_OK || may_be_sent(request))
		request->outcome = classify_sent(request, code, os_errno);
	else
		request->outcome = classify_unsent(code);
	if (request->easy != NULL)
		request->cause = judge_cause(request, code);
	if (request->easy != NULL && request->wants_certificate)
		request->peer_certificate = cm_http_tls_peer_certificate(request->easy);
	describe_end(request, code, os_errno);
	detach_easy(request);
	request->is_over = true;
	request->is_paused = false;
	mark_ready(request);
}

/* ---- the multi handle ---- */

static bool
open_multi(Pool *pool)
{
	CURLM *multi = curl_multi_init();

	if (multi == NULL)
		return false;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, pool);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_deadline);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, pool);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, MAX_IDLE_CONNECTIONS);
	curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, 0L);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
	pool->multi = multi;
	pool->deadline_ms = -1;
	return true;
}

/* After an error of the whole handle nothing in it can be trusted. */
static void
rebuild_multi(Pool *pool, CURLMcode code)
{
	dlist_iter iter;

	dlist_foreach (iter, &pool->http->requests)
	{
		CmHttpRequest *request = dlist_container(CmHttpRequest, node, iter.cur);

		if (request->easy == NULL || request->pool != pool)
			continue;
		strlcpy(request->curl_error, curl_multi_strerror(code), sizeof(request->curl_error));
		end_request(request, CURLE_ABORTED_BY_CALLBACK);
	}
	curl_multi_cleanup(pool->multi);
	pool->multi = NULL;
	pool->deadline_ms = -1;
	(void) open_multi(pool);
}

/*
 * A resolver thread, which libcurl starts for a host name, must not receive
 * the server's signals: their handlers would run there.
 */
static void
act_on_socket(Pool *pool, curl_socket_t fd, int mask)
{
	int n_running;
	sigset_t all;
	sigset_t before;
	CURLMcode code;

	if (pool->multi == NULL)
		return;
	if (pool->http->has_resolver)
	{
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, &before);
	}
	code = curl_multi_socket_action(pool->multi, fd, mask, &n_running);
	if (pool->http->has_resolver)
		sigprocmask(SIG_SETMASK, &before, NULL);
	if (code != CURLM_OK && code != CURLM_BAD_SOCKET)
		rebuild_multi(pool, code);
}

/* One ready socket, with the guard against spinning. */
static void
move_socket(CmHttp *http, int fd, uint32 events)
{
	uint64 n_before = http->n_progress;
	Pool *pool = http->watches[fd].pool;
	int mask = 0;

	if (events & EPOLLIN)
		mask |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		mask |= CURL_CSELECT_ERR;
	act_on_socket(pool, fd, mask);

	if (http->n_progress != n_before)
		http->watches[fd].n_idle_turns = 0;
	else if (++http->watches[fd].n_idle_turns >= MAX_IDLE_TURNS)
	{
		act_on_socket(pool, CURL_SOCKET_TIMEOUT, 0);
		mute_socket(http, fd);
	}
}

static void
fire_timers(CmHttp *http)
{
	int64 now_ms = get_now_ms();
	dlist_iter iter;

	dlist_foreach (iter, &http->pools)
	{
		Pool *pool = dlist_container(Pool, node, iter.cur);

		if (pool->deadline_ms < 0 || pool->deadline_ms > now_ms)
			continue;
		pool->deadline_ms = -1;
		act_on_socket(pool, CURL_SOCKET_TIMEOUT, 0);
	}
}

/* True if there was anything to do. */
static bool
move_sockets(CmHttp *http)
{
	struct epoll_event events[MAX_EVENTS];
	int n_events = epoll_wait(http->epoll_fd, events, MAX_EVENTS, 0);

	for (int i = 0; i < n_events; i++)
		move_socket(http, events[i].data.fd, events[i].events);
	return n_events > 0;
}

static void
collect_ended(const Pool *pool)
{
	CURLMsg *message;
	int n_left;

	while (pool->multi != NULL && (message = curl_multi_info_read(pool->multi, &n_left)) != NULL)
	{
		CmHttpRequest *request = NULL;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &request);
		end_request(request, code);
	}
}

/*
 * Calls one user.  After the callback the request may be gone, so a request
 * that is over is queued once more for on_done before its last on_bytes.
 */
static void
call_user(CmHttpRequest *request)
{
	bool has_news = request->has_news;

	unmark_ready(request);
	request->has_news = false;
	if (request->is_over && request->is_stream && request->n_unread > 0 && !request->had_last_bytes)
	{
		request->had_last_bytes = true;
		mark_ready(request);
		request->on_bytes(request, request->arg);
	}
	else if (request->is_over)
		request->on_done(request, request->arg);
	else if (has_news)
		request->on_bytes(request, request->arg);
}

/* Nothing may point to it, whatever libcurl has left watched. */
static void
forget_pool(CmHttp *http, const Pool *pool)
{
	for (int fd = 0; fd < http->n_watches; fd++)
	{
		if (http->watches[fd].pool != pool)
			continue;
		remove_watch(http, fd);
		http->watches[fd].events = 0;
		http->watches[fd].pool = NULL;
	}
}

/*
 * Not when the last request is over, for its user may begin the next one, which
 * then finds the connection.
 */
static void
free_idle_pools(CmHttp *http)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &http->pools)
	{
		Pool *pool = dlist_container(Pool, node, iter.cur);

		if (pool->n_requests > 0)
			continue;
		if (pool->multi != NULL)
			curl_multi_cleanup(pool->multi);
		forget_pool(http, pool);
		dlist_delete(&pool->node);
		free(pool);
	}
}

bool
cm_http_drain(CmHttp *http)
{
	dlist_iter iter;

	free_idle_pools(http);
	unmute_sockets(http);
	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		fire_timers(http);
		if (!move_sockets(http))
			break;
	}
	dlist_foreach (iter, &http->pools)
		collect_ended(dlist_container(Pool, node, iter.cur));
	for (int i = 0; i < MAX_CALLS && !dlist_is_empty(&http->ready); i++)
		call_user(dlist_head_element(CmHttpRequest, ready_node, &http->ready));
	return cm_http_timeout_ms(http) == 0;
}

int64_t
cm_http_timeout_ms(const CmHttp *http)
{
	int64 timeout_ms = -1;
	int64 first_ms = -1;
	dlist_iter iter;

	if (!dlist_is_empty((dlist_head *) &http->ready))
		return 0;
	dlist_foreach (iter, (dlist_head *) &http->pools)
	{
		int64 deadline_ms = dlist_container(Pool, node, iter.cur)->deadline_ms;

		if (deadline_ms >= 0 && (first_ms < 0 || deadline_ms < first_ms))
			first_ms = deadline_ms;
	}
	if (first_ms >= 0)
		timeout_ms = Max(first_ms - get_now_ms(), 0);
	if (http->n_muted > 0 && (timeout_ms < 0 || timeout_ms > MUTE_MS))
		timeout_ms = MUTE_MS;
	return timeout_ms;
}

int
cm_http_fd(const CmHttp *http)
{
	return http->epoll_fd;
}

/* ---- requests from outside ---- */

static CURLcode
set_options(CmHttpRequest *request, CURL *easy, const CmHttpCall *call)
{
	CURLcode code = set_common_options(easy, request);

	if (code == CURLE_OK)
		code = set_target(easy, call);
	if (code == CURLE_OK && call->tls != NULL)
		code = cm_http_tls_set_options(easy, call->tls, call->wants_certificate);
	if (code == CURLE_OK)
		code = set_message(request, easy, call);
	return code;
}

static CURLcode
hand_over(CmHttpRequest *request, const CmHttpCall *call)
{
	CmHttp *http = request->http;
	CURLM *multi = request->pool->multi;
	CURL *easy = multi != NULL ? take_easy(http) : NULL;
	CURLcode code;
	CURLMcode multi_code;

	if (easy == NULL)
		return CURLE_OUT_OF_MEMORY;
	code = set_options(request, easy, call);
	if (code == CURLE_OK)
	{
		multi_code = curl_multi_add_handle(multi, easy);
		if (multi_code == CURLM_OK)
		{
			request->easy = easy;
			return CURLE_OK;
		}
		strlcpy(request->curl_error, curl_multi_strerror(multi_code), sizeof(request->curl_error));
		code = CURLE_FAILED_INIT;
	}
	return_easy(http, easy, false);
	return code;
}

/* NULL: out of memory. */
static Pool *
enter_pool(CmHttp *http, const char *name)
{
	Pool *pool;
	dlist_iter iter;

	dlist_foreach (iter, &http->pools)
	{
		pool = dlist_container(Pool, node, iter.cur);
		if (strcmp(pool->name, name) == 0)
		{
			pool->n_requests++;
			return pool;
		}
	}
	pool = calloc(1, offsetof(Pool, name) + strlen(name) + 1);
	if (pool == NULL)
		return NULL;
	pool->http = http;
	if (!open_multi(pool))
	{
		free(pool);
		return NULL;
	}
	strcpy(pool->name, name);
	pool->n_requests = 1;
	dlist_push_tail(&http->pools, &pool->node);
	return pool;
}

static void
leave_pool(CmHttpRequest *request)
{
	Pool *pool = request->pool;

	if (!request->is_stream)
		pool->n_bytes -= request->n_unread;
	pool->n_requests--;
}

CmHttpRequest *
cm_http_start(CmHttp *http, const CmHttpCall *call)
{
	CmHttpRequest *request = calloc(1, sizeof(CmHttpRequest));
	Pool *pool = request != NULL ? enter_pool(http, call->pool) : NULL;
	CURLcode code;

	if (pool == NULL)
		free(request);
	if (pool == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	request->http = http;
	request->pool = pool;
	request->endpoint = *call->endpoint;
	request->fd = -1;
	request->tls = cm_http_tls_share(call->tls);
	request->only_loopback = call->only_loopback;
	request->wants_certificate = call->wants_certificate;
	request->is_stream = call->is_stream;
	request->is_secret = call->is_secret || call->registry_auth != NULL;
	request->timeout_ms = call->timeout_ms;
	request->max_body_bytes = call->max_body_bytes;
	request->on_bytes = call->on_bytes;
	request->on_done = call->on_done;
	request->arg = call->arg;
	dlist_push_tail(&http->requests, &request->node);
	if (call->endpoint->kind == CM_ENDPOINT_TCP)
		http->has_resolver = true;

	code = hand_over(request, call);
	if (code != CURLE_OK)
		end_request(request, code);
	return request;
}

void
cm_http_cancel(CmHttpRequest *request)
{
	unmark_ready(request);
	dlist_delete(&request->node);
	request->outcome = CM_HTTP_CUT; /* if still under way: handle not clean */
	detach_easy(request);
	cm_http_tls_release(request->tls);
	drop_headers(request);
	leave_pool(request);
	curl_slist_free_all(request->own_headers);
	free(request->peer_certificate);
	cm_http_free(request->body);
	free(request);
}

void
cm_http_finish(CmHttpRequest *request)
{
	Assert(request->is_over);
	cm_http_cancel(request);
}

CmHttpOutcome
cm_http_outcome(const CmHttpRequest *request)
{
	return request->outcome;
}

int
cm_http_status(const CmHttpRequest *request)
{
	return request->status;
}

const char *
cm_http_error(const CmHttpRequest *request)
{
	return request->error;
}

CmHttpCause
cm_http_cause(const CmHttpRequest *request)
{
	return request->cause;
}

const char *
cm_http_curl_words(const CmHttpRequest *request)
{
	return request->curl_error;
}

int
cm_http_os_error(const CmHttpRequest *request)
{
	return request->os_errno;
}

const char *
cm_http_peer_certificate(const CmHttpRequest *request)
{
	return request->peer_certificate;
}

const char *
cm_http_body(const CmHttpRequest *request, size_t *n_bytes)
{
	*n_bytes = request->n_unread;
	return request->n_unread > 0 ? request->body + request->start : "";
}

const char *
cm_http_header(const CmHttpRequest *request, const char *name)
{
	for (int i = 0; i < request->n_headers; i++)
	{
		const char *header = request->headers[i];

		if (pg_strcasecmp(header, name) == 0)
			return header + strlen(header) + 1;
	}
	return NULL;
}

/* libcurl hands over what it held back from within curl_easy_pause(). */
static void
resume_stream(CmHttpRequest *request)
{
	CURLcode code;

	request->is_paused = false;
	code = curl_easy_pause(request->easy, CURLPAUSE_CONT);
	if (code != CURLE_OK)
		end_request(request, code);
}

void
cm_http_consume(CmHttpRequest *request, size_t n_bytes)
{
	n_bytes = Min(n_bytes, request->n_unread);
	request->start += n_bytes;
	request->n_unread -= n_bytes;
	if (request->n_unread == 0)
	{
		request->start = 0;
		if (request->n_allocated > KEPT_BODY_BYTES)
		{
			cm_http_free(request->body);
			request->body = NULL;
			request->n_allocated = 0;
		}
	}
	if (!request->is_paused || n_bytes == 0)
		return;
	if (request->n_unread < request->max_body_bytes || request->n_unread == 0)
		resume_stream(request);
	else
		announce_bytes(request); /* too full for more to come and do that */
}

void
cm_http_append_escaped(StringInfo to, const char *text)
{
	for (const unsigned char *p = (const unsigned char *) text; *p; p++)
	{
		bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
						(*p >= '0' && *p <= '9') || *p == '-' || *p == '_' || *p == '.' ||
						*p == '~';

		if (is_plain)
			appendStringInfoChar(to, *p);
		else
			appendStringInfo(to, "%%%02X", *p);
	}
}

/* ---- beginning and end ---- */

/* The table of sockets goes last: closing connections still calls back. */
static void
free_http(void *arg)
{
	CmHttp *http = arg;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &http->requests)
		cm_http_cancel(dlist_container(CmHttpRequest, node, iter.cur));
	while (http->n_idle_easy > 0)
		curl_easy_cleanup(http->idle_easy[--http->n_idle_easy]);
	free_idle_pools(http);
	curl_slist_free_all(http->headers_plain);
	curl_slist_free_all(http->headers_json);
	curl_slist_free_all(http->headers_tar);
	if (http->epoll_fd >= 0)
		close(http->epoll_fd);
	if (http->has_external_fd)
		ReleaseExternalFD();
	free(http->watches);
}

/* All without "Expect: 100-continue", which the engine has no use for. */
static bool
make_header_lists(CmHttp *http)
{
	http->headers_plain = curl_slist_append(NULL, "Expect:");
	http->headers_json = curl_slist_append(NULL, "Expect:");
	http->headers_tar = curl_slist_append(NULL, "Expect:");
	return http->headers_plain != NULL && http->headers_json != NULL && http->headers_tar != NULL &&
		   curl_slist_append(http->headers_plain, "Content-Type:") != NULL &&
		   curl_slist_append(http->headers_json, "Content-Type: application/json") != NULL &&
		   curl_slist_append(http->headers_tar, "Content-Type: application/x-tar") != NULL;
}

/* Not when the library is loaded: that may be in the postmaster. */
static void
init_curl(void)
{
	static bool is_initialized = false;
	curl_version_info_data *version;

	if (is_initialized)
		return;
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, cm_http_allocate, cm_http_free,
							 cm_http_reallocate, cm_http_duplicate,
							 cm_http_allocate_zeroed) != CURLE_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not initialize libcurl")));
	version = curl_version_info(CURLVERSION_NOW);
	if (version->version_num < MIN_CURL_VERSION ||
		!(version->features & CURL_VERSION_UNIX_SOCKETS) || !(version->features & CURL_VERSION_SSL))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("libcurl %s cannot be used", version->version),
			 errdetail("Version 7.87 or newer with support for unix sockets and TLS is needed.")));
	is_initialized = true;
}

CmHttp *
cm_http_new(MemoryContext context)
{
	CmHttp *http;

	init_curl();
	http = MemoryContextAllocZero(context, sizeof(CmHttp));
	http->epoll_fd = -1;
	dlist_init(&http->pools);
	dlist_init(&http->requests);
	dlist_init(&http->ready);
	http->on_reset.func = free_http;
	http->on_reset.arg = http;
	MemoryContextRegisterResetCallback(context, &http->on_reset);

	http->has_external_fd = AcquireExternalFD();
	if (http->has_external_fd)
		http->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (http->epoll_fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(), errmsg("could not create an epoll descriptor: %m")));
	if (!make_header_lists(http))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return http;
}
