/*
 * executor_tasks.c
 *		Driving one attempt: calls to its engine, and what their answers mean.
 *
 * Each call is a begin_x/note_x pair.  An answer changes what is known (the
 * situation), then cm_task_step() asks the lifecycle what follows; no policy
 * stands here.  At most one call of a task is in flight, besides the reading
 * of its output.
 *
 * A call that failed in transport says nothing of the container: then the
 * task does not know what is there, and looks again when the host answers.
 */
#include "postgres.h"

#include <signal.h>

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "guc.h"

/* A job that ends sooner is never followed; its output is read once. */
#define FOLLOW_DELAY_MS 200
/* Between looks at a container that the host does not tell about. */
#define LOOK_DELAY_MS 1000
#define LOOK_DELAY_MAX_MS 15000
/* A start without an answer counts as not made when, so long after the host
 * answers again, the container has still not started. */
#define START_SURE_MS 6000
/* For the event of a start that raced with a removal. */
#define SETTLE_MS 500
/* A create that gets no answer for so long, though the host answers others, is
 * given up. */
#define GIVE_UP_MS 120000
/* Removals that are refused; what is left is then found by a later list. */
#define MAX_REFUSALS 8

#define US_1970_TO_2000 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

static void begin_inspect(CmTask *task);

/* --- bookkeeping --- */

static int64
to_clock_ms(TimestampTz at)
{
	int64 ms;

	if (at == DT_NOEND || at == 0)
		return 0;
	ms = cm_ex.now_ms + (at - GetCurrentTimestamp()) / 1000;
	return ms > 0 ? ms : 1; /* 0 means never */
}

static void
set_deadline(CmTask *task)
{
	task->s.deadline_ms = to_clock_ms(task->started_at) + task->spec.timeout_seconds * 1000;
}

static char *
keep_text(CmTask *task, const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(task->context, text);
}

static void
take_start_slot(CmTask *task)
{
	if (task->holds_start_slot)
		return;
	task->holds_start_slot = true;
	task->host->n_starting++;
}

static void
release_start_slot(CmTask *task)
{
	task->waits_for_slot = false;
	if (!task->holds_start_slot)
		return;
	task->holds_start_slot = false;
	task->host->n_starting--;
	cm_task_give_start_slots(task->host);
}

/* In the order in which they were claimed. */
void
cm_task_give_start_slots(CmExecHost *host)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (host->n_starting >= CM_STARTS_IN_FLIGHT)
			return;
		if (task->host == host && task->waits_for_slot)
		{
			task->waits_for_slot = false;
			take_start_slot(task);
			/* Not from here: the step may free tasks of this very list. */
			task->wake_ms = cm_ex.now_ms;
		}
	}
}

CmTask *
cm_task_find(int64 job_id, int attempt)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->spec.job_id == job_id && task->spec.attempt == attempt)
			return task;
	}
	return NULL;
}

void
cm_task_set_detail(CmTask *task, const char *detail)
{
	const char *before = task->detail ? task->detail : "";

	if (strcmp(before, detail ? detail : "") == 0)
		return;
	if (task->detail != NULL)
		pfree(task->detail);
	task->detail = keep_text(task, detail);
	task->detail_changed = true;
	cm_ex.db_wanted = true;
}

void
cm_task_free(CmTask *task)
{
	CmExecHost *host = task->host;

	if (task->request != NULL)
		cm_http_cancel(task->request);
	cm_logs_free(&task->logs);
	cm_host_leave_pull(task);
	cm_db_forget_task(task);
	dlist_delete(&task->node);
	task->waits_for_slot = false;
	if (task->holds_start_slot)
	{
		host->n_starting--;
		cm_task_give_start_slots(host);
	}
	/* An end that is recorded has given its slot away already. */
	if (!task->is_recorded)
		cm_ex.slots_changed = true;
	MemoryContextDelete(task->context);
}

/* --- when a call went wrong --- */

/* Nothing is known now; look again in a while, or when the host answers. */
static void
lose_sight(CmTask *task)
{
	if (task->n_failures++ == 0)
		task->failing_since_ms = cm_ex.now_ms;
	task->s.seen = CM_SEEN_UNKNOWN;
	task->wake_ms = cm_ex.now_ms + Min(LOOK_DELAY_MS * task->n_failures, LOOK_DELAY_MAX_MS);
	release_start_slot(task);
	cm_host_suspect(task->host);
}

/*
 * The engine said no to what should have worked: perhaps things are not as
 * they were thought to be.  Whoever says no again and again is asked less often.
 */
static void
doubt(CmTask *task)
{
	if (task->n_refusals++ == 0)
	{
		task->look_again = true;
		return;
	}
	task->s.seen = CM_SEEN_UNKNOWN;
	task->wake_ms = cm_ex.now_ms + Min(LOOK_DELAY_MS * task->n_refusals, LOOK_DELAY_MAX_MS);
}

static void
refuse(CmTask *task, CmReason reason, const char *error, const char *detail, const char *hint)
{
	task->s.refusal = reason;
	task->error = keep_text(task, error);
	task->error_detail = keep_text(task, detail);
	task->error_hint = keep_text(task, hint);
}

/* The call in flight is over; its request is freed by the caller. */
static CmTask *
end_call(void *arg)
{
	CmTask *task = arg;

	task->request = NULL;
	task->is_signalling = false;
	return task;
}

static void
count_call(void)
{
	cm_ex.counters.http_requests++;
}

/* --- look --- */

static TimestampTz
parse_engine_time(const char *text)
{
	int64 at_us;

	if (text == NULL || !cm_logstream_parse_time(text, strlen(text), &at_us))
		return 0;
	return at_us - US_1970_TO_2000;
}

static void
take_over_exit(CmTask *task, const CmInspect *inspect)
{
	task->s.seen = CM_SEEN_EXITED;
	task->s.exit_code = inspect->exit_code;
	/* Engines may miss it in inspect when the end follows at once. */
	task->s.oom_killed = inspect->oom_killed || task->saw_oom;
	task->s.host_was_away = task->connection != task->host->connection;
	/* An engine that was killed has lost what was printed meanwhile. */
	if (task->s.host_was_away)
		task->logs.incomplete = true;
	if (task->foreign_signal != 0 && inspect->exit_code == 128 + task->foreign_signal)
		task->s.killed_by_other = true;
	task->s.ran_too_long = inspect->run_ms >= task->spec.timeout_seconds * 1000;
	task->engine_started_at = parse_engine_time(inspect->started_at);
	task->engine_finished_at = parse_engine_time(inspect->finished_at);
	if (task->seen.record != NULL)
		pfree(unconstify(char *, task->seen.record));
	if (task->seen.error != NULL)
		pfree(unconstify(char *, task->seen.error));
	task->seen = *inspect;
	task->seen.record = keep_text(task, inspect->record);
	task->seen.error = keep_text(task, inspect->error);
}

/* There, and not started: is a start that nobody answered for still possible? */
static void
take_over_created(CmTask *task)
{
	task->s.seen = CM_SEEN_CREATED;
	if (task->start_refusal != CM_REASON_NONE)
		task->s.refusal = task->start_refusal;
	if (task->s.start_unsure && task->n_looks++ == 0)
	{
		task->s.sure_ms = cm_ex.now_ms + START_SURE_MS;
		task->must_ask_memory = true;
	}
}

static void
note_recall(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;
	bool remembers;

	if (cm_engine_read_recall(request, &remembers, &fault))
	{
		task->must_ask_memory = false;
		task->s.engine_forgot = !remembers;
	}
	else
		lose_sight(task);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
begin_recall(CmTask *task)
{
	task->request =
		cm_engine_begin_recall(&task->host->engine, task->container_id, note_recall, task);
	count_call();
}

static char *
make_body(CmTask *task)
{
	return cm_engine_create_body(&task->host->engine, &cm_ex.identity, &task->spec,
								 cm_guc_pids_limit, task->spec_hash);
}

/*
 * A container that was found by its name or labels: was it made for this very
 * definition?  Job numbers can come twice, when a server was set back in time.
 */
static bool
is_of_this_definition(CmTask *task, const CmInspect *inspect)
{
	if (task->s.has_id && strcmp(task->container_id, inspect->id) == 0)
		return true;
	if (task->spec_hash[0] == '\0')
		pfree(make_body(task));
	return strcmp(task->spec_hash, inspect->labels.spec_hash) == 0;
}

static bool
is_ours(const CmTask *task, const CmInspect *inspect)
{
	return strcmp(inspect->labels.epoch, cm_ex.identity.epoch) == 0 &&
		   inspect->labels.job_id == task->spec.job_id &&
		   inspect->labels.attempt == task->spec.attempt;
}

static void
refuse_name_taken(CmTask *task)
{
	refuse(task, CM_REASON_CREATE,
		   psprintf("container name \"%s\" is taken by another container on host \"%s\"",
					task->container_name, task->host->name),
		   NULL, "Remove or rename that container.");
	task->s.seen = CM_SEEN_ABSENT;
	task->container_id[0] = '\0';
}

static void
take_over(CmTask *task, const CmInspect *inspect)
{
	bool is_right = is_ours(task, inspect) && is_of_this_definition(task, inspect);

	/* One of ours that never ran can give way; whoever made it may yet start it. */
	if (!is_right && is_ours(task, inspect) && inspect->state == CM_RUN_CREATED &&
		task->s.state == CM_LAUNCHING)
		task->s.start_unsure = true;
	else if (!is_right)
	{
		refuse_name_taken(task);
		return;
	}
	if (strcmp(task->container_id, inspect->id) != 0)
	{
		strlcpy(task->container_id, inspect->id, sizeof(task->container_id));
		task->s.has_id = false;
	}
	switch (inspect->state)
	{
		case CM_RUN_CREATED:
			take_over_created(task);
			break;
		case CM_RUN_RUNNING:
			task->s.seen = CM_SEEN_RUNNING;
			/* Taken up from another executor, or the host was away. */
			if (task->s.state == CM_RUNNING && task->follow_ms == 0)
				task->follow_ms = cm_ex.now_ms;
			break;
		case CM_RUN_EXITED:
			take_over_exit(task, inspect);
			break;
	}
}

static void
note_inspect(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	MemoryContext replies =
		AllocSetContextCreate(cm_ex.turn_context, "container_manager reply", ALLOCSET_SMALL_SIZES);
	CmInspect inspect;
	CmFault fault;

	/* Many may come in one turn, and big ones from a hostile engine. */
	MemoryContextSwitchTo(replies);
	if (cm_engine_read_inspect(request, &inspect, &fault))
	{
		task->n_failures = 0;
		take_over(task, &inspect);
	}
	else if (fault.kind == CM_FAULT_REFUSED && fault.http_status == 404)
	{
		task->n_failures = 0;
		task->s.seen = CM_SEEN_ABSENT;
	}
	else
		lose_sight(task);
	MemoryContextSwitchTo(cm_ex.turn_context);
	MemoryContextDelete(replies);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
begin_inspect(CmTask *task)
{
	task->look_again = false;
	task->request = cm_engine_begin_inspect(
		&task->host->engine, task->container_id[0] ? task->container_id : task->container_name,
		note_inspect, task);
	count_call();
}

/* --- create --- */

static void
note_image_missing(CmTask *task, const CmFault *fault)
{
	release_start_slot(task);
	if (task->host->auto_pull_images && !task->image_pulled)
	{
		cm_host_pull(task->host, task);
		return;
	}
	refuse(task, CM_REASON_IMAGE_PULL,
		   psprintf("image \"%s\" not found on host \"%s\"", task->spec.image, task->host->name),
		   fault->message,
		   task->host->auto_pull_images
			   ? NULL
			   : "Load the image there, or set auto_pull_images of the host.");
}

static void
note_create_refused(CmTask *task, const CmFault *fault)
{
	if (fault->http_status == 404)
		note_image_missing(task, fault);
	else if (fault->http_status == 409 || strstr(fault->message, "already in use") != NULL)
	{
		task->s.seen = CM_SEEN_UNKNOWN;
		doubt(task);
	}
	else
		refuse(task, CM_REASON_CREATE,
			   psprintf("host \"%s\" refused to create the container: %s", task->host->name,
						fault->message),
			   fault->message, cm_words_hint_of_refusal(fault));
}

/* One that was never sent is no reason to give up: the job waits. */
static bool
has_waited_long(const CmTask *task, const CmFault *fault)
{
	return fault->kind != CM_FAULT_UNREACHABLE && task->host->phase == CM_HOST_READY &&
		   task->n_failures > 0 && cm_ex.now_ms - task->failing_since_ms >= GIVE_UP_MS;
}

static void
note_create(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;

	if (cm_engine_read_create(request, task->container_id, &fault))
	{
		task->n_failures = task->n_refusals = 0;
		task->s.seen = CM_SEEN_CREATED;
		task->s.has_id = false;
		task->created_ms = cm_ex.now_ms;
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		note_create_refused(task, &fault);
	else if (has_waited_long(task, &fault))
		refuse(task, CM_REASON_INFRASTRUCTURE,
			   psprintf("host \"%s\" does not answer when a container is to be created",
						task->host->name),
			   fault.message, NULL);
	else
		lose_sight(task);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
begin_create(CmTask *task)
{
	char *body = make_body(task);

	task->container_id[0] = '\0';
	task->request =
		cm_engine_begin_create(&task->host->engine, task->container_name, body, note_create, task);
	count_call();
}

/* --- the id is made durable, then start --- */

static void
save_id(CmTask *task)
{
	CmRecord record = {0};

	record.job_id = task->spec.job_id;
	record.attempt = task->spec.attempt;
	record.state = CM_LAUNCHING;
	record.container_id = task->container_id;
	task->waits_for_id = true;
	cm_db_record(task, &record);
}

static CmReason
judge_start_refusal(const CmFault *fault)
{
	if (strstr(fault->message, "network ") != NULL && strstr(fault->message, "not found") != NULL)
		return CM_REASON_NETWORK;
	return CM_REASON_START;
}

/* Whether it really did not start is for inspect to say. */
static void
note_start_refused(CmTask *task, const CmFault *fault)
{
	task->start_refusal = judge_start_refusal(fault);
	if (task->start_refusal == CM_REASON_NETWORK)
		task->error = keep_text(task, psprintf("network \"%s\" not found on host \"%s\"",
											   task->spec.network, task->host->name));
	else
		task->error = keep_text(task, psprintf("host \"%s\" could not start the container: %s",
											   task->host->name, fault->message));
	task->error_detail = keep_text(task, fault->message);
	task->error_hint = keep_text(task, cm_words_hint_of_refusal(fault));
	task->s.seen = CM_SEEN_UNKNOWN;
	task->look_again = true;
}

static void
note_start(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;

	if (cm_engine_read_start(request, &fault))
	{
		task->n_failures = 0;
		task->s.seen = CM_SEEN_RUNNING;
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		note_start_refused(task, &fault);
	else
	{
		if (fault.kind != CM_FAULT_UNREACHABLE)
		{
			task->s.start_unsure = true;
			task->n_looks = 0;
		}
		lose_sight(task);
	}
	cm_http_finish(request);
	cm_task_step(task);
}

static void
begin_start(CmTask *task)
{
	task->start_refusal = CM_REASON_NONE;
	task->connection = task->host->connection;
	task->request =
		cm_engine_begin_start(&task->host->engine, task->container_id, note_start, task);
	count_call();
}

/* --- removing what was never started --- */

static void
note_discarded(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;

	if (cm_engine_read_remove(request, &fault))
	{
		task->settling = true;
		task->wake_ms = cm_ex.now_ms + SETTLE_MS;
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		doubt(task); /* 409: it runs after all */
	else
		lose_sight(task);
	cm_http_finish(request);
	if (!task->settling)
		cm_task_step(task);
}

static void
begin_discard(CmTask *task)
{
	task->request = cm_engine_begin_remove(&task->host->engine, task->container_id, false,
										   note_discarded, task);
	count_call();
}

/* It is gone.  Had it come to life before that, an event would have told. */
static void
end_settling(CmTask *task)
{
	task->settling = false;
	task->s.seen = CM_SEEN_ABSENT;
	task->s.discarded = !task->saw_start;
	task->s.start_unsure = false;
	task->container_id[0] = '\0';
}

/* --- stopping --- */

static void
note_signal_failed(CmTask *task, const CmFault *fault)
{
	if (fault->kind == CM_FAULT_REFUSED)
		doubt(task); /* not running, or not there */
	else
		lose_sight(task);
}

static void
note_term(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;

	if (cm_engine_read_kill(request, &fault))
	{
		task->n_refusals = 0;
		task->s.stop = task->s.cancel_requested ? CM_STOP_CANCEL : CM_STOP_TIMEOUT;
		task->s.stop_sent_ms = cm_ex.now_ms;
		cm_task_set_detail(task, task->s.stop == CM_STOP_CANCEL ? "cancelling"
																: "stopping: its time is over");
	}
	else
		note_signal_failed(task, &fault);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
note_killed(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;

	if (cm_engine_read_kill(request, &fault))
	{
		task->s.kill_sent = true;
		task->wake_ms = cm_ex.now_ms + LOOK_DELAY_MS;
	}
	else
		note_signal_failed(task, &fault);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
begin_signal(CmTask *task, const char *signal_name, CmEngineDone on_done)
{
	task->is_signalling = true;
	task->request =
		cm_engine_begin_kill(&task->host->engine, task->container_id, signal_name, on_done, task);
	count_call();
}

/* --- the end --- */

static void
record_running(CmTask *task)
{
	CmRecord record = {0};

	if (task->started_at == 0)
		task->started_at = GetCurrentTimestamp();
	set_deadline(task);
	release_start_slot(task);
	task->follow_ms = cm_ex.now_ms + FOLLOW_DELAY_MS;
	record.job_id = task->spec.job_id;
	record.attempt = task->spec.attempt;
	record.state = CM_RUNNING;
	record.host_name = task->host->name;
	record.container_id = task->container_id;
	record.started_at = task->started_at;
	task->s.state = CM_RUNNING;
	cm_db_record(task, &record);
}

static void
record_end(CmTask *task)
{
	CmRecord record = {0};

	record.job_id = task->spec.job_id;
	record.attempt = task->spec.attempt;
	record.state = task->end.next;
	record.reason = task->end.reason;
	record.host_name = task->host->name;
	record.container_id = task->container_id[0] ? task->container_id : NULL;
	record.claimed_at = task->claimed_at;
	record.started_at = task->started_at;
	record.logs_incomplete = task->logs.incomplete;
	if (task->s.seen == CM_SEEN_EXITED)
	{
		record.has_exit_code = true;
		record.exit_code = task->s.exit_code;
		record.oom_killed = task->s.oom_killed;
		record.engine_started_at = task->engine_started_at;
		record.engine_finished_at = task->engine_finished_at;
		record.inspect = task->seen.record;
	}
	cm_words_of_end(task, &task->end, &record);
	task->s.state = task->end.next;
	cm_db_record(task, &record);
}

/* The state is final; what it printed is read before that is recorded. */
static void
begin_ending(CmTask *task, const CmDecision *end)
{
	bool ran = task->s.state == CM_RUNNING;

	task->end = *end;
	task->is_ending = true;
	task->follow_ms = 0;
	release_start_slot(task);
	/* Whatever ended it may have ended the engine's reading of it before. */
	if (end->reason == CM_REASON_INFRASTRUCTURE && ran)
		task->logs.incomplete = true;
	if (end->action == CM_DO_COLLECT)
	{
		task->wants_output = true;
		cm_logs_collect(task);
	}
	else
	{
		cm_logs_stop(task);
		/* It ran, and nobody can say any more what it printed. */
		if (ran)
			task->logs.incomplete = true;
		record_end(task);
	}
}

void
cm_task_note_output_read(CmTask *task)
{
	task->wants_output = false;
	record_end(task);
}

static void
note_removed(CmHttpRequest *request, void *arg)
{
	CmTask *task = end_call(arg);
	CmFault fault;
	bool is_gone = cm_engine_read_remove(request, &fault);

	cm_http_finish(request);
	if (!is_gone && fault.kind == CM_FAULT_REFUSED && ++task->n_refusals < MAX_REFUSALS)
	{
		/* Still running, or its removal is under way: look. */
		task->s.seen = CM_SEEN_UNKNOWN;
		task->wake_ms = cm_ex.now_ms + LOOK_DELAY_MS;
		return;
	}
	/* What could not be removed now is found by a later list. */
	cm_task_free(task);
}

static void
begin_removal(CmTask *task)
{
	task->request =
		cm_engine_begin_remove(&task->host->engine, task->container_id, false, note_removed, task);
	count_call();
}

void
cm_task_note_recorded(CmTask *task, const CmRecord *record)
{
	if (record->state == CM_LAUNCHING)
	{
		task->waits_for_id = false;
		task->s.has_id = true;
		cm_task_step(task);
	}
	else if (cm_lifecycle_is_terminal(record->state))
	{
		task->is_ending = false;
		/* Its slot was to be had in the same transaction: see step_claim(). */
		task->is_recorded = true;
		cm_task_step(task);
	}
}

/* --- what follows --- */

static bool
begin_starting(CmTask *task)
{
	if (!task->holds_start_slot && task->host->n_starting >= CM_STARTS_IN_FLIGHT)
	{
		task->waits_for_slot = true;
		return false;
	}
	take_start_slot(task);
	return true;
}

/* Everything but the decisions that change the state. */
static void
act(CmTask *task, CmAction action)
{
	switch (action)
	{
		case CM_DO_NOTHING:
		case CM_DO_COLLECT:
			break;
		case CM_DO_CREATE:
			if (begin_starting(task))
				begin_create(task);
			break;
		case CM_DO_SAVE_ID:
			save_id(task);
			break;
		case CM_DO_START:
			if (begin_starting(task))
				begin_start(task);
			break;
		case CM_DO_DISCARD:
			begin_discard(task);
			break;
		case CM_DO_TERM:
			begin_signal(task, "SIGTERM", note_term);
			break;
		case CM_DO_KILL:
			begin_signal(task, "SIGKILL", note_killed);
			break;
		case CM_DO_REMOVE:
			begin_removal(task);
			break;
	}
}

static bool
is_busy(const CmTask *task)
{
	return task->request != NULL || task->pull != NULL || task->waits_for_id || task->is_ending ||
		   task->settling;
}

static bool
can_look(const CmTask *task)
{
	return task->host->phase == CM_HOST_READY && task->s.state != CM_PENDING;
}

/* Nothing is left to do for it on its host, or nothing can be done now. */
static bool
is_finished(const CmTask *task, const CmDecision *decision)
{
	if (!task->is_recorded)
		return false;
	return task->host->phase != CM_HOST_READY ||
		   (decision->action == CM_DO_NOTHING && task->s.seen != CM_SEEN_RUNNING &&
			task->wake_ms == 0);
}

static bool
needs_host(CmAction action)
{
	return action != CM_DO_NOTHING && action != CM_DO_SAVE_ID;
}

void
cm_task_step(CmTask *task)
{
	while (!is_busy(task))
	{
		CmDecision decision;

		if (task->look_again && can_look(task))
		{
			begin_inspect(task);
			return;
		}
		if (task->must_ask_memory && can_look(task) && task->s.seen == CM_SEEN_CREATED)
		{
			begin_recall(task);
			return;
		}
		task->s.now_ms = cm_ex.now_ms;
		decision = cm_lifecycle_decide(&task->s);
		if (decision.wake_ms != 0 && (task->wake_ms == 0 || decision.wake_ms < task->wake_ms))
			task->wake_ms = decision.wake_ms;
		if (is_finished(task, &decision))
		{
			cm_task_free(task);
			return;
		}
		if (decision.next == CM_RUNNING && task->s.state != CM_RUNNING)
		{
			record_running(task);
			continue;
		}
		if (decision.next != task->s.state)
			begin_ending(task, &decision);
		else if (task->host->phase == CM_HOST_READY || !needs_host(decision.action))
			act(task, decision.action);
		return;
	}
}

/* --- what comes from elsewhere --- */

void
cm_task_cancel(CmTask *task)
{
	if (task->s.cancel_requested || task->is_ending || task->is_recorded)
		return;
	task->s.cancel_requested = true;
	cm_task_set_detail(task, task->host->phase == CM_HOST_READY
								 ? "cancelling"
								 : "cancelling when the host answers");
	cm_host_leave_pull(task);
	task->waits_for_slot = false;
	cm_task_step(task);
}

void
cm_task_note_pulled(CmTask *task, bool is_there, const char *error)
{
	task->image_pulled = true;
	cm_task_set_detail(task, NULL);
	if (!is_there)
		refuse(task, CM_REASON_IMAGE_PULL,
			   psprintf("image \"%s\" not found on host \"%s\" and could not be pulled",
						task->spec.image, task->host->name),
			   error, "Check the image's name and that the host reaches its registry.");
	cm_task_step(task);
}

/*
 * Somebody else's signal.  A program may take SIGHUP and the like for news and
 * go on: that was no kill, unless it ends by just that signal.
 */
static void
note_foreign_signal(CmTask *task, const char *signal_name)
{
	int number = atoi(signal_name); /* 0: told by a name, or not at all */

	if (number == 0 || number == SIGKILL || number == SIGTERM || number == SIGINT ||
		number == SIGQUIT)
		task->s.killed_by_other = true;
	else
		task->foreign_signal = number;
}

void
cm_task_note_event(CmTask *task, const CmEvent *event)
{
	if (task->container_id[0] != '\0' && strcmp(task->container_id, event->container_id) != 0)
		return; /* of a container that was discarded */
	switch (event->kind)
	{
		case CM_EVENT_START:
			task->saw_start = true;
			task->look_again = task->look_again || task->s.start_unsure;
			break;
		case CM_EVENT_KILL:
			if (task->s.stop == CM_STOP_NOT && !task->s.kill_sent && !task->is_signalling)
				note_foreign_signal(task, event->signal_name);
			break;
		case CM_EVENT_DIE:
		case CM_EVENT_DESTROY:
			task->look_again = true;
			break;
		case CM_EVENT_OOM:
			task->saw_oom = true;
			break;
		case CM_EVENT_OTHER:
			break;
	}
	if (task->look_again)
		cm_task_step(task);
}

static bool
is_as_listed(const CmTask *task, const CmListed *listed)
{
	if (strcmp(task->container_id, listed->id) != 0)
		return false;
	return (task->s.seen == CM_SEEN_RUNNING && listed->state == CM_RUN_RUNNING) ||
		   (task->s.seen == CM_SEEN_CREATED && listed->state == CM_RUN_CREATED);
}

void
cm_task_note_listed(CmTask *task, const CmListed *listed)
{
	if (task->detail != NULL && strncmp(task->detail, "host unreachable", 16) == 0)
		cm_task_set_detail(task, NULL);
	if (task->wants_output && task->logs.request == NULL)
		cm_logs_collect(task);
	if (task->request != NULL || task->is_ending || task->settling || task->pull != NULL)
		return;
	/* After a call that failed it is looked at when its pause is over. */
	if (task->s.seen == CM_SEEN_UNKNOWN && task->wake_ms > cm_ex.now_ms)
		return;
	if (listed == NULL)
	{
		if (task->created_ms != 0 && task->created_ms >= task->host->list_begun_ms)
			return; /* made after the list was asked for */
		if (task->container_id[0] == '\0')
			task->s.seen = CM_SEEN_ABSENT;
		else
			task->look_again = true;
	}
	else if (!is_as_listed(task, listed))
	{
		if (strcmp(task->container_id, listed->id) != 0)
		{
			/* Not the one whose id is recorded: that one was discarded. */
			strlcpy(task->container_id, listed->id, sizeof(task->container_id));
			task->s.has_id = false;
		}
		task->look_again = true;
	}
	cm_task_step(task);
}

void
cm_task_note_host_lost(CmTask *task)
{
	if (task->request != NULL)
	{
		/* A start that was sent may be carried out. */
		if (task->s.state == CM_LAUNCHING && task->s.has_id && task->s.seen == CM_SEEN_CREATED)
		{
			task->s.start_unsure = true;
			task->n_looks = 0;
		}
		cm_http_cancel(task->request);
		(void) end_call(task);
	}
	cm_host_leave_pull(task);
	if (task->settling)
		end_settling(task);
	release_start_slot(task);
	if (task->is_recorded)
	{
		cm_task_free(task);
		return;
	}
	cm_logs_stop(task);
	if (!task->is_ending)
	{
		task->s.seen = CM_SEEN_UNKNOWN;
		task->wake_ms = 0;
	}
	if (!task->is_ending || task->wants_output)
		cm_task_set_detail(task, psprintf("host unreachable since %s",
										  timestamptz_to_str(task->host->away_since)));
}

/* --- the clock --- */

static void
tick_task(CmTask *task)
{
	if (task->follow_ms != 0 && cm_ex.now_ms >= task->follow_ms)
	{
		task->follow_ms = 0;
		if (task->s.seen == CM_SEEN_RUNNING && task->host->phase == CM_HOST_READY)
			cm_logs_follow(task);
	}
	if (task->wake_ms == 0 || cm_ex.now_ms < task->wake_ms)
		return;
	task->wake_ms = 0;
	if (task->settling)
		end_settling(task);
	else if (task->s.seen == CM_SEEN_UNKNOWN || task->s.start_unsure || task->s.kill_sent)
		task->look_again = true;
	cm_task_step(task);
}

int64
cm_tasks_tick(void)
{
	int64 next_ms = 0;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
		tick_task(dlist_container(CmTask, node, iter.cur));
	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);
		int64 logs_ms;

		if (task->wake_ms != 0 && (next_ms == 0 || task->wake_ms < next_ms))
			next_ms = task->wake_ms;
		if (task->follow_ms != 0 && (next_ms == 0 || task->follow_ms < next_ms))
			next_ms = task->follow_ms;
		logs_ms = cm_logs_tick(task);
		if (logs_ms != 0 && (next_ms == 0 || logs_ms < next_ms))
			next_ms = logs_ms;
	}
	return next_ms;
}

CmTask *
cm_task_new(const CmTaken *taken, bool is_recovered)
{
	MemoryContext context =
		AllocSetContextCreate(cm_ex.context, "container_manager task", ALLOCSET_SMALL_SIZES);
	CmTask *task = MemoryContextAllocZero(context, sizeof(CmTask));
	char name[256];

	task->context = context;
	cm_spec_copy(&task->spec, &taken->spec, context);
	task->host = cm_hosts_find(taken->host_id);
	cm_engine_container_name(&cm_ex.identity, &task->spec, name, sizeof(name));
	task->container_name = keep_text(task, name);
	strlcpy(task->container_id, taken->container_id, sizeof(task->container_id));
	task->claimed_at = taken->claimed_at;
	task->started_at = taken->started_at;
	task->connection = task->host ? task->host->connection : 0;
	task->s.state = taken->state;
	task->s.has_id = taken->container_id[0] != '\0';
	task->s.cancel_requested = taken->cancel_requested;
	task->s.seen = is_recovered ? CM_SEEN_UNKNOWN : CM_SEEN_ABSENT;
	/* Whoever was here before may have sent a start. */
	task->s.start_unsure = is_recovered && taken->state == CM_LAUNCHING && task->s.has_id;
	task->s.expires_ms = to_clock_ms(taken->expires_at);
	task->s.grace_ms = cm_guc_stop_grace_ms;
	if (taken->started_at != 0)
		set_deadline(task);
	if (taken->problem != NULL)
		refuse(task, CM_REASON_POLICY, taken->problem->message,
			   taken->problem->detail[0] ? taken->problem->detail : NULL,
			   taken->problem->hint[0] ? taken->problem->hint : NULL);
	cm_logs_init(&task->logs, taken);
	dlist_push_tail(&cm_ex.tasks, &task->node);
	return task;
}
