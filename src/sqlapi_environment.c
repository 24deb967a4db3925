/*
 * sqlapi_environment.c
 *		Environment templates, and the environment that a job gets of them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "envtext.h"
#include "sqlapi_environment.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"

#define N_MERGE_ARGS 7

/* --- templates --- */

static int
parse_text(const char *text, CmEnvVariable **variables)
{
	CmEnvTextProblem problem;
	int n;

	*variables = palloc(sizeof(CmEnvVariable) * CM_ENVTEXT_MAX_VARIABLES);
	n = cm_envtext_parse(text, *variables, &problem);
	if (n < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("environment_variables_text cannot be used: %s", problem.message),
						errhint("%s", problem.hint),
						err_generic_string(PG_DIAG_TABLE_NAME, "cm_environment_templates"),
						err_generic_string(PG_DIAG_COLUMN_NAME, "environment_variables_text")));
	return n;
}

PG_FUNCTION_INFO_V1(cm_check_environment_template);

Datum
cm_check_environment_template(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	bool is_update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	HeapTuple row = is_update ? trigger->tg_newtuple : trigger->tg_trigtuple;
	int updated_at = SPI_fnumber(desc, "updated_at");
	CmEnvVariable *variables;
	bool is_null;
	Datum value =
		heap_getattr(row, SPI_fnumber(desc, "environment_variables_text"), desc, &is_null);

	if (!is_null)
		(void) parse_text(TextDatumGetCString(value), &variables);
	if (!is_update)
		return PointerGetDatum(row);
	value = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	is_null = false;
	return PointerGetDatum(heap_modify_tuple_by_cols(row, desc, 1, &updated_at, &value, &is_null));
}

PG_FUNCTION_INFO_V1(cm_read_environment);

Datum
cm_read_environment(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CmEnvVariable *variables;
	int n = parse_text(text_to_cstring(PG_GETARG_TEXT_PP(0)), &variables);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		Datum values[2];
		bool nulls[2] = {false, false};

		values[0] =
			PointerGetDatum(cstring_to_text_with_len(variables[i].name, variables[i].n_name));
		values[1] =
			PointerGetDatum(cstring_to_text_with_len(variables[i].value, variables[i].n_value));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* --- a job's environment --- */

static Datum
get_column(HeapTuple row, TupleDesc desc, const char *column, bool *is_null)
{
	return heap_getattr(row, SPI_fnumber(desc, column), desc, is_null);
}

static bool
has_column(HeapTuple row, TupleDesc desc, const char *column)
{
	bool is_null;

	(void) get_column(row, desc, column, &is_null);
	return !is_null;
}

static bool
is_usable(HeapTuple row, TupleDesc desc, const char *column)
{
	bool is_null;
	Datum value = get_column(row, desc, column, &is_null);

	return is_null || JB_ROOT_IS_OBJECT(DatumGetJsonbP(value));
}

static bool
is_mergeable(HeapTuple row, TupleDesc desc)
{
	return is_usable(row, desc, "environment") && is_usable(row, desc, "secret_environment");
}

static HeapTuple
set_merged(HeapTuple filled, TupleDesc desc)
{
	static const char *const columns[] = {"environment", "secret_environment",
										  "environment_sources"};
	int numbers[lengthof(columns)];
	Datum values[lengthof(columns)];
	bool nulls[lengthof(columns)];

	for (int i = 0; i < lengthof(columns); i++)
	{
		numbers[i] = SPI_fnumber(desc, columns[i]);
		values[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
	}
	return heap_modify_tuple_by_cols(filled, desc, lengthof(columns), numbers, values, nulls);
}

HeapTuple
cm_sqlapi_merge_environment(Relation jobs, HeapTuple said, HeapTuple filled,
							const char *template_environment)
{
	static SPIPlanPtr plan = NULL;
	static const char *const columns[N_MERGE_ARGS] = {NULL,
													  "template",
													  "environment",
													  "secret_environment",
													  "environment_template",
													  "environment",
													  "secret_environment"};
	Oid types[N_MERGE_ARGS] = {TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, JSONBOID, JSONBOID};
	TupleDesc desc = RelationGetDescr(jobs);
	Datum values[N_MERGE_ARGS] = {0};
	char nulls[N_MERGE_ARGS] = "n      ";
	CmAsOwner as_owner;

	if (template_environment == NULL && !has_column(said, desc, "environment_template") &&
		!has_column(said, desc, "template"))
		return filled;
	if (!is_mergeable(said, desc) || !is_mergeable(filled, desc))
		return filled;
	if (template_environment != NULL)
	{
		values[0] = CStringGetTextDatum(template_environment);
		nulls[0] = ' ';
	}
	for (int i = 1; i < N_MERGE_ARGS; i++)
	{
		bool is_null;

		values[i] = get_column(i < 4 ? filled : said, desc, columns[i], &is_null);
		nulls[i] = is_null ? 'n' : ' ';
	}
	cm_sqlapi_begin_as(jobs->rd_rel->relowner, &as_owner);
	if (plan == NULL)
	{
		plan =
			SPI_prepare("SELECT * FROM cm_internal.merge_environment($1, $2, $3, $4, $5, $6, $7)",
						N_MERGE_ARGS, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not plan the merge of environments");
	}
	if (SPI_execute_plan(plan, values, nulls, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not merge environments");
	cm_sqlapi_end_as_owner(&as_owner);
	return set_merged(filled, desc);
}

void
cm_sqlapi_check_secrets(Relation jobs, HeapTuple job, Oid role)
{
	TupleDesc desc = RelationGetDescr(jobs);
	Oid types[3] = {TEXTOID, JSONBOID, NAMEOID};
	Datum values[3];
	CmAsOwner as_owner;
	bool is_null;

	values[1] = get_column(job, desc, "secret_environment", &is_null);
	if (is_null || !is_usable(job, desc, "secret_environment"))
		return;
	values[0] = get_column(job, desc, "namespace", &is_null);
	values[2] = DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(role, false)));
	cm_sqlapi_begin_as(jobs->rd_rel->relowner, &as_owner);
	if (SPI_execute_with_args("SELECT cm_internal.check_secrets($1, $2, $3)", 3, types, values,
							  NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for secrets");
	cm_sqlapi_end_as_owner(&as_owner);
}
