/*
 * engine_streams.c
 *		The calls whose replies come piecemeal: events, logs, pull.
 *
 * Events and the progress of a pull are JSON objects, one a line.  A line that
 * does not end within MAX_LINE_BYTES is dropped piece by piece, and its end
 * then skipped as the nonsense that it is: nothing that is said in them is
 * relied upon, while a reader that waited for the line's end would wait for
 * ever on a stream that is paused because its buffer is full.
 */
#include "postgres.h"

#include <time.h>

#include "utils/memutils.h"

#include "engine_internal.h"
#include "image_ref.h"

#define RECALL_TIMEOUT_MS 30000
/* So many events of all kinds does an engine keep. */
#define MAX_REMEMBERED 256
/* Of these, so many may have happened after the time up to which it was asked. */
#define MAX_NEWER 64
#define MAX_LINE_BYTES (CM_ENGINE_SMALL_BYTES / 2)

/*
 * podman calls destroy "remove"; it tells of "die", but only who asks for "died"
 * hears of it.
 */
#define EVENT_FILTERS            \
	",\"type\":[\"container\"]," \
	"\"event\":[\"start\",\"die\",\"died\",\"oom\",\"kill\",\"destroy\",\"remove\"]"

static CmHttpRequest *
begin_stream(CmEngine *engine, const char *method, char *path, const char *registry_auth,
			 CmEngineDone on_bytes, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = method,
		.registry_auth = registry_auth,
		.is_stream = true,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_bytes = on_bytes,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, path);
}

bool
cm_engine_read_stream_end(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

/*
 * The next whole line, with its newline, or NULL.  It is valid until
 * cm_http_consume().
 */
static const char *
peek_line(CmHttpRequest *request, size_t *n_line)
{
	size_t n_bytes;
	const char *bytes = cm_http_body(request, &n_bytes);
	const char *newline = NULL;

	if (cm_http_status(request) == 200)
		newline = memchr(bytes, '\n', n_bytes);
	if (newline != NULL)
	{
		*n_line = newline + 1 - bytes;
		return bytes;
	}
	if (n_bytes >= MAX_LINE_BYTES)
		cm_http_consume(request, n_bytes);
	return NULL;
}

/* Takes a line, and parses it into the current context; NULL: it is no JSON. */
static const CmJson *
take_line(CmHttpRequest *request, const char *line, size_t n_line)
{
	const char *error;
	const CmJson *value = NULL;

	if (n_line <= MAX_LINE_BYTES)
		value = cm_json_parse(line, n_line, &error);
	cm_http_consume(request, n_line);
	return value;
}

/* ---- events ---- */

CmHttpRequest *
cm_engine_begin_events(CmEngine *engine, const CmIdentity *identity, CmEngineDone on_bytes,
					   CmEngineDone on_done, void *arg)
{
	StringInfoData query;
	char *path;

	initStringInfo(&query);
	appendStringInfoString(&query, "/events?");
	cm_engine_append_filters(&query, identity, CM_KIND_JOB, EVENT_FILTERS);
	path = cm_engine_make_path(engine, query.data, "", "");
	pfree(query.data);
	return begin_stream(engine, "GET", path, NULL, on_bytes, on_done, arg);
}

/*
 * Engines keep the latest events in memory, and that alone is asked for: up to
 * now.  Where its clock is behind ours, the reply comes when it has caught up.
 */
CmHttpRequest *
cm_engine_begin_recall(CmEngine *engine, const char *id, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = RECALL_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};
	StringInfoData query;
	char *path;

	if (engine->is_podman)
		return NULL;
	initStringInfo(&query);
	appendStringInfo(&query, "/events?since=1&until=%lld&filters=", (long long) time(NULL));
	cm_http_append_escaped(
		&query,
		psprintf("{\"type\":[\"container\"],\"event\":[\"create\"],\"container\":[\"%s\"]}", id));
	path = cm_engine_make_path(engine, query.data, "", "");
	pfree(query.data);
	return cm_engine_send(engine, &call, path);
}

bool
cm_engine_read_recall(CmHttpRequest *request, bool *remembers, CmFault *fault)
{
	size_t n_bytes;

	if (!cm_engine_check_reply(request, fault))
		return false;
	*remembers = strchr(cm_http_body(request, &n_bytes), '{') != NULL;
	return true;
}

CmHttpRequest *
cm_engine_begin_memory(CmEngine *engine, int64 at_us, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = RECALL_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};
	char query[64];

	if (at_us <= 0 || engine->is_podman)
		return NULL;
	snprintf(query, sizeof(query), "/events?since=1&until=%lld.%06d", (long long) (at_us / 1000000),
			 (int) (at_us % 1000000));
	return cm_engine_send(engine, &call, cm_engine_make_path(engine, query, "", ""));
}

/* They come in order, the oldest first. */
bool
cm_engine_read_memory(CmHttpRequest *request, int64 at_us, CmEngineMemory *memory, CmFault *fault)
{
	size_t n_bytes;
	const char *body;
	const char *newline;
	const char *error;
	int n = 0;

	memset(memory, 0, sizeof(*memory));
	if (!cm_engine_check_reply(request, fault))
		return false;
	memory->asked_us = memory->oldest_us = at_us;
	body = cm_http_body(request, &n_bytes);
	newline = n_bytes > 0 ? memchr(body, '\n', n_bytes) : NULL;
	if (newline == NULL)
		return true;
	memory->oldest_us =
		cm_json_int(cm_json_get(cm_json_parse(body, newline + 1 - body, &error), "timeNano"), 0) /
		1000;
	if (memory->oldest_us == 0)
		memory->asked_us = 0;
	for (; newline != NULL; newline = memchr(newline + 1, '\n', body + n_bytes - (newline + 1)))
		n++;
	memory->is_full = n >= MAX_REMEMBERED - MAX_NEWER;
	return true;
}

CmEngineLife
cm_engine_judge_life(const CmEngine *engine, const CmEngineMemory *memory, int64 did_us)
{
	/* Each container has a conmon, which outlives podman's service. */
	if (engine->is_podman)
		return CM_LIFE_SAME;
	if (memory->asked_us == 0 || did_us == 0)
		return CM_LIFE_UNKNOWN;
	if (did_us >= memory->oldest_us)
		return CM_LIFE_SAME;
	return memory->is_full ? CM_LIFE_UNKNOWN : CM_LIFE_RESTARTED;
}

static CmEventKind
read_kind(const char *action)
{
	static const struct
	{
		const char *action;
		CmEventKind kind;
	} kinds[] = {
		{"start", CM_EVENT_START}, {"die", CM_EVENT_DIE},		  {"oom", CM_EVENT_OOM},
		{"kill", CM_EVENT_KILL},   {"destroy", CM_EVENT_DESTROY}, {"remove", CM_EVENT_DESTROY},
	};

	for (size_t i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(action, kinds[i].action) == 0)
			return kinds[i].kind;
	}
	return CM_EVENT_OTHER;
}

/* Newer engines leave out the short forms, older ones always had both. */
static bool
read_event(const CmJson *line, CmEvent *event)
{
	const CmJson *attributes = cm_json_path(line, "Actor", "Attributes");
	const char *id = cm_json_string(cm_json_path(line, "Actor", "ID"), NULL);
	const char *action = cm_json_string(cm_json_get(line, "Action"), NULL);
	const char *signal_name = cm_json_string(cm_json_get(attributes, "signal"), "");
	CmContainerLabels labels;

	memset(event, 0, sizeof(*event));
	if (strcmp(cm_json_string(cm_json_get(line, "Type"), "container"), "container") != 0)
		return false;
	if (id == NULL)
		id = cm_json_string(cm_json_get(line, "id"), NULL);
	if (action == NULL)
		action = cm_json_string(cm_json_get(line, "status"), NULL);
	if (action == NULL || !cm_engine_copy_id(event->container_id, id))
		return false;

	cm_engine_read_labels(attributes, &labels);
	event->kind = read_kind(action);
	strlcpy(event->epoch, labels.epoch, sizeof(event->epoch));
	event->incarnation = labels.incarnation;
	event->job_id = labels.job_id;
	event->attempt = labels.attempt;
	if (event->kind == CM_EVENT_KILL)
		cm_engine_copy_line(event->signal_name, sizeof(event->signal_name), signal_name,
							strlen(signal_name));
	return true;
}

bool
cm_engine_next_event(CmHttpRequest *request, CmEvent *event)
{
	MemoryContext context;
	MemoryContext caller;
	const char *line;
	size_t n_line;
	bool is_event = false;

	if (peek_line(request, &n_line) == NULL)
		return false;
	context = AllocSetContextCreate(CurrentMemoryContext, "container_manager event",
									ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	while (!is_event && (line = peek_line(request, &n_line)) != NULL)
	{
		is_event = read_event(take_line(request, line, n_line), event);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return is_event;
}

/* ---- logs ---- */

CmHttpRequest *
cm_engine_begin_logs(CmEngine *engine, const char *id, bool follow, CmEngineDone on_bytes,
					 CmEngineDone on_done, void *arg)
{
	const char *query = follow ? "/logs?stdout=1&stderr=1&timestamps=1&follow=1"
							   : "/logs?stdout=1&stderr=1&timestamps=1";

	return begin_stream(engine, "GET", cm_engine_make_path(engine, "/containers/", id, query), NULL,
						on_bytes, on_done, arg);
}

/* ---- pull ---- */

/*
 * An engine takes a name without tag and digest for all its tags.  Where both
 * are given, the digest decides.
 */
CmHttpRequest *
cm_engine_begin_pull(CmEngine *engine, const char *image, const char *auth, CmEngineDone on_bytes,
					 CmEngineDone on_done, void *arg)
{
	const char *create = "/images/create?fromImage=";
	CmImageRef ref;
	char error[256];
	char *path;

	if (!cm_image_ref_parse(image, &ref, error, sizeof(error)))
		path = cm_engine_make_path(engine, create, image, "&tag=latest"); /* is refused there */
	else if (ref.digest[0] != '\0')
		path = cm_engine_make_path(engine, create, psprintf("%s@%s", ref.name, ref.digest), "");
	else
		path = cm_engine_make_path(engine, create, ref.name,
								   psprintf("&tag=%s", ref.tag[0] != '\0' ? ref.tag : "latest"));
	return begin_stream(engine, "POST", path, auth, on_bytes, on_done, arg);
}

/* The layer's place in the sum, or -1: there are too many. */
static int
find_layer(CmPull *pull, const char *id)
{
	for (int i = 0; i < pull->n_layers; i++)
	{
		if (strncmp(pull->layers[i].id, id, sizeof(pull->layers[i].id) - 1) == 0)
			return i;
	}
	if (pull->n_layers == CM_PULL_MAX_LAYERS)
		return -1;
	strlcpy(pull->layers[pull->n_layers].id, id, sizeof(pull->layers[0].id));
	return pull->n_layers++;
}

/* The bytes of a layer are counted while it is loaded, not again as it is unpacked. */
static void
note_layer(CmPull *pull, const CmJson *line)
{
	const char *id = cm_json_string(cm_json_get(line, "id"), "");
	const char *status = cm_json_string(cm_json_get(line, "status"), "");
	int64 current = cm_json_int(cm_json_path(line, "progressDetail", "current"), 0);
	int64 total = cm_json_int(cm_json_path(line, "progressDetail", "total"), 0);
	bool is_loading = strcmp(status, "Downloading") == 0 && total > 0;
	bool is_loaded = strcmp(status, "Download complete") == 0 ||
					 strcmp(status, "Extracting") == 0 || strcmp(status, "Pull complete") == 0;
	int i;

	if (!is_loading && !is_loaded)
		return;
	i = find_layer(pull, id);
	if (i < 0)
		return;
	if (is_loading)
	{
		pull->layers[i].total_bytes = total;
		pull->layers[i].current_bytes = Max(Min(current, total), 0);
	}
	else
		pull->layers[i].current_bytes = pull->layers[i].total_bytes;
}

static void
describe_progress(CmPull *pull)
{
	double current = 0;
	double total = 0;

	for (int i = 0; i < pull->n_layers; i++)
	{
		current += pull->layers[i].current_bytes;
		total += pull->layers[i].total_bytes;
	}
	if (total > 0)
		snprintf(pull->progress, sizeof(pull->progress), "pulling %d %%",
				 (int) (100 * current / total));
	else
		strlcpy(pull->progress, "pulling", sizeof(pull->progress));
}

/* The first error stays.  "error" is the old form of "errorDetail". */
static void
note_error(CmPull *pull, const CmJson *line)
{
	const CmJson *detail = cm_json_path(line, "errorDetail", "message");
	const char *message = cm_json_string(detail, cm_json_string(cm_json_get(line, "error"), NULL));

	if (pull->error[0] != '\0')
		return;
	if (message != NULL)
		cm_engine_copy_line(pull->error, sizeof(pull->error), message, strlen(message));
	else if (cm_json_get(line, "errorDetail") == NULL)
		return;
	if (pull->error[0] == '\0')
		strlcpy(pull->error, "error without a message", sizeof(pull->error));
}

void
cm_engine_read_pull_progress(CmHttpRequest *request, CmPull *pull)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "container_manager pull",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	const char *line;
	size_t n_line;

	while ((line = peek_line(request, &n_line)) != NULL)
	{
		const CmJson *value = take_line(request, line, n_line);

		note_error(pull, value);
		note_layer(pull, value);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	describe_progress(pull);
}
