/*
 * sqlapi_drain.c
 *		Waiting until no job is left on hosts that were disabled.
 *
 * Floor 5.  Likewise as for a job's end (sqlapi_wait.c): woken by the executor,
 * and without holding a snapshot.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "shmem.h"
#include "sqlapi_util.h"
#include "sqlapi_wait.h"

PG_FUNCTION_INFO_V1(cm_wait_host_drained);
PG_FUNCTION_INFO_V1(cm_await_host_drained);

typedef struct DrainWait
{
	FunctionCallInfo fcinfo;
	char *pattern;
	bool was_found; /* hosts that are removed meanwhile are no error */
	bool is_drained;
} DrainWait;

static void
refuse_not_drained(const char *host)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("host \"%s\" is not disabled", host),
					errdetail("New jobs may be started there, so that it would never be drained."),
					errhint("SELECT cm_disable_host(%s) first.", quote_literal_cstr(host))));
}

static void
refuse_uncommitted(const char *host)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("host \"%s\" was disabled by this transaction", host),
					errdetail("It takes effect when the transaction has committed."),
					errhint("COMMIT first, then wait.")));
}

static char *
read_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static void
judge_host(uint64 row, DrainWait *wait)
{
	bool is_null;
	Datum xmin = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3, &is_null);
	const char *name = read_text(row, 1);

	if (strcmp(read_text(row, 2), "f") == 0)
		refuse_not_drained(name);
	if (!is_null && TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)))
		refuse_uncommitted(name);
	if (strcmp(read_text(row, 4), "f") == 0)
		wait->is_drained = false;
}

static void
look_at_hosts(void *argument)
{
	static const char *query =
		"SELECT h.name, d.host_name IS NOT NULL OR NOT h.is_active,"
		" CASE WHEN d.host_name IS NULL THEN (SELECT c.xmin FROM %s.cm_hosts c WHERE c.id = h.id) ELSE d.xmin END,"
		" NOT EXISTS (SELECT FROM cm_internal.queue q WHERE q.host_id = h.id AND q.status <> 'pending')"
		" FROM cm_internal.%s($1) h LEFT JOIN cm_internal.host_drains d ON d.host_name = h.name";
	DrainWait *wait = argument;
	Oid types[1] = {TEXTOID};
	Datum values[1] = {CStringGetTextDatum(wait->pattern)};
	CmAsOwner as_owner;

	cm_sqlapi_begin_as_owner(wait->fcinfo, &as_owner);
	SPI_execute_with_args(psprintf(query, cm_sqlapi_schema(wait->fcinfo),
								   wait->was_found ? "match_hosts" : "find_hosts"),
						  1, types, values, NULL, true, 0);
	wait->is_drained = true;
	for (uint64 i = 0; i < SPI_processed; i++)
		judge_host(i, wait);
	cm_sqlapi_end_as_owner(&as_owner);
}

static bool
is_drained(void *argument)
{
	DrainWait *wait = argument;

	cm_sqlapi_look(look_at_hosts, wait);
	wait->was_found = true;
	return wait->is_drained;
}

static void
name_hosts(void *argument)
{
	errcontext("waiting for the jobs on host \"%s\"", ((DrainWait *) argument)->pattern);
}

static bool
wait_for_drain(FunctionCallInfo fcinfo, char *pattern, int64 timeout_ms)
{
	DrainWait drain = {fcinfo, pattern, false, false};
	CmWait wait = {CM_WAITER_FOR_HOSTS, is_drained, &drain, name_hosts};

	return cm_sqlapi_wait(&wait, timeout_ms);
}

Datum
cm_wait_host_drained(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	/* The same statement may have disabled it: this makes that visible. */
	CommandCounterIncrement();
	PG_RETURN_BOOL(wait_for_drain(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(0)),
								  cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS)));
}

Datum
cm_await_host_drained(PG_FUNCTION_ARGS)
{
	Datum values[1] = {0};
	bool nulls[1] = {true};
	int64 timeout_ms = cm_sqlapi_wait_timeout_ms(fcinfo, 1, CM_WAIT_DEFAULT_MS);
	MemoryContext caller = CurrentMemoryContext;

	cm_sqlapi_check_may_commit(fcinfo, "cm_await_host_drained", "cm_wait_host_drained");
	if (!PG_ARGISNULL(0))
	{
		char *pattern;

		SPI_connect_ext(SPI_OPT_NONATOMIC);
		pattern = MemoryContextStrdup(caller, text_to_cstring(PG_GETARG_TEXT_PP(0)));
		cm_sqlapi_commit_to_wait();
		values[0] = BoolGetDatum(wait_for_drain(fcinfo, pattern, timeout_ms));
		nulls[0] = false;
		SPI_commit();
		SPI_finish();
	}
	return cm_sqlapi_make_row(fcinfo, values, nulls);
}
