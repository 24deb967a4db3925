/*
 * sqlapi_jobs.c
 *		cm_submit_job() and what else is done to jobs from SQL.
 *
 * Submitting is an INSERT into cm_jobs; the checks are in its triggers, so
 * that a plain INSERT meets the same ones.  Functions that change a job only
 * leave a request: the executor alone changes a job's state.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "policy.h"
#include "shmem.h"
#include "sqlapi_util.h"

#define MAX_PRIORITY 100
#define MAX_REASON_BYTES 1000

/* --- submit --- */

/* cm_submit_job's parameters: all but the last, options, are columns. */
typedef struct SubmitPlan
{
	Oid function; /* that it was made for */
	int n_columns;
	char **columns;
	Oid *types; /* n_columns, then jsonb */
	SPIPlanPtr plain;
	SPIPlanPtr with_options;
} SubmitPlan;

static SubmitPlan submit_plan;

static void
read_parameters(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid *types;
	char **names;
	char *modes;
	MemoryContext caller;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	caller = MemoryContextSwitchTo(TopMemoryContext);
	submit_plan.n_columns = get_func_arg_info(tuple, &types, &names, &modes) - 1;
	MemoryContextSwitchTo(caller);
	ReleaseSysCache(tuple);
	submit_plan.types = types;
	submit_plan.columns = names;
}

/* INSERT of all columns; with options, what a parameter leaves unsaid is
 * taken from them. */
static SPIPlanPtr
plan_insert(const char *schema, bool with_options)
{
	StringInfoData text;
	int n = submit_plan.n_columns;
	SPIPlanPtr plan;

	initStringInfo(&text);
	appendStringInfo(&text, "INSERT INTO %s.cm_jobs (", schema);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%s%s", i ? ", " : "", quote_identifier(submit_plan.columns[i]));
	appendStringInfoString(&text, ") SELECT ");
	for (int i = 0; i < n; i++)
	{
		if (with_options)
			appendStringInfo(&text, "%scoalesce($%d, o.%s)", i ? ", " : "", i + 1,
							 quote_identifier(submit_plan.columns[i]));
		else
			appendStringInfo(&text, "%s$%d", i ? ", " : "", i + 1);
	}
	if (with_options)
		appendStringInfo(&text,
						 " FROM pg_catalog.jsonb_populate_record(NULL::%s.cm_jobs, $%d) AS o",
						 schema, n + 1);
	appendStringInfoString(&text, " RETURNING id");
	plan = SPI_prepare(text.data, n + 1, submit_plan.types);
	if (plan == NULL)
		elog(ERROR, "could not plan \"%s\"", text.data);
	SPI_keepplan(plan);
	return plan;
}

static void
prepare_submit(FunctionCallInfo fcinfo)
{
	Oid function = fcinfo->flinfo->fn_oid;
	const char *schema;

	if (submit_plan.function == function)
		return;
	schema = cm_sqlapi_schema(fcinfo);
	read_parameters(function);
	submit_plan.plain = plan_insert(schema, false);
	submit_plan.with_options = plan_insert(schema, true);
	submit_plan.function = function;
}

static void
check_option(FunctionCallInfo fcinfo, const char *key, int n_key)
{
	const char *nearest;

	for (int i = 0; i < submit_plan.n_columns; i++)
	{
		if (strlen(submit_plan.columns[i]) != n_key ||
			strncmp(submit_plan.columns[i], key, n_key) != 0)
			continue;
		if (!PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("%s is given twice", submit_plan.columns[i]),
							errdetail("It is a parameter of its own and a key of options."),
							errhint("Leave one of them out.")));
		return;
	}
	nearest = cm_sqlapi_find_nearest(key, n_key, submit_plan.n_columns, submit_plan.columns);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("options has an unknown key \"%.*s\"", pg_mbcliplen(key, n_key, 100), key),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
					 : errhint("Keys are columns of cm_jobs that a job may be given.")));
}

static void
check_options(FunctionCallInfo fcinfo, Jsonb *options)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("options is not a JSON object"),
				 errhint("Write it as {\"column\": value}.")));
	iterator = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
			check_option(fcinfo, value.val.string.val, value.val.string.len);
}

/*
 * What is wrong with a job is wrong with the parameters: that they travel by
 * an INSERT is of no interest.  The line that SPI adds to the error's context
 * is taken off again; what callers have added stays.
 */
static void
throw_without_statement(MemoryContext context)
{
	const char *begin = "SQL statement \"INSERT INTO ";
	ErrorData *error;
	char *end;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->context != NULL && strncmp(error->context, begin, strlen(begin)) == 0)
	{
		end = strchr(error->context, '\n');
		error->context = end ? end + 1 : NULL;
	}
	ReThrowError(error);
}

static int64
insert_job(SPIPlanPtr plan, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	bool is_null;

	PG_TRY();
	{
		if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT_RETURNING ||
			SPI_processed != 1)
			elog(ERROR, "the job was not inserted");
	}
	PG_CATCH();
	{
		throw_without_statement(context);
	}
	PG_END_TRY();
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

PG_FUNCTION_INFO_V1(cm_submit_job);

Datum
cm_submit_job(PG_FUNCTION_ARGS)
{
	int n = PG_NARGS();
	Datum *values = palloc(sizeof(Datum) * n);
	char *nulls = palloc(n + 1);
	bool with_options = !PG_ARGISNULL(n - 1);
	int64 id;

	for (int i = 0; i < n; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	nulls[n] = '\0';
	SPI_connect();
	prepare_submit(fcinfo);
	if (with_options)
		check_options(fcinfo, PG_GETARG_JSONB_P(n - 1));
	id = insert_job(with_options ? submit_plan.with_options : submit_plan.plain, values, nulls);
	SPI_finish();
	PG_RETURN_INT64(id);
}

/* --- requests --- */

typedef struct RequestedJob
{
	bool is_pending;
	bool is_finished;
	bool is_being_cancelled;
	bool is_about_to_run_again;
	int attempt;
	const char *host;  /* where it runs, or must run; NULL: any */
	bool host_answers; /* as the executor last saw it */
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
		" r.actions @> '{retry}', j.host, coalesce(s.state = 'healthy', false), j.attempt"
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

static const RequestDetails no_details = {NULL, 0, NULL};

PG_FUNCTION_INFO_V1(cm_cancel_job);

Datum
cm_cancel_job(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid caller = GetUserId();
	CmAsOwner as_owner;
	RequestedJob job;
	bool does_it;

	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	find_requested_job(fcinfo, job_id, caller, &job);
	does_it = (!job.is_finished || job.is_about_to_run_again) && !job.is_being_cancelled;
	if (does_it)
		leave_request(job_id, "cancel", &no_details, caller);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_BOOL(does_it);
}

PG_FUNCTION_INFO_V1(cm_set_priority);

Datum
cm_set_priority(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	int priority = PG_GETARG_INT32(1);
	RequestDetails details = {.priority = &priority};
	Oid caller = GetUserId();
	CmAsOwner as_owner;
	RequestedJob job;
	bool does_it;

	if (priority < 0 || priority > MAX_PRIORITY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority of %d is out of range", priority),
				 errdetail("Priorities are 0 to %d; higher is started first.", MAX_PRIORITY)));
	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	find_requested_job(fcinfo, job_id, caller, &job);
	does_it = !job.is_finished && job.is_pending;
	if (does_it)
		leave_request(job_id, "set_priority", &details, caller);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_BOOL(does_it);
}

PG_FUNCTION_INFO_V1(cm_retry_job);

Datum
cm_retry_job(PG_FUNCTION_ARGS)
{
	int64 job_id = PG_GETARG_INT64(0);
	Oid caller = GetUserId();
	CmAsOwner as_owner;
	RequestedJob job;
	bool does_it;

	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	find_requested_job(fcinfo, job_id, caller, &job);
	does_it = job.is_finished && !job.is_about_to_run_again;
	if (does_it && job.attempt >= CM_MAX_ATTEMPTS)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("job %lld has had %d attempts", (long long) job_id, job.attempt),
						errdetail("No job may have more than %d.", CM_MAX_ATTEMPTS),
						errhint("Submit it anew.")));
	if (does_it)
		leave_request(job_id, "retry", &no_details, caller);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_BOOL(does_it);
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
	int64 job_id;
	RequestDetails details = {.reason = get_reason(fcinfo)};
	Oid caller = GetUserId();
	CmAsOwner as_owner;
	RequestedJob job;
	bool does_it;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	job_id = PG_GETARG_INT64(0);
	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	find_requested_job(fcinfo, job_id, caller, &job);
	does_it = !job.is_finished && !job.is_pending;
	if (does_it && job.host_answers)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("host \"%s\" of job %lld answers", job.host, (long long) job_id),
						errdetail("Only jobs whose host is gone can be abandoned."),
						errhint("End it with cm_cancel_job(%lld).", (long long) job_id)));
	details.attempt = job.attempt;
	if (does_it)
		leave_request(job_id, "abandon", &details, caller);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_BOOL(does_it);
}

/* All of them: whoever may call this decides for the whole database. */
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
		"INSERT INTO cm_internal.requests (job_id, action, requested_by, epoch)"
		" SELECT j.id, 'adopt', $1, i.epoch FROM cm_internal.inert_jobs j"
		" CROSS JOIN cm_internal.current_identity i WHERE NOT EXISTS (SELECT FROM cm_internal.requests r"
		" WHERE r.job_id = j.id AND r.action = 'adopt' AND r.epoch = i.epoch) ORDER BY j.id",
		1, types, values, NULL, false, 0);
	n = SPI_processed;
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PG_RETURN_INT64(n);
}
