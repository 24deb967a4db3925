/*
 * sqlapi_triggers.c
 *		What the triggers share.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "sqlapi_triggers.h"

static const char *
get_schema(Relation relation)
{
	return quote_identifier(get_namespace_name(RelationGetNamespace(relation)));
}

uint64
cm_sqlapi_run_in_trigger(CmTriggerSql *sql, Relation relation, Datum *values)
{
	return cm_sqlapi_run_in_trigger_nulls(sql, relation, values, NULL);
}

static void
prepare(CmTriggerSql *sql, Relation relation)
{
	if (sql->relation != RelationGetRelid(relation))
	{
		SPIPlanPtr plan =
			SPI_prepare(psprintf(sql->text, get_schema(relation)), sql->n_args, sql->arg_types);

		if (plan == NULL)
			elog(ERROR, "could not plan \"%s\": %s", sql->text, SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		sql->plan = plan;
		sql->relation = RelationGetRelid(relation);
	}
}

uint64
cm_sqlapi_run_in_trigger_nulls(CmTriggerSql *sql, Relation relation, Datum *values,
							   const char *nulls)
{
	prepare(sql, relation);
	if (SPI_execute_plan(sql->plan, values, nulls, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql->text);
	return SPI_processed;
}

uint64
cm_sqlapi_look_in_trigger(CmTriggerSql *sql, Relation relation, Datum *values)
{
	prepare(sql, relation);
	if (SPI_execute_snapshot(sql->plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot, true,
							 false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql->text);
	return SPI_processed;
}

TriggerData *
cm_sqlapi_trigger_data(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("this function can only be called as a trigger")));
	return (TriggerData *) fcinfo->context;
}
