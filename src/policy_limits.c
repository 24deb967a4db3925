/*
 * policy_limits.c
 *		The guard's rules for the limits on a job's processes, for how it is
 *		stopped, and for what is made of its end.
 */
#include <inttypes.h>

#include "policy_internal.h"

#define BYTES_PER_MB INT64_C(1048576)

/* --- ulimits --- */

/*
 * Those by which a process can only bind itself.  Not so nice, rtprio and rttime,
 * which give a job more of the host than its cpu_limit, and msgqueue, locks and
 * sigpending, which count over all that a user of the host has.  most 0: the
 * job's memory.
 */
static const struct
{
	const char *name;
	int64_t most;
} ulimits[] = {
	{"core", 0},	   /* bytes, as are data, fsize, memlock and stack */
	{"cpu", 31622400}, /* seconds */
	{"data", 0},		{"fsize", INT64_C(1) << 50},
	{"memlock", 0},		{"nofile", 1048576}, /* what engines give by themselves */
	{"nproc", 4194304},						 /* Linux' own bound */
	{"stack", 0},
};
#define N_ULIMITS ((int) (sizeof(ulimits) / sizeof(ulimits[0])))

static int
find_ulimit(const char *name)
{
	for (int i = 0; i < N_ULIMITS; i++)
	{
		if (strcmp(ulimits[i].name, name) == 0)
			return i;
	}
	return -1;
}

static bool
check_ulimit(const CmUlimit *ulimit, int64_t memory_mb, CmProblem *problem)
{
	const char *name = ulimit->name != NULL ? ulimit->name : "";
	int i = find_ulimit(name);
	int64_t most;
	char shown[SHOWN_SIZE];

	if (i < 0)
	{
		refuse(problem, BAD_VALUE, "ulimits", "ulimit \"%s\" cannot be set",
			   show_text(name, shown));
		return add_hint(problem, "Those that can are core, cpu, data, fsize, memlock, nofile, "
								 "nproc and stack.");
	}
	most = ulimits[i].most > 0 ? ulimits[i].most : memory_mb * BYTES_PER_MB;
	if (ulimit->soft < 0 || ulimit->hard < 0)
	{
		refuse(problem, BAD_VALUE, "ulimits", "ulimit \"%s\" is below 0", name);
		return add_hint(problem, "Leave it out to have what the engine gives by itself.");
	}
	if (ulimit->soft > ulimit->hard)
		return refuse(problem, BAD_VALUE, "ulimits",
					  "soft ulimit \"%s\" of %" PRId64 " is over the hard one of %" PRId64, name,
					  ulimit->soft, ulimit->hard);
	if (ulimit->hard <= most)
		return true;
	refuse(problem, OVER_LIMIT, "ulimits",
		   "ulimit \"%s\" of %" PRId64 " is over the bound of %" PRId64, name, ulimit->hard, most);
	return add_hint(problem, "%s",
					ulimits[i].most > 0 ? NO_SETTING : "The bound is the job's memory_limit.");
}

static bool
check_ulimits(const CmJobSpec *spec, CmProblem *problem)
{
	for (int i = 0; i < spec->n_ulimits; i++)
	{
		if (!check_ulimit(&spec->ulimits[i], spec->memory_limit_mb, problem))
			return false;
		/* Only known names get here, so that there are few before it. */
		for (int j = 0; j < i; j++)
		{
			if (strcmp(spec->ulimits[j].name, spec->ulimits[i].name) == 0)
				return refuse(problem, BAD_VALUE, "ulimits", "ulimit \"%s\" is given twice",
							  spec->ulimits[i].name);
		}
	}
	return true;
}

/* --- memory, processes, output --- */

static bool
check_shm_size(const CmJobSpec *spec, CmProblem *problem)
{
	if (spec->shm_size_mb < 0)
		return refuse(problem, BAD_VALUE, "shm_size",
					  "shm_size of %" PRId64 " MB is below the least of 1 MB", spec->shm_size_mb);
	if (spec->shm_size_mb <= spec->memory_limit_mb)
		return true;
	refuse(problem, BAD_VALUE, "shm_size",
		   "shm_size of %" PRId64 " MB is over the memory_limit of %" PRId64 " MB",
		   spec->shm_size_mb, spec->memory_limit_mb);
	return add_hint(problem, "What is in /dev/shm counts as memory of the job: raise memory_limit, "
							 "or make it smaller.");
}

static bool
check_pids(int64_t pids, const CmLimits *limits, CmProblem *problem)
{
	/* The container's init is one, and the command another. */
	if (pids != 0 && pids < 2)
		return refuse(problem, BAD_VALUE, "pids_limit",
					  "pids_limit of %" PRId64 " is below the least of 2", pids);
	if (pids <= limits->max_pids)
		return true;
	refuse(problem, OVER_LIMIT, "pids_limit",
		   "pids_limit of %" PRId64 " is over the limit of %" PRId64, pids, limits->max_pids);
	return hint_at_limit(problem, "container_manager.pids_limit");
}

static bool
check_log_limit(int64_t limit_mb, const CmLimits *limits, CmProblem *problem)
{
	if (limit_mb < 0)
		return refuse(problem, BAD_VALUE, "log_limit",
					  "log_limit of %" PRId64 " MB is below the least of 1 MB", limit_mb);
	if (limit_mb * 1024 <= limits->max_log_kb)
		return true;
	refuse(problem, OVER_LIMIT, "log_limit",
		   "log_limit of %" PRId64 " MB is over the limit of %" PRId64 " kB", limit_mb,
		   limits->max_log_kb);
	return hint_at_limit(problem, "container_manager.max_log_size");
}

/* --- the end --- */

/* As Linux numbers them on the machines that engines run on. */
static const struct
{
	const char *name;
	int number;
} stop_signals[] = {{"SIGHUP", 1},	 {"SIGINT", 2},	  {"SIGQUIT", 3},  {"SIGUSR1", 10},
					{"SIGUSR2", 12}, {"SIGTERM", 15}, {"SIGWINCH", 28}};

int
cm_policy_signal_number(const char *name)
{
	for (size_t i = 0; i < sizeof(stop_signals) / sizeof(stop_signals[0]); i++)
	{
		if (strcmp(stop_signals[i].name, name) == 0)
			return stop_signals[i].number;
	}
	return 0;
}

static bool
check_stop_signal(const char *name, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (name == NULL || cm_policy_signal_number(name) != 0)
		return true;
	refuse(problem, BAD_VALUE, "stop_signal", "stop_signal of \"%s\" is not known",
		   show_text(name, shown));
	return add_hint(problem,
					"Write SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGWINCH; "
					"SIGKILL follows after stop_grace.");
}

static bool
check_stop_grace(int64_t grace_ms, const CmLimits *limits, CmProblem *problem)
{
	if (grace_ms < -1)
		return refuse(problem, BAD_VALUE, "stop_grace", "stop_grace is negative, or absurdly long");
	if (grace_ms <= limits->max_stop_grace_ms)
		return true;
	refuse(problem, OVER_LIMIT, "stop_grace",
		   "stop_grace of %" PRId64 " ms is over the limit of %" PRId64 " ms", grace_ms,
		   limits->max_stop_grace_ms);
	return hint_at_limit(problem, "container_manager.max_stop_grace");
}

static bool
check_exit_codes(const CmExitCodes *codes, CmProblem *problem)
{
	static const CmExitCodes none = {true, {0}};

	if (!codes->is_set || memcmp(codes->bits, none.bits, sizeof(none.bits)) != 0)
		return true;
	refuse(problem, BAD_VALUE, "success_exit_codes", "success_exit_codes is empty");
	return add_hint(problem, "Name the exit codes that mean success, or leave it out for 0.");
}

bool
cm_policy_check_process_limits(const CmJobSpec *spec, const CmLimits *limits, CmProblem *problem)
{
	return check_ulimits(spec, problem) && check_shm_size(spec, problem) &&
		   check_pids(spec->pids_limit, limits, problem) &&
		   check_log_limit(spec->log_limit_mb, limits, problem) &&
		   check_stop_signal(spec->stop_signal, problem) &&
		   check_stop_grace(spec->stop_grace_ms, limits, problem) &&
		   check_exit_codes(&spec->success_exit_codes, problem);
}
