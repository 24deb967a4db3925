/*
 * sqlapi_many.c
 *		cm_submit_jobs(): many jobs by one INSERT.
 *
 * Every value is tried before, as the type of its column, so that an error can
 * say whose it is; the INSERT then reads the same JSON as a whole.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "sqlapi_jobs.h"
#include "sqlapi_schedule.h"
#include "sqlapi_util.h"

/* How values of a column are read. */
typedef struct Reader
{
	Oid type; /* of a value, or of the items of an array */
	bool is_array;
	FmgrInfo input;
	Oid io_param;
} Reader;

/* Kept for the session. */
static struct
{
	Oid function; /* that it was made for */
	CmParameters parameters;
	Reader *readers;
	SPIPlanPtr plan;
} many;

/* --- preparation --- */

static Oid
find_submit_job(Oid schema)
{
	CatCList *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum("cm_submit_job"));
	Oid extension = get_extension_oid("container_manager", false);
	Oid found = InvalidOid;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc function = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		/* Others may have made one of that name. */
		if (function->pronamespace == schema &&
			getExtensionOfObject(ProcedureRelationId, function->oid) == extension)
			found = function->oid;
	}
	ReleaseSysCacheList(list);
	if (!OidIsValid(found))
		elog(ERROR, "function cm_submit_job does not exist");
	return found;
}

static void
prepare_readers(void)
{
	int n = many.parameters.n_columns;

	many.readers = MemoryContextAllocZero(TopMemoryContext, sizeof(Reader) * n);
	for (int i = 0; i < n; i++)
	{
		Reader *reader = &many.readers[i];
		Oid item = get_element_type(many.parameters.types[i]);
		Oid input;

		reader->is_array = OidIsValid(item);
		reader->type = reader->is_array ? item : many.parameters.types[i];
		getTypeInputInfo(reader->type, &input, &reader->io_param);
		fmgr_info_cxt(input, &reader->input, TopMemoryContext);
	}
}

static void
prepare_plan(const char *schema)
{
	StringInfoData columns;
	StringInfoData values;
	Oid type = JSONBOID;

	initStringInfo(&columns);
	initStringInfo(&values);
	for (int i = 0; i < many.parameters.n_columns; i++)
	{
		const char *column = quote_identifier(many.parameters.columns[i]);

		appendStringInfo(&columns, "%s%s", i ? ", " : "", column);
		appendStringInfo(&values, "%sr.%s", i ? ", " : "", column);
	}
	many.plan = SPI_prepare(
		psprintf(
			"INSERT INTO %s.cm_jobs (%s) SELECT %s FROM pg_catalog.jsonb_array_elements($1) AS e (job)"
			" CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::%s.cm_jobs, e.job) AS r"
			" RETURNING id",
			schema, columns.data, values.data, schema),
		1, &type);
	if (many.plan == NULL)
		elog(ERROR, "could not plan cm_submit_jobs");
	SPI_keepplan(many.plan);
}

static void
prepare(FunctionCallInfo fcinfo)
{
	Oid function = fcinfo->flinfo->fn_oid;
	const char *schema = cm_sqlapi_schema(fcinfo);

	if (many.function == function)
		return;
	cm_sqlapi_read_parameters(find_submit_job(get_func_namespace(function)), &many.parameters);
	prepare_readers();
	prepare_plan(schema);
	many.function = function;
}

/* --- what is given --- */

static int
find_column(const char *key, int n_key)
{
	const char *nearest;

	for (int i = 0; i < many.parameters.n_columns; i++)
		if (strlen(many.parameters.columns[i]) == n_key &&
			strncmp(many.parameters.columns[i], key, n_key) == 0)
			return i;
	nearest =
		cm_sqlapi_find_nearest(key, n_key, many.parameters.n_columns, many.parameters.columns);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unknown key \"%.*s\"", pg_mbcliplen(key, n_key, 100), key),
					nearest ? errhint("Perhaps you meant \"%s\".", nearest)
							: errhint("Keys are parameters of cm_submit_job but options.")));
	return -1;
}

static void
throw_wrong_kind(const char *column, const char *kind)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is not %s", column, kind),
					err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

static void
try_scalar(const char *column, Reader *reader, const JsonbValue *value)
{
	char *text = NULL;

	if (value->type == jbvNull || reader->type == JSONBOID)
		return;
	if (value->type == jbvString)
		text = pnstrdup(value->val.string.val, value->val.string.len);
	else if (value->type == jbvBool)
		text = pstrdup(value->val.boolean ? "true" : "false");
	else if (value->type == jbvNumeric)
		text =
			DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	else
		throw_wrong_kind(column, "a single value");
	(void) InputFunctionCall(&reader->input, text, reader->io_param, -1);
	pfree(text);
}

static void
try_array(const char *column, Reader *reader, const JsonbValue *value)
{
	if (value->type == jbvNull)
		return;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		throw_wrong_kind(column, "a JSON array");
	for (uint32 i = 0; i < JsonContainerSize(value->val.binary.data); i++)
		try_scalar(column, reader, getIthJsonbValueFromContainer(value->val.binary.data, i));
}

/* What is being looked at, for whoever catches its error. */
typedef struct Place
{
	int element;		/* from 1 */
	const char *column; /* NULL: none */
} Place;

static void
check_element(const JsonbValue *element, volatile Place *place)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	int column = 0;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("it is not a JSON object"),
				 errhint("Write it as {\"image\": \"busybox:1.36\", \"command\": \"true\"}.")));
	iterator = JsonbIteratorInit(element->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			column = find_column(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			Reader *reader = &many.readers[column];

			place->column = many.parameters.columns[column];
			if (reader->is_array)
				try_array(place->column, reader, &value);
			else
				try_scalar(place->column, reader, &value);
			place->column = NULL;
		}
	}
}

static void
check_elements(Jsonb *jobs, volatile Place *place)
{
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "cm_submit_jobs", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);

	for (uint32 i = 0; i < JB_ROOT_COUNT(jobs); i++)
	{
		CHECK_FOR_INTERRUPTS();
		place->element = (int) i + 1;
		check_element(getIthJsonbValueFromContainer(&jobs->root, i), place);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

/* --- errors --- */

/* Is it about what was given, and not the server's or the administrator's doing? */
static bool
is_about_a_job(const ErrorData *error)
{
	int category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return category != ERRCODE_OPERATOR_INTERVENTION && category != ERRCODE_INTERNAL_ERROR &&
		   category != ERRCODE_TRANSACTION_ROLLBACK;
}

static void
throw_with_place(MemoryContext context, Place place)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	cm_sqlapi_hide_statement(error);
	if (place.element > 0 && is_about_a_job(error))
	{
		bool is_named = place.column == NULL || error->column_name != NULL;

		error->message =
			psprintf("element %d of jobs: %s%s%s", place.element, is_named ? "" : place.column,
					 is_named ? "" : ": ", error->message);
		if (error->column_name == NULL && place.column != NULL)
		{
			error->column_name = pstrdup(place.column);
			error->table_name = pstrdup("cm_jobs");
		}
	}
	ReThrowError(error);
}

/* --- submitting --- */

/* Its rows are in SPI_tuptable then. */
static void
insert_jobs(Jsonb *jobs, CmSubmission *submission)
{
	MemoryContext context = CurrentMemoryContext;
	CmSubmission *before = cm_sqlapi_submission;
	Datum value = JsonbPGetDatum(jobs);
	int n = JB_ROOT_COUNT(jobs);
	volatile Place place = {0};

	PG_TRY();
	{
		check_elements(jobs, &place);
		place.element = 0;
		cm_sqlapi_begin_submission(submission);
		submission->n_space = n;
		submission->skipped_at = palloc(sizeof(int) * Max(n, 1));
		submission->skipped_for = palloc(sizeof(int64) * Max(n, 1));
		if (SPI_execute_plan(many.plan, &value, NULL, false, 0) != SPI_OK_INSERT_RETURNING ||
			SPI_processed + submission->n_skipped != n)
			elog(ERROR, "not all jobs were inserted");
		cm_sqlapi_end_submission(before);
	}
	PG_CATCH();
	{
		/* The one behind those that were let pass; after the last it is about all. */
		if (cm_sqlapi_submission == submission && submission->n_checked < n)
			place.element = submission->n_checked + 1;
		cm_sqlapi_end_submission(before);
		throw_with_place(context, (Place){place.element, place.column});
	}
	PG_END_TRY();
}

static void
put_ids(ReturnSetInfo *result, const CmSubmission *submission, int n)
{
	int n_skipped = 0;
	bool nulls[2] = {false, false};
	bool is_null;

	for (int i = 0; i < n; i++)
	{
		Datum values[2] = {Int32GetDatum(i + 1)};

		if (n_skipped < submission->n_skipped && submission->skipped_at[n_skipped] == i)
			values[1] = Int64GetDatum(submission->skipped_for[n_skipped++]);
		else
			values[1] = SPI_getbinval(SPI_tuptable->vals[i - n_skipped], SPI_tuptable->tupdesc, 1,
									  &is_null);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

PG_FUNCTION_INFO_V1(cm_submit_jobs);

Datum
cm_submit_jobs(PG_FUNCTION_ARGS)
{
	Jsonb *jobs = PG_GETARG_JSONB_P(0);
	CmSubmission submission;

	if (!JB_ROOT_IS_ARRAY(jobs) || JB_ROOT_IS_SCALAR(jobs))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("jobs is not a JSON array"),
			 errhint("Write it as [{\"image\": \"busybox:1.36\", \"command\": \"true\"}, ...].")));
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	prepare(fcinfo);
	insert_jobs(jobs, &submission);
	put_ids((ReturnSetInfo *) fcinfo->resultinfo, &submission, JB_ROOT_COUNT(jobs));
	SPI_finish();
	return (Datum) 0;
}
