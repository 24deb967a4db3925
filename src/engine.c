/*
 * engine.c
 *		How an engine is spoken to, what the outcome of an exchange means, and
 *		the calls about the engine itself.
 *
 * What an engine sends is judged here, not trusted: a reply is bounded, must
 * be UTF-8 and JSON of the expected shape, and words of its own reach people
 * as one line without control characters.
 *
 * The distinction that everything above rests on is made in judge_outcome():
 * whether the engine cannot have acted on a request, or may have.
 */
#include "postgres.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "chars.h"
#include "compat.h"
#include "engine_internal.h"
#include "logstream.h"

#define CONNECT_TIMEOUT_MS 5000
#define IMAGE_TIMEOUT_MS 30000
#define MAX_QUOTED_BODY_BYTES 200 /* of an error that is not JSON */
#define MAX_INFO_LINE_BYTES 240

/* ---- sending ---- */

char *
cm_engine_make_path(const CmEngine *engine, const char *before, const char *name, const char *after)
{
	StringInfoData path;
	int minor = engine->api_minor > 0 ? engine->api_minor : CM_API_FLOOR;

	initStringInfo(&path);
	appendStringInfo(&path, "/v1.%d%s", minor, before);
	cm_http_append_escaped(&path, name);
	appendStringInfoString(&path, after);
	return path.data;
}

CmHttpRequest *
cm_engine_send(CmEngine *engine, CmHttpCall *call, char *path)
{
	CmHttpRequest *request;

	call->endpoint = &engine->endpoint;
	call->pool = engine->pool;
	call->tls = engine->tls;
	call->only_loopback = engine->only_loopback;
	call->path = path;
	call->connect_timeout_ms = CONNECT_TIMEOUT_MS;
	request = cm_http_start(engine->http, call);
	pfree(path);
	return request;
}

CmHttpRequest *
cm_engine_send_short(CmEngine *engine, const char *method, char *path, const char *body,
					 CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = method,
		.body = body,
		.n_body = body != NULL ? strlen(body) : 0,
		.fresh = body != NULL,
		.timeout_ms = body != NULL ? CM_ENGINE_CHANGE_TIMEOUT_MS : CM_ENGINE_LOOK_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_INSPECT_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, path);
}

/* ---- judging the outcome ---- */

void
cm_engine_copy_line(char *out, size_t out_size, const char *text, size_t n_bytes)
{
	const char *end;
	size_t n = 0;

	n_bytes = Min(n_bytes, out_size - 1);
	end = text + pg_encoding_verifymbstr(PG_UTF8, text, (int) n_bytes);
	while (text < end)
	{
		int n_control = cm_chars_control_length(text);

		if (n_control == 0)
			out[n++] = *text++;
		else
		{
			if (n > 0 && out[n - 1] != ' ')
				out[n++] = ' ';
			text += n_control;
		}
	}
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

void
cm_engine_copy_member(char *out, size_t out_size, const CmJson *object, const char *name)
{
	const char *text = cm_json_string(cm_json_get(object, name), "");

	cm_engine_copy_line(out, out_size, text, strlen(text));
}

bool
cm_engine_set_garbled(CmFault *fault, const char *what)
{
	fault->kind = CM_FAULT_GARBLED;
	snprintf(fault->message, sizeof(fault->message), "cannot make sense of %s", what);
	return false;
}

/* An engine says {"message":"..."}; what stands between may say anything. */
static void
quote_refusal(CmHttpRequest *request, CmFault *fault)
{
	size_t n_bytes;
	const char *body = cm_http_body(request, &n_bytes);
	const char *error;
	const char *message =
		cm_json_string(cm_json_get(cm_json_parse(body, n_bytes, &error), "message"), NULL);

	if (message != NULL)
		cm_engine_copy_line(fault->message, sizeof(fault->message), message, strlen(message));
	else
		cm_engine_copy_line(fault->message, sizeof(fault->message), body,
							Min(n_bytes, MAX_QUOTED_BODY_BYTES));
	if (fault->message[0] == '\0')
		snprintf(fault->message, sizeof(fault->message), "HTTP status %d", fault->http_status);
}

static CmFaultKind
judge_outcome(CmHttpOutcome outcome)
{
	switch (outcome)
	{
		case CM_HTTP_OK:
			return CM_FAULT_NONE;
		case CM_HTTP_NOT_SENT:
		case CM_HTTP_FAILED:
			return CM_FAULT_UNREACHABLE;
		case CM_HTTP_TIMED_OUT:
		case CM_HTTP_CUT:
			return CM_FAULT_UNSURE;
		case CM_HTTP_BAD_REPLY:
		case CM_HTTP_TOO_BIG:
			return CM_FAULT_GARBLED;
	}
	return CM_FAULT_UNSURE; /* keep the compiler quiet */
}

bool
cm_engine_check_reply(CmHttpRequest *request, CmFault *fault)
{
	memset(fault, 0, sizeof(*fault));
	fault->http_status = cm_http_status(request);
	fault->kind = judge_outcome(cm_http_outcome(request));
	if (fault->kind != CM_FAULT_NONE)
	{
		const char *error = cm_http_error(request);

		cm_engine_copy_line(fault->message, sizeof(fault->message), error, strlen(error));
		return false;
	}
	if (fault->http_status >= 200 && fault->http_status <= 299)
		return true;
	fault->kind = CM_FAULT_REFUSED;
	quote_refusal(request, fault);
	return false;
}

const CmJson *
cm_engine_parse_reply(CmHttpRequest *request, CmFault *fault)
{
	size_t n_bytes;
	const char *body;
	const char *error;
	const CmJson *reply;

	if (!cm_engine_check_reply(request, fault))
		return NULL;
	body = cm_http_body(request, &n_bytes);
	reply = cm_json_parse(body, n_bytes, &error);
	if (reply == NULL)
		cm_engine_set_garbled(fault, psprintf("the reply: %s", error));
	return reply;
}

/* ---- /version ---- */

CmHttpRequest *
cm_engine_begin_version(CmEngine *engine, int64 timeout_ms, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = timeout_ms,
		.wants_certificate = engine->tls != NULL,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, pstrdup("/version"));
}

/* "1.41" to 41, or -1.  Engines have spoken 1.x for ever. */
static int
parse_api_minor(const char *text)
{
	int minor = 0;

	if (text == NULL || strncmp(text, "1.", 2) != 0 || text[2] == '\0')
		return -1;
	for (text += 2; *text != '\0'; text++)
	{
		if (!cm_chars_is_digit(*text) || minor > 9999)
			return -1;
		minor = minor * 10 + (*text - '0');
	}
	return minor;
}

static bool
has_podman_component(const CmJson *reply)
{
	const CmJson *components = cm_json_get(reply, "Components");

	if (components == NULL || components->kind != CM_JSON_ARRAY)
		return false;
	for (int i = 0; i < components->count; i++)
	{
		const char *name = cm_json_string(cm_json_get(components->items[i], "Name"), "");

		if (strcmp(name, "Podman Engine") == 0)
			return true;
	}
	return false;
}

static bool
negotiate(CmEngine *engine, const CmVersion *version, CmFault *fault)
{
	if (version->api_minor < CM_API_FLOOR)
		snprintf(fault->message, sizeof(fault->message),
				 "engine \"%s\" speaks API 1.%d at most; 1.%d or newer is needed (Docker 20.10)",
				 version->engine_version, version->api_minor, CM_API_FLOOR);
	else if (version->min_api_minor > CM_API_CEILING)
		snprintf(fault->message, sizeof(fault->message),
				 "engine \"%s\" speaks API 1.%d at least; 1.%d is the newest supported",
				 version->engine_version, version->min_api_minor, CM_API_CEILING);
	else
	{
		engine->api_minor = Min(version->api_minor, CM_API_CEILING);
		engine->is_podman = version->is_podman;
		return true;
	}
	fault->kind = CM_FAULT_REFUSED;
	return false;
}

bool
cm_engine_read_version(CmHttpRequest *request, CmEngine *engine, CmVersion *version, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const char *name;

	memset(version, 0, sizeof(*version));
	if (reply == NULL)
		return false;
	version->api_minor = parse_api_minor(cm_json_string(cm_json_get(reply, "ApiVersion"), NULL));
	version->min_api_minor =
		parse_api_minor(cm_json_string(cm_json_get(reply, "MinAPIVersion"), "1.0"));
	version->is_podman =
		has_podman_component(reply) || cm_http_header(request, "Libpod-Api-Version") != NULL;
	name = psprintf("%s%s", version->is_podman ? "podman " : "",
					cm_json_string(cm_json_get(reply, "Version"), ""));
	cm_engine_copy_line(version->engine_version, sizeof(version->engine_version), name,
						strlen(name));
	if (version->api_minor < 0 || version->min_api_minor < 0)
		return cm_engine_set_garbled(fault, "the API version");
	return negotiate(engine, version, fault);
}

/* ---- /info ---- */

CmHttpRequest *
cm_engine_begin_info(CmEngine *engine, int64 timeout_ms, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = timeout_ms,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, cm_engine_make_path(engine, "/info", "", ""));
}

/* A count; what is none is 0. */
static int
read_count(const CmJson *reply, const char *name)
{
	int64 count = cm_json_int(cm_json_get(reply, name), 0);

	return count > 0 && count <= INT_MAX ? (int) count : 0;
}

static void
read_line(const CmJson *value, char *out, size_t out_size)
{
	const char *text = cm_json_string(value, "");

	cm_engine_copy_line(out, out_size, text, strlen(text));
}

/* Texts of an array, one line each; those that do not fit are left out. */
static void
read_lines(const CmJson *array, char *out, size_t out_size)
{
	size_t n = 0;

	out[0] = '\0';
	if (array == NULL || array->kind != CM_JSON_ARRAY)
		return;
	for (int i = 0; i < array->count; i++)
	{
		char line[MAX_INFO_LINE_BYTES];
		size_t length;

		read_line(array->items[i], line, sizeof(line));
		length = strlen(line);
		if (length == 0 || n + length + 2 > out_size)
			continue;
		if (n > 0)
			out[n++] = '\n';
		memcpy(out + n, line, length + 1);
		n += length;
	}
}

/*
 * Of the storage drivers only zfs tells in bytes what is free; what others tell
 * is rounded, for people, or nothing.
 */
static int64
read_disk_free(const CmJson *reply)
{
	const CmJson *status = cm_json_get(reply, "DriverStatus");

	if (status == NULL || status->kind != CM_JSON_ARRAY)
		return -1;
	for (int i = 0; i < status->count; i++)
	{
		const CmJson *pair = status->items[i];
		const char *value;
		char *end;
		long long bytes;

		if (pair->kind != CM_JSON_ARRAY || pair->count != 2 ||
			strcmp(cm_json_string(pair->items[0], ""), "Space Available") != 0)
			continue;
		value = cm_json_string(pair->items[1], "");
		errno = 0;
		bytes = strtoll(value, &end, 10);
		if (end != value && *end == '\0' && errno == 0 && bytes >= 0)
			return bytes;
	}
	return -1;
}

/* podman makes up another ID for each answer; to Docker it is another engine at least. */
static void
read_facts(const CmJson *reply, const CmEngine *engine, CmEngineFacts *facts)
{
	memset(facts, 0, sizeof(*facts));
	if (engine->is_podman)
		strlcpy(facts->id, "podman", sizeof(facts->id));
	else
		read_line(cm_json_get(reply, "ID"), facts->id, sizeof(facts->id));
	facts->cpus = read_count(reply, "NCPU");
	facts->memory_bytes = Max(cm_json_int(cm_json_get(reply, "MemTotal"), 0), 0);
	facts->containers_running = read_count(reply, "ContainersRunning");
	facts->containers_paused = read_count(reply, "ContainersPaused");
	facts->containers_stopped = read_count(reply, "ContainersStopped");
	facts->images = read_count(reply, "Images");
	facts->disk_free_bytes = read_disk_free(reply);
	read_line(cm_json_get(reply, "Driver"), facts->storage_driver, sizeof(facts->storage_driver));
	read_lines(cm_json_get(reply, "SecurityOptions"), facts->security_options,
			   sizeof(facts->security_options));
	read_lines(cm_json_get(reply, "Warnings"), facts->warnings, sizeof(facts->warnings));
	facts->is_live_restore = cm_json_bool(cm_json_get(reply, "LiveRestoreEnabled"), false);
	facts->is_experimental = cm_json_bool(cm_json_get(reply, "ExperimentalBuild"), false);
}

bool
cm_engine_read_info(CmHttpRequest *request, const CmEngine *engine, CmEngineInfo *info,
					CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const char *body;
	const char *clock;

	memset(info, 0, sizeof(*info));
	if (reply == NULL)
		return false;
	if (reply->kind != CM_JSON_OBJECT)
		return cm_engine_set_garbled(fault, "the reply to info");
	read_facts(reply, engine, &info->facts);
	clock = cm_json_string(cm_json_get(reply, "SystemTime"), "");
	(void) cm_logstream_parse_time(clock, strlen(clock), &info->at_us);
	body = cm_http_body(request, &info->n_json);
	info->json = pnstrdup(body, info->n_json);
	return true;
}

static bool
has_security_option(const CmEngineFacts *facts, const char *option)
{
	size_t length = strlen(option);

	for (const char *line = facts->security_options; line != NULL;)
	{
		const char *next = strchr(line, '\n');

		if (strncmp(line, option, length) == 0 &&
			(line[length] == '\0' || line[length] == '\n' || line[length] == ','))
			return true;
		line = next != NULL ? next + 1 : NULL;
	}
	return false;
}

bool
cm_engine_has_userns(const CmEngineFacts *facts)
{
	return has_security_option(facts, "name=userns") || has_security_option(facts, "name=rootless");
}

/* ---- images ---- */

CmHttpRequest *
cm_engine_begin_image(CmEngine *engine, const char *image, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = IMAGE_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_INSPECT_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, cm_engine_make_path(engine, "/images/", image, "/json"));
}

bool
cm_engine_read_image(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

/* ---- waiting in a backend ---- */

void
cm_engine_note_done(CmHttpRequest *request, void *is_done)
{
	*(bool *) is_done = true;
}

/* Until a socket of http moves, its timer fires or somebody calls us. */
static void
wait_for_news(const CmHttp *http)
{
	int64 timeout_ms = cm_http_timeout_ms(http);
	int events = WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	if (WaitLatchOrSocket(MyLatch, events, cm_http_fd(http), (long) Min(timeout_ms, INT_MAX),
						  cm_wait_event("ContainerManagerReply")) &
		WL_LATCH_SET)
		ResetLatch(MyLatch);
}

void
cm_engine_wait(CmHttp *http, const bool *is_done)
{
	while (!*is_done)
	{
		bool is_more = cm_http_drain(http);

		CHECK_FOR_INTERRUPTS();
		if (!*is_done && !is_more)
			wait_for_news(http);
	}
}
