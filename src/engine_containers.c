/*
 * engine_containers.c
 *		The calls about containers: create, start, inspect, kill, remove, list.
 *
 * Inspect is the truth about a container.  Its state is decided here by
 * whether it runs and whether it ever was started, not by the engine's state
 * word alone: a failed start leaves "created" with an exit code, and an exit
 * code is only believed of what was started and is over.  A reply from which
 * that cannot be told for certain is garbled, never guessed at.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/memutils.h"

#include "chars.h"
#include "engine_internal.h"
#include "logstream.h"

/* Create and start do much on a loaded host; kill and inspect wait for locks. */
#define CREATE_TIMEOUT_MS 120000
#define START_TIMEOUT_MS 120000
#define INSPECT_TIMEOUT_MS 30000
#define KILL_TIMEOUT_MS 30000
#define REMOVE_TIMEOUT_MS 120000
#define LIST_TIMEOUT_MS 30000

/* Go's zero time: it never happened. */
#define ZERO_TIME "0001-01-01T00:00:00"
#define MAX_TIME_BYTES 63

/* What engines say that have lost the exit code. */
#define EXIT_LOST 255

#define MAX_STATE_ERROR_BYTES 1024
#define MAX_RECORD_TEXT_BYTES 1024 /* with 9 texts, escaped: under 64 kB */

/* ---- ids and labels ---- */

bool
cm_engine_is_id(const char *text)
{
	for (int i = 0; i < CM_CONTAINER_ID_LEN; i++)
	{
		if (!cm_chars_is_lower_hex(text[i]))
			return false;
	}
	return text[CM_CONTAINER_ID_LEN] == '\0';
}

bool
cm_engine_copy_id(char *out, const char *text)
{
	if (text == NULL || !cm_engine_is_id(text))
		return false;
	memcpy(out, text, CM_CONTAINER_ID_LEN + 1);
	return true;
}

/* A label that is a plain number from 1 to max, or 0. */
static int64
read_number_label(const CmJson *labels, const char *name, int64 max)
{
	const char *text = cm_json_string(cm_json_get(labels, name), "");
	int64 number = 0;

	if (strlen(text) > 19)
		return 0;
	for (; *text != '\0'; text++)
	{
		int digit = *text - '0';

		if (!cm_chars_is_digit(*text) || number > (max - digit) / 10)
			return 0;
		number = number * 10 + digit;
	}
	return number;
}

bool
cm_engine_is_label(const CmJson *labels, const char *name, const char *value)
{
	return strcmp(cm_json_string(cm_json_get(labels, name), ""), value) == 0;
}

/* Far from INT_MAX, so that whoever takes over can go beyond what was seen. */
int
cm_engine_read_incarnation(const CmJson *labels)
{
	return (int) read_number_label(labels, CM_LABEL_INCARNATION, INT_MAX / 2);
}

/* Either all that makes it one of our jobs is there, or nothing is filled. */
void
cm_engine_read_labels(const CmJson *labels, CmContainerLabels *out)
{
	const char *epoch = cm_json_string(cm_json_get(labels, CM_LABEL_EPOCH), "");
	const char *spec = cm_json_string(cm_json_get(labels, CM_LABEL_SPEC), "");
	int64 job_id = read_number_label(labels, CM_LABEL_JOB, PG_INT64_MAX);
	int64 attempt = read_number_label(labels, CM_LABEL_ATTEMPT, INT_MAX);

	memset(out, 0, sizeof(*out));
	if (!cm_engine_is_label(labels, CM_LABEL_VERSION, CM_LABELS_VERSION) ||
		!cm_engine_is_label(labels, CM_LABEL_KIND, CM_KIND_JOB) ||
		strlen(epoch) >= sizeof(out->epoch) || job_id == 0 || attempt == 0)
		return;
	strlcpy(out->epoch, epoch, sizeof(out->epoch));
	if (cm_engine_is_id(spec)) /* a SHA-256 looks the same */
		strlcpy(out->spec_hash, spec, sizeof(out->spec_hash));
	out->incarnation = cm_engine_read_incarnation(labels);
	out->job_id = job_id;
	out->attempt = (int) attempt;
}

/* ---- create and start ---- */

CmHttpRequest *
cm_engine_begin_create(CmEngine *engine, const char *name, const char *body, bool is_secret,
					   CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "POST",
		.body = body,
		.n_body = strlen(body),
		.is_secret = is_secret,
		.fresh = true,
		.timeout_ms = CREATE_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call,
						  cm_engine_make_path(engine, "/containers/create?name=", name, ""));
}

bool
cm_engine_read_create(CmHttpRequest *request, char *id, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	if (reply == NULL)
		return false;
	if (!cm_engine_copy_id(id, cm_json_string(cm_json_get(reply, "Id"), NULL)))
		return cm_engine_set_garbled(fault, "the reply to create");
	return true;
}

/* POST without a body, which engines refuse for start. */
static CmHttpRequest *
begin_post(CmEngine *engine, const char *id, const char *verb, int64 timeout_ms,
		   CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "POST",
		.fresh = true,
		.timeout_ms = timeout_ms,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, cm_engine_make_path(engine, "/containers/", id, verb));
}

CmHttpRequest *
cm_engine_begin_start(CmEngine *engine, const char *id, CmEngineDone on_done, void *arg)
{
	return begin_post(engine, id, "/start", START_TIMEOUT_MS, on_done, arg);
}

bool
cm_engine_read_start(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && fault->http_status == 304;
}

/* ---- kill and remove ---- */

CmHttpRequest *
cm_engine_begin_kill(CmEngine *engine, const char *id, const char *signal_name,
					 CmEngineDone on_done, void *arg)
{
	StringInfoData verb;
	CmHttpRequest *request;

	initStringInfo(&verb);
	appendStringInfoString(&verb, "/kill?signal=");
	cm_http_append_escaped(&verb, signal_name);
	request = begin_post(engine, id, verb.data, KILL_TIMEOUT_MS, on_done, arg);
	pfree(verb.data);
	return request;
}

bool
cm_engine_read_kill(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

/* v=1: an image's VOLUMEs have become volumes that nobody else knows of. */
CmHttpRequest *
cm_engine_begin_remove(CmEngine *engine, const char *id, bool force, CmEngineDone on_done,
					   void *arg)
{
	CmHttpCall call = {
		.method = "DELETE",
		.timeout_ms = REMOVE_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(
		engine, &call,
		cm_engine_make_path(engine, "/containers/", id, force ? "?v=1&force=1" : "?v=1"));
}

bool
cm_engine_read_remove(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && fault->http_status == 404;
}

/* ---- inspect ---- */

CmHttpRequest *
cm_engine_begin_inspect(CmEngine *engine, const char *id_or_name, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = INSPECT_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_INSPECT_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call,
						  cm_engine_make_path(engine, "/containers/", id_or_name, "/json"));
}

/* NULL in *time and 0 where it never happened; false: it is not a time. */
static bool
read_time(const CmJson *value, const char **time, int64 *at_us)
{
	const char *text = cm_json_string(value, NULL);

	*time = NULL;
	*at_us = 0;
	if (text == NULL || strlen(text) > MAX_TIME_BYTES)
		return false;
	if (strncmp(text, ZERO_TIME, strlen(ZERO_TIME)) == 0)
		return true;
	if (!cm_logstream_parse_time(text, strlen(text), at_us))
		return false;
	*time = pstrdup(text);
	return true;
}

static bool
is_one_of(const char *word, const char *const *words)
{
	for (; *words != NULL; words++)
	{
		if (strcmp(word, *words) == 0)
			return true;
	}
	return false;
}

/* podman has a word more for what has a process, but one that waits to be started. */
static const char *const words_before[] = {"created", "configured", "initialized", NULL};

/*
 * "removing" is of containers that do not run: a forced removal kills first.
 * podman writes down when a container started only after it did: where it did not
 * come to that, the word alone may tell that it ran.
 * A word that is not known counts as running: that waits, it does not act.
 */
static CmRunState
decide_state(const char *word, bool is_running, bool was_started)
{
	static const char *const ran[] = {"exited", "stopped", NULL};
	static const char *const over[] = {"dead", "removing", NULL};

	if (is_running)
		return CM_RUN_RUNNING;
	if (is_one_of(word, ran))
		return CM_RUN_EXITED;
	if (!was_started)
		return CM_RUN_CREATED;
	return is_one_of(word, over) || is_one_of(word, words_before) ? CM_RUN_EXITED : CM_RUN_RUNNING;
}

static const char *
copy_state_error(const CmJson *state)
{
	const char *error = cm_json_string(cm_json_get(state, "Error"), "");
	char *line = palloc(MAX_STATE_ERROR_BYTES);

	cm_engine_copy_line(line, MAX_STATE_ERROR_BYTES, error, strlen(error));
	return line;
}

/* false: whether it ran, or how it ended, cannot be told. */
static bool
read_state(const CmJson *state, CmInspect *inspect)
{
	const CmJson *running = cm_json_get(state, "Running");
	const char *word = cm_json_string(cm_json_get(state, "Status"), NULL);
	int64 exit_code = cm_json_int(cm_json_get(state, "ExitCode"), PG_INT64_MAX);
	int64 started_us;
	int64 finished_us;

	if (word == NULL || running == NULL || running->kind != CM_JSON_BOOL ||
		!read_time(cm_json_get(state, "StartedAt"), &inspect->started_at, &started_us))
		return false;
	(void) read_time(cm_json_get(state, "FinishedAt"), &inspect->finished_at, &finished_us);
	inspect->state = decide_state(word, cm_json_bool(running, true), inspect->started_at != NULL);
	inspect->oom_killed = cm_json_bool(cm_json_get(state, "OOMKilled"), false);
	inspect->error = copy_state_error(state);
	if (inspect->state != CM_RUN_EXITED)
		return true;

	if (exit_code < INT_MIN || exit_code > INT_MAX)
		return false;
	/*
	 * podman makes "created" with an exit code of 0 of what ran when its machine was
	 * switched off, and -1 is of a conmon that was killed.
	 */
	inspect->is_code_lost = is_one_of(word, words_before) || exit_code < 0;
	inspect->exit_code = inspect->is_code_lost ? EXIT_LOST : (int) exit_code;
	if (inspect->finished_at != NULL && finished_us > started_us)
		inspect->run_ms = (finished_us - started_us) / 1000;
	return true;
}

/* Strings are cut, numbers are integers: what jsonb takes, and not much of it. */
static void
append_scalar(StringInfo to, const CmJson *value)
{
	if (value->kind == CM_JSON_STRING)
	{
		char *text = pnstrdup(value->text, cm_chars_cut(value->text, MAX_RECORD_TEXT_BYTES));

		cm_json_append_string(to, text);
		pfree(text);
	}
	else if (value->kind == CM_JSON_NUMBER)
		appendStringInfo(to, INT64_FORMAT, cm_json_int(value, 0));
	else if (value->kind == CM_JSON_BOOL)
		appendStringInfoString(to, value->text);
	else
		appendStringInfoString(to, "null");
}

/* {"Name":value,...} of those names that the object has. */
static void
append_members(StringInfo to, const CmJson *object, const char *const *names)
{
	appendStringInfoChar(to, '{');
	for (; *names != NULL; names++)
	{
		const CmJson *value = cm_json_get(object, *names);

		if (value == NULL)
			continue;
		if (to->data[to->len - 1] != '{')
			appendStringInfoChar(to, ',');
		appendStringInfo(to, "\"%s\":", *names);
		append_scalar(to, value);
	}
	appendStringInfoChar(to, '}');
}

/* What stays of it: no environment, which holds secrets, no labels of users. */
static const char *
make_record(const CmJson *reply)
{
	static const char *const container[] = {"Id", "Name", "Created", "Image", NULL};
	static const char *const state[] = {"Status",	 "ExitCode",   "OOMKilled", "Error",
										"StartedAt", "FinishedAt", NULL};
	static const char *const limits[] = {"Memory", "NanoCpus", "PidsLimit", "NetworkMode", NULL};
	StringInfoData record;

	initStringInfo(&record);
	append_members(&record, reply, container);
	record.data[--record.len] = '\0'; /* the brace is closed below */
	appendStringInfoString(&record, ",\"State\":");
	append_members(&record, cm_json_get(reply, "State"), state);
	appendStringInfoString(&record, ",\"HostConfig\":");
	append_members(&record, cm_json_get(reply, "HostConfig"), limits);
	appendStringInfoChar(&record, '}');
	return record.data;
}

bool
cm_engine_read_inspect(CmHttpRequest *request, CmInspect *inspect, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	memset(inspect, 0, sizeof(*inspect));
	if (reply == NULL)
		return false;
	if (!cm_engine_copy_id(inspect->id, cm_json_string(cm_json_get(reply, "Id"), NULL)) ||
		!read_state(cm_json_get(reply, "State"), inspect))
		return cm_engine_set_garbled(fault, "the reply to inspect");
	cm_engine_read_labels(cm_json_path(reply, "Config", "Labels"), &inspect->labels);
	inspect->record = make_record(reply);
	inspect->reply = reply;
	return true;
}

/* ---- list ---- */

void
cm_engine_append_filters(StringInfo to, const CmIdentity *identity, const char *kind,
						 const char *more)
{
	StringInfoData filters;
	char *epoch = psprintf("%s=%s", CM_LABEL_EPOCH, identity->epoch);

	initStringInfo(&filters);
	appendStringInfoString(&filters, "{\"label\":[");
	cm_json_append_string(&filters, epoch);
	appendStringInfo(&filters, ",\"%s=%s\"]%s}", CM_LABEL_KIND, kind, more);
	appendStringInfoString(to, "filters=");
	cm_http_append_escaped(to, filters.data);
	pfree(filters.data);
	pfree(epoch);
}

/* Frees the query's text. */
static CmHttpRequest *
send_list(CmEngine *engine, StringInfo query, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = LIST_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_LIST_BYTES,
		.on_done = on_done,
		.arg = arg,
	};
	CmHttpRequest *request;

	request = cm_engine_send(engine, &call, cm_engine_make_path(engine, query->data, "", ""));
	pfree(query->data);
	return request;
}

/* all=1: without it only those that run are told of. */
CmHttpRequest *
cm_engine_begin_list(CmEngine *engine, const CmIdentity *identity, CmEngineDone on_done, void *arg)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "/containers/json?all=1&");
	cm_engine_append_filters(&query, identity, CM_KIND_JOB, "");
	return send_list(engine, &query, on_done, arg);
}

/* A list has no more than the word; one that is not known calls for inspect. */
static CmRunState
guess_state(const char *word)
{
	static const char *const running[] = {"running", "paused", "restarting", "stopping", NULL};

	if (is_one_of(word, words_before))
		return CM_RUN_CREATED;
	return is_one_of(word, running) ? CM_RUN_RUNNING : CM_RUN_EXITED;
}

static CmListed *
reserve_listed(CmListed *listed, int n, int *n_allocated)
{
	if (n < *n_allocated)
		return listed;
	*n_allocated *= 2;
	return repalloc(listed, *n_allocated * sizeof(CmListed));
}

/* Those that are jobs of ours; false: one of those makes no sense. */
static bool
read_listed(const CmJson *reply, CmListed **listed, int *n)
{
	int n_allocated = 64;

	*listed = palloc(n_allocated * sizeof(CmListed));
	for (int i = 0; i < reply->count; i++)
	{
		const CmJson *item = reply->items[i];
		CmListed next;

		cm_engine_read_labels(cm_json_get(item, "Labels"), &next.labels);
		if (next.labels.job_id == 0)
			continue;
		if (!cm_engine_copy_id(next.id, cm_json_string(cm_json_get(item, "Id"), NULL)))
			return false;
		next.state = guess_state(cm_json_string(cm_json_get(item, "State"), ""));
		*listed = reserve_listed(*listed, *n, &n_allocated);
		(*listed)[(*n)++] = next;
	}
	return true;
}

/* ---- list of all epochs ---- */

CmHttpRequest *
cm_engine_begin_list_all(CmEngine *engine, CmEngineDone on_done, void *arg)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "/containers/json?all=1&filters=");
	cm_http_append_escaped(&query, "{\"label\":[\"" CM_LABEL_KIND "=" CM_KIND_JOB "\"]}");
	return send_list(engine, &query, on_done, arg);
}

bool
cm_engine_is_uuid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

	if (strlen(text) != strlen(form))
		return false;
	for (int i = 0; form[i] != '\0'; i++)
		if (form[i] == 'x' ? !cm_chars_is_lower_hex(text[i]) : text[i] != form[i])
			return false;
	return true;
}

static bool
read_shown(const CmJson *item, CmShown *shown)
{
	const CmJson *names = cm_json_get(item, "Names");
	const char *name = "";

	memset(shown, 0, sizeof(*shown));
	cm_engine_read_labels(cm_json_get(item, "Labels"), &shown->listed.labels);
	if (shown->listed.labels.job_id == 0 || !cm_engine_is_uuid(shown->listed.labels.epoch) ||
		!cm_engine_copy_id(shown->listed.id, cm_json_string(cm_json_get(item, "Id"), NULL)))
		return false;
	if (names != NULL && names->kind == CM_JSON_ARRAY && names->count > 0)
		name = cm_json_string(names->items[0], "");
	name += name[0] == '/' ? 1 : 0;
	cm_engine_copy_line(shown->name, sizeof(shown->name), name, strlen(name));
	cm_engine_copy_member(shown->image, sizeof(shown->image), item, "Image");
	cm_engine_copy_member(shown->state, sizeof(shown->state), item, "State");
	shown->created_at_s = cm_json_int(cm_json_get(item, "Created"), 0);
	return true;
}

bool
cm_engine_read_list_all(CmHttpRequest *request, CmShown **shown, int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	int n_allocated = 64;

	*n = 0;
	*shown = NULL;
	if (reply == NULL)
		return false;
	if (reply->kind != CM_JSON_ARRAY)
		return cm_engine_set_garbled(fault, "the reply to list");
	*shown = palloc(n_allocated * sizeof(CmShown));
	for (int i = 0; i < reply->count; i++)
	{
		if (*n == n_allocated)
		{
			n_allocated *= 2;
			*shown = repalloc_huge(*shown, n_allocated * sizeof(CmShown));
		}
		if (read_shown(reply->items[i], &(*shown)[*n]))
			(*n)++;
	}
	return true;
}

/* The tree of a long list is many times its size, and goes at once. */
bool
cm_engine_read_list(CmHttpRequest *request, CmListed **listed, int *n, CmFault *fault)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(caller, "container_manager list", ALLOCSET_DEFAULT_SIZES);
	const CmJson *reply;
	bool is_good = false;

	*listed = NULL;
	*n = 0;
	MemoryContextSwitchTo(context);
	reply = cm_engine_parse_reply(request, fault);
	MemoryContextSwitchTo(caller);
	if (reply != NULL && reply->kind == CM_JSON_ARRAY)
		is_good = read_listed(reply, listed, n);
	MemoryContextDelete(context);
	if (!is_good && fault->kind == CM_FAULT_NONE)
		cm_engine_set_garbled(fault, "the reply to list");
	return is_good;
}
