/*
 * executor_strays.c
 *		Containers that bear our epoch and that no task claims.
 *
 * Each full list tells them; the database tells, by its next transaction, what
 * became of their jobs.  What was left over of an attempt that is past is
 * removed; what nobody knows is removed when it is over and was seen for a
 * while, and never while it runs.
 */
#include "postgres.h"

#include "executor_internal.h"

/* A container that nobody claims stays this long before it is removed. */
#define STRAY_GRACE_MS 60000
/* Between two looks at one that cannot be taken, for somebody's lock. */
#define UNCLAIMED_RETRY_MS 250
/* Between two requests to remove one. */
#define STRAY_RETRY_MS 30000
/* What is beyond these, and CM_MAX_REMOVALS, is dealt with after later lists. */
#define MAX_STRAYS 10000	  /* kept of one host */
#define MORE_REMOVALS_MS 1000 /* then they are listed anew */
#define MAX_STRAY_WARNINGS 10 /* after one list */

static bool *
mark_claimed(CmListed *listed, int n)
{
	bool *is_claimed = palloc0(Max(n, 1));
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		int count;
		const CmListed *first =
			cm_hosts_find_listed(listed, n, dlist_container(CmTask, node, iter.cur), &count);

		if (first != NULL)
			memset(is_claimed + (first - listed), true, count);
	}
	return is_claimed;
}

static int
compare_strays(const void *a, const void *b)
{
	return strcmp(((const CmStray *) a)->id, ((const CmStray *) b)->id);
}

static CmStray
make_stray(const CmExecHost *host, const CmListed *listed)
{
	CmStray stray = {.job_id = listed->labels.job_id,
					 .attempt = listed->labels.attempt,
					 .is_running = listed->state == CM_RUN_RUNNING,
					 .seen_since_ms = cm_ex.now_ms};
	const CmStray *before = NULL;

	strlcpy(stray.id, listed->id, sizeof(stray.id));
	if (host->n_strays > 0)
		before = bsearch(&stray, host->strays, host->n_strays, sizeof(CmStray), compare_strays);
	if (before != NULL)
	{
		stray.is_known = before->is_known;
		stray.seen_since_ms = before->seen_since_ms;
		stray.removed_ms = before->removed_ms;
	}
	return stray;
}

/*
 * Keeps what no task claims, with how long it has been so, in the order of the
 * ids.  malloc'ed, since its size changes with every list.
 */
void
cm_host_keep_strays(CmExecHost *host, CmListed *listed, int n)
{
	CmStray *kept = n > 0 ? malloc(sizeof(CmStray) * Min(n, MAX_STRAYS)) : NULL;
	const bool *is_claimed = mark_claimed(listed, n);
	int n_kept = 0;

	for (int i = 0; kept != NULL && i < n && n_kept < MAX_STRAYS; i++)
		if (!is_claimed[i])
			kept[n_kept++] = make_stray(host, &listed[i]);
	if (n_kept > 1)
		qsort(kept, n_kept, sizeof(CmStray), compare_strays);
	free(host->strays);
	host->strays = kept;
	host->n_strays = n_kept;
	host->strays_are_new = true;
	if (n_kept > 0)
		cm_ex.db_wanted = true;
}

static void
note_stray_removed(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = cm_hosts_find(DatumGetInt32(PointerGetDatum(arg)));
	CmFault fault;

	if (!cm_engine_read_remove(request, &fault))
		ereport(LOG, (errmsg("container_manager: could not remove a leftover container: %s",
							 fault.message)));
	cm_http_finish(request);
	if (host == NULL || --host->n_removing > 0 || !host->has_more_strays)
		return;
	host->has_more_strays = false;
	if (host->phase == CM_HOST_READY)
		host->next_ms = Min(host->next_ms, cm_ex.now_ms + MORE_REMOVALS_MS);
}

/*
 * Removals take their time: lists that come meanwhile do not ask again.  The
 * host may be dropped before the answer.
 */
static void
remove_stray(CmExecHost *host, CmStray *stray)
{
	if (stray->removed_ms != 0 && cm_ex.now_ms - stray->removed_ms < STRAY_RETRY_MS)
		return;
	if (host->n_removing >= CM_MAX_REMOVALS)
	{
		host->has_more_strays = true;
		return;
	}
	stray->removed_ms = cm_ex.now_ms;
	ereport(
		LOG,
		(errmsg(
			"container_manager: removing leftover container of job %lld, attempt %d, on host \"%s\"",
			(long long) stray->job_id, stray->attempt, host->name)));
	host->n_removing++;
	cm_engine_begin_remove(&host->engine, stray->id, stray->is_running, note_stray_removed,
						   DatumGetPointer(Int32GetDatum(host->id)));
	cm_ex.counters.http_requests++;
}

static void
warn_of_stray(const CmExecHost *host, const CmStray *stray)
{
	ereport(WARNING,
			(errmsg("container of an unknown job %lld runs on host \"%s\"",
					(long long) stray->job_id, host->name),
			 errdetail("Container %s bears this database's epoch, but there is no such job.",
					   stray->id),
			 errhint("Stop it by hand when it is not wanted; it is then removed.")));
}

/* attempt: as cm_store_look_up_jobs() tells it. */
static void
judge_stray(CmExecHost *host, CmStray *stray, int attempt, int *n_warnings)
{
	if (attempt == CM_ATTEMPT_KEPT)
		return;
	if (attempt == 0 || attempt > stray->attempt)
	{
		remove_stray(host, stray);
		return;
	}
	if (attempt > 0)
		return; /* of a job under way: its task will see it */
	if (stray->is_running)
	{
		if (!stray->is_known && (*n_warnings)++ < MAX_STRAY_WARNINGS)
			warn_of_stray(host, stray);
		stray->is_known = true;
		return;
	}
	if (cm_ex.now_ms - stray->seen_since_ms >= STRAY_GRACE_MS)
		remove_stray(host, stray);
}

/*
 * A container of the next attempt of an old job, whose row somebody has locked:
 * until it can be taken for that attempt, none may be begun elsewhere.
 */
static bool
has_unclaimed_of_old_jobs(const CmExecHost *host, const int *attempts)
{
	for (int i = 0; i < host->n_strays; i++)
	{
		const CmStray *stray = &host->strays[i];

		if (stray->job_id <= cm_ex.identity.old_jobs_up_to && attempts[i] == stray->attempt &&
			cm_task_find(stray->job_id, stray->attempt) == NULL)
			return true;
	}
	return false;
}

void
cm_hosts_judge_strays(CmExecHost *host, const int *attempts)
{
	int n_warnings = 0;

	for (int i = 0; i < host->n_strays; i++)
		judge_stray(host, &host->strays[i], attempts[i], &n_warnings);
	if (n_warnings > MAX_STRAY_WARNINGS)
		ereport(WARNING, (errmsg("%d containers of unknown jobs run on host \"%s\"", n_warnings,
								 host->name)));
	host->strays_are_new = has_unclaimed_of_old_jobs(host, attempts);
	if (host->strays_are_new)
		cm_ex.next_poll_ms = Min(cm_ex.next_poll_ms, cm_ex.now_ms + UNCLAIMED_RETRY_MS);
	/* Perhaps the last one that old jobs waited for. */
	if (cm_ex.identity.old_jobs_up_to > 0)
		cm_ex.slots_changed = true;
}
