/*
 * store_audit.c
 *		What somebody tried and may not, in the server's log.
 *
 * One form: who, on what, and the rule; no values, and not the statement that
 * had them.
 */
#include "postgres.h"

#include "store.h"

static bool
is_violation(const CmProblem *problem)
{
	/* What is not even valid there is as often an attempt as a slip. */
	static const char *const columns[] = {"docker_options", "run_as", "networks", "volumes"};

	for (size_t i = 0; i < lengthof(columns); i++)
		if (strcmp(problem->column, columns[i]) == 0)
			return true;
	return strcmp(problem->sqlstate, "42501") == 0 || strcmp(problem->sqlstate, "53400") == 0;
}

static const char *
tell_kind(const CmProblem *problem)
{
	if (strcmp(problem->sqlstate, "42501") == 0)
		return "not allowed";
	return strcmp(problem->sqlstate, "53400") == 0 ? "over a limit" : "not valid";
}

void
cm_store_log_violation(const CmProblem *problem, const char *role, int64 job_id)
{
	const char *job = job_id != 0 ? psprintf(", job " INT64_FORMAT " at its start", job_id) : "";
	const char *part = problem->part[0] ? psprintf(", %s", problem->part) : "";

	if (!is_violation(problem))
		return;
	ereport(LOG_SERVER_ONLY, (errmsg("policy violation: role \"%s\"%s, column %s%s: %s", role, job,
									 problem->column[0] ? problem->column : "of any name",
									 cm_store_text_from_utf8(part), tell_kind(problem)),
							  errhidestmt(true), errhidecontext(true)));
}

void
cm_store_log_violation_on_host(const char *host, int64 job_id, const char *field, const char *what)
{
	ereport(LOG_SERVER_ONLY, (errmsg("policy violation: host \"%s\", job " INT64_FORMAT ", %s: %s",
									 host, job_id, field, what),
							  errhidestmt(true), errhidecontext(true)));
}
