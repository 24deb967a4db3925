/*
 * executor_db.c
 *		The turn's transaction: everything that the turn brought is recorded,
 *		then new jobs are taken.
 *
 * Nothing here may be lost by a rollback: what is to be recorded stays in
 * memory until the commit, and only then do tasks hear of it.  What is taken
 * (claims, requests) becomes tasks only after the commit, too.
 *
 * When a transaction fails, the next ones are made in steps of their own for
 * a while, and tasks are recorded one by one, so that whatever cannot be stored
 * stops only itself.  What a task has to record waits with the task, too, while
 * somebody has its row locked.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "guc.h"

#define MAX_BATCH 500
/* Jobs that end since another did, which others wait for, and so on. */
#define MAX_DOOMED_ROUNDS 100
/* After an error, and while somebody's lock is in the way. */
#define RETRY_MS 1000
#define BLOCKED_MS 250
#define CAREFUL_TURNS 10
#define PUBLISH_CHECK_MS 1000
#define CERTIFICATE_CHECK_MS (3600 * 1000)
#define PLACEMENTS_CHECK_MS 1000

/* What one transaction has done, to be made known after its commit. */
typedef struct Turn
{
	CmPoll poll;
	bool was_polled;

	CmWaitingRecord **batch;
	CmRecord *records;
	int n_records;
	CmTask *alone;	  /* the one task that a careful step is about */
	int careful_step; /* > 0: nothing but this step is done */

	CmTask **stored; /* tasks whose output was stored */
	int (*seqs)[2];
	int n_stored;

	CmTask **detailed;
	int n_detailed;

	CmExecHost **saved_hosts;
	int n_saved_hosts;

	CmHostRow *host_rows;
	int n_host_rows;
	bool hosts_loaded;

	CmUnstarted *cancelled;
	int n_cancelled;
	CmAbandoned *abandoned;
	int n_abandoned;
	int n_queued;	 /* jobs that are to run again */
	CmMoved moved;	 /* jobs that need not wait any more, or must end */
	bool was_mended; /* all through */
	bool has_more;	 /* to be done at once */
	bool saw_pauses;
	bool is_doom_blocked; /* somebody has the row of one locked */
	CmClaimLeft left;
	bool saw_orphans;
	bool has_orphans; /* and some are left */
	int64 *ended;	  /* jobs that ended without ever starting */
	int n_ended;

	CmTaken *taken;
	int n_taken;

	CmTaken *found; /* containers that were ahead of their jobs' rows */
	int n_found;
	bool saves_asked;
	int **stray_attempts;
	CmExecHost **stray_hosts;
	int n_stray_hosts;

	int *kept_hosts; /* where containers are that are kept no longer */
	int n_kept;
} Turn;

/* --- what waits to be recorded --- */

void
cm_db_record(CmTask *task, const CmRecord *record)
{
	MemoryContext context =
		AllocSetContextCreate(cm_ex.context, "container_manager record", ALLOCSET_SMALL_SIZES);
	CmWaitingRecord *waiting = MemoryContextAllocZero(context, sizeof(CmWaitingRecord));
	CmRecord *kept = &waiting->record;

	waiting->context = context;
	waiting->task = task;
	*kept = *record;
	kept->detail = record->detail ? MemoryContextStrdup(context, record->detail) : NULL;
	kept->error = record->error ? MemoryContextStrdup(context, record->error) : NULL;
	kept->hint = record->hint ? MemoryContextStrdup(context, record->hint) : NULL;
	kept->host_name = record->host_name ? MemoryContextStrdup(context, record->host_name) : NULL;
	kept->container_id =
		record->container_id ? MemoryContextStrdup(context, record->container_id) : NULL;
	kept->inspect = record->inspect ? MemoryContextStrdup(context, record->inspect) : NULL;
	kept->again_detail =
		record->again_detail ? MemoryContextStrdup(context, record->again_detail) : NULL;
	dlist_push_tail(&cm_ex.records, &waiting->node);
	cm_ex.db_wanted = true;
}

static void
drop_record(CmWaitingRecord *waiting)
{
	dlist_delete(&waiting->node);
	MemoryContextDelete(waiting->context);
}

void
cm_db_forget_task(CmTask *task)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.records)
	{
		CmWaitingRecord *waiting = dlist_container(CmWaitingRecord, node, iter.cur);

		if (waiting->task == task)
			drop_record(waiting);
	}
}

/* --- steps of the transaction --- */

static void
step_poll(Turn *turn)
{
	cm_store_poll(&turn->poll);
	turn->was_polled = true;
}

static void
step_hosts(Turn *turn)
{
	if (cm_ex.hosts_loaded && turn->poll.hosts_mark == cm_ex.hosts_mark)
		return;
	turn->host_rows = cm_store_load_hosts(&turn->n_host_rows);
	turn->hosts_loaded = true;
}

static int
count_nodes(dlist_head *list)
{
	dlist_iter iter;
	int n = 0;

	dlist_foreach (iter, list)
		n++;
	return n;
}

static bool
may_store(const CmTask *task)
{
	return task->retry_ms <= cm_ex.now_ms;
}

/* Somebody has its row locked. */
static void
hold_back(CmTask *task)
{
	task->is_locked_out = true;
	task->retry_ms = cm_ex.now_ms + BLOCKED_MS;
	/* Others start meanwhile: the lock may be a forgotten one. */
	cm_task_release_start_slot(task);
}

/* True: what it has to record, or its output, cannot be stored as it is. */
static bool
is_suspect(const CmTask *task)
{
	return task->n_unstored > 0;
}

static void
note_stored(CmTask *task)
{
	task->retry_ms = 0;
	task->n_unstored = 0;
}

static bool
is_log_flush_due(const CmTask *task)
{
	const CmTaskLogs *logs = &task->logs;

	if (!cm_logs_are_waiting(task) || !may_store(task))
		return false;
	return task->is_ending || logs->drop_stored ||
		   cm_ex.now_ms - logs->waiting_since_ms >= CM_LOG_FLUSH_MS ||
		   (logs->bytes[0].data != NULL &&
			logs->bytes[0].len + logs->bytes[1].len >= CM_LOG_FLUSH_BYTES);
}

static void
step_logs(Turn *turn)
{
	int n = count_nodes(&cm_ex.tasks);
	dlist_iter iter;

	turn->stored = palloc(sizeof(CmTask *) * Max(n, 1));
	turn->seqs = palloc(sizeof(*turn->seqs) * Max(n, 1));
	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (!is_log_flush_due(task))
			continue;
		if (cm_ex.careful_turns > 0)
			turn->alone = task;
		if (!cm_logs_store(task, turn->seqs[turn->n_stored]))
			hold_back(task);
		else
		{
			task->is_locked_out = false;
			turn->stored[turn->n_stored++] = task;
			if (turn->alone != NULL)
				return;
		}
	}
}

static bool
was_stored(const Turn *turn, const CmTask *task)
{
	for (int i = 0; i < turn->n_stored; i++)
		if (turn->stored[i] == task)
			return true;
	return false;
}

/* An end is recorded only together with, or after, all of the output. */
static bool
may_record(const Turn *turn, const CmWaitingRecord *waiting)
{
	const CmTask *task = waiting->task;

	return !cm_lifecycle_is_terminal(waiting->record.state) || !cm_logs_are_waiting(task) ||
		   was_stored(turn, task);
}

static void
check_publishing(void)
{
	bool is_first = cm_ex.publish_check_ms == 0;
	bool may;

	if (cm_ex.now_ms < cm_ex.publish_check_ms)
		return;
	may = cm_store_may_publish();
	if (!may && (cm_store_is_publishing || is_first))
		ereport(
			WARNING,
			(errmsg(
				 "container_manager: the server's queue of notifications is nearly full; job status is not notified for now"),
			 errhint(
				 "A session that listens does not read, or sits in a transaction. cm_job_events has every transition.")));
	cm_store_is_publishing = may;
	cm_ex.publish_check_ms = cm_ex.now_ms + PUBLISH_CHECK_MS;
}

/* From now on: it may have waited to be recorded. */
static void
plan_keeping(CmRecord *record)
{
	const char *kept;

	if (record->keep_ms == 0 || record->again)
		return;
	record->keep_until = GetCurrentTimestamp() + record->keep_ms * 1000;
	kept = psprintf(CM_KEPT_DETAIL "%s", timestamptz_to_str(record->keep_until));
	record->detail = record->detail != NULL ? psprintf("%s; %s", record->detail, kept) : kept;
}

static void
step_records(Turn *turn)
{
	int max = cm_ex.careful_turns > 0 ? 1 : MAX_BATCH;
	dlist_iter iter;

	turn->batch = palloc(sizeof(CmWaitingRecord *) * max);
	turn->records = palloc(sizeof(CmRecord) * max);
	dlist_foreach (iter, &cm_ex.records)
	{
		CmWaitingRecord *waiting = dlist_container(CmWaitingRecord, node, iter.cur);

		if (turn->n_records == max)
			break;
		if (!may_store(waiting->task) || !may_record(turn, waiting))
			continue;
		if (cm_ex.careful_turns > 0)
			turn->alone = waiting->task;
		waiting->record.done = waiting->record.gone = false;
		/* Given up meanwhile: it ends as it ended, and is not tried again. */
		if (waiting->task->s.cancel_requested || waiting->task->s.abandoned)
			waiting->record.again = false;
		turn->batch[turn->n_records] = waiting;
		turn->records[turn->n_records] = waiting->record;
		plan_keeping(&turn->records[turn->n_records++]);
	}
	if (turn->n_records == 0)
		return;
	check_publishing();
	cm_store_record(turn->records, turn->n_records, &turn->moved);
	for (int i = 0; i < turn->n_records; i++)
		turn->batch[i]->task->is_locked_out = !turn->records[i].done;
}

static void
step_details(Turn *turn)
{
	dlist_iter iter;

	turn->detailed = palloc(sizeof(CmTask *) * Max(count_nodes(&cm_ex.tasks), 1));
	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (!task->detail_changed || task->is_recorded)
			continue;
		cm_store_save_detail(task->spec.job_id, task->detail);
		turn->detailed[turn->n_detailed++] = task;
	}
}

/* Files may hold anything between certificates. */
static char *
copy_ascii(const char *text)
{
	char *copy = text != NULL ? pstrdup(text) : NULL;

	for (char *c = copy; c != NULL && *c != '\0'; c++)
		if ((unsigned char) *c >= 0x7f)
			*c = '?';
	return copy;
}

static void
save_certificates(const CmExecHost *host)
{
	CmHostCertificates certificates = {.host_id = host->id};

	if (host->address.tls_enabled && host->engine.tls == NULL)
		return; /* not known yet */
	if (host->address.tls_enabled)
		certificates.presented = copy_ascii(host->presented);
	if (host->engine.tls != NULL && !host->address.has_stored_tls)
	{
		certificates.ca = copy_ascii(cm_http_tls_ca(host->engine.tls));
		certificates.cert = copy_ascii(cm_http_tls_cert(host->engine.tls));
	}
	cm_store_save_host_certificates(&certificates);
}

static void
step_host_states(Turn *turn)
{
	int n = count_nodes(&cm_ex.hosts);
	dlist_iter iter;

	turn->saved_hosts = palloc(sizeof(CmExecHost *) * Max(n, 1));
	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);
		CmHostState state = {0};

		if (!host->state_changed)
			continue;
		state.host_id = host->id;
		state.state = host->error[0] ? "unhealthy" : "healthy";
		state.engine_version = host->engine_version[0] ? host->engine_version : NULL;
		if (host->engine.api_minor > 0)
			snprintf(state.api_version, sizeof(state.api_version), "1.%d", host->engine.api_minor);
		state.facts = host->has_facts ? &host->facts : NULL;
		state.engine_id = host->engine_id;
		state.error = host->error[0] ? host->error : NULL;
		state.hint = host->hint[0] ? host->hint : NULL;
		if (!cm_store_save_host_state(&state))
			continue;
		save_certificates(host);
		turn->saved_hosts[turn->n_saved_hosts++] = host;
	}
}

static void
drain_silent(CmExecHost *host)
{
	const char *reason =
		psprintf("unhealthy since %s: %s", timestamptz_to_str(host->away_since), host->error);

	if (!cm_store_drain_host(host->id, reason))
	{
		host->drain_not_before_ms = cm_ex.now_ms + RETRY_MS; /* its row is locked */
		return;
	}
	cm_ex.db_wanted = true; /* to load it as it is then */
	ereport(LOG, (errmsg("container_manager: host \"%s\" is disabled: %s", host->name, reason)));
}

/* What changes hosts: disables those silent for too long, removes others by force. */
static void
step_drains(Turn *turn)
{
	bool removes = false;
	bool drains = false;
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		const CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		removes = removes || (host->removed_by != NULL && host->is_configured);
		drains = drains || host->drain_wanted;
	}
	if ((!removes && !drains) || !cm_store_try_lock_hosts())
		return;
	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (host->drain_wanted && host->away_since != 0 && host->is_configured && host->is_active)
			drain_silent(host);
		/* Not done, or rolled back: the clock asks again. */
		host->drain_wanted = false;
	}
	if (removes && cm_store_remove_hosts() > 0)
		cm_ex.db_wanted = true;
}

/* Ends that no task knows of; whoever waits for them is woken after the commit. */
static void
record_ends(Turn *turn, CmRecord *records, int n)
{
	if (n == 0)
		return;
	check_publishing();
	cm_store_record(records, n, &turn->moved);
	turn->ended = turn->ended ? repalloc(turn->ended, sizeof(int64) * (turn->n_ended + n))
							  : palloc(sizeof(int64) * n);
	for (int i = 0; i < n; i++)
		if (records[i].done && !records[i].again)
			turn->ended[turn->n_ended++] = records[i].job_id;
}

/* Jobs that end without ever having had a host. */
static void
end_unstarted(Turn *turn, const CmUnstarted *jobs, int n, CmState state, CmReason reason,
			  const char *error)
{
	CmRecord *records = palloc0(sizeof(CmRecord) * Max(n, 1));
	int n_records = 0;

	for (int i = 0; i < n; i++)
	{
		if (!jobs[i].is_pending)
			continue;
		records[n_records].job_id = jobs[i].job_id;
		records[n_records].attempt = jobs[i].attempt;
		records[n_records].never_started = true;
		records[n_records].state = state;
		records[n_records].reason = reason;
		records[n_records++].error = error;
	}
	record_ends(turn, records, n_records);
}

static void
give_up_orphan(const CmTaken *taken, CmRecord *record)
{
	record->job_id = taken->spec.job_id;
	record->attempt = taken->spec.attempt;
	record->state = CM_FAILED;
	record->reason = CM_REASON_HOST_LOST;
	record->error = "its host was removed from cm_hosts while it was under way";
	record->container_id = taken->container_id[0] ? taken->container_id : NULL;
	record->claimed_at = taken->claimed_at;
	record->started_at = taken->started_at;
	record->logs_incomplete = true;
	if (!taken->cancel_requested)
		cm_task_plan_retry(&taken->spec, record);
}

static void
step_certificates(Turn *turn)
{
	CmEndingCertificate *ending;
	int n;

	if (cm_ex.now_ms < cm_ex.certificate_check_ms)
		return;
	ending = cm_store_note_ending_certificates(&n);
	for (int i = 0; i < n; i++)
		ereport(WARNING,
				(errmsg("container_manager: the %s certificate \"%s\"%s%s%s %s %s", ending[i].kind,
						ending[i].subject, ending[i].host != NULL ? " of host \"" : "",
						ending[i].host != NULL ? ending[i].host : "",
						ending[i].host != NULL ? "\"" : "",
						ending[i].has_ended ? "expired at" : "expires at", ending[i].not_after),
				 errhint("TABLE cm_certificates shows all that are in use.")));
	cm_ex.certificate_check_ms = cm_ex.now_ms + CERTIFICATE_CHECK_MS;
}

/*
 * What was under way when the last executor ended, on a host whose row was then
 * removed against the guard: nobody can be asked about it any more.
 */
static void
step_orphans(Turn *turn)
{
	CmLimits limits = cm_guc_limits();
	CmTaken *taken;
	CmRecord *records;
	int n;
	int n_records = 0;

	if (!cm_ex.has_orphans)
		return;
	taken = cm_store_load_taken(&limits, &n);
	records = palloc0(sizeof(CmRecord) * Max(n, 1));
	for (int i = 0; i < n; i++)
		if (cm_task_find(taken[i].spec.job_id, taken[i].spec.attempt) == NULL)
			give_up_orphan(&taken[i], &records[n_records++]);
	record_ends(turn, records, n_records);
	turn->saw_orphans = true;
	for (int i = 0; i < n_records; i++)
		turn->has_orphans = turn->has_orphans || !records[i].done;
}

static void
step_requests(Turn *turn)
{
	if (!turn->poll.has_requests)
		return;
	check_publishing();
	turn->cancelled =
		cm_store_take_requests(MAX_BATCH, &turn->n_cancelled, &turn->n_queued, &turn->has_more);
	turn->abandoned = cm_store_load_abandoned(MAX_BATCH, &turn->n_abandoned);
	end_unstarted(turn, turn->cancelled, turn->n_cancelled, CM_CANCELLED, CM_REASON_CANCELLED,
				  "cancelled");
}

static void
step_expired(Turn *turn)
{
	CmUnstarted *expired;
	int n;

	if (!turn->poll.has_expired)
		return;
	expired = cm_store_load_expired(MAX_BATCH, cm_hosts_unsure_jobs_up_to(), &n);
	end_unstarted(turn, expired, n, CM_FAILED, CM_REASON_EXPIRED,
				  "not started within its max_wait");
}

static const char *
tell_doom(const CmDoomed *job)
{
	if (job->status == NULL)
		return psprintf("job %lld, which it depends on, was deleted",
						(long long) job->failed_dependency);
	if (job->reason == NULL || strcmp(job->reason, job->status) == 0)
		return psprintf("job %lld, which it depends on, ended as %s",
						(long long) job->failed_dependency, job->status);
	return psprintf("job %lld, which it depends on, ended as %s (%s)",
					(long long) job->failed_dependency, job->status, job->reason);
}

/* False: there are none that can be ended now.  Their ends may doom others in turn. */
static bool
end_doomed(Turn *turn)
{
	int n;
	int n_ended = turn->n_ended;
	CmDoomed *doomed = cm_store_load_doomed(MAX_BATCH, cm_hosts_unsure_jobs_up_to(), &n);
	CmRecord *records = palloc0(sizeof(CmRecord) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		records[i].job_id = doomed[i].job_id;
		records[i].attempt = doomed[i].attempt;
		records[i].never_started = true;
		records[i].state = CM_CANCELLED;
		records[i].reason = CM_REASON_DEPENDENCY_FAILED;
		records[i].error = tell_doom(&doomed[i]);
	}
	record_ends(turn, records, n);
	n_ended = turn->n_ended - n_ended;
	turn->is_doom_blocked = n_ended < n;
	return n_ended > 0;
}

/* Lets pending jobs go that wait for nothing any more, and ends those that wait in vain. */
static void
step_schedule(Turn *turn)
{
	int rounds = 0;

	if (cm_ex.schedule_is_behind)
	{
		cm_store_mend_schedule(&turn->moved);
		turn->was_mended = true;
	}
	if (turn->poll.has_waiting || turn->n_queued > 0)
		turn->has_more = cm_store_settle(&turn->moved) || turn->has_more;
	if (turn->poll.pauses_mark != cm_ex.pauses_mark)
	{
		bool are_left = cm_store_end_pauses(&turn->moved);

		turn->saw_pauses = !are_left;
		turn->has_more = turn->has_more || are_left;
	}
	if (!turn->poll.has_waiting && turn->moved.n == 0)
		return;
	while (rounds < MAX_DOOMED_ROUNDS && end_doomed(turn))
		rounds++;
	turn->has_more = turn->has_more || rounds == MAX_DOOMED_ROUNDS;
}

static CmCandidate *
find_candidate(CmCandidate *candidates, int n, int host_id)
{
	for (int i = 0; i < n; i++)
		if (candidates[i].host_id == host_id)
			return &candidates[i];
	return NULL;
}

/* Jobs whose end is recorded in this very transaction. */
static void
count_freed_slots(const Turn *turn, CmCandidate *candidates, int n)
{
	for (int i = 0; i < turn->n_records; i++)
	{
		const CmRecord *record = &turn->records[i];
		const CmTask *task = turn->batch[i]->task;
		CmCandidate *candidate;

		if (!record->done || !cm_lifecycle_is_terminal(record->state))
			continue;
		candidate = find_candidate(candidates, n, task->host->id);
		if (candidate == NULL)
			continue;
		candidate->used--;
		candidate->reserved_mb -= task->spec.memory_limit_mb;
		candidate->reserved_nano_cpus -= task->spec.nano_cpus;
	}
}

static void
count_found(const Turn *turn, CmCandidate *candidates, int n)
{
	for (int i = 0; i < turn->n_found; i++)
	{
		const CmTaken *found = &turn->found[i];
		CmCandidate *candidate = find_candidate(candidates, n, found->host_id);

		if (candidate == NULL)
			continue;
		candidate->used++;
		candidate->reserved_mb += found->spec.memory_limit_mb;
		candidate->reserved_nano_cpus += found->spec.nano_cpus;
	}
}

static void
step_claim(Turn *turn)
{
	CmLimits limits = cm_guc_limits();
	CmFleet fleet = {0};

	if (turn->poll.has_due)
		cm_store_promote_due();
	if (turn->poll.is_all_paused ||
		(!turn->poll.has_ready && !turn->poll.has_due && turn->n_queued == 0 && turn->moved.n == 0))
		return;
	check_publishing();
	fleet.candidates = cm_hosts_candidates(&fleet.n);
	fleet.n_chosen = cm_ex.n_chosen;
	count_freed_slots(turn, fleet.candidates, fleet.n);
	count_found(turn, fleet.candidates, fleet.n);
	turn->taken = cm_store_claim(&fleet, cm_hosts_unsure_jobs_up_to(), &limits, MAX_BATCH,
								 &turn->n_taken, &turn->left);
	turn->has_more = turn->has_more || turn->left.is_cut_off;
	/* What was asked for in the same transactions, or before, is known from here on. */
	if (turn->n_taken > 0)
		cm_asked_load();
	cm_ex.no_placements = false; /* jobs came, perhaps with some */
}

/* Now and then while there are any: a job may come that asks for the same. */
static void
step_placements(Turn *turn)
{
	(void) turn;
	if (cm_ex.no_placements || cm_ex.now_ms < cm_ex.placements_check_ms)
		return;
	cm_ex.no_placements = !cm_store_drop_unused_placements();
	cm_ex.placements_check_ms = cm_ex.now_ms + PLACEMENTS_CHECK_MS;
}

/*
 * The server before us may have started jobs that to us are pending: what was
 * not yet replicated when we took over.  They run where they were found.
 */
static void
take_found(Turn *turn, const CmExecHost *host, const CmFound *found)
{
	CmLimits limits = cm_guc_limits();
	CmTaken *taken;
	int n;

	if (cm_ex.identity.old_jobs_up_to == 0)
		return;
	check_publishing();
	taken = cm_store_take_found(host->id, found, host->n_strays, cm_ex.identity.old_jobs_up_to,
								&limits, &n);
	if (n == 0)
		return;
	turn->found = turn->found ? repalloc(turn->found, sizeof(CmTaken) * (turn->n_found + n))
							  : palloc(sizeof(CmTaken) * n);
	memcpy(turn->found + turn->n_found, taken, sizeof(CmTaken) * n);
	turn->n_found += n;
}

static CmFound *
make_found(const CmExecHost *host)
{
	CmFound *found = palloc(sizeof(CmFound) * host->n_strays);

	for (int i = 0; i < host->n_strays; i++)
	{
		found[i].job_id = host->strays[i].job_id;
		found[i].attempt = host->strays[i].attempt;
		found[i].container_id = host->strays[i].id;
	}
	return found;
}

static void
step_strays(Turn *turn)
{
	int n = count_nodes(&cm_ex.hosts);
	dlist_iter iter;

	turn->stray_attempts = palloc(sizeof(int *) * Max(n, 1));
	turn->stray_hosts = palloc(sizeof(CmExecHost *) * Max(n, 1));
	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);
		CmFound *found;

		if (!host->strays_are_new || host->n_strays == 0 || host->phase != CM_HOST_READY)
			continue;
		found = make_found(host);
		turn->stray_attempts[turn->n_stray_hosts] = palloc(sizeof(int) * host->n_strays);
		take_found(turn, host, found);
		cm_store_look_up_jobs(found, host->n_strays, turn->stray_attempts[turn->n_stray_hosts]);
		turn->stray_hosts[turn->n_stray_hosts++] = host;
	}
}

static void
step_asked(Turn *turn)
{
	cm_asked_save();
	turn->saves_asked = true;
	if (turn->poll.has_asked)
		cm_asked_load();
}

static void
step_kept(Turn *turn)
{
	if (turn->poll.has_kept_due)
		turn->kept_hosts = cm_store_let_kept_go(MAX_BATCH, &turn->n_kept);
}

typedef void (*TurnStep)(Turn *turn);

/*
 * Output before ends, ends before claims: a freed slot is used at once.  What
 * runs already is found before it could be claimed for elsewhere.
 */
static const TurnStep steps[] = {
	step_poll,	 step_hosts,		step_details,	 step_logs,	   step_records,  step_host_states,
	step_drains, step_orphans,		step_requests,	 step_expired, step_schedule, step_strays,
	step_claim,	 step_certificates, step_placements, step_asked,   step_kept};

/* --- after the commit --- */

/* The job was deleted under our hands; its container will be a stray. */
static void
forget_gone(Turn *turn, int i)
{
	int64 job_id = turn->records[i].job_id;
	CmTask *task = turn->batch[i]->task;

	ereport(LOG, (errmsg("container_manager: job %lld is not in the queue any more",
						 (long long) job_id)));
	/* Its other records go with the task. */
	for (int j = i; j < turn->n_records; j++)
		if (turn->batch[j] != NULL && turn->batch[j]->task == task)
			turn->batch[j] = NULL;
	cm_task_free(task);
}

/* What comes up then was not there yet when the turn's poll looked. */
static void
note_due(TimestampTz at)
{
	int64 us = at - GetCurrentTimestamp();
	int64 due_ms = cm_ex.now_ms + (us > 0 ? us / 1000 + 1 : 0);

	if (cm_ex.next_due_ms == 0 || due_ms < cm_ex.next_due_ms)
		cm_ex.next_due_ms = due_ms;
}

static void
apply_record(CmWaitingRecord *waiting, const CmRecord *record)
{
	CmTask *task = waiting->task;

	drop_record(waiting);
	if (record->again)
		note_due(record->again_at);
	if (record->keep_until != 0)
		note_due(record->keep_until);
	note_stored(task);
	if (cm_lifecycle_is_terminal(record->state))
		cm_ex.counters.finished++;
	cm_task_note_recorded(task, record);
}

static void
apply_records(Turn *turn)
{
	int64 *ended = palloc(sizeof(int64) * (turn->n_records + turn->n_ended + 2));
	int n_ended = 0;
	bool has_left = false;

	for (int i = 0; i < turn->n_records; i++)
	{
		const CmRecord *record = &turn->records[i];

		if (turn->batch[i] == NULL)
			continue;
		if (record->gone)
			forget_gone(turn, i);
		else if (record->done)
			apply_record(turn->batch[i], record);
		else
			hold_back(turn->batch[i]->task);
		if (record->done && cm_lifecycle_is_terminal(record->state) && !record->again)
			ended[n_ended++] = record->job_id;
		has_left = has_left || (record->done && cm_lifecycle_is_terminal(record->state));
	}
	if (has_left)
		ended[n_ended++] = CM_WAITER_FOR_HOSTS;
	for (int i = 0; i < turn->n_ended; i++)
		ended[n_ended++] = turn->ended[i];
	if (n_ended > 0)
		cm_shmem_wake_waiters(ended, n_ended);
}

static void
apply_poll(Turn *turn)
{
	int64 us;

	if (!turn->was_polled)
		return;
	cm_ex.has_ready =
		turn->poll.has_ready || turn->poll.has_due || turn->n_queued > 0 || turn->moved.n > 0;
	/* Requests that could not be taken, for somebody has the row locked. */
	if (turn->poll.has_requests)
		cm_ex.next_poll_ms = cm_ex.now_ms + BLOCKED_MS;
	cm_ex.next_due_ms = 0;
	if (turn->poll.next_at == DT_NOEND)
		return;
	us = turn->poll.next_at - GetCurrentTimestamp();
	/* What is due and yet there is locked by somebody, or has just been dealt with. */
	cm_ex.next_due_ms = cm_ex.now_ms + (us > 0 ? us / 1000 + 1 : BLOCKED_MS);
}

static void
apply_schedule(Turn *turn)
{
	if (turn->has_more)
		cm_ex.db_wanted = true;
	cm_ex.schedule_is_behind =
		turn->moved.is_behind || (cm_ex.schedule_is_behind && !turn->was_mended);
	if (turn->saw_pauses)
		cm_ex.pauses_mark = turn->moved.is_behind ? -1 : turn->poll.pauses_mark;
	/* Pauses were seen that the poll may have missed. */
	if (turn->left.met_pauses)
		cm_ex.pauses_mark = -1;
	if (cm_ex.schedule_is_behind || turn->is_doom_blocked || turn->left.is_blocked)
		cm_ex.next_poll_ms = cm_ex.now_ms + BLOCKED_MS;
}

/* Somebody has the row of one locked. */
static void
apply_orphans(Turn *turn)
{
	if (!turn->saw_orphans)
		return;
	cm_ex.has_orphans = turn->has_orphans;
	if (cm_ex.has_orphans)
		cm_ex.next_poll_ms = cm_ex.now_ms + BLOCKED_MS;
}

static void
apply_cancels(Turn *turn)
{
	for (int i = 0; i < turn->n_cancelled; i++)
	{
		CmTask *task = NULL;

		if (!turn->cancelled[i].is_pending)
			task = cm_task_find(turn->cancelled[i].job_id, turn->cancelled[i].attempt);
		if (task != NULL)
			cm_task_cancel(task);
	}
}

static void
apply_abandons(Turn *turn)
{
	for (int i = 0; i < turn->n_abandoned; i++)
	{
		const CmAbandoned *abandoned = &turn->abandoned[i];
		CmTask *task = cm_task_find(abandoned->job_id, abandoned->attempt);

		if (task != NULL)
			cm_task_abandon(task, abandoned->by, abandoned->reason);
	}
}

static bool
has_free_slot(void)
{
	int n;
	CmCandidate *candidates = cm_hosts_candidates(&n);

	for (int i = 0; i < n; i++)
		if (candidates[i].can_take && candidates[i].used < candidates[i].slots)
			return true;
	return false;
}

static void
apply_found(Turn *turn)
{
	for (int i = 0; i < turn->n_found; i++)
	{
		CmTask *task = cm_task_new(&turn->found[i], true);

		task->look_again = true;
		cm_task_step(task);
	}
}

static void
apply_claims(Turn *turn)
{
	cm_ex.counters.claimed += turn->n_taken;
	for (int i = 0; i < turn->n_taken; i++)
	{
		CmTask *task = cm_task_new(&turn->taken[i], false);

		if (task->host != NULL)
			task->host->last_chosen = ++cm_ex.n_chosen;
		cm_task_step(task);
	}
	/* Whether more wait that could be taken is known only after asking again. */
	if (turn->n_taken > 0 && has_free_slot())
		cm_ex.slots_changed = true;
}

/* The next list finds them. */
static void
apply_kept(Turn *turn)
{
	for (int i = 0; i < turn->n_kept; i++)
	{
		CmExecHost *host = cm_hosts_find(turn->kept_hosts[i]);

		if (host != NULL && host->phase == CM_HOST_READY)
			host->next_ms = cm_ex.now_ms;
	}
}

static void
apply_turn(Turn *turn)
{
	apply_poll(turn);
	for (int i = 0; i < turn->n_detailed; i++)
		turn->detailed[i]->detail_changed = false;
	for (int i = 0; i < turn->n_saved_hosts; i++)
		turn->saved_hosts[i]->state_changed = false;
	for (int i = 0; i < turn->n_stored; i++)
	{
		note_stored(turn->stored[i]);
		cm_logs_note_stored(turn->stored[i], turn->seqs[i]);
	}
	cm_logs_read_on();
	apply_records(turn);
	apply_found(turn);
	for (int i = 0; i < turn->n_stray_hosts; i++)
		cm_hosts_judge_strays(turn->stray_hosts[i], turn->stray_attempts[i]);
	if (turn->saves_asked)
		cm_asked_note_saved();
	apply_schedule(turn);
	apply_orphans(turn);
	apply_cancels(turn);
	apply_abandons(turn);
	apply_kept(turn);
	/* May drop hosts that stand in the lists above. */
	if (turn->hosts_loaded)
	{
		cm_hosts_apply_rows(turn->host_rows, turn->n_host_rows);
		cm_ex.hosts_mark = turn->poll.hosts_mark;
		cm_ex.hosts_loaded = true;
	}
	apply_claims(turn);
}

/* --- one transaction, or one per step --- */

/* False: the extension is gone, or somebody's lock is in the way. */
static bool
begin_work(void)
{
	CmLockInTheWay lock;

	cm_store_begin();
	if (!cm_store_is_open())
	{
		cm_ex.is_dropped = true;
		return false;
	}
	if (!cm_store_try_lock(&lock))
	{
		cm_shmem_note_blockers(lock.table, lock.pids, lock.n_pids);
		cm_ex.db_wanted = true;
		cm_ex.db_not_before_ms = cm_ex.now_ms + BLOCKED_MS;
		return false;
	}
	return true;
}

/* A job whose row somebody has locked; 0: none. */
static int64
find_locked_job(const Turn *turn)
{
	dlist_iter iter;

	for (int i = 0; i < turn->n_records; i++)
		if (!turn->records[i].done && !turn->records[i].gone)
			return turn->records[i].job_id;
	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->is_locked_out)
			return task->spec.job_id;
	}
	return 0;
}

static void
note_row_blockers(const Turn *turn)
{
	int64 job_id = find_locked_job(turn);
	int pids[CM_MAX_BLOCKERS] = {0};

	if (job_id == 0)
		cm_shmem_note_blockers(NULL, NULL, 0);
	else
		cm_shmem_note_blockers("cm_jobs", pids,
							   cm_store_row_blockers(job_id, pids, CM_MAX_BLOCKERS));
}

static bool
run_steps(Turn *turn, int first, int last)
{
	bool may_work = begin_work();

	if (may_work)
	{
		for (int i = first; i <= last; i++)
			steps[i](turn);
		note_row_blockers(turn);
	}
	cm_store_commit();
	return may_work;
}

/*
 * Strips what an engine sent from a record that cannot be stored for what it
 * is.  Only when it was alone in its transaction is it known to be that one.
 */
static void
simplify_failed_record(const Turn *turn, int sqlstate)
{
	int class = ERRCODE_TO_CATEGORY(sqlstate);

	if (cm_ex.careful_turns == 0 || turn->n_records != 1 ||
		(class != ERRCODE_DATA_EXCEPTION && class != ERRCODE_PROGRAM_LIMIT_EXCEEDED))
		return;
	turn->batch[0]->record.inspect = NULL;
	turn->batch[0]->record.detail = NULL;
	turn->batch[0]->record.error = NULL;
	turn->batch[0]->record.hint = NULL;
}

/*
 * Everybody waits after an error, unless it is known whom it is about: one
 * task, or one step of the work.
 */
static void
choose_retry_time(Turn *turn)
{
	CmTask *task = turn->alone;
	int64 *not_before_ms = &cm_ex.db_not_before_ms;

	if (task != NULL)
	{
		task->retry_ms = cm_ex.now_ms + Min(RETRY_MS * ++task->n_unstored, 10000);
		return;
	}
	if (turn->careful_step > 0)
		not_before_ms = &cm_ex.step_not_before_ms[turn->careful_step];
	*not_before_ms = cm_ex.now_ms + Min(RETRY_MS * cm_ex.db_failures++, 10000);
}

static void
note_db_error(Turn *turn, MemoryContext context)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	HOLD_INTERRUPTS();
	EmitErrorReport();
	FlushErrorState();
	cm_store_abort();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	cm_shmem_note_error(error->message);
	simplify_failed_record(turn, error->sqlerrcode);
	cm_ex.careful_turns = CAREFUL_TURNS;
	cm_ex.db_wanted = true;
	choose_retry_time(turn);
}

/* True: committed. */
static bool
try_steps(Turn *turn, int first, int last)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool worked = false;

	PG_TRY();
	{
		worked = run_steps(turn, first, last);
	}
	PG_CATCH();
	{
		note_db_error(turn, context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return worked;
}

/* Each step in a transaction of its own; a failed one does not stop the rest. */
static void
run_carefully(void)
{
	CmPoll poll = {0};
	bool was_polled = false;
	bool failed = false;

	StaticAssertStmt(lengthof(steps) <= CM_MAX_DB_STEPS, "too many steps");
	for (int i = 0; i < lengthof(steps); i++)
	{
		Turn *turn = palloc0(sizeof(Turn));

		if (cm_ex.now_ms < cm_ex.step_not_before_ms[i])
		{
			failed = true;
			continue;
		}
		turn->poll = poll;
		turn->careful_step = i;
		if (!try_steps(turn, i, i))
		{
			if (cm_ex.is_dropped)
				return;
			failed = true;
			continue;
		}
		if (i == 0)
		{
			poll = turn->poll;
			was_polled = true;
		}
		poll.has_ready = poll.has_ready || turn->n_queued > 0 || turn->moved.n > 0;
		poll.has_waiting = poll.has_waiting || turn->n_queued > 0 || turn->moved.n > 0;
		apply_turn(turn);
	}
	if (!failed && was_polled)
	{
		cm_ex.careful_turns--;
		cm_ex.db_failures = 0;
	}
}

static void
count_turn(uint32 wake_flags)
{
	if (wake_flags == 0 && !cm_ex.db_wanted && !cm_ex.slots_changed &&
		cm_ex.now_ms >= cm_ex.next_poll_ms)
		cm_ex.counters.polls++;
}

/* What could not be stored before is tried in a transaction of its own. */
static bool
is_suspect_due(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (is_suspect(task) && may_store(task))
			return true;
	}
	return false;
}

void
cm_db_turn(uint32 wake_flags)
{
	count_turn(wake_flags);
	cm_ex.db_wanted = false;
	cm_ex.slots_changed = false;
	cm_ex.next_poll_ms = cm_ex.now_ms + cm_guc_poll_interval_ms;
	if (cm_ex.careful_turns == 0 && is_suspect_due())
		cm_ex.careful_turns = 1;
	if (cm_ex.careful_turns > 0)
		run_carefully();
	else
	{
		Turn *turn = palloc0(sizeof(Turn));

		if (try_steps(turn, 0, lengthof(steps) - 1))
		{
			cm_ex.db_failures = 0;
			apply_turn(turn);
		}
	}
}

/* --- is it time? --- */

/* One whose output is not stored yet waits for that. */
static int64
get_records_ms(void)
{
	int64 next_ms = 0;
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.records)
	{
		CmWaitingRecord *waiting = dlist_container(CmWaitingRecord, node, iter.cur);

		if (may_store(waiting->task))
			return cm_ex.now_ms;
		if (next_ms == 0 || waiting->task->retry_ms < next_ms)
			next_ms = waiting->task->retry_ms;
	}
	return next_ms;
}

static int64
get_log_flush_ms(void)
{
	int64 next_ms = 0;
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (is_log_flush_due(task))
			return cm_ex.now_ms;
		if (task->logs.waiting_since_ms != 0 && may_store(task) &&
			(next_ms == 0 || task->logs.waiting_since_ms + CM_LOG_FLUSH_MS < next_ms))
			next_ms = task->logs.waiting_since_ms + CM_LOG_FLUSH_MS;
	}
	return next_ms;
}

static int64
earlier(int64 a_ms, int64 b_ms)
{
	if (a_ms == 0 || b_ms == 0)
		return Max(a_ms, b_ms);
	return Min(a_ms, b_ms);
}

int64
cm_db_next_ms(void)
{
	int64 next_ms = cm_ex.next_poll_ms;

	if (cm_ex.db_wanted || (cm_ex.slots_changed && cm_ex.has_ready))
		next_ms = cm_ex.now_ms;
	next_ms = earlier(next_ms, cm_ex.next_due_ms);
	next_ms = earlier(next_ms, get_records_ms());
	next_ms = earlier(next_ms, get_log_flush_ms());
	return Max(next_ms, cm_ex.db_not_before_ms);
}

/* --- at the start --- */

static void
load_taken(void)
{
	CmLimits limits = cm_guc_limits();
	CmTaken *taken;
	int n;

	taken = cm_store_load_taken(&limits, &n);
	for (int i = 0; i < n; i++)
	{
		if (cm_hosts_find(taken[i].host_id) == NULL)
			cm_ex.has_orphans = true;
		else
			cm_task_new(&taken[i], true);
	}
	if (n > 0)
		ereport(LOG, (errmsg("container_manager: taking up %d jobs that were under way", n)));
}

/* An error here ends the process, and the launcher tries again. */
CmStoreOpening
cm_db_open(void)
{
	CmLockInTheWay lock = {0};
	CmStoreOpening opening;

	cm_store_begin();
	opening = cm_store_open(&cm_ex.identity, &cm_ex.extension, &lock);
	if (opening == CM_STORE_OPEN)
	{
		int n;
		CmHostRow *rows = cm_store_load_hosts(&n);

		cm_hosts_apply_rows(rows, n);
		load_taken();
		cm_ex.schedule_is_behind = true;
		cm_ex.pauses_mark = -1;
		cm_ex.has_old_pending = cm_store_has_pending_up_to(cm_ex.identity.old_jobs_up_to);
	}
	cm_ex.is_dropped = opening == CM_STORE_NO_EXTENSION;
	cm_store_commit();
	cm_shmem_note_blockers(lock.table, lock.pids, lock.n_pids);
	return opening;
}

/* Whoever comes after us finds it there, or sees for himself on the host. */
bool
cm_db_record_superseded(void)
{
	bool is_recorded;

	cm_store_begin();
	is_recorded =
		!cm_store_is_open() || cm_store_record_superseded(cm_ex.superseded_by, cm_ex.superseded_on);
	cm_store_commit();
	return is_recorded;
}
