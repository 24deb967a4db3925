/*
 * sqlapi_jobs.c
 *		cm_submit_job().
 *
 * Submitting is an INSERT into cm_jobs; the checks are in its triggers, so
 * that a plain INSERT meets the same ones.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "sqlapi_jobs.h"
#include "sqlapi_schedule.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"

/* cm_submit_job's parameters after those that are columns. */
enum SubmitArgument
{
	SUBMIT_OPTIONS,
	SUBMIT_DRY_RUN,
	N_SUBMIT_ARGUMENTS
};

typedef struct SubmitPlan
{
	Oid function; /* that it was made for */
	CmParameters parameters;
	SPIPlanPtr plain;
	SPIPlanPtr with_options;
} SubmitPlan;

static SubmitPlan submit_plan;

void
cm_sqlapi_read_parameters(Oid function, CmParameters *parameters)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid *types;
	char **names;
	char *modes;
	MemoryContext caller;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	caller = MemoryContextSwitchTo(TopMemoryContext);
	parameters->n_columns = get_func_arg_info(tuple, &types, &names, &modes) - N_SUBMIT_ARGUMENTS;
	MemoryContextSwitchTo(caller);
	ReleaseSysCache(tuple);
	parameters->types = types;
	parameters->columns = names;
}

/* INSERT of all columns; with options, what a parameter leaves unsaid is
 * taken from them. */
static SPIPlanPtr
plan_insert(const char *schema, bool with_options)
{
	StringInfoData text;
	int n = submit_plan.parameters.n_columns;
	char **columns = submit_plan.parameters.columns;
	SPIPlanPtr plan;

	initStringInfo(&text);
	appendStringInfo(&text, "INSERT INTO %s.cm_jobs (", schema);
	for (int i = 0; i < n; i++)
		appendStringInfo(&text, "%s%s", i ? ", " : "", quote_identifier(columns[i]));
	appendStringInfoString(&text, ") SELECT ");
	for (int i = 0; i < n; i++)
	{
		if (with_options)
			appendStringInfo(&text, "%scoalesce($%d, o.%s)", i ? ", " : "", i + 1,
							 quote_identifier(columns[i]));
		else
			appendStringInfo(&text, "%s$%d", i ? ", " : "", i + 1);
	}
	if (with_options)
		appendStringInfo(&text,
						 " FROM pg_catalog.jsonb_populate_record(NULL::%s.cm_jobs, $%d) AS o",
						 schema, n + 1);
	appendStringInfoString(&text, " RETURNING id");
	plan = SPI_prepare(text.data, n + 1, submit_plan.parameters.types);
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
	cm_sqlapi_read_parameters(function, &submit_plan.parameters);
	submit_plan.plain = plan_insert(schema, false);
	submit_plan.with_options = plan_insert(schema, true);
	submit_plan.function = function;
}

static void
check_option(FunctionCallInfo fcinfo, const char *key, int n_key)
{
	const CmParameters *parameters = &submit_plan.parameters;
	const char *nearest;

	for (int i = 0; i < parameters->n_columns; i++)
	{
		if (strlen(parameters->columns[i]) != n_key ||
			strncmp(parameters->columns[i], key, n_key) != 0)
			continue;
		if (!PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("%s is given twice", parameters->columns[i]),
							errdetail("It is a parameter of its own and a key of options."),
							errhint("Leave one of them out.")));
		return;
	}
	nearest = cm_sqlapi_find_nearest(key, n_key, parameters->n_columns, parameters->columns);
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

void
cm_sqlapi_hide_statement(ErrorData *error)
{
	const char *begin = "SQL statement \"INSERT INTO ";
	char *end;

	if (error->context != NULL && strncmp(error->context, begin, strlen(begin)) == 0)
	{
		end = strchr(error->context, '\n');
		error->context = end ? end + 1 : NULL;
	}
}

static void
throw_without_statement(MemoryContext context)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	cm_sqlapi_hide_statement(error);
	ReThrowError(error);
}

static int64
insert_job(SPIPlanPtr plan, Datum *values, const char *nulls, bool *is_skipped)
{
	MemoryContext context = CurrentMemoryContext;
	CmSubmission *before = cm_sqlapi_submission;
	CmSubmission submission;
	int skipped_at;
	int64 skipped_for = 0;
	bool is_null;

	PG_TRY();
	{
		cm_sqlapi_begin_submission(&submission);
		submission.n_space = 1;
		submission.skipped_at = &skipped_at;
		submission.skipped_for = &skipped_for;
		if (SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_INSERT_RETURNING ||
			SPI_processed + submission.n_skipped != 1)
			elog(ERROR, "the job was not inserted");
		cm_sqlapi_end_submission(before);
	}
	PG_CATCH();
	{
		cm_sqlapi_end_submission(before);
		throw_without_statement(context);
	}
	PG_END_TRY();
	*is_skipped = submission.n_skipped > 0;
	if (*is_skipped)
		return skipped_for;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
}

/* A call of cm_submit_job. */
typedef struct Submission
{
	FunctionCallInfo fcinfo;
	MemoryContext context; /* of what outlives it */
	Datum *values;
	char *nulls;
	bool with_options;
	int64 id;
	bool is_skipped; /* id is of the job that has its unique_key */
	char *command;	 /* of a dry run */
} Submission;

static void
submit(Submission *submission)
{
	FunctionCallInfo fcinfo = submission->fcinfo;
	int options = submit_plan.parameters.n_columns + SUBMIT_OPTIONS;

	if (submission->with_options)
		check_options(fcinfo, PG_GETARG_JSONB_P(options));
	submission->id =
		insert_job(submission->with_options ? submit_plan.with_options : submit_plan.plain,
				   submission->values, submission->nulls, &submission->is_skipped);
}

/* --- submitting it in vain --- */

/* In a subtransaction that is rolled back. */
static void
rehearse(void *arg)
{
	static CmJobQuery query = {.text = "SELECT @extschema@.cm_job_docker_command($1)"};
	Submission *submission = arg;
	CmAsOwner as_owner;
	char *command;

	SPI_connect();
	prepare_submit(submission->fcinfo);
	submit(submission);
	cm_sqlapi_begin_as_owner(submission->fcinfo, &as_owner);
	/* The row is younger than the snapshot of whoever called. */
	PushActiveSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	if (!submission->is_skipped && cm_sqlapi_read_job(submission->fcinfo, &query, submission->id))
	{
		command = cm_sqlapi_job_text(1);
		submission->command = MemoryContextStrdup(submission->context, command);
	}
	PopActiveSnapshot();
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
}

static void
show_command(Submission *submission)
{
	ErrorData *error;

	cm_submit_is_dry_run = true;
	error = cm_sqlapi_try(rehearse, submission);
	cm_submit_is_dry_run = false;
	if (error != NULL)
		ReThrowError(error);
	ereport(NOTICE,
			(submission->is_skipped
				 ? errmsg("nothing is submitted; nor would it be, for job " INT64_FORMAT
						  " has its unique_key",
						  submission->id)
				 : errmsg("nothing is submitted; the job would run as: %s", submission->command),
			 errhidecontext(true)));
}

PG_FUNCTION_INFO_V1(cm_submit_job);

Datum
cm_submit_job(PG_FUNCTION_ARGS)
{
	int n = PG_NARGS();
	int options = n - N_SUBMIT_ARGUMENTS + SUBMIT_OPTIONS;
	int dry_run = n - N_SUBMIT_ARGUMENTS + SUBMIT_DRY_RUN;
	Submission submission = {.fcinfo = fcinfo, .context = CurrentMemoryContext};

	submission.values = palloc(sizeof(Datum) * n);
	submission.nulls = palloc(n + 1);
	submission.with_options = !PG_ARGISNULL(options);
	for (int i = 0; i < n; i++)
	{
		submission.values[i] = PG_GETARG_DATUM(i);
		submission.nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	submission.nulls[n] = '\0';
	if (!PG_ARGISNULL(dry_run) && PG_GETARG_BOOL(dry_run))
	{
		show_command(&submission);
		PG_RETURN_NULL();
	}
	SPI_connect();
	prepare_submit(fcinfo);
	submit(&submission);
	SPI_finish();
	PG_RETURN_INT64(submission.id);
}
