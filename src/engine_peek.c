/*
 * engine_peek.c
 *		A look into a container: its processes, and what it has changed.
 *
 * Both are for people.  What an engine says is bounded like any reply of its, and
 * what makes no sense is left out.
 */
#include "postgres.h"

#include "engine_internal.h"

#define TOP_TIMEOUT_MS 30000
#define CHANGES_TIMEOUT_MS 60000
#define MAX_COMMAND_BYTES 4096
#define MAX_PROCESSES 100000

/* Docker hands its words to the host's ps; podman has columns of its own. */
#define DOCKER_COLUMNS "?ps_args=-eo%20user,pid,ppid,etime,args"
#define PODMAN_COLUMNS "?ps_args=user,pid,ppid,etime,args"

static CmHttpRequest *
begin_get(CmEngine *engine, const char *id, const char *what, int64 timeout_ms,
		  CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = timeout_ms,
		.max_body_bytes = CM_ENGINE_LIST_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, cm_engine_make_path(engine, "/containers/", id, what));
}

/* --- processes --- */

CmHttpRequest *
cm_engine_begin_top(CmEngine *engine, const char *id, CmEngineDone on_done, void *arg)
{
	return begin_get(engine, id, engine->is_podman ? "/top" PODMAN_COLUMNS : "/top" DOCKER_COLUMNS,
					 TOP_TIMEOUT_MS, on_done, arg);
}

/* Which column has one of these titles?  -1: none. */
static int
find_title(const CmJson *titles, const char *title, const char *other)
{
	for (int i = 0; i < titles->count; i++)
	{
		const char *text = cm_json_string(titles->items[i], "");

		if (strcmp(text, title) == 0 || strcmp(text, other) == 0)
			return i;
	}
	return -1;
}

static const char *
get_cell(const CmJson *row, int column)
{
	return column < 0 || column >= row->count ? "" : cm_json_string(row->items[column], "");
}

static int64
get_number(const CmJson *row, int column)
{
	const char *text = get_cell(row, column);
	size_t n = strspn(text, "0123456789");

	return n == 0 || n > 15 || text[n] != '\0' ? -1 : strtoll(text, NULL, 10);
}

static void
copy_cell(char *out, size_t out_size, const CmJson *row, int column)
{
	const char *text = get_cell(row, column);

	cm_engine_copy_line(out, out_size, text, strlen(text));
}

static const char *
copy_command(const CmJson *row, int column)
{
	char line[MAX_COMMAND_BYTES + 1];

	copy_cell(line, sizeof(line), row, column);
	return pstrdup(line);
}

static void
read_process(const CmJson *titles, const CmJson *row, CmProcess *process)
{
	process->pid = get_number(row, find_title(titles, "PID", "HPID"));
	process->parent_pid = get_number(row, find_title(titles, "PPID", "HPPID"));
	copy_cell(process->user, sizeof(process->user), row, find_title(titles, "USER", "UID"));
	copy_cell(process->elapsed, sizeof(process->elapsed), row, find_title(titles, "ELAPSED", ""));
	process->command = copy_command(row, find_title(titles, "COMMAND", "CMD"));
}

bool
cm_engine_read_top(CmHttpRequest *request, CmProcess **processes, int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const CmJson *titles;
	const CmJson *rows;

	*n = 0;
	*processes = NULL;
	if (reply == NULL)
		return false;
	titles = cm_json_get(reply, "Titles");
	rows = cm_json_get(reply, "Processes");
	if (titles == NULL || rows == NULL || titles->kind != CM_JSON_ARRAY ||
		rows->kind != CM_JSON_ARRAY || rows->count > MAX_PROCESSES)
		return cm_engine_set_garbled(fault, "the reply to top");
	*processes = palloc(sizeof(CmProcess) * Max(rows->count, 1));
	for (int i = 0; i < rows->count; i++)
		if (rows->items[i]->kind == CM_JSON_ARRAY)
			read_process(titles, rows->items[i], &(*processes)[(*n)++]);
	return true;
}

/* --- changes --- */

CmHttpRequest *
cm_engine_begin_changes(CmEngine *engine, const char *id, CmEngineDone on_done, void *arg)
{
	return begin_get(engine, id, "/changes", CHANGES_TIMEOUT_MS, on_done, arg);
}

static const char *
name_change(const CmJson *kind)
{
	static const char *const words[] = {"changed", "added", "deleted"};
	int64 number = cm_json_int(kind, -1);

	return number < 0 || number >= lengthof(words) ? NULL : words[number];
}

/* An engine says null for none. */
bool
cm_engine_read_changes(CmHttpRequest *request, CmChange **changes, int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	*n = 0;
	*changes = NULL;
	if (reply == NULL)
		return false;
	if (reply->kind == CM_JSON_NULL)
		return true;
	if (reply->kind != CM_JSON_ARRAY)
		return cm_engine_set_garbled(fault, "the reply to changes");
	*changes = palloc(sizeof(CmChange) * Max(reply->count, 1));
	for (int i = 0; i < reply->count; i++)
	{
		CmChange *change = &(*changes)[*n];

		change->path = cm_json_string(cm_json_get(reply->items[i], "Path"), NULL);
		change->kind = name_change(cm_json_get(reply->items[i], "Kind"));
		if (change->path != NULL && change->kind != NULL)
			(*n)++;
	}
	return true;
}
