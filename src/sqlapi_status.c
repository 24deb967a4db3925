/*
 * sqlapi_status.c
 *		What the views on status need and SQL cannot get by itself.
 *
 * Floor 5.  Facts only; cm_status and its siblings put them into words.  Works
 * on a standby and without shared_preload_libraries, where there is little to
 * tell but that.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "image_ref.h"
#include "shmem.h"

#define SHORT_IMAGE_SIZE 64

PG_FUNCTION_INFO_V1(cm_status_read_executor);
PG_FUNCTION_INFO_V1(cm_status_read_pulses);
PG_FUNCTION_INFO_V1(cm_status_short_image);

/* A row under construction. */
typedef struct RowWriter
{
	int n;
	Datum values[20];
	bool nulls[20];
} RowWriter;

static void
put(RowWriter *row, Datum value, bool is_null)
{
	Assert(row->n < lengthof(row->values));
	row->values[row->n] = value;
	row->nulls[row->n++] = is_null;
}

static void
put_text(RowWriter *row, const char *text)
{
	if (text[0] == '\0')
		put(row, (Datum) 0, true);
	else
		put(row, CStringGetTextDatum(text), false);
}

static void
put_time(RowWriter *row, TimestampTz time)
{
	put(row, TimestampTzGetDatum(time), time == 0);
}

static void
put_pids(RowWriter *row, const int *pids, int n)
{
	Datum items[CM_MAX_BLOCKERS];

	for (int i = 0; i < n; i++)
		items[i] = Int32GetDatum(pids[i]);
	if (n == 0)
		put(row, (Datum) 0, true);
	else
		put(row,
			PointerGetDatum(construct_array(items, n, INT4OID, sizeof(int32), true, TYPALIGN_INT)),
			false);
}

static void
put_counters(RowWriter *row, const CmExecutorCounters *counters)
{
	put(row, Int64GetDatum((int64) counters->turns), false);
	put(row, Int64GetDatum((int64) counters->wakeups), false);
	put(row, Int64GetDatum((int64) counters->transactions), false);
	put(row, Int64GetDatum((int64) counters->polls), false);
	put(row, Int64GetDatum((int64) counters->claimed), false);
	put(row, Int64GetDatum((int64) counters->finished), false);
	put(row, Int64GetDatum((int64) counters->http_requests), false);
}

static const char *
name_phase(CmExecutorPhase phase)
{
	switch (phase)
	{
		case CM_PHASE_NONE:
			return "none";
		case CM_PHASE_STARTING:
			return "starting";
		case CM_PHASE_AT_WORK:
			return "at work";
		case CM_PHASE_ON_HOLD:
			return "on hold";
		case CM_PHASE_NO_EXTENSION:
			return "no extension";
		case CM_PHASE_DISABLED:
			return "disabled";
		case CM_PHASE_CRASHED:
			return "crashed";
		case CM_PHASE_NO_WORKER_SLOT:
			return "no worker slot";
		case CM_PHASE_HELD:
			return "held";
		case CM_PHASE_STOPPED:
			return "stopped";
	}
	return "none";
}

/* () -> one row about the executor of this database; see sql/70-views.sql. */
Datum
cm_status_read_executor(PG_FUNCTION_ARGS)
{
	CmExecutorStatus status;
	RowWriter row = {0};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(&status, 0, sizeof(status));
	if (!cm_shmem_executor_status(MyDatabaseId, &status))
		status.phase = CM_PHASE_NONE;

	put_text(&row, name_phase(status.phase));
	put(&row, BoolGetDatum(cm_shmem_is_preloaded()), false);
	put(&row, BoolGetDatum(cm_shmem_launcher_is_there()), false);
	put(&row, BoolGetDatum(RecoveryInProgress()), false);
	put(&row, BoolGetDatum(cm_guc_enabled), false);
	put(&row, Int32GetDatum(status.pid), status.pid == 0);
	put_time(&row, status.started_at);
	put_time(&row, status.last_turn_at);
	put_time(&row, status.last_error_at);
	put_text(&row, status.last_error);
	put_text(&row, status.blocked_on);
	put_pids(&row, status.blockers, status.n_blockers);
	put_counters(&row, &status.counters);
	if (row.n != desc->natts)
		elog(ERROR, "row has %d columns, not %d", desc->natts, row.n);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row.values, row.nulls)));
}

/* (image) -> the same in a form fit for narrow columns. */
Datum
cm_status_short_image(PG_FUNCTION_ARGS)
{
	char out[SHORT_IMAGE_SIZE];

	cm_image_ref_shorten(text_to_cstring(PG_GETARG_TEXT_PP(0)), out, sizeof(out));
	PG_RETURN_TEXT_P(cstring_to_text(out));
}

/* -> host_id, last_checked, response_ms, failures. */
Datum
cm_status_read_pulses(PG_FUNCTION_ARGS)
{
	CmPulse *pulses = palloc(sizeof(CmPulse) * CM_MAX_PULSES);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int n = cm_shmem_read_pulses(pulses);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		RowWriter row = {0};

		put(&row, Int32GetDatum(pulses[i].host_id), false);
		put_time(&row, pulses[i].checked_at);
		put(&row, Float8GetDatum(pulses[i].response_us / 1000.0), pulses[i].response_us < 0);
		put(&row, Int32GetDatum(pulses[i].failures), false);
		tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
	}
	return (Datum) 0;
}
