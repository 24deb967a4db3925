/*
 * sqlapi_wait.c
 *		SQL functions and procedures that wait for a job's end.
 *
 * A waiting session enters a table in shared memory before it looks at the job
 * for the first time; the executor sets the latch of whoever is entered, after
 * it committed the end.  So no wake-up is lost, and looking again now and then
 * is only the safety net.
 *
 * Each look takes the latest snapshot in a subtransaction of its own, which is
 * then rolled back: that gives back the locks on tables as well, so that a
 * session that waits for hours is in nobody's way.  The procedures moreover
 * commit before they wait; the transaction that they wait in then holds
 * neither a snapshot nor a lock.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "dbtext.h"
#include "logread.h"
#include "shmem.h"
#include "sqlapi_util.h"
#include "sqlapi_wait.h"

PG_FUNCTION_INFO_V1(cm_wait_job);
PG_FUNCTION_INFO_V1(cm_await_job);
PG_FUNCTION_INFO_V1(cm_run_job);

#define SAFETY_NET_MS (5 * 1000)
#define POLL_MS 1000 /* where the table of waiters is full */

/* What an error of cm_run_job shows of stderr. */
#define SHOWN_LINES 10
#define SHOWN_LINE_BYTES 1000

/* What a look at the job says. */
typedef struct JobLook
{
	char status[16];
	bool is_over;		 /* and not about to run again */
	bool is_uncommitted; /* submitted, or to be run again, by the transaction that waits */
	bool is_copy;		 /* a row of another database */
} JobLook;

/* --- looking --- */

static bool
is_over(const char *status)
{
	return strcmp(status, "completed") == 0 || strcmp(status, "failed") == 0 ||
		   strcmp(status, "timeout") == 0 || strcmp(status, "cancelled") == 0;
}

static void
read_look(FunctionCallInfo fcinfo, int64 job_id, JobLook *look)
{
	static CmJobQuery query = {
		.text = "SELECT j.status, coalesce(r.xmin, j.xmin), j.epoch = i.epoch, r.xmin IS NOT NULL"
				" FROM @extschema@.cm_jobs j LEFT JOIN cm_internal.current_identity i ON true"
				" LEFT JOIN LATERAL (SELECT r.xmin FROM cm_internal.requests r"
				"  WHERE r.job_id = j.id AND r.action = 'retry' LIMIT 1) r ON true"
				" WHERE j.id = $1"};
	CmAsOwner as_owner;
	bool is_null;

	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	if (!cm_sqlapi_read_job(fcinfo, &query, job_id))
		cm_sqlapi_throw_no_job(job_id);
	strlcpy(look->status, cm_sqlapi_job_text(1), sizeof(look->status));
	look->is_over = is_over(look->status) && !DatumGetBool(cm_sqlapi_job_datum(4, &is_null));
	look->is_uncommitted = TransactionIdIsCurrentTransactionId(
		DatumGetTransactionId(cm_sqlapi_job_datum(2, &is_null)));
	look->is_copy = !DatumGetBool(cm_sqlapi_job_datum(3, &is_null)) && !is_null;
	cm_sqlapi_end_as_owner(&as_owner);
}

typedef struct Looking
{
	void (*function)(void *);
	void *argument;
} Looking;

/* Nothing locks the called function, so that it may have been dropped. */
static void
look_in_subtransaction(void *argument)
{
	const Looking *looking = argument;

	AcceptInvalidationMessages();
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	looking->function(looking->argument);
	SPI_finish();
	PopActiveSnapshot();
}

/* An error must not leave before the subtransaction is ended, either. */
void
cm_sqlapi_look(void (*function)(void *), void *argument)
{
	Looking looking = {function, argument};
	ErrorData *error = cm_sqlapi_try(look_in_subtransaction, &looking);

	if (error != NULL)
		ReThrowError(error);
}

/* Waiting for these would only end by the timeout. */
static void
refuse_endless(int64 job_id, const JobLook *look)
{
	if (look->is_uncommitted)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("job " INT64_FORMAT " was submitted or retried by this transaction",
							   job_id),
						errdetail("It is started after the transaction has committed."),
						errhint("COMMIT first, then wait for it.")));
	if (look->is_copy)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is a copy from another database and does not run",
						job_id)));
}

/* --- waiting --- */

static void
sleep_until_news(const CmWait *wait, int64 at_most_ms)
{
	ErrorContextCallback context = {error_context_stack, wait->name_it, wait->argument};

	error_context_stack = &context;
	InvalidateCatalogSnapshotConditionally();
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) at_most_ms,
					 cm_wait_event("ContainerManagerJobWait"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	error_context_stack = context.previous;
}

/* By the monotonic clock, so that setting the other one changes nothing. */
static int64
milliseconds_left(int64 timeout_ms, const instr_time *began)
{
	instr_time passed;

	if (timeout_ms == CM_WAIT_FOR_EVER_MS)
		return CM_WAIT_FOR_EVER_MS;
	INSTR_TIME_SET_CURRENT(passed);
	INSTR_TIME_SUBTRACT(passed, *began);
	return timeout_ms - (int64) INSTR_TIME_GET_MILLISEC(passed);
}

bool
cm_sqlapi_wait(const CmWait *wait, int64 timeout_ms)
{
	bool is_entered = false;
	bool is_over;
	instr_time began;

	INSTR_TIME_SET_CURRENT(began);
	for (;;)
	{
		int64 left_ms;

		if (!is_entered)
			is_entered = cm_shmem_enter_waiter(wait->key);
		is_over = wait->is_over(wait->argument);
		left_ms = milliseconds_left(timeout_ms, &began);
		if (is_over || left_ms <= 0)
			break;
		sleep_until_news(wait, Min(left_ms, is_entered ? SAFETY_NET_MS : POLL_MS));
	}
	cm_shmem_leave_waiter();
	return is_over;
}

/* Waiting for a job's end. */
typedef struct EndWait
{
	FunctionCallInfo fcinfo;
	int64 job_id;
	bool checks_rights; /* whether the caller may see the job */
	JobLook *look;
} EndWait;

static void
name_job(void *argument)
{
	const EndWait *wait = argument;

	errcontext("waiting for job " INT64_FORMAT ", which goes on by itself", wait->job_id);
}

static void
look_at_job(void *argument)
{
	const EndWait *wait = argument;

	if (wait->checks_rights)
		cm_sqlapi_find_job(wait->fcinfo, wait->job_id);
	read_look(wait->fcinfo, wait->job_id, wait->look);
}

static bool
is_at_end(void *argument)
{
	EndWait *wait = argument;

	cm_sqlapi_look(look_at_job, wait);
	wait->checks_rights = false;
	if (!wait->look->is_over)
		refuse_endless(wait->job_id, wait->look);
	return wait->look->is_over;
}

/* *look is the last one; it is not over where the timeout came first. */
static void
wait_for_end(FunctionCallInfo fcinfo, int64 job_id, int64 timeout_ms, bool checks_rights,
			 JobLook *look)
{
	EndWait end = {fcinfo, job_id, checks_rights, look};
	CmWait wait = {job_id, is_at_end, &end, name_job};

	(void) cm_sqlapi_wait(&wait, timeout_ms);
}

/* A century and more counts as for ever, and so does 'infinity'. */
int64
cm_sqlapi_wait_timeout_ms(FunctionCallInfo fcinfo, int arg, int64 fallback_ms)
{
	const double max_ms = 100.0 * 365 * 86400 * 1000;
	double ms;

	if (PG_ARGISNULL(arg))
		return fallback_ms;
	ms = cm_sqlapi_interval_ms(PG_GETARG_INTERVAL_P(arg));
	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("timeout must not be negative")));
	return ms > max_ms ? CM_WAIT_FOR_EVER_MS : (int64) ms;
}

Datum
cm_wait_job(PG_FUNCTION_ARGS)
{
	JobLook look;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	/* The same statement may have submitted the job: this makes it visible. */
	CommandCounterIncrement();
	wait_for_end(fcinfo, PG_GETARG_INT64(0),
				 cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS), true, &look);
	if (!look.is_over)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(look.status));
}

/* --- waiting between transactions --- */

static bool
may_end_transactions(FunctionCallInfo fcinfo)
{
	return fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		   !castNode(CallContext, fcinfo->context)->atomic && !IsSubTransaction();
}

void
cm_sqlapi_check_may_commit(FunctionCallInfo fcinfo, const char *procedure, const char *instead)
{
	if (!may_end_transactions(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("%s cannot run in a transaction block or a function", procedure),
						errhint("Call it by itself, or use %s.", instead)));
}

/*
 * Ends the transaction and starts one that holds no snapshot between looks,
 * whatever default_transaction_isolation says.
 */
void
cm_sqlapi_commit_to_wait(void)
{
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
}

Datum
cm_sqlapi_make_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "procedure %u returns no row", fcinfo->flinfo->fn_oid);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
cm_await_job(PG_FUNCTION_ARGS)
{
	Datum values[1] = {0};
	bool nulls[1] = {true};
	int64 timeout_ms = cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS);
	JobLook look;

	cm_sqlapi_check_may_commit(fcinfo, "cm_await_job", "cm_wait_job");
	if (!PG_ARGISNULL(0))
	{
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		cm_sqlapi_commit_to_wait();
		wait_for_end(fcinfo, PG_GETARG_INT64(0), timeout_ms, true, &look);
		SPI_commit();
		SPI_finish();
		if (look.is_over)
			values[0] = PointerGetDatum(cstring_to_text(look.status));
		nulls[0] = !look.is_over;
	}
	return cm_sqlapi_make_row(fcinfo, values, nulls);
}

/* --- submitting and waiting --- */

/* The arguments of cm_run_job after those that it shares with cm_submit_job. */
enum RunArgument
{
	RUN_WAIT_TIMEOUT,
	RUN_FAIL_ON_ERROR,
	RUN_JOB_ID,
	RUN_STATUS,
	RUN_EXIT_CODE,
	RUN_OUTPUT,
	N_RUN_ARGUMENTS
};

#define N_RUN_RESULTS (N_RUN_ARGUMENTS - RUN_JOB_ID)

/* What is told of a job that is over; texts outlive SPI. */
typedef struct JobEnd
{
	bool has_exit_code;
	int exit_code;
	int attempt; /* 0: it never ran */
	char *error; /* NULL: none */
	char *hint;
	StringInfoData output;	   /* room for a header, then stdout */
	StringInfoData last_lines; /* of stderr */
} JobEnd;

/* By name, because the file that defines it is no business of this one. */
static char *
make_submit_command(FunctionCallInfo fcinfo, int n_args)
{
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfo(&command, "SELECT %s.cm_submit_job(", cm_sqlapi_schema(fcinfo));
	for (int i = 1; i <= n_args; i++)
		appendStringInfo(&command, i == 1 ? "$%d" : ", $%d", i);
	appendStringInfoChar(&command, ')');
	return command.data;
}

static int64
submit_job(FunctionCallInfo fcinfo, int n_args)
{
	char *command = make_submit_command(fcinfo, n_args);
	Datum *values = palloc(sizeof(Datum) * n_args);
	char *nulls = palloc(n_args);
	Oid *types;
	int n_types;
	int code;
	bool is_null;

	get_func_signature(fcinfo->flinfo->fn_oid, &types, &n_types);
	for (int i = 0; i < n_args; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	}
	code = SPI_execute_with_args(command, n_args, types, values, nulls, false, 1);
	if (code != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not run \"%s\": %s", command, SPI_result_code_string(code));
	return DatumGetInt64(cm_sqlapi_job_datum(1, &is_null));
}

static char *
copy_text(MemoryContext context, const char *text)
{
	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

static void
read_columns(FunctionCallInfo fcinfo, int64 job_id, MemoryContext context, JobEnd *end)
{
	static CmJobQuery query = {.text = "SELECT j.exit_code, j.attempt, j.error, j.hint"
									   " FROM @extschema@.cm_jobs j WHERE j.id = $1"};
	bool is_null;

	if (!cm_sqlapi_read_job(fcinfo, &query, job_id))
		cm_sqlapi_throw_no_job(job_id);
	end->exit_code = DatumGetInt32(cm_sqlapi_job_datum(1, &is_null));
	end->has_exit_code = !is_null;
	end->attempt = DatumGetInt32(cm_sqlapi_job_datum(2, &is_null));
	end->error = copy_text(context, cm_sqlapi_job_text(3));
	end->hint = copy_text(context, cm_sqlapi_job_text(4));
}

static void
append_last_lines(int64 job_id, int attempt, StringInfo out)
{
	CmLogWish wish = {
		.job_id = job_id, .attempt = attempt, .stream = CM_LOG_STDERR, .tail = SHOWN_LINES};
	CmLogReader *reader = cm_logread_open(&wish);
	CmLogLine line;
	CmDbText text;

	cm_dbtext_init(&text, out);
	while (cm_logread_next(reader, &line))
	{
		if (out->len > 0)
			appendStringInfoChar(out, '\n');
		cm_dbtext_feed(&text, line.bytes, Min(line.n_bytes, SHOWN_LINE_BYTES));
		cm_dbtext_finish(&text);
		if (line.n_bytes > SHOWN_LINE_BYTES)
			appendStringInfoString(out, "...");
	}
	cm_logread_close(reader);
}

/* Everything lands in the current memory context. */
static void
read_end(FunctionCallInfo fcinfo, int64 job_id, bool with_output, JobEnd *end)
{
	static const char header[VARHDRSZ] = {0};
	MemoryContext context = CurrentMemoryContext;
	CmAsOwner as_owner;

	initStringInfo(&end->output);
	initStringInfo(&end->last_lines);
	appendBinaryStringInfo(&end->output, header, VARHDRSZ);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	cm_sqlapi_begin_as_owner(fcinfo, &as_owner);
	read_columns(fcinfo, job_id, context, end);
	if (end->attempt > 0 && with_output)
		cm_logread_append_text(job_id, end->attempt, CM_LOG_STDOUT, &end->output);
	else if (end->attempt > 0)
		append_last_lines(job_id, end->attempt, &end->last_lines);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	PopActiveSnapshot();
}

/* What a container wrote goes to the client, but not to the server's log. */
static void
throw_failure(int64 job_id, const char *status, const JobEnd *end)
{
	const char *verb = strcmp(status, "cancelled") == 0 ? "was cancelled"
					   : strcmp(status, "timeout") == 0 ? "ended by its timeout"
														: "failed";

	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 end->error != NULL ? errmsg("job " INT64_FORMAT " %s: %s", job_id, verb, end->error)
								: errmsg("job " INT64_FORMAT " %s", job_id, verb),
			 end->last_lines.len > 0
				 ? errdetail("The last lines of stderr:\n%s", end->last_lines.data)
				 : 0,
			 end->last_lines.len > 0 ? errdetail_log("What it wrote is in cm_job_logs.") : 0,
			 end->hint != NULL
				 ? errhint("%s", end->hint)
				 : errhint("What it wrote: SELECT * FROM cm_job_logs(" INT64_FORMAT ").", job_id)));
}

static void
throw_unfinished(int64 job_id, const char *status)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("job " INT64_FORMAT " did not end within wait_timeout", job_id),
					errdetail("It is %s and goes on by itself.", status),
					errhint("To wait again: CALL cm_await_job(" INT64_FORMAT ").", job_id)));
}

/* Fills in the results after job_id and status. */
static void
fill_in_end(FunctionCallInfo fcinfo, int64 job_id, const char *status, bool fails, Datum *values,
			bool *nulls)
{
	JobEnd end;

	fails = fails && strcmp(status, "completed") != 0;
	read_end(fcinfo, job_id, !fails, &end);
	if (fails)
		throw_failure(job_id, status, &end);
	values[RUN_EXIT_CODE - RUN_JOB_ID] = Int32GetDatum(end.exit_code);
	nulls[RUN_EXIT_CODE - RUN_JOB_ID] = !end.has_exit_code;
	SET_VARSIZE(end.output.data, end.output.len);
	values[RUN_OUTPUT - RUN_JOB_ID] = PointerGetDatum(end.output.data);
	nulls[RUN_OUTPUT - RUN_JOB_ID] = end.attempt == 0;
}

/* Submits and waits; commits before and after. */
static int64
run_to_end(FunctionCallInfo fcinfo, int n_shared, JobLook *look)
{
	int64 timeout_ms =
		cm_sqlapi_wait_timeout_ms(fcinfo, n_shared + RUN_WAIT_TIMEOUT, CM_WAIT_FOR_EVER_MS);
	int64 job_id;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	job_id = submit_job(fcinfo, n_shared);
	cm_sqlapi_commit_to_wait();
	wait_for_end(fcinfo, job_id, timeout_ms, false, look);
	SPI_commit();
	SPI_finish();
	return job_id;
}

Datum
cm_run_job(PG_FUNCTION_ARGS)
{
	int n_shared = PG_NARGS() - N_RUN_ARGUMENTS;
	bool fails =
		!PG_ARGISNULL(n_shared + RUN_FAIL_ON_ERROR) && PG_GETARG_BOOL(n_shared + RUN_FAIL_ON_ERROR);
	Datum values[N_RUN_RESULTS] = {0};
	bool nulls[N_RUN_RESULTS] = {false, false, true, true};
	JobLook look;
	int64 job_id;

	if (!may_end_transactions(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cm_run_job cannot run in a transaction block or a function"),
				 errdetail("A job is started after the transaction that submits it has committed."),
				 errhint("Use cm_submit_job, and cm_wait_job after COMMIT.")));
	job_id = run_to_end(fcinfo, n_shared, &look);
	values[0] = Int64GetDatum(job_id);
	values[RUN_STATUS - RUN_JOB_ID] = PointerGetDatum(cstring_to_text(look.status));
	if (look.is_over)
		fill_in_end(fcinfo, job_id, look.status, fails, values, nulls);
	else if (fails)
		throw_unfinished(job_id, look.status);
	return cm_sqlapi_make_row(fcinfo, values, nulls);
}
