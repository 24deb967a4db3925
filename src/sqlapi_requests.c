/*
 * sqlapi_requests.c
 *		What is done to jobs from SQL: cm_cancel_job() and the like.
 *
 * They only say what is wanted, mostly by a request: the executor alone changes a
 * job's state.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "policy.h"
#include "shmem.h"
#include "sqlapi_util.h"

#define MAX_PRIORITY 100
#define MAX_REASON_BYTES 1000

/* --- one request --- */

typedef struct RequestedJob
{
	bool is_pending;
	bool is_finished;
	bool is_being_cancelled;
	bool is_about_to_run_again;
	int attempt;
	const char *host;  /* where it runs, or must run; NULL: any */
	bool host_answers; /* as the executor last saw it */
	bool has_unique_key;
} RequestedJob;

static bool
get_flag(int column)
{
	bool is_null;

	return DatumGetBool(cm_sqlapi_job_datum(column, &is_null));
}

static void
check_may_change(int64 job_id, Oid caller, const char *owner)
{
	Oid owner_id = get_role_oid(owner, true);

	if (superuser_arg(caller) || (OidIsValid(owner_id) && has_privs_of_role(caller, owner_id)))
		return;
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("job %lld belongs to role \"%s\"", (long long) job_id, owner),
					errhint("Only members of that role and superusers may change it.")));
}

/*
 * Looks at a job that the caller wants something of, with the owner's rights:
 * whoever submitted it may, and members of that role.
 */
static void
find_requested_job(FunctionCallInfo fcinfo, int64 job_id, Oid caller, RequestedJob *job)
{
	static CmJobQuery look = {
		"SELECT j.owner::text, j.status, j.epoch = i.epoch,"
		" q.cancel_requested_by IS NOT NULL OR r.actions @> '{cancel}', q.job_id IS NOT NULL,"
		" r.actions @> '{retry}', j.host, coalesce(s.state = 'healthy', false), j.attempt,"
		" j.unique_key IS NOT NULL"
		" FROM cm_internal.current_identity i, @extschema@.cm_jobs j"
		" LEFT JOIN cm_internal.queue q ON q.job_id = j.id"
		" LEFT JOIN @extschema@.cm_hosts h ON h.name = j.host"
		" LEFT JOIN cm_internal.host_states s ON s.host_id = h.id"
		" CROSS JOIN LATERAL (SELECT coalesce(array_agg(r.action), '{}') AS actions"
		"  FROM cm_internal.requests r WHERE r.job_id = j.id) r WHERE j.id = $1",
		NULL, InvalidOid};
	bool is_null;

	if (!cm_sqlapi_read_job(fcinfo, &look, job_id))
		cm_sqlapi_throw_no_job(job_id);
	check_may_change(job_id, caller, cm_sqlapi_job_text(1));
	if (!get_flag(3))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("job %lld is a copy from another database and does not run here",
							   (long long) job_id),
						errhint("cm_adopt_restored_jobs() has such jobs run here.")));
	job->is_pending = strcmp(cm_sqlapi_job_text(2), "pending") == 0;
	job->is_being_cancelled = get_flag(4);
	job->is_finished = !get_flag(5);
	job->is_about_to_run_again = get_flag(6);
	job->host = cm_sqlapi_job_text(7);
	job->host_answers = get_flag(8);
	job->attempt = DatumGetInt32(cm_sqlapi_job_datum(9, &is_null));
	job->has_unique_key = get_flag(10);
}

/* What an action takes beside the job; NULL or 0: nothing. */
typedef struct RequestDetails
{
	const int *priority;
	int attempt;
	const char *reason;
} RequestDetails;

static void
leave_request(int64 job_id, const char *action, const RequestDetails *details, Oid caller)
{
	Oid types[6] = {INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, INT4OID};
	char nulls[7] = "      ";
	Datum values[6];

	values[0] = Int64GetDatum(job_id);
	values[1] = CStringGetTextDatum(action);
	values[2] = Int32GetDatum(details->priority ? *details->priority : 0);
	nulls[2] = details->priority ? ' ' : 'n';
	values[3] = CStringGetTextDatum(GetUserNameFromId(caller, false));
	values[4] = CStringGetTextDatum(details->reason ? details->reason : "");
	nulls[4] = details->reason ? ' ' : 'n';
	values[5] = Int32GetDatum(details->attempt);
	nulls[5] = details->attempt ? ' ' : 'n';
	SPI_execute_with_args(
		"INSERT INTO cm_internal.requests (job_id, action, priority, requested_by, reason, attempt)"
		" VALUES ($1, $2, $3, $4, $5, $6)",
		6, types, values, nulls, false, 0);
}

/* A call that asks something of one job. */
typedef struct Request
{
	int64 job_id;
	Oid caller;
	CmAsOwner as_owner;
	RequestedJob job;
	RequestDetails details;
} Request;

static void
begin_request(FunctionCallInfo fcinfo, int64 job_id, Request *request)
{
	request->job_id = job_id;
	request->caller = GetUserId();
	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &request->as_owner);
	find_requested_job(fcinfo, job_id, request->caller, &request->job);
}

/* Leaves it if there is anything to do; the function's result. */
static Datum
end_request(Request *request, const char *action, bool does_it)
{
	if (does_it)
		leave_request(request->job_id, action, &request->details, request->caller);
	cm_sqlapi_end_as_owner(&request->as_owner);
	SPI_finish();
	return BoolGetDatum(does_it);
}

/* --- the functions --- */

PG_FUNCTION_INFO_V1(cm_cancel_job);

Datum
cm_cancel_job(PG_FUNCTION_ARGS)
{
	Request request = {0};
	const RequestedJob *job = &request.job;

	begin_request(fcinfo, PG_GETARG_INT64(0), &request);
	return end_request(&request, "cancel",
					   (!job->is_finished || job->is_about_to_run_again) &&
						   !job->is_being_cancelled);
}

PG_FUNCTION_INFO_V1(cm_set_priority);

Datum
cm_set_priority(PG_FUNCTION_ARGS)
{
	Request request = {0};
	int priority = PG_GETARG_INT32(1);

	if (priority < 0 || priority > MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority of %d is out of range", priority),
				 errdetail("Priorities are 0 to %d; higher is started first.", MAX_PRIORITY)));
	request.details.priority = &priority;
	begin_request(fcinfo, PG_GETARG_INT64(0), &request);
	return end_request(&request, "set_priority",
					   !request.job.is_finished && request.job.is_pending);
}

/* It may have been given away since the job was over.  Throws where it was. */
static void
take_unique_key(FunctionCallInfo fcinfo, const Request *request)
{
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(request->job_id)};

	SPI_execute_with_args(
		psprintf(
			"SELECT cm_internal.take_unique_key(j.namespace, j.unique_key, j.id, 'error', j.owner, NULL)"
			" FROM %s.cm_jobs j WHERE j.id = $1",
			cm_sqlapi_schema(fcinfo)),
		1, types, values, NULL, false, 0);
}

PG_FUNCTION_INFO_V1(cm_retry_job);

Datum
cm_retry_job(PG_FUNCTION_ARGS)
{
	Request request = {0};
	const RequestedJob *job = &request.job;
	bool does_it;

	begin_request(fcinfo, PG_GETARG_INT64(0), &request);
	does_it = job->is_finished && !job->is_about_to_run_again;
	if (does_it && job->attempt >= CM_MAX_ATTEMPTS)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("job %lld has had %d attempts", (long long) request.job_id, job->attempt),
				 errdetail("No job may have more than %d.", CM_MAX_ATTEMPTS),
				 errhint("Submit it anew.")));
	if (does_it && job->has_unique_key)
		take_unique_key(fcinfo, &request);
	return end_request(&request, "retry", does_it);
}

static const char *
get_reason(FunctionCallInfo fcinfo)
{
	const char *reason = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (strspn(reason, " \t\n") == strlen(reason))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("reason is missing"),
						errhint("Say why the job's host is given up; it is kept with the job.")));
	if (strlen(reason) > MAX_REASON_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("reason is longer than %d bytes", MAX_REASON_BYTES)));
	return reason;
}

PG_FUNCTION_INFO_V1(cm_abandon_job);

Datum
cm_abandon_job(PG_FUNCTION_ARGS)
{
	Request request = {.details.reason = get_reason(fcinfo)};
	const RequestedJob *job = &request.job;
	bool does_it;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	begin_request(fcinfo, PG_GETARG_INT64(0), &request);
	does_it = !job->is_finished && !job->is_pending;
	if (does_it && job->host_answers)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("host \"%s\" of job %lld answers", job->host, (long long) request.job_id),
				 errdetail("Only jobs whose host is gone can be abandoned."),
				 errhint("End it with cm_cancel_job(%lld).", (long long) request.job_id)));
	request.details.attempt = job->attempt;
	return end_request(&request, "abandon", does_it);
}

/* The executor lets go what is due. */
static bool
make_due(int64 job_id)
{
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(job_id)};

	SPI_execute_with_args(
		"UPDATE cm_internal.kept_containers SET keep_until = now() WHERE job_id = $1 AND keep_until > now()",
		1, types, values, NULL, false, 0);
	return SPI_processed > 0;
}

PG_FUNCTION_INFO_V1(cm_remove_kept_container);

Datum
cm_remove_kept_container(PG_FUNCTION_ARGS)
{
	Request request = {0};
	bool is_kept;

	begin_request(fcinfo, PG_GETARG_INT64(0), &request);
	is_kept = make_due(request.job_id);
	cm_sqlapi_end_as_owner(&request.as_owner);
	SPI_finish();
	if (is_kept)
		cm_shmem_wake_at_commit(CM_WAKE_REQUESTS);
	return BoolGetDatum(is_kept);
}

/*
 * All of them: whoever may call this decides for the whole database.  A job whose
 * unique_key another one has meanwhile stays as it is, and so do those that wait for
 * it; of several with one key, of which the last was to replace the others, that one
 * is taken.
 */
PG_FUNCTION_INFO_V1(cm_adopt_restored_jobs);

Datum
cm_adopt_restored_jobs(PG_FUNCTION_ARGS)
{
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))};
	CmAsOwner as_owner;
	int64 n;

	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	SPI_execute_with_args(
		psprintf(
			"WITH RECURSIVE wanted AS MATERIALIZED (SELECT j.id, j.namespace, j.unique_key, j.depends_on, i.epoch"
			" FROM cm_internal.inert_jobs w JOIN %s.cm_jobs j ON j.id = w.id"
			" CROSS JOIN cm_internal.current_identity i WHERE NOT EXISTS (SELECT FROM cm_internal.requests r"
			" WHERE r.job_id = j.id AND r.action = 'adopt' AND r.epoch = i.epoch)),"
			" taken AS (INSERT INTO cm_internal.unique_keys AS u (namespace, unique_key, job_id)"
			" SELECT DISTINCT ON (w.namespace, w.unique_key) w.namespace, w.unique_key, w.id FROM wanted w"
			" WHERE w.unique_key IS NOT NULL ORDER BY w.namespace, w.unique_key, w.id DESC"
			" ON CONFLICT (namespace, unique_key) DO UPDATE SET job_id = excluded.job_id"
			" WHERE NOT cm_internal.is_unfinished(u.job_id) RETURNING u.job_id),"
			" left_out AS (SELECT w.id FROM wanted w LEFT JOIN taken t ON t.job_id = w.id"
			" WHERE w.unique_key IS NOT NULL AND t.job_id IS NULL"
			" UNION SELECT w.id FROM left_out l JOIN wanted w ON l.id = ANY (w.depends_on))"
			" INSERT INTO cm_internal.requests (job_id, action, requested_by, epoch)"
			" SELECT w.id, 'adopt', $1, w.epoch FROM wanted w"
			" WHERE NOT EXISTS (SELECT FROM left_out l WHERE l.id = w.id) ORDER BY w.id",
			cm_sqlapi_schema(fcinfo)),
		1, types, values, NULL, false, 0);
	n = SPI_processed;
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_INT64(n);
}
