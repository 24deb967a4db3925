/*
 * sqlapi_asked.c
 *		Waiting until a host has done what was asked of it.
 *
 * Floor 5.  Likewise as for hosts that are drained (sqlapi_drain.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "shmem.h"
#include "sqlapi_util.h"
#include "sqlapi_wait.h"

PG_FUNCTION_INFO_V1(cm_wait_host_request);
PG_FUNCTION_INFO_V1(cm_await_host_request);

typedef struct RequestWait
{
	FunctionCallInfo fcinfo;
	MemoryContext context; /* of what is given back */
	int64 id;
	char *state; /* of its end; NULL: it waits */
	char *error;
} RequestWait;

static char *
copy_column(const RequestWait *wait, int column)
{
	char *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return text != NULL ? MemoryContextStrdup(wait->context, text) : NULL;
}

static void
judge_request(RequestWait *wait)
{
	bool is_null;
	Datum xmin = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &is_null);

	if (strcmp(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), "waiting") != 0)
	{
		wait->state = copy_column(wait, 1);
		wait->error = copy_column(wait, 2);
	}
	else if (TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("request %lld was made by this transaction", (long long) wait->id),
						errdetail("It is carried out when the transaction has committed."),
						errhint("COMMIT first, then wait.")));
}

static void
look_at_request(void *argument)
{
	RequestWait *wait = argument;
	Oid types[1] = {INT8OID};
	Datum values[1] = {Int64GetDatum(wait->id)};
	CmAsOwner as_owner;

	cm_sqlapi_begin_as_owner(wait->fcinfo, &as_owner);
	SPI_execute_with_args(
		"SELECT r.state, r.error, r.xmin FROM cm_internal.host_requests r WHERE r.id = $1", 1,
		types, values, NULL, true, 1);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("request %lld does not exist", (long long) wait->id),
						errhint("See cm_host_requests; what ended is kept for a week.")));
	judge_request(wait);
	cm_sqlapi_end_as_owner(&as_owner);
}

static bool
is_over(void *argument)
{
	RequestWait *wait = argument;

	cm_sqlapi_look(look_at_request, wait);
	return wait->state != NULL;
}

static void
name_request(void *argument)
{
	errcontext("waiting for request %lld of cm_host_requests",
			   (long long) ((RequestWait *) argument)->id);
}

static void
wait_for_request(RequestWait *request, int64 timeout_ms)
{
	CmWait wait = {CM_WAITER_FOR_HOSTS, is_over, request, name_request};

	(void) cm_sqlapi_wait(&wait, timeout_ms);
}

Datum
cm_wait_host_request(PG_FUNCTION_ARGS)
{
	RequestWait request = {.fcinfo = fcinfo, .context = CurrentMemoryContext};

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	request.id = PG_GETARG_INT64(0);
	/* The same statement may have made it: this makes that visible. */
	CommandCounterIncrement();
	wait_for_request(&request, cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS));
	if (request.state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(request.state));
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

Datum
cm_await_host_request(PG_FUNCTION_ARGS)
{
	Datum values[2] = {0};
	bool nulls[2] = {true, true};
	int64 timeout_ms = cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS);
	RequestWait request = {.fcinfo = fcinfo, .context = CurrentMemoryContext};

	cm_sqlapi_check_may_commit(fcinfo, "cm_await_host_request", "cm_wait_host_request");
	if (!PG_ARGISNULL(0))
	{
		request.id = PG_GETARG_INT64(0);
		SPI_connect_ext(SPI_OPT_NONATOMIC);
		cm_sqlapi_commit_to_wait();
		wait_for_request(&request, timeout_ms);
		SPI_commit();
		SPI_finish();
	}
	set_text(values, nulls, 0, request.state);
	set_text(values, nulls, 1, request.error);
	return cm_sqlapi_make_row(fcinfo, values, nulls);
}
