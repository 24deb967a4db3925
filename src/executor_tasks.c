/*
 * executor_tasks.c
 *		One attempt: what follows from what is known of it.
 *
 * Whatever happens to a task changes its situation, then cm_task_step() asks
 * the lifecycle what is to be done; no policy stands here.  The calls to its
 * engine are in executor_calls.c.  At most one call of a task is in flight,
 * besides the reading of its output.
 */
#include "postgres.h"

#include <signal.h>

#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "guc.h"
#include "retry.h"

/* A job that ends sooner is never followed; its output is read once. */
#define FOLLOW_DELAY_MS 200

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

char *
cm_task_keep_text(CmTask *task, const char *text)
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

static bool
is_slot_wanted(const CmExecHost *host)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		const CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host && task->waits_for_slot)
			return true;
	}
	return false;
}

/* is_started: as it should, which is what the host's pace is told by. */
static void
give_slot_back(CmTask *task, bool is_started)
{
	CmExecHost *host = task->host;

	task->waits_for_slot = false;
	if (!task->holds_start_slot)
		return;
	task->holds_start_slot = false;
	cm_pacer_note_end(&host->pacer, host->n_starting, is_started, is_slot_wanted(host),
					  cm_ex.now_ms);
	host->n_starting--;
	cm_task_give_start_slots(host);
}

void
cm_task_release_start_slot(CmTask *task)
{
	give_slot_back(task, false);
}

static bool
may_start_another(CmExecHost *host)
{
	if (!host->type->is_paced || cm_guc_max_starts_in_flight < 0)
		return true;
	cm_pacer_set_cap(&host->pacer, cm_guc_max_starts_in_flight);
	return host->n_starting < host->pacer.limit;
}

/* In the order in which they were claimed. */
void
cm_task_give_start_slots(CmExecHost *host)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (!may_start_another(host))
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
	task->detail = cm_task_keep_text(task, detail);
	task->detail_changed = true;
	cm_ex.db_wanted = true;
}

void
cm_task_free(CmTask *task)
{
	if (task->request != NULL)
		cm_http_cancel(task->request);
	cm_logs_free(&task->logs);
	cm_host_leave_pull(task);
	cm_db_forget_task(task);
	dlist_delete(&task->node);
	cm_task_release_start_slot(task);
	/* An end that is recorded has given its slot away already. */
	if (!task->is_recorded)
		cm_ex.slots_changed = true;
	cm_ex.may_give_back = true;
	MemoryContextDelete(task->context);
}

/* --- the end --- */

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

static void
record_running(CmTask *task)
{
	CmRecord record = {0};

	if (task->started_at == 0)
		task->started_at = GetCurrentTimestamp();
	set_deadline(task);
	give_slot_back(task, true);
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

static bool
is_worth_another(const CmJobSpec *spec, const CmRecord *record)
{
	CmRetryOn on;
	const char *wrong;
	size_t n_wrong;

	if (record->attempt >= spec->max_attempts)
		return false;
	if (record->reason == CM_REASON_HOST_LOST)
		return spec->on_host_loss == CM_HOST_LOSS_RETRY;
	return cm_retry_parse(spec->retry_on, &on, &wrong, &n_wrong) &&
		   cm_retry_is_listed(&on, record->reason, record->has_exit_code ? record->exit_code : -1);
}

void
cm_task_plan_retry(const CmJobSpec *spec, CmRecord *record)
{
	int64 delay_ms;

	record->again = is_worth_another(spec, record);
	if (!record->again)
		return;
	delay_ms = cm_retry_delay_ms(record->attempt, spec->retry_delay_ms,
								 pg_prng_double(&pg_global_prng_state));
	record->again_at = GetCurrentTimestamp() + delay_ms * 1000;
	record->again_detail = cm_words_of_retry(spec, record);
}

/* Only what has run is worth a look, and only what its host does not lose. */
static int64
get_keep_ms(const CmTask *task)
{
	bool failed = task->end.next == CM_FAILED || task->end.next == CM_TIMEOUT;

	if (!failed || task->s.seen != CM_SEEN_EXITED || !task->host->type->is_lasting)
		return 0;
	return Min(task->spec.keep_container_ms, cm_guc_max_keep_container_s * INT64CONST(1000));
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
	cm_task_plan_retry(&task->spec, &record);
	record.keep_ms = get_keep_ms(task);
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
	cm_task_release_start_slot(task);
	/* Whatever ended it may have ended the engine's reading of it before. */
	if ((end->reason == CM_REASON_INFRASTRUCTURE || end->reason == CM_REASON_HOST_LOST ||
		 end->reason == CM_REASON_ABANDONED) &&
		(ran || task->s.has_id))
		task->logs.incomplete = true;
	if (end->action == CM_DO_COLLECT)
	{
		task->wants_output = true;
		task->host->type->collect(task);
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

/* How it ended is known, and nobody will tell what it printed. */
static void
give_up_output(CmTask *task)
{
	if (!task->wants_output)
		return;
	cm_logs_stop(task);
	task->logs.incomplete = true;
	cm_task_note_output_read(task);
}

void
cm_task_note_recorded(CmTask *task, const CmRecord *record)
{
	if (record->state == CM_LAUNCHING)
	{
		task->waits_for_id = false;
		task->s.has_id = true;
		task->s.discarded = false; /* that was another one */
		cm_task_step(task);
	}
	else if (cm_lifecycle_is_terminal(record->state))
	{
		task->is_ending = false;
		/* Its slot was to be had in the same transaction: see step_claim(). */
		task->is_recorded = true;
		task->s.is_kept = record->keep_until != 0;
		if (task->s.is_kept)
			task->wake_ms = 0; /* nothing is left to be done for it */
		cm_task_step(task);
	}
}

/* --- what follows --- */

static bool
begin_starting(CmTask *task)
{
	if (!task->holds_start_slot && !may_start_another(task->host))
	{
		task->waits_for_slot = true;
		return false;
	}
	take_start_slot(task);
	return true;
}

/* A network or a volume that was asked for before is there before the job is. */
static bool
must_wait_for_asked(CmTask *task)
{
	if (cm_asked_is_waiting(task->host))
	{
		task->waits_for_asked = true;
		cm_task_set_detail(task, "waiting for what was asked of its host: see cm_host_requests");
		return true;
	}
	if (task->waits_for_asked)
		cm_task_set_detail(task, NULL);
	task->waits_for_asked = false;
	return false;
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
			if (must_wait_for_asked(task))
				break;
			if (begin_starting(task))
				task->host->type->create(task);
			break;
		case CM_DO_CHECK:
			task->host->type->inspect(task);
			break;
		case CM_DO_SAVE_ID:
			if (!task->is_half_made)
				save_id(task);
			break;
		case CM_DO_START:
			if (begin_starting(task))
				task->host->type->start(task);
			break;
		case CM_DO_DISCARD:
			task->host->type->discard(task);
			break;
		case CM_DO_TERM:
			task->host->type->term(task);
			break;
		case CM_DO_KILL:
			task->host->type->kill(task);
			break;
		case CM_DO_REMOVE:
			task->host->type->remove(task);
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

/* Its container is there, and is not to go again. */
static bool
may_be_completed(const CmTask *task)
{
	const CmSituation *s = &task->s;

	return task->is_half_made && s->state == CM_LAUNCHING && s->seen == CM_SEEN_CREATED &&
		   !s->has_id && !s->start_unsure && !s->cancel_requested && !s->abandoned &&
		   s->refusal == CM_REASON_NONE && can_look(task);
}

/* What the host's engine must have may have changed since the job was claimed. */
static bool
object_to_start(CmTask *task, CmAction action)
{
	const char *why;

	if ((action != CM_DO_CREATE && action != CM_DO_START) || task->host->phase != CM_HOST_READY)
		return false;
	why = cm_health_objection(task->host);
	if (why == NULL)
		return false;
	cm_task_refuse(task, CM_REASON_POLICY,
				   psprintf("not started on host \"%s\": %s", task->host->name, why), NULL,
				   "See cm_host_security_report().");
	return true;
}

void
cm_task_step(CmTask *task)
{
	while (!is_busy(task))
	{
		CmDecision decision;

		if (task->look_again && can_look(task))
		{
			task->host->type->inspect(task);
			return;
		}
		if (task->must_ask_memory && can_look(task) && task->s.seen == CM_SEEN_CREATED)
		{
			cm_call_recall(task);
			continue;
		}
		if (may_be_completed(task))
		{
			cm_attach_go_on(task);
			continue;
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
		if (object_to_start(task, decision.action))
			continue;
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
	if (task->s.cancel_requested || task->is_recorded)
		return;
	task->s.cancel_requested = true;
	/* It ends as it ended; but no other attempt follows. */
	if (task->is_ending)
		return;
	cm_task_set_detail(task, task->host->phase == CM_HOST_READY
								 ? "cancelling"
								 : "cancelling when the host answers");
	cm_host_leave_pull(task);
	task->waits_for_slot = false;
	cm_task_step(task);
}

/*
 * The call in flight is of no interest any more: what it may yet bring about is
 * left over, and is removed when the host answers.
 */
void
cm_task_abandon(CmTask *task, const char *by, const char *reason)
{
	if (task->is_ending)
	{
		task->s.abandoned = true;
		give_up_output(task);
		return;
	}
	if (task->s.abandoned || task->is_recorded)
		return;
	task->s.abandoned = true;
	cm_task_refuse(
		task, CM_REASON_NONE, psprintf("abandoned by \"%s\": %s", by, reason), NULL,
		"Whether the command ran to its end is not known; its container is removed if the host answers again.");
	if (task->request != NULL)
	{
		cm_http_cancel(task->request);
		(void) cm_call_end(task);
		task->s.seen = CM_SEEN_UNKNOWN;
	}
	cm_host_leave_pull(task);
	task->waits_for_slot = false;
	cm_task_step(task);
}

static const char *
find_pull_hint(const char *error)
{
	if (strstr(error, "unauthorized") != NULL ||
		strstr(error, "no basic auth credentials") != NULL || strstr(error, "denied") != NULL)
		return "The registry wants a user and password that are right: registry_auth in the host's "
			   "executor_config names the secret that has them.";
	return "Check the image's name and that the host reaches its registry.";
}

void
cm_task_note_pulled(CmTask *task, bool is_there, const char *error)
{
	task->image_pulled = true;
	cm_task_set_detail(task, NULL);
	if (!is_there)
		cm_task_refuse(task, CM_REASON_IMAGE_PULL,
					   psprintf("image \"%s\" not found on host \"%s\" and could not be pulled",
								task->spec.image, task->host->name),
					   error, find_pull_hint(error));
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
	/* It is not lost, and need not be looked at only when it would have been. */
	if (task->s.lost_ms != 0)
		task->s.lost_ms = task->wake_ms = 0;
	if (task->wants_output && task->logs.request == NULL)
		task->host->type->collect(task);
	if (task->request != NULL || task->is_ending || task->settling || task->pull != NULL)
		return;
	/* After a call that failed it is looked at when its pause is over. */
	if (task->s.seen == CM_SEEN_UNKNOWN && task->wake_ms > cm_ex.now_ms)
		return;
	/* Made after the list was asked for; what the list has is what was there before. */
	if (task->created_ms != 0 && task->created_ms >= task->host->list_begun_ms &&
		(listed == NULL || strcmp(task->container_id, listed->id) != 0))
		return;
	if (listed == NULL)
	{
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
cm_task_note_term(CmTask *task)
{
	task->n_refusals = 0;
	task->s.stop = task->s.cancel_requested ? CM_STOP_CANCEL : CM_STOP_TIMEOUT;
	task->s.stop_sent_ms = cm_ex.now_ms;
	cm_task_set_detail(task, task->s.stop == CM_STOP_CANCEL ? "cancelling"
															: "stopping: its time is over");
}

/*
 * From when this executor saw that it is silent: after a restart of the machine
 * the server may be there sooner than the engine.
 */
static void
set_lost_time(CmTask *task)
{
	if (task->spec.on_host_loss != CM_HOST_LOSS_WAIT)
		task->s.lost_ms = task->host->away_since_ms + task->spec.host_loss_grace_ms;
}

static const char *
tell_host_lost(const CmTask *task)
{
	char *since = pstrdup(timestamptz_to_str(task->host->away_since));

	if (task->s.cancel_requested)
		return "cancelling when the host answers";
	if (task->spec.on_host_loss == CM_HOST_LOSS_WAIT)
		return psprintf("host unreachable since %s", since);
	return psprintf(
		"host unreachable since %s, given up at %s", since,
		timestamptz_to_str(task->host->away_since + task->spec.host_loss_grace_ms * 1000));
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
		(void) cm_call_end(task);
	}
	cm_host_leave_pull(task);
	if (task->settling)
		cm_task_end_settling(task);
	cm_task_release_start_slot(task);
	if (task->is_recorded)
	{
		cm_task_free(task);
		return;
	}
	cm_logs_stop(task);
	set_lost_time(task);
	if (!task->is_ending)
	{
		task->s.seen = CM_SEEN_UNKNOWN;
		task->wake_ms = task->s.lost_ms;
	}
	if (!task->is_ending || task->wants_output)
		cm_task_set_detail(task, tell_host_lost(task));
}

/* --- the clock --- */

static void
tick_task(CmTask *task)
{
	if (task->follow_ms != 0 && cm_ex.now_ms >= task->follow_ms)
	{
		task->follow_ms = 0;
		if (task->s.seen == CM_SEEN_RUNNING && task->host->phase == CM_HOST_READY)
			task->host->type->follow(task);
	}
	if (task->s.lost_ms != 0 && cm_ex.now_ms >= task->s.lost_ms && task->wants_output)
	{
		task->s.lost_ms = 0;
		give_up_output(task);
		return;
	}
	if (task->look_ms != 0 && cm_ex.now_ms >= task->look_ms)
	{
		task->look_ms = 0;
		task->look_again = true;
		cm_task_step(task);
		return;
	}
	if (task->wake_ms == 0 || cm_ex.now_ms < task->wake_ms)
		return;
	task->wake_ms = 0;
	if (task->settling)
		cm_task_end_settling(task);
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
		if (task->look_ms != 0 && (next_ms == 0 || task->look_ms < next_ms))
			next_ms = task->look_ms;
		if (task->wants_output && task->s.lost_ms != 0 &&
			(next_ms == 0 || task->s.lost_ms < next_ms))
			next_ms = task->s.lost_ms;
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
	task->secrets = cm_secrets_keep(taken->secrets, taken->spec.n_secrets, context);
	task->host = cm_hosts_find(taken->host_id);
	cm_engine_container_name(&cm_ex.identity, &task->spec, name, sizeof(name));
	task->container_name = cm_task_keep_text(task, name);
	strlcpy(task->container_id, taken->container_id, sizeof(task->container_id));
	task->pids_limit = cm_guc_pids_limit;
	task->claimed_at = taken->claimed_at;
	task->started_at = taken->started_at;
	task->connection = task->host ? task->host->connection : 0;
	task->s.state = taken->state;
	task->s.has_id = taken->container_id[0] != '\0';
	task->s.cancel_requested = taken->cancel_requested;
	task->s.seen = is_recovered ? CM_SEEN_UNKNOWN : CM_SEEN_ABSENT;
	/* What its row says is what the executor before us saw. */
	task->detail_changed = is_recovered;
	/* Whoever was here before may have sent a start; another server also one of a
	 * container whose id has not come to us. */
	task->s.start_unsure = is_recovered && taken->state == CM_LAUNCHING &&
						   (task->s.has_id || taken->spec.job_id <= cm_ex.identity.old_jobs_up_to);
	task->s.expires_ms = to_clock_ms(taken->expires_at);
	task->s.grace_ms =
		taken->spec.stop_grace_ms >= 0 ? taken->spec.stop_grace_ms : cm_guc_stop_grace_ms;
	task->s.success_exit_codes = taken->spec.success_exit_codes;
	if (taken->spec.stop_signal != NULL)
		task->s.stop_signal = cm_policy_signal_number(taken->spec.stop_signal);
	if (taken->started_at != 0)
		set_deadline(task);
	if (taken->problem != NULL)
		cm_task_refuse(task, CM_REASON_POLICY, taken->problem->message,
					   taken->problem->detail[0] ? taken->problem->detail : NULL,
					   taken->problem->hint[0] ? taken->problem->hint : NULL);
	cm_logs_init(&task->logs, taken);
	dlist_push_tail(&cm_ex.tasks, &task->node);
	return task;
}
