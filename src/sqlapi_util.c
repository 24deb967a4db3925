/*
 * sqlapi_util.c
 *		What SQL-callable functions share.
 *
 * SECURITY DEFINER would be the usual way to let callers read internal tables.
 * But a function so marked does not learn who called it, and so could not
 * apply the caller's row security; and a procedure so marked may not end
 * transactions.  Hence the change of user is done here, around the statements
 * that need it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "sqlapi_util.h"

#define MAX_NEAREST_BYTES 64 /* longer words are no misspelt names */

/* A call that waits outlives DROP EXTENSION: nothing is locked meanwhile. */
static Oid
find_schema(FunctionCallInfo fcinfo)
{
	Oid schema = get_func_namespace(fcinfo->flinfo->fn_oid);

	if (!OidIsValid(schema))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension container_manager was dropped meanwhile")));
	return schema;
}

const char *
cm_sqlapi_schema(FunctionCallInfo fcinfo)
{
	return quote_identifier(get_namespace_name(find_schema(fcinfo)));
}

Oid
cm_sqlapi_owner(FunctionCallInfo fcinfo)
{
	Oid table = get_relname_relid("cm_jobs", find_schema(fcinfo));
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "table %s.cm_jobs does not exist", cm_sqlapi_schema(fcinfo));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
cm_sqlapi_begin_as_owner(FunctionCallInfo fcinfo, CmAsOwner *as_owner)
{
	cm_sqlapi_begin_as(cm_sqlapi_owner(fcinfo), as_owner);
}

void
cm_sqlapi_begin_as(Oid owner, CmAsOwner *as_owner)
{
	GetUserIdAndSecContext(&as_owner->user_id, &as_owner->security_context);
	SetUserIdAndSecContext(owner, as_owner->security_context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_NOFORCE_RLS);
	as_owner->guc_level = NewGUCNestLevel();
	cm_restrict_search_path();
}

void
cm_sqlapi_end_as_owner(const CmAsOwner *as_owner)
{
	AtEOXact_GUC(false, as_owner->guc_level);
	SetUserIdAndSecContext(as_owner->user_id, as_owner->security_context);
}

ErrorData *
cm_sqlapi_try(void (*function)(void *), void *argument)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		function(argument);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

static char *
fill_in_schema(const char *text, const char *schema)
{
	const char *mark = "@extschema@";
	const char *found;
	StringInfoData filled;

	initStringInfo(&filled);
	while ((found = strstr(text, mark)) != NULL)
	{
		appendBinaryStringInfo(&filled, text, found - text);
		appendStringInfoString(&filled, schema);
		text = found + strlen(mark);
	}
	appendStringInfoString(&filled, text);
	return filled.data;
}

/* A session may drop the extension and create it in another schema. */
static void
plan_query(FunctionCallInfo fcinfo, CmJobQuery *query)
{
	Oid schema = find_schema(fcinfo);
	Oid type = INT8OID;
	SPIPlanPtr plan;

	if (query->plan != NULL && query->schema == schema)
		return;
	plan = SPI_prepare(fill_in_schema(query->text, cm_sqlapi_schema(fcinfo)), 1, &type);
	if (plan == NULL)
		elog(ERROR, "could not plan \"%s\": %s", query->text, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	if (query->plan != NULL)
		SPI_freeplan(query->plan);
	query->plan = plan;
	query->schema = schema;
}

bool
cm_sqlapi_read_job(FunctionCallInfo fcinfo, CmJobQuery *query, int64 job_id)
{
	Datum value = Int64GetDatum(job_id);
	int code;

	plan_query(fcinfo, query);
	code = SPI_execute_plan(query->plan, &value, NULL, true, 1);
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", query->text, SPI_result_code_string(code));
	return SPI_processed > 0;
}

Datum
cm_sqlapi_job_datum(int column, bool *is_null)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, is_null);
}

char *
cm_sqlapi_job_text(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

/* Runs as the caller, so the search_path is the caller's, too. */
int
cm_sqlapi_find_job(FunctionCallInfo fcinfo, int64 job_id)
{
	static CmJobQuery query = {.text = "SELECT j.attempt FROM @extschema@.cm_jobs j"
									   " WHERE j.id OPERATOR(pg_catalog.=) $1"};

	bool is_null;

	if (!cm_sqlapi_read_job(fcinfo, &query, job_id))
		cm_sqlapi_throw_no_job(job_id);
	return DatumGetInt32(cm_sqlapi_job_datum(1, &is_null));
}

double
cm_sqlapi_interval_ms(const Interval *interval)
{
	double days = interval->month * (double) DAYS_PER_MONTH + interval->day;

	return interval->time / 1000.0 + days * SECS_PER_DAY * 1000.0;
}

void
cm_sqlapi_throw_no_job(int64 job_id)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("job " INT64_FORMAT " does not exist", job_id)));
}

const char *
cm_sqlapi_find_nearest(const char *word, int n_word, int n_words, char *const *words)
{
	int best = Min(3, n_word / 2) + 1;
	const char *nearest = NULL;

	if (n_word > MAX_NEAREST_BYTES)
		return NULL;
	for (int i = 0; i < n_words; i++)
	{
		int length = words[i] == NULL ? 0 : strlen(words[i]);
		int distance;

		if (words[i] == NULL || length > MAX_NEAREST_BYTES)
			continue;
		distance =
			varstr_levenshtein_less_equal(word, n_word, words[i], length, 1, 1, 1, best - 1, true);
		if (distance >= best)
			continue;
		best = distance;
		nearest = words[i];
	}
	return nearest;
}
