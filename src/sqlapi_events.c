/*
 * sqlapi_events.c
 *		The triggers that tell of what happened, and of what is asked for.
 */
#include "postgres.h"

#include "commands/async.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "guc.h"
#include "shmem.h"
#include "sqlapi_triggers.h"
#include "store.h"

/* Numbers of the columns of cm_job_events that are told of. */
typedef struct EventColumns
{
	int seq;
	int job_id;
	int attempt;
	int status;
	int exit_code;
} EventColumns;

static void
publish_event(TupleTableSlot *slot, const EventColumns *columns)
{
	bool is_null;
	bool no_exit_code;
	char payload[256];
	char channel[NAMEDATALEN];
	long long job_id = DatumGetInt64(slot_getattr(slot, columns->job_id, &is_null));
	int exit_code = DatumGetInt32(slot_getattr(slot, columns->exit_code, &no_exit_code));

	snprintf(payload, sizeof(payload),
			 "{\"seq\":%lld,\"job_id\":%lld,\"status\":\"%s\",\"attempt\":%d,\"exit_code\":%s}",
			 (long long) DatumGetInt64(slot_getattr(slot, columns->seq, &is_null)), job_id,
			 TextDatumGetCString(slot_getattr(slot, columns->status, &is_null)),
			 DatumGetInt32(slot_getattr(slot, columns->attempt, &is_null)),
			 no_exit_code ? "null" : psprintf("%d", exit_code));
	Async_Notify("cm_job_status", payload);
	if (!cm_guc_job_channels)
		return;
	snprintf(channel, sizeof(channel), "cm_job_%lld", job_id);
	Async_Notify(channel, payload);
}

PG_FUNCTION_INFO_V1(cm_publish_events);

Datum
cm_publish_events(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	EventColumns columns;
	TupleTableSlot *slot;

	if (!cm_store_is_publishing)
		return PointerGetDatum(NULL);
	columns.seq = SPI_fnumber(desc, "seq");
	columns.job_id = SPI_fnumber(desc, "job_id");
	columns.attempt = SPI_fnumber(desc, "attempt");
	columns.status = SPI_fnumber(desc, "status");
	columns.exit_code = SPI_fnumber(desc, "exit_code");
	/* The table holds them in the order of the INSERT, which is that of seq. */
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	tuplestore_rescan(trigger->tg_newtable);
	while (tuplestore_gettupleslot(trigger->tg_newtable, true, false, slot))
		publish_event(slot, &columns);
	ExecDropSingleTupleTableSlot(slot);
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(cm_wake_executor);

Datum
cm_wake_executor(PG_FUNCTION_ARGS)
{
	(void) cm_sqlapi_trigger_data(fcinfo);
	cm_shmem_wake_at_commit(CM_WAKE_REQUESTS);
	return PointerGetDatum(NULL);
}
