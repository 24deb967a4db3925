/*
 * executor_mock.c
 *		The executor type mock: jobs that end as their host's script says, with
 *		no engine and no container.
 *
 * Nothing is kept that a crash could lose.  What becomes of an attempt follows
 * from the script, the host's address, and job and attempt (see mock.h); when,
 * from started_at as it is recorded.  So a job that was running runs on while
 * there is no executor, and one whose start was not recorded has not run:
 * never twice holds here because nothing happens but what is recorded.
 *
 * Only a signal is kept in memory, like what a program does of it: an executor
 * that takes the job up after a crash sends it again.
 *
 * No call takes time here: each does what it does and steps the task.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "mock.h"
#include "mock_config.h"

#define NEVER_MS (INT64_C(24) * 3600 * 1000)
/* As engines cut longer lines. */
#define MAX_RECORD_BYTES 16384
/* What placeholders may make of a text. */
#define MAX_PRINTED_BYTES (1024 * 1024)
#define EXIT_SIGKILL 137

#define US_1970_TO_2000 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* --- hosts --- */

typedef struct MockHost
{
	char *config; /* as it was read */
	const char *seed;
	CmMockScript script;
	char error[512]; /* "": it can be used */
	char hint[512];
} MockHost;

/* The row's trigger lets only good ones through, but triggers can be turned off. */
static void
read_config(CmExecHost *host, MockHost *mock)
{
	CmProblem problem;

	if (!cm_mock_parse_address(host->address.connection_string, &mock->seed))
	{
		strlcpy(mock->error, "connection_string is not mock://NAME", sizeof(mock->error));
		mock->seed = "";
	}
	else if (!cm_mock_config_read(host->name, mock->config, &mock->script, &problem))
	{
		strlcpy(mock->error, problem.message, sizeof(mock->error));
		strlcpy(mock->hint, problem.hint, sizeof(mock->hint));
	}
	else if (mock->script.is_unreachable)
	{
		strlcpy(mock->error, "executor_config says that it does not answer", sizeof(mock->error));
		strlcpy(mock->hint, "Take \"unreachable\" out of executor_config.", sizeof(mock->hint));
	}
}

/* It is looked at anew; what runs there follows the new script at once. */
static void
configure_mock(CmExecHost *host, const char *config)
{
	MockHost *mock = host->of_type;
	MemoryContext caller;

	if (mock != NULL && strcmp(mock->config, config) == 0)
		return;
	if (host->type_context != NULL)
		MemoryContextDelete(host->type_context);
	host->type_context =
		AllocSetContextCreate(host->context, "container_manager mock", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(host->type_context);
	mock = palloc0(sizeof(MockHost));
	mock->config = pstrdup(config);
	host->of_type = mock;
	read_config(host, mock);
	MemoryContextSwitchTo(caller);
	host->next_ms = cm_ex.now_ms;
}

static void
look_at_tasks(CmExecHost *host)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		/* There is no list; each is looked at. */
		if (task->host == host)
			cm_task_note_listed(task, NULL);
	}
}

/* Only another script can change anything. */
static void
connect_mock(CmExecHost *host)
{
	const MockHost *mock = host->of_type;

	/* Whatever may have been started there is recorded. */
	host->was_listed = true;
	cm_health_begin_look(host);
	if (mock->error[0] != '\0')
		cm_host_lose(host, mock->error, mock->hint);
	else
	{
		strlcpy(host->engine_version, "mock", sizeof(host->engine_version));
		if (host->phase != CM_HOST_READY)
			cm_host_become_ready(host);
		cm_health_note_answer(host);
		look_at_tasks(host);
	}
	host->next_ms = cm_ex.now_ms + NEVER_MS;
}

/* --- the fate of an attempt --- */

static double
draw(const char *what, uint64 which)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) what, strlen(what), which);

	return (double) (hash >> 11) / (double) (UINT64CONST(1) << 53);
}

static void
append_words(StringInfo to, const CmWords *words)
{
	for (int i = 0; i < words->count; i++)
		appendStringInfo(to, "%s%s", to->len > 0 ? " " : "", words->words[i]);
}

/* "": the image's own. */
static char *
tell_command(const CmJobSpec *spec)
{
	StringInfoData words;

	initStringInfo(&words);
	if (spec->command != NULL)
		appendStringInfoString(&words, spec->command);
	append_words(&words, &spec->entrypoint);
	append_words(&words, &spec->args);
	return words.data;
}

static void
decide_fate(const CmTask *task, CmMockFate *fate)
{
	const MockHost *mock = task->host->of_type;
	char *what =
		psprintf("%s/%lld/%d", mock->seed, (long long) task->spec.job_id, task->spec.attempt);
	char *command = tell_command(&task->spec);
	CmMockLuck luck = {draw(what, 1), draw(what, 2), draw(what, 3), draw(what, 4)};

	cm_mock_decide(&mock->script, &task->spec, command, &luck, fate);
	pfree(command);
	pfree(what);
}

/* --- looking --- */

/* How a signal of ours ended it. */
typedef struct MockEnd
{
	TimestampTz at;
	int exit_code;
} MockEnd;

static void
end_by_signal(CmTask *task, int exit_code)
{
	MockEnd *end = MemoryContextAlloc(task->context, sizeof(MockEnd));

	end->at = GetCurrentTimestamp();
	end->exit_code = exit_code;
	task->of_type = end;
	task->look_again = true;
}

static char *
make_record(const CmTask *task)
{
	return psprintf(
		"{\"Id\":\"%s\",\"State\":{\"Status\":\"exited\",\"ExitCode\":%d,\"OOMKilled\":%s}}",
		task->container_id, task->s.exit_code, task->s.oom_killed ? "true" : "false");
}

static void
see_exit(CmTask *task, int exit_code, TimestampTz at, CmReason failure)
{
	task->s.seen = CM_SEEN_EXITED;
	task->s.exit_code = exit_code;
	task->s.oom_killed = failure == CM_REASON_OOM;
	task->s.killed_by_other = failure == CM_REASON_KILLED;
	task->s.ran_too_long =
		at - task->started_at >= task->spec.timeout_seconds * (int64) USECS_PER_SEC;
	task->engine_started_at = task->started_at;
	task->engine_finished_at = at;
	if (task->seen.record == NULL)
		task->seen.record = cm_task_keep_text(task, make_record(task));
	task->wake_ms = 0;
}

static void
see_running(CmTask *task, TimestampTz end_at, TimestampTz now)
{
	task->s.seen = CM_SEEN_RUNNING;
	task->look_ms = cm_ex.now_ms + (end_at - now + 999) / 1000;
	/* Taken up from another executor, or the host was away. */
	if (task->s.state == CM_RUNNING && task->follow_ms == 0)
		task->follow_ms = cm_ex.now_ms;
}

static void
see_started(CmTask *task)
{
	const MockEnd *end = task->of_type;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end_at;
	CmMockFate fate;

	if (end != NULL)
	{
		see_exit(task, end->exit_code, end->at, CM_REASON_NONE);
		return;
	}
	decide_fate(task, &fate);
	end_at = task->started_at + fate.run_ms * 1000;
	if (now < end_at)
		see_running(task, end_at, now);
	else if (fate.failure == CM_REASON_INFRASTRUCTURE)
	{
		task->s.seen = CM_SEEN_ABSENT;
		task->wake_ms = 0;
	}
	else
		see_exit(task, fate.exit_code, end_at, fate.failure);
}

static void
inspect_mock(CmTask *task)
{
	task->look_again = false;
	/* What is not recorded as started was not. */
	task->s.start_unsure = false;
	if (task->started_at != 0)
		see_started(task);
	else
		task->s.seen = task->container_id[0] != '\0' ? CM_SEEN_CREATED : CM_SEEN_ABSENT;
	task->s.is_checked = true;
	cm_task_step(task);
}

/* --- launching --- */

static const char *const scripted = "The host's script says so: see its executor_config.";

static void
refuse_launch(CmTask *task, CmReason reason)
{
	const char *image = task->spec.image;
	const char *host = task->host->name;
	const char *error = "";

	switch (reason)
	{
		case CM_REASON_IMAGE_PULL:
			error = psprintf("image \"%s\" not found on host \"%s\" and could not be pulled", image,
							 host);
			break;
		case CM_REASON_CREATE:
			error = psprintf("host \"%s\" refused to create the container: scripted", host);
			break;
		case CM_REASON_NETWORK:
			error =
				psprintf("network \"%s\" not found on host \"%s\"",
						 task->spec.n_networks > 0 ? task->spec.networks[0].name : "none", host);
			break;
		default:
			error = psprintf("host \"%s\" could not start the container: scripted", host);
			break;
	}
	cm_task_refuse(task, reason, error, NULL, scripted);
}

/* true: not yet. */
static bool
must_wait(CmTask *task, int64 launch_ms)
{
	int64 us = task->claimed_at + launch_ms * 1000 - GetCurrentTimestamp();
	int64 due_ms = cm_ex.now_ms + (us + 999) / 1000;

	if (task->claimed_at == 0 || us <= 0)
		return false;
	cm_task_set_detail(task, "pulling");
	if (task->wake_ms == 0 || due_ms < task->wake_ms)
		task->wake_ms = due_ms;
	return true;
}

static void
create_mock(CmTask *task)
{
	CmMockFate fate;

	decide_fate(task, &fate);
	if (must_wait(task, fate.launch_ms))
		return;
	cm_task_set_detail(task, NULL);
	if (fate.failure == CM_REASON_IMAGE_PULL || fate.failure == CM_REASON_CREATE)
		refuse_launch(task, fate.failure);
	else
	{
		snprintf(task->container_id, sizeof(task->container_id), "mock-%lld-%d",
				 (long long) task->spec.job_id, task->spec.attempt);
		task->s.seen = CM_SEEN_CREATED;
		task->s.has_id = task->s.start_unsure = false;
		task->s.is_checked = true;
	}
	cm_task_step(task);
}

static void
start_mock(CmTask *task)
{
	CmMockFate fate;

	decide_fate(task, &fate);
	if (fate.failure == CM_REASON_START || fate.failure == CM_REASON_NETWORK)
		refuse_launch(task, fate.failure);
	else
	{
		task->started_at = GetCurrentTimestamp();
		see_started(task);
	}
	cm_task_step(task);
}

/* inspect never leaves a start in doubt; but what has none can be undone. */
static void
discard_mock(CmTask *task)
{
	cm_task_end_settling(task);
	cm_task_step(task);
}

/* --- stopping --- */

static void
term_mock(CmTask *task)
{
	CmMockFate fate;

	decide_fate(task, &fate);
	cm_task_note_term(task);
	if (fate.on_term != CM_MOCK_IGNORES_TERM)
		end_by_signal(task, fate.on_term);
	cm_task_step(task);
}

static void
kill_mock(CmTask *task)
{
	task->s.kill_sent = true;
	end_by_signal(task, EXIT_SIGKILL);
	cm_task_step(task);
}

/* --- output --- */

static char *
tell_job(const CmJobSpec *spec)
{
	return psprintf("%lld", (long long) spec->job_id);
}

static char *
tell_attempt(const CmJobSpec *spec)
{
	return psprintf("%d", spec->attempt);
}

static char *
tell_name(const CmJobSpec *spec)
{
	return pstrdup(spec->name != NULL ? spec->name : "");
}

static char *
tell_image(const CmJobSpec *spec)
{
	return pstrdup(spec->image);
}

static const struct
{
	const char *name;
	char *(*tell)(const CmJobSpec *spec);
} placeholders[] = {
	{"{{job_id}}", tell_job},  {"{{attempt}}", tell_attempt}, {"{{name}}", tell_name},
	{"{{image}}", tell_image}, {"{{command}}", tell_command},
};

/* Appends what stands for the text's beginning; gives how much of it that was. */
static size_t
expand_placeholder(CmTask *task, StringInfo to, const char *text)
{
	for (int i = 0; i < lengthof(placeholders); i++)
	{
		size_t length = strlen(placeholders[i].name);
		char *value;

		if (strncmp(text, placeholders[i].name, length) != 0)
			continue;
		value = placeholders[i].tell(&task->spec);
		if (to->len + strlen(value) <= MAX_PRINTED_BYTES)
			appendStringInfoString(to, value);
		else
			task->logs.incomplete = true;
		pfree(value);
		return length;
	}
	appendStringInfoChar(to, *text);
	return 1;
}

static void
append_expanded(CmTask *task, StringInfo to, const char *text)
{
	while (*text != '\0')
	{
		size_t length = strcspn(text, "{");

		appendBinaryStringInfo(to, text, length);
		text += length;
		if (*text != '\0')
			text += expand_placeholder(task, to, text);
	}
}

/* A record is a line, or a part of a longer one, as an engine keeps it. */
static void
keep_lines(CmTask *task, int stream, const char *text)
{
	while (*text != '\0')
	{
		size_t length = strcspn(text, "\n");
		CmLogRecord record = {.stream = stream, .at_us = task->started_at + US_1970_TO_2000};

		length += text[length] == '\n' ? 1 : 0;
		record.bytes = text;
		record.n_bytes = Min(length, MAX_RECORD_BYTES);
		cm_logs_keep_record(task, &record);
		text += record.n_bytes;
	}
}

/*
 * All of it at once, so that what is stored of it is always the whole: nothing
 * is printed again after a crash, whatever the script says by then.
 */
static void
follow_mock(CmTask *task)
{
	CmMockFate fate;

	if (task->logs.n_records > 0 || task->logs.is_full)
		return;
	decide_fate(task, &fate);
	for (int i = 0; i < 2; i++)
	{
		StringInfoData text;

		initStringInfo(&text);
		append_expanded(task, &text, fate.output[i]);
		keep_lines(task, i == 0 ? CM_LOG_STDOUT : CM_LOG_STDERR, text.data);
		pfree(text.data);
	}
}

static void
collect_mock(CmTask *task)
{
	follow_mock(task);
	cm_task_note_output_read(task);
}

const CmExecutorType cm_executor_mock = {
	.word = "mock",
	.configure = configure_mock,
	.connect = connect_mock,
	.refresh = connect_mock,
	.inspect = inspect_mock,
	.create = create_mock,
	.start = start_mock,
	.discard = discard_mock,
	.term = term_mock,
	.kill = kill_mock,
	.remove = cm_task_free,
	.follow = follow_mock,
	.collect = collect_mock,
};
