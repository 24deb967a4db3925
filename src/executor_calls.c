/*
 * executor_calls.c
 *		A task's calls to its engine, and what their answers mean.
 *
 * Each call is a pair: cm_call_x begins it, note_x takes the answer, changes
 * what is known of the task, and steps it.
 *
 * A call that failed in transport says nothing of the container: then the
 * task does not know what is there, and looks again when the host answers.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "guc.h"

/* Between looks at a container that the host does not tell about. */
#define LOOK_DELAY_MS 1000
#define LOOK_DELAY_MAX_MS 15000
/* A start without an answer counts as not made when, so long after the host
 * answers again, the container has still not started. */
#define START_SURE_MS 6000
/* For a SIGKILL to do its work, before another one is sent. */
#define KILL_AGAIN_MS 10000
/* For the event of a start that raced with a removal. */
#define SETTLE_MS 500
/* A create that gets no answer for so long, though the host answers others, is
 * given up. */
#define GIVE_UP_MS 120000
#define US_1970_TO_2000 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* --- when a call went wrong --- */

/* Nothing is known now; look again in a while, or when the host answers. */
void
cm_call_lose_sight(CmTask *task)
{
	if (task->n_failures++ == 0)
		task->failing_since_ms = cm_ex.now_ms;
	task->s.seen = CM_SEEN_UNKNOWN;
	task->wake_ms = cm_ex.now_ms + Min(LOOK_DELAY_MS * task->n_failures, LOOK_DELAY_MAX_MS);
	cm_task_release_start_slot(task);
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
	cm_task_release_start_slot(task);
}

void
cm_call_note_fault(CmTask *task, const CmFault *fault)
{
	if (fault->kind == CM_FAULT_REFUSED)
		doubt(task);
	else
		cm_call_lose_sight(task);
}

void
cm_task_refuse(CmTask *task, CmReason reason, const char *error, const char *detail,
			   const char *hint)
{
	task->s.refusal = reason;
	task->error = cm_task_keep_text(task, error);
	task->error_detail = cm_task_keep_text(task, detail);
	task->error_hint = cm_task_keep_text(task, hint);
}

/* The call in flight is over; its request is freed by the caller. */
CmTask *
cm_call_end(void *arg)
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

/*
 * Was the engine restarted while it ran?  Where that cannot be known, as when much
 * has happened there since, a connection that was lost may have been just that.
 */
static bool
may_have_been_restarted(const CmTask *task, const CmInspect *inspect)
{
	int64 started_us = 0;

	if (inspect->started_at != NULL)
		(void) cm_logstream_parse_time(inspect->started_at, strlen(inspect->started_at),
									   &started_us);
	if (inspect->is_code_lost)
		return true;
	switch (cm_engine_judge_life(&task->host->engine, &task->host->memory, started_us))
	{
		case CM_LIFE_SAME:
			return false;
		case CM_LIFE_RESTARTED:
			return true;
		case CM_LIFE_UNKNOWN:
			break;
	}
	return task->connection != task->host->connection;
}

static void
take_over_exit(CmTask *task, const CmInspect *inspect)
{
	task->s.seen = CM_SEEN_EXITED;
	task->s.exit_code = inspect->exit_code;
	/* Engines may miss it in inspect when the end follows at once. */
	task->s.oom_killed = inspect->oom_killed || task->saw_oom;
	task->s.host_was_away = may_have_been_restarted(task, inspect);
	/* An engine that was restarted has lost what was printed meanwhile. */
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
	task->seen.reply = NULL;
	task->seen.record = cm_task_keep_text(task, inspect->record);
	task->seen.error = cm_task_keep_text(task, inspect->error);
}

/* There, and not started: is a start that nobody answered for still possible? */
static void
take_over_created(CmTask *task, const CmInspect *inspect, bool is_right)
{
	bool was_seen = task->s.seen == CM_SEEN_CREATED;

	task->s.seen = CM_SEEN_CREATED;
	/* Nobody has started it, then: what is missing may still be added. */
	if (!task->s.has_id && !was_seen)
	{
		task->n_looked_at = 0;
		cm_attach_note_made(task);
	}
	if (task->start_refusal != CM_REASON_NONE)
		task->s.refusal = task->start_refusal;
	if (task->s.start_unsure && task->n_looks++ == 0)
	{
		task->s.sure_ms = cm_ex.now_ms + START_SURE_MS;
		task->must_ask_memory = true;
	}
	task->s.is_checked = is_right && cm_guard_check_made(task, inspect);
}

static void
note_recall(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;
	bool remembers;

	if (cm_engine_read_recall(request, &remembers, &fault))
	{
		task->must_ask_memory = false;
		task->s.engine_forgot = !remembers;
	}
	else
		cm_call_lose_sight(task);
	cm_http_finish(request);
	cm_task_step(task);
}

/*
 * Who cannot tell is taken to have forgotten: that ends a job, and runs none twice.
 * podman takes a container that it was killed in starting for one that was never
 * started, even while it runs.
 */
void
cm_call_recall(CmTask *task)
{
	task->request =
		cm_engine_begin_recall(&task->host->engine, task->container_id, note_recall, task);
	if (task->request != NULL)
	{
		count_call();
		return;
	}
	task->must_ask_memory = false;
	task->s.engine_forgot = true;
}

/* Without its secrets. */
char *
cm_call_make_body(CmTask *task)
{
	return cm_engine_create_body(&task->host->engine, &cm_ex.identity, &task->spec,
								 task->pids_limit, NULL, task->spec_hash);
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
		pfree(cm_call_make_body(task));
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
	cm_task_refuse(task, CM_REASON_CREATE,
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
		task->s.seen = CM_SEEN_UNKNOWN;
	}
	switch (inspect->state)
	{
		case CM_RUN_CREATED:
			take_over_created(task, inspect, is_right);
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

/* Whoever loses again and again what it has just made is asked less often, and given up. */
static void
note_gone(CmTask *task)
{
	bool was_made = task->created_ms != 0 && !task->s.has_id && task->s.state == CM_LAUNCHING;

	task->n_failures = 0;
	task->s.seen = CM_SEEN_ABSENT;
	if (!was_made)
		return;
	task->created_ms = 0;
	if (++task->n_lost >= CM_MAX_REFUSALS)
		cm_task_refuse(task, CM_REASON_INFRASTRUCTURE,
					   psprintf("host \"%s\" lost %d containers as soon as they were made",
								task->host->name, task->n_lost),
					   NULL, "Look for what removes containers there, and at the engine's log.");
	else if (task->n_lost > 1)
	{
		task->s.seen = CM_SEEN_UNKNOWN;
		task->wake_ms = cm_ex.now_ms + Min(LOOK_DELAY_MS * task->n_lost, LOOK_DELAY_MAX_MS);
		cm_task_release_start_slot(task);
	}
}

static void
note_inspect(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
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
		note_gone(task);
	else
		cm_call_lose_sight(task);
	MemoryContextSwitchTo(cm_ex.turn_context);
	MemoryContextDelete(replies);
	cm_http_finish(request);
	cm_task_step(task);
}

void
cm_call_inspect(CmTask *task)
{
	task->look_again = false;
	task->request = cm_engine_begin_inspect(
		&task->host->engine, task->container_id[0] ? task->container_id : task->container_name,
		note_inspect, task);
	count_call();
}

/* --- create --- */

void
cm_call_note_image_missing(CmTask *task, const CmFault *fault)
{
	cm_task_release_start_slot(task);
	if (task->host->auto_pull_images && !task->image_pulled)
	{
		cm_host_pull(task->host, task);
		return;
	}
	cm_task_refuse(
		task, CM_REASON_IMAGE_PULL,
		psprintf("image \"%s\" not found on host \"%s\"", task->spec.image, task->host->name),
		fault->message,
		task->host->auto_pull_images
			? NULL
			: "Load the image there, or set auto_pull_images of the host.");
}

/*
 * The name is taken: by a container of this very attempt, which is then to be
 * seen, or by one whose removal is under way.  For good where neither is so.
 */
static void
doubt_name(CmTask *task, const CmFault *fault)
{
	task->s.seen = CM_SEEN_UNKNOWN;
	if (task->n_refusals < CM_MAX_REFUSALS)
	{
		doubt(task);
		return;
	}
	refuse_name_taken(task);
	task->error_detail = cm_task_keep_text(task, fault->message);
}

void
cm_call_note_create_refused(CmTask *task, const CmFault *fault)
{
	/* Most engines find that out when they start the container, podman when it makes it. */
	if (cm_attach_is_network_refusal(fault))
		cm_task_refuse(task, CM_REASON_NETWORK, cm_attach_tell_network(task, fault), fault->message,
					   cm_words_hint_of_refusal(fault));
	else if (fault->http_status == 404)
		cm_call_note_image_missing(task, fault);
	else if (fault->http_status == 409 || strstr(fault->message, "already in use") != NULL)
		doubt_name(task, fault);
	else
		cm_task_refuse(task, CM_REASON_CREATE,
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
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_create(request, task->container_id, &fault))
	{
		task->n_failures = task->n_refusals = 0;
		task->s.seen = CM_SEEN_CREATED;
		task->s.has_id = task->s.is_checked = false;
		task->created_ms = cm_ex.now_ms;
		cm_attach_note_made(task);
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		cm_call_note_create_refused(task, &fault);
	else if (has_waited_long(task, &fault))
		cm_task_refuse(task, CM_REASON_INFRASTRUCTURE,
					   psprintf("host \"%s\" does not answer when a container is to be created",
								task->host->name),
					   fault.message, NULL);
	else
		cm_call_lose_sight(task);
	cm_http_finish(request);
	cm_task_step(task);
}

void
cm_call_create(CmTask *task)
{
	char *body;

	if (cm_guard_needs_user(task))
	{
		cm_guard_find_user(task);
		return;
	}
	if (cm_attach_begin_look(task))
		return;
	task->pids_limit = cm_guc_pids_limit;
	body = cm_secrets_make_body(task);
	task->container_id[0] = '\0';
	if (body == NULL)
	{
		cm_task_release_start_slot(task);
		cm_task_step(task);
		return;
	}
	task->request = cm_engine_begin_create(&task->host->engine, task->container_name, body,
										   task->spec.n_secrets > 0, note_create, task);
	count_call();
	cm_secrets_wipe_text(body);
}

/* --- start --- */

/* Whether it really did not start is for inspect to say. */
static void
note_start_refused(CmTask *task, const CmFault *fault)
{
	task->start_refusal = cm_attach_is_network_refusal(fault) ? CM_REASON_NETWORK : CM_REASON_START;
	if (task->start_refusal == CM_REASON_NETWORK)
		task->error = cm_task_keep_text(task, cm_attach_tell_network(task, fault));
	else
		task->error =
			cm_task_keep_text(task, psprintf("host \"%s\" could not start the container: %s",
											 task->host->name, fault->message));
	task->error_detail = cm_task_keep_text(task, fault->message);
	task->error_hint = cm_task_keep_text(task, cm_words_hint_of_refusal(fault));
	task->s.seen = CM_SEEN_UNKNOWN;
	task->look_again = true;
}

static void
note_start(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
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
		cm_call_lose_sight(task);
	}
	cm_http_finish(request);
	cm_task_step(task);
}

void
cm_call_start(CmTask *task)
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
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_remove(request, &fault))
	{
		task->settling = true;
		task->wake_ms = cm_ex.now_ms + SETTLE_MS;
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		doubt(task); /* 409: it runs after all */
	else
		cm_call_lose_sight(task);
	cm_http_finish(request);
	if (!task->settling)
		cm_task_step(task);
}

void
cm_call_discard(CmTask *task)
{
	task->request = cm_engine_begin_remove(&task->host->engine, task->container_id, false,
										   note_discarded, task);
	count_call();
}

/* It is gone.  Had it come to life before that, an event would have told. */
void
cm_task_end_settling(CmTask *task)
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
		cm_call_lose_sight(task);
}

static void
note_term(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_kill(request, &fault))
		cm_task_note_term(task);
	else
		note_signal_failed(task, &fault);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
note_killed(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_kill(request, &fault))
	{
		task->s.kill_sent = true;
		task->s.kill_again_ms = cm_ex.now_ms + KILL_AGAIN_MS;
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

void
cm_call_term(CmTask *task)
{
	begin_signal(task,
				 task->spec.stop_signal != NULL ? task->spec.stop_signal : CM_DEFAULT_STOP_SIGNAL,
				 note_term);
}

void
cm_call_kill(CmTask *task)
{
	begin_signal(task, "SIGKILL", note_killed);
}

/* --- removing what is left --- */

static void
note_removed(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;
	bool is_gone = cm_engine_read_remove(request, &fault);

	cm_http_finish(request);
	if (!is_gone && fault.kind == CM_FAULT_REFUSED && ++task->n_refusals < CM_MAX_REFUSALS)
	{
		/* Still running, or its removal is under way: look. */
		task->s.seen = CM_SEEN_UNKNOWN;
		task->wake_ms = cm_ex.now_ms + LOOK_DELAY_MS;
		return;
	}
	/* What could not be removed now is found by a later list. */
	cm_task_free(task);
}

void
cm_call_remove(CmTask *task)
{
	task->request =
		cm_engine_begin_remove(&task->host->engine, task->container_id, false, note_removed, task);
	count_call();
}
