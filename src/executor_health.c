/*
 * executor_health.c
 *		What is known of a host's health, and what follows when it stays bad.
 *
 * Whether a host answers is found out by its connection (executor_hosts.c):
 * what does not answer gets no job, is tried at growing intervals, and is back
 * by itself.  Here is the rest: which engine it is that answers, whether jobs
 * may be started on it, and what an administrator wants of a host that is
 * silent for long.
 *
 * When a host was last looked at, and how fast it answered, is told by way of
 * shared memory: it changes all the time, and an idle database writes nothing.
 */
#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "executor_internal.h"
#include "guc.h"

/* So long it may be silent before its jobs are given up with it. */
#define REMOVAL_GRACE_MS 5000

/* --- looks --- */

static int64
get_clock_us(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

void
cm_health_begin_look(CmExecHost *host)
{
	host->asked_us = get_clock_us();
}

void
cm_health_note_answer(const CmExecHost *host)
{
	cm_shmem_note_pulse(host->id, GetCurrentTimestamp(), get_clock_us() - host->asked_us,
						host->phase == CM_HOST_READY ? 0 : host->failures);
}

void
cm_health_note_silence(const CmExecHost *host)
{
	cm_shmem_note_pulse(host->id, GetCurrentTimestamp(), -1, host->failures);
}

/* --- which engine --- */

static int
count_tasks(const CmExecHost *host)
{
	dlist_iter iter;
	int n = 0;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		const CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host && !task->is_recorded)
			n++;
	}
	return n;
}

/*
 * Another engine under the same URL: its containers are not ours, and that ours
 * are absent there says nothing of them.  Without jobs there that is no matter.
 */
static bool
is_stranger(const CmExecHost *host, const CmEngineFacts *facts, int n_tasks)
{
	if (host->engine_id[0] == '\0' || facts->id[0] == '\0' ||
		strcmp(host->engine_id, facts->id) == 0 || strcmp(host->accepted_engine_id, facts->id) == 0)
		return false;
	/* Jobs that to us are pending may have been started there before us. */
	return n_tasks > 0 || (cm_ex.has_old_pending && !host->was_listed);
}

static void
describe_stranger(const CmExecHost *host, int n_tasks, char *error, size_t error_size, char *hint,
				  size_t hint_size)
{
	if (n_tasks > 0)
		snprintf(
			error, error_size,
			"another engine answers there: its ID is %s, and %d unfinished %s on that with ID %s",
			host->facts.id, n_tasks, n_tasks == 1 ? "job is" : "jobs are", host->engine_id);
	else
		snprintf(
			error, error_size,
			"another engine answers there: its ID is %s, and jobs may have been started on that with ID %s",
			host->facts.id, host->engine_id);
	snprintf(
		hint, hint_size,
		"Nothing is started there, and no job counts as lost. Bring that engine back; or, if it is gone for good, SELECT cm_accept_engine('%s'): what ran there fails as infrastructure.",
		host->name);
}

bool
cm_health_take_facts(CmExecHost *host, const CmEngineFacts *facts, char *error, size_t error_size,
					 char *hint, size_t hint_size)
{
	int n_tasks = count_tasks(host);
	bool is_known = !is_stranger(host, facts, n_tasks);

	if (!host->has_facts || memcmp(&host->facts, facts, sizeof(CmEngineFacts)) != 0)
	{
		host->facts = *facts;
		host->has_facts = true;
		/* While it is being connected, this is recorded with what comes of it. */
		if (host->phase == CM_HOST_READY || !is_known)
			host->state_changed = cm_ex.db_wanted = true;
	}
	if (!is_known)
		describe_stranger(host, n_tasks, error, error_size, hint, hint_size);
	else if (facts->id[0] != '\0')
		strlcpy(host->engine_id, facts->id, sizeof(host->engine_id));
	return is_known;
}

const char *
cm_health_objection(const CmExecHost *host)
{
	if (host->require_userns && !cm_engine_has_userns(&host->facts))
		return "its engine has no user namespaces, and require_userns is set for it";
	return NULL;
}

/* --- silent for long --- */

/* Counted from when it was enabled, or enabling it would be in vain. */
static int64
get_drain_ms(const CmExecHost *host)
{
	if (cm_guc_disable_unhealthy_after_s == 0 || !host->is_configured || !host->is_active)
		return 0;
	return Max(host->drain_not_before_ms, Max(host->away_since_ms, host->enabled_since_ms) +
											  (int64) cm_guc_disable_unhealthy_after_s * 1000);
}

static void
abandon_tasks(CmExecHost *host)
{
	char reason[128];
	dlist_mutable_iter iter;

	snprintf(reason, sizeof(reason), "host \"%s\" was removed by force and does not answer",
			 host->name);
	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host && !task->s.abandoned)
			cm_task_abandon(task, host->removed_by, reason);
	}
}

int64
cm_health_tick(CmExecHost *host)
{
	int64 drain_ms;
	int64 removal_ms;

	if (host->away_since == 0)
	{
		host->drain_wanted = false;
		return 0;
	}
	drain_ms = get_drain_ms(host);
	if (drain_ms != 0 && cm_ex.now_ms >= drain_ms)
	{
		cm_ex.db_wanted = cm_ex.db_wanted || !host->drain_wanted;
		host->drain_wanted = true;
		drain_ms = 0;
	}
	if (host->removed_by == NULL)
		return drain_ms;
	removal_ms = host->away_since_ms + REMOVAL_GRACE_MS;
	if (cm_ex.now_ms < removal_ms)
		return drain_ms != 0 ? Min(drain_ms, removal_ms) : removal_ms;
	abandon_tasks(host);
	return drain_ms;
}
