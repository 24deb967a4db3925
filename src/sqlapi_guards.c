/*
 * sqlapi_guards.c
 *		The triggers that refuse what only the executor may change, and that clean
 *		up behind deleted jobs.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

#include "guc.h"
#include "policy.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"
#include "store.h"

static const char *
find_function_for(const char *column)
{
	if (strcmp(column, "status") == 0)
		return "Use cm_cancel_job() to end a job.";
	if (strcmp(column, "priority") == 0)
		return "Use cm_set_priority().";
	return "name and labels may be changed; submit another job for anything else.";
}

static bool
may_be_changed(const char *column)
{
	return strcmp(column, "name") == 0 || strcmp(column, "labels") == 0;
}

/*
 * name and labels must still be what the guard lets pass.  What it finds
 * elsewhere (a limit lowered since) is not this statement's doing.
 */
static void
check_changed(TriggerData *trigger)
{
	CmJobSpec spec;
	CmProblem problem;
	CmLimits limits = cm_guc_limits();

	memset(&problem, 0, sizeof(problem));
	if ((!cm_store_read_spec(trigger->tg_newtuple, RelationGetDescr(trigger->tg_relation), &spec,
							 &problem) ||
		 !cm_policy_check(&spec, &limits, &problem)) &&
		may_be_changed(problem.column))
		cm_store_throw_problem(&problem, "cm_jobs");
}

static void
refuse_update(TriggerData *trigger)
{
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);

	for (int i = 1; i <= desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i - 1);
		bool old_null;
		bool new_null;
		Datum old_value = heap_getattr(trigger->tg_trigtuple, i, desc, &old_null);
		Datum new_value = heap_getattr(trigger->tg_newtuple, i, desc, &new_null);

		if (column->attisdropped || may_be_changed(NameStr(column->attname)))
			continue;
		if (old_null == new_null &&
			(old_null || datumIsEqual(old_value, new_value, column->attbyval, column->attlen)))
			continue;
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("%s of a job cannot be changed by UPDATE", NameStr(column->attname)),
						errdetail("Only the executor changes a job's state."),
						errhint("%s", find_function_for(NameStr(column->attname))),
						err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
						err_generic_string(PG_DIAG_COLUMN_NAME, NameStr(column->attname))));
	}
}

static void
refuse_delete_of_unfinished(TriggerData *trigger)
{
	static CmTriggerSql find = {
		"SELECT FROM cm_internal.queue WHERE job_id = $1 /* %s */", 1, {INT8OID}, InvalidOid, NULL};
	/* The executor is about to look how it ended. */
	static CmTriggerSql find_waiting = {
		"SELECT job_id FROM cm_internal.dependencies WHERE depends_on = $1 LIMIT 1 /* %s */",
		1,
		{INT8OID},
		InvalidOid,
		NULL};
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	CmAsOwner as_owner;
	bool is_null;
	Datum id = heap_getattr(trigger->tg_trigtuple, SPI_fnumber(desc, "id"), desc, &is_null);
	bool is_unfinished;
	int64 waiting_id = 0;

	SPI_connect();
	cm_sqlapi_begin_as(trigger->tg_relation->rd_rel->relowner, &as_owner);
	is_unfinished = cm_sqlapi_look_in_trigger(&find, trigger->tg_relation, &id) > 0;
	if (!is_unfinished && cm_sqlapi_look_in_trigger(&find_waiting, trigger->tg_relation, &id) > 0)
		waiting_id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	if (is_unfinished)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job %lld is not over", (long long) DatumGetInt64(id)),
				 errhint("End it with cm_cancel_job(%lld) first.", (long long) DatumGetInt64(id))));
	if (waiting_id != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("job %lld depends on job %lld", (long long) waiting_id,
							   (long long) DatumGetInt64(id)),
						errdetail("The executor has not yet seen how that ended."),
						errhint("Try again, or end job %lld first.", (long long) waiting_id)));
}

static void
refuse_truncate_of_unfinished(TriggerData *trigger)
{
	static CmTriggerSql find = {
		"SELECT FROM cm_internal.queue LIMIT 1 /* %s */", 0, {0}, InvalidOid, NULL};
	CmAsOwner as_owner;
	bool are_there;

	SPI_connect();
	cm_sqlapi_begin_as(trigger->tg_relation->rd_rel->relowner, &as_owner);
	are_there = cm_sqlapi_run_in_trigger(&find, trigger->tg_relation, NULL) > 0;
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	if (are_there)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cm_jobs has jobs that are not over"),
				 errhint("End them with cm_cancel_job() first, or DELETE those that are over.")));
}

PG_FUNCTION_INFO_V1(cm_guard_job);

Datum
cm_guard_job(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);

	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		refuse_update(trigger);
		check_changed(trigger);
		return PointerGetDatum(trigger->tg_newtuple);
	}
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		refuse_truncate_of_unfinished(trigger);
		return PointerGetDatum(NULL);
	}
	refuse_delete_of_unfinished(trigger);
	return PointerGetDatum(trigger->tg_trigtuple);
}

PG_FUNCTION_INFO_V1(cm_forget_jobs);

Datum
cm_forget_jobs(PG_FUNCTION_ARGS)
{
	static CmTriggerSql forget_attempts = {
		"DELETE FROM %s.cm_job_attempts WHERE job_id IN (SELECT id FROM cm_old_jobs)",
		0,
		{0},
		InvalidOid,
		NULL};
	static CmTriggerSql forget_output = {
		"DELETE FROM cm_internal.log_chunks WHERE job_id IN (SELECT id FROM cm_old_jobs) /* %s */",
		0,
		{0},
		InvalidOid,
		NULL};
	static CmTriggerSql let_go = {"UPDATE cm_internal.kept_containers SET keep_until = now()"
								  " WHERE job_id IN (SELECT id FROM cm_old_jobs) /* %s */",
								  0,
								  {0},
								  InvalidOid,
								  NULL};
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	CmAsOwner as_owner;

	SPI_connect();
	SPI_register_trigger_data(trigger);
	cm_sqlapi_begin_as(trigger->tg_relation->rd_rel->relowner, &as_owner);
	cm_sqlapi_run_in_trigger(&forget_attempts, trigger->tg_relation, NULL);
	cm_sqlapi_run_in_trigger(&forget_output, trigger->tg_relation, NULL);
	cm_sqlapi_run_in_trigger(&let_go, trigger->tg_relation, NULL);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	return PointerGetDatum(NULL);
}
