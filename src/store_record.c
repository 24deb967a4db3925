/*
 * store_record.c
 *		Recording what happened: transitions, in batches, and output.
 *
 * A batch is a handful of statements over arrays, whatever its size.  Rows
 * that somebody has locked are left out, and the caller keeps their records
 * for a later turn; nobody else's progress waits for them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "store.h"
#include "store_sql.h"

/* Microseconds from 1970 to 2000, where Postgres' clock begins. */
#define US_1970_TO_2000 ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* --- which rows can be written? --- */

static bool
contains(const int64 *ids, uint64 n, int64 id)
{
	for (uint64 i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static int64 *
read_ids(uint64 n)
{
	int64 *ids = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		ids[i] = cm_sql_int64(i, 1, 0);
	return ids;
}

static Datum
collect_ids(const CmRecord *records, int n)
{
	CmColumn ids;

	cm_column_init(&ids, INT8OID, n);
	for (int i = 0; i < n; i++)
		cm_column_add_int64(&ids, records[i].job_id);
	return cm_column_array(&ids);
}

/* Sets done where the rows could be locked, gone where there are none. */
static void
lock_rows(CmRecord *records, int n)
{
	static CmSql lock = {
		"SELECT q.job_id FROM cm_internal.queue q JOIN @extschema@.cm_jobs j ON j.id = q.job_id"
		" WHERE q.job_id = ANY ($1) AND j.id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	static CmSql find = {
		"SELECT q.job_id FROM cm_internal.queue q JOIN @extschema@.cm_jobs j ON j.id = q.job_id"
		" WHERE q.job_id = ANY ($1) AND j.id = ANY ($1)",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	Datum ids = collect_ids(records, n);
	uint64 n_locked = cm_sql_run(&lock, &ids, NULL);
	int64 *locked = read_ids(n_locked);
	bool all = true;
	int64 *found;
	uint64 n_found;

	for (int i = 0; i < n; i++)
	{
		records[i].done = contains(locked, n_locked, records[i].job_id);
		all = all && records[i].done;
	}
	if (all)
		return;
	n_found = cm_sql_run(&find, &ids, NULL);
	found = read_ids(n_found);
	for (int i = 0; i < n; i++)
		records[i].gone = !contains(found, n_found, records[i].job_id);
}

/* --- the statements --- */

/*
 * Each names the ids once more, by = ANY ($1): a plan made while a table was small
 * may else read all of the table and look the rows up in the array.
 */

static void
save_ids(const CmRecord *records, int n)
{
	static CmSql save = {
		"UPDATE cm_internal.queue q SET container_id = r.container_id"
		" FROM unnest($1, $2) AS r (job_id, container_id) WHERE q.job_id = r.job_id AND q.job_id = ANY ($1)",
		2,
		{INT8ARRAYOID, TEXTARRAYOID},
		NULL,
		0};
	CmColumn ids;
	CmColumn containers;
	Datum values[2];

	cm_column_init(&ids, INT8OID, n);
	cm_column_init(&containers, TEXTOID, n);
	for (int i = 0; i < n; i++)
	{
		if (!records[i].done || records[i].state != CM_LAUNCHING)
			continue;
		cm_column_add_int64(&ids, records[i].job_id);
		cm_column_add_text(&containers, records[i].container_id);
	}
	if (ids.n == 0)
		return;
	values[0] = cm_column_array(&ids);
	values[1] = cm_column_array(&containers);
	cm_sql_run(&save, values, NULL);
}

static void
save_running(const CmRecord *records, int n)
{
	static CmSql save = {
		"WITH r AS (SELECT * FROM unnest($1, $2, $3) AS r (job_id, container_id, started_at)),"
		" queued AS (UPDATE cm_internal.queue q SET status = 'running',"
		" container_id = r.container_id, started_at = r.started_at FROM r WHERE q.job_id = r.job_id AND q.job_id = ANY ($1))"
		" UPDATE @extschema@.cm_jobs j SET status = 'running', detail = NULL,"
		" container_id = r.container_id, started_at = r.started_at, updated_at = clock_timestamp()"
		" FROM r WHERE j.id = r.job_id AND j.id = ANY ($1)",
		3,
		{INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
		NULL,
		0};
	CmColumn ids;
	CmColumn containers;
	CmColumn starts;
	Datum values[3];

	cm_column_init(&ids, INT8OID, n);
	cm_column_init(&containers, TEXTOID, n);
	cm_column_init(&starts, TIMESTAMPTZOID, n);
	for (int i = 0; i < n; i++)
	{
		if (!records[i].done || records[i].state != CM_RUNNING)
			continue;
		cm_column_add_int64(&ids, records[i].job_id);
		cm_column_add_text(&containers, records[i].container_id);
		cm_column_add_time(&starts, records[i].started_at);
	}
	if (ids.n == 0)
		return;
	values[0] = cm_column_array(&ids);
	values[1] = cm_column_array(&containers);
	values[2] = cm_column_array(&starts);
	cm_sql_run(&save, values, NULL);
}

/* Columns of the batch of ends, in the order of the statement's arguments. */
enum
{
	END_JOB,
	END_ATTEMPT,
	END_STATUS,
	END_REASON,
	END_DETAIL,
	END_ERROR,
	END_HINT,
	END_HOST,
	END_CONTAINER,
	END_EXIT_CODE,
	END_OOM,
	END_LOGS,
	END_CLAIMED,
	END_STARTED,
	END_ENGINE_STARTED,
	END_ENGINE_FINISHED,
	END_INSPECT,
	END_TRIED,
	END_AGAIN_AT,
	END_N
};

#define END_TYPES                                                                               \
	{                                                                                           \
		INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,     \
			TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID, BOOLARRAYOID, BOOLARRAYOID, \
			TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, \
			TEXTARRAYOID, BOOLARRAYOID, TIMESTAMPTZARRAYOID                                     \
	}

/* The ends as rows r, and each attempt that was made becomes one of cm_job_attempts. */
#define END_ROWS                                                                                   \
	"WITH r AS (SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14," \
	" $15, $16, $17, $18, $19)"                                                                    \
	" AS r (job_id, attempt, status, reason, detail, error, hint, host, container_id, exit_code,"  \
	" oom_killed, logs_incomplete, claimed_at, started_at, engine_started_at, engine_finished_at," \
	" inspect, was_tried, again_at)),"                                                             \
	" attempted AS (INSERT INTO @extschema@.cm_job_attempts (job_id, attempt, status,"             \
	" failure_reason, error, hint, host, container_id, exit_code, oom_killed, logs_incomplete,"    \
	" claimed_at, started_at, completed_at, engine_started_at, engine_finished_at, inspect)"       \
	" SELECT job_id, attempt, status, reason, error, hint, host, container_id, exit_code,"         \
	" oom_killed, logs_incomplete, claimed_at, started_at, clock_timestamp(), engine_started_at,"  \
	" engine_finished_at, inspect::jsonb FROM r WHERE was_tried),"

static const Oid end_types[END_N] = {
	INT8OID,		INT4OID,		TEXTOID, TEXTOID, TEXTOID,		 TEXTOID,		 TEXTOID,
	TEXTOID,		TEXTOID,		INT4OID, BOOLOID, BOOLOID,		 TIMESTAMPTZOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, BOOLOID, TIMESTAMPTZOID};

static void
add_end(CmColumn *columns, const CmRecord *record)
{
	cm_column_add_int64(&columns[END_JOB], record->job_id);
	cm_column_add_int32(&columns[END_ATTEMPT], record->attempt);
	cm_column_add_text(&columns[END_STATUS], cm_lifecycle_state_word(record->state));
	cm_column_add_text(&columns[END_REASON], cm_lifecycle_reason_word(record->reason));
	cm_column_add_text(&columns[END_DETAIL], record->again ? record->again_detail : record->detail);
	cm_column_add_text(&columns[END_ERROR], record->error);
	cm_column_add_text(&columns[END_HINT], record->hint);
	cm_column_add_text(&columns[END_HOST], record->host_name);
	cm_column_add_text(&columns[END_CONTAINER], record->container_id);
	cm_column_add(&columns[END_EXIT_CODE], Int32GetDatum(record->exit_code),
				  !record->has_exit_code);
	cm_column_add(&columns[END_OOM], BoolGetDatum(record->oom_killed), false);
	cm_column_add(&columns[END_LOGS], BoolGetDatum(record->logs_incomplete), false);
	cm_column_add_time(&columns[END_CLAIMED], record->claimed_at);
	cm_column_add_time(&columns[END_STARTED], record->started_at);
	cm_column_add_time(&columns[END_ENGINE_STARTED], record->engine_started_at);
	cm_column_add_time(&columns[END_ENGINE_FINISHED], record->engine_finished_at);
	cm_column_add_text(&columns[END_INSPECT], record->inspect);
	cm_column_add(&columns[END_TRIED], BoolGetDatum(!record->never_started), false);
	cm_column_add_time(&columns[END_AGAIN_AT], record->again_at);
}

/* Runs the statement over the ends that are, or are not, followed by another attempt. */
static void
run_over_ends(CmSql *sql, const CmRecord *records, int n, bool again)
{
	CmColumn columns[END_N];
	Datum values[END_N];

	for (int i = 0; i < END_N; i++)
		cm_column_init(&columns[i], end_types[i], n);
	for (int i = 0; i < n; i++)
		if (records[i].done && cm_lifecycle_is_terminal(records[i].state) &&
			records[i].again == again)
			add_end(columns, &records[i]);
	if (columns[END_JOB].n == 0)
		return;
	for (int i = 0; i < END_N; i++)
		values[i] = cm_column_array(&columns[i]);
	cm_sql_run(sql, values, NULL);
}

static void
save_ends(const CmRecord *records, int n)
{
	static CmSql save = {
		END_ROWS
		" dequeued AS (DELETE FROM cm_internal.queue q USING r WHERE q.job_id = r.job_id AND q.job_id = ANY ($1))"
		" UPDATE @extschema@.cm_jobs j SET status = r.status, failure_reason = r.reason, detail = r.detail,"
		" error = r.error, hint = r.hint, container_id = coalesce(r.container_id, j.container_id),"
		" exit_code = r.exit_code, oom_killed = r.oom_killed,"
		" logs_incomplete = CASE WHEN r.was_tried THEN r.logs_incomplete ELSE j.logs_incomplete END,"
		" started_at = coalesce(j.started_at, r.started_at),"
		" completed_at = clock_timestamp(), updated_at = clock_timestamp()"
		" FROM r WHERE j.id = r.job_id AND j.id = ANY ($1)",
		END_N, END_TYPES, NULL, 0};

	run_over_ends(&save, records, n, false);
}

/* The attempt is over, the job is not: it waits for the next one, on any host. */
static void
save_again(const CmRecord *records, int n)
{
	static CmSql save = {
		END_ROWS
		" requeued AS (UPDATE cm_internal.queue q SET status = 'pending', run_at = r.again_at,"
		" is_due = false, expires_at = r.again_at + (q.expires_at - q.run_at), host_id = NULL,"
		" container_id = NULL, started_at = NULL, log_records = 0, log_hash = 0, log_bytes = 0,"
		" logs_incomplete = false FROM r WHERE q.job_id = r.job_id AND q.job_id = ANY ($1))"
		" UPDATE @extschema@.cm_jobs j SET status = 'pending', detail = r.detail,"
		" run_at = r.again_at, host = j.requested_host, container_id = NULL, started_at = NULL,"
		" logs_incomplete = r.logs_incomplete, updated_at = clock_timestamp() FROM r WHERE j.id = r.job_id AND j.id = ANY ($1)",
		END_N, END_TYPES, NULL, 0};

	run_over_ends(&save, records, n, true);
}

/* All transitions in order, whatever their kind: this is what is published. */
static void
save_events(const CmRecord *records, int n)
{
	static CmSql save = {
		"INSERT INTO @extschema@.cm_job_events (job_id, attempt, status, failure_reason, detail, host, exit_code)"
		" SELECT job_id, attempt, status, reason, detail, host, exit_code"
		" FROM unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY"
		" AS r (job_id, attempt, status, reason, detail, host, exit_code, n) ORDER BY n",
		7,
		{INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		 INT4ARRAYOID},
		NULL,
		0};
	static const Oid types[7] = {INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID};
	CmColumn columns[7];
	Datum values[7];

	for (int i = 0; i < 7; i++)
		cm_column_init(&columns[i], types[i], n);
	for (int i = 0; i < n; i++)
	{
		const CmRecord *record = &records[i];

		if (!record->done || record->state == CM_LAUNCHING)
			continue;
		cm_column_add_int64(&columns[0], record->job_id);
		cm_column_add_int32(&columns[1], record->attempt);
		cm_column_add_text(&columns[2],
						   cm_lifecycle_state_word(record->again ? CM_PENDING : record->state));
		cm_column_add_text(&columns[3], cm_lifecycle_reason_word(record->reason));
		cm_column_add_text(&columns[4], record->error ? record->error : record->detail);
		cm_column_add_text(&columns[5], record->host_name);
		cm_column_add(&columns[6], Int32GetDatum(record->exit_code), !record->has_exit_code);
	}
	if (columns[0].n == 0)
		return;
	for (int i = 0; i < 7; i++)
		values[i] = cm_column_array(&columns[i]);
	cm_sql_run(&save, values, NULL);
}

/* Ends of jobs, or also of attempts that others follow. */
static int64 *
collect_ended(const CmRecord *records, int n, bool also_again, int *n_ended)
{
	int64 *ids = palloc(sizeof(int64) * n);

	*n_ended = 0;
	for (int i = 0; i < n; i++)
		if (records[i].done && cm_lifecycle_is_terminal(records[i].state) &&
			(also_again || !records[i].again))
			ids[(*n_ended)++] = records[i].job_id;
	return ids;
}

void
cm_store_record(CmRecord *records, int n, CmMoved *moved)
{
	int64 *ended;
	int n_ended;

	if (n == 0)
		return;
	lock_rows(records, n);
	save_ids(records, n);
	save_running(records, n);
	cm_store_keep_containers(records, n);
	ended = collect_ended(records, n, true, &n_ended);
	cm_store_release_keys(ended, n_ended, moved);
	save_ends(records, n);
	save_again(records, n);
	ended = collect_ended(records, n, false, &n_ended);
	cm_store_note_ends(ended, n_ended, moved);
	save_events(records, n);
}

void
cm_store_save_detail(int64 job_id, const char *detail)
{
	static CmSql save = {
		"UPDATE @extschema@.cm_jobs SET detail = $2, updated_at = clock_timestamp() WHERE id IN"
		" (SELECT id FROM @extschema@.cm_jobs WHERE id = $1 AND detail IS DISTINCT FROM $2"
		" FOR NO KEY UPDATE SKIP LOCKED)",
		2,
		{INT8OID, TEXTOID},
		NULL,
		0};
	Datum values[2];
	char nulls[3] = "  ";

	values[0] = Int64GetDatum(job_id);
	if (detail == NULL)
		nulls[1] = 'n';
	else
		values[1] = CStringGetTextDatum(cm_store_text_from_utf8(detail));
	cm_sql_run(&save, values, nulls);
}

/* --- output --- */

static Datum
make_times(const CmChunk *chunk)
{
	CmColumn times;

	cm_column_init(&times, TIMESTAMPTZOID, chunk->n_records);
	for (int i = 0; i < chunk->n_records; i++)
		cm_column_add(&times, TimestampTzGetDatum(chunk->times_us[i] - US_1970_TO_2000), false);
	return cm_column_array(&times);
}

static Datum
make_bytes(const CmChunk *chunk)
{
	bytea *bytes = palloc(VARHDRSZ + chunk->n_bytes);

	SET_VARSIZE(bytes, VARHDRSZ + chunk->n_bytes);
	if (chunk->n_bytes > 0)
		memcpy(VARDATA(bytes), chunk->bytes, chunk->n_bytes);
	return PointerGetDatum(bytes);
}

void
cm_store_append_chunk(int64 job_id, int attempt, const CmChunk *chunk, int *seq)
{
	static CmSql append = {
		"INSERT INTO cm_internal.log_chunks (job_id, attempt, stream, seq, first_record,"
		" record_numbers, record_times, record_lengths, bytes)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		9,
		{INT8OID, INT4OID, INT4OID, INT4OID, INT8OID, INT8ARRAYOID, TIMESTAMPTZARRAYOID,
		 INT4ARRAYOID, BYTEAOID},
		NULL,
		0};
	CmColumn numbers;
	CmColumn lengths;
	Datum values[9];

	cm_column_init(&numbers, INT8OID, chunk->n_records);
	cm_column_init(&lengths, INT4OID, chunk->n_records);
	for (int i = 0; i < chunk->n_records; i++)
	{
		cm_column_add_int64(&numbers, chunk->numbers[i]);
		cm_column_add_int32(&lengths, chunk->lengths[i]);
	}
	values[0] = Int64GetDatum(job_id);
	values[1] = Int32GetDatum(attempt);
	values[2] = Int32GetDatum(chunk->stream);
	values[3] = Int32GetDatum(*seq);
	values[4] = Int64GetDatum(chunk->numbers[0]);
	values[5] = cm_column_array(&numbers);
	values[6] = make_times(chunk);
	values[7] = cm_column_array(&lengths);
	values[8] = make_bytes(chunk);
	cm_sql_run(&append, values, NULL);
	(*seq)++;
}

void
cm_store_drop_chunks(int64 job_id, int attempt)
{
	static CmSql drop = {"DELETE FROM cm_internal.log_chunks WHERE job_id = $1 AND attempt = $2",
						 2,
						 {INT8OID, INT4OID},
						 NULL,
						 0};
	Datum values[2] = {Int64GetDatum(job_id), Int32GetDatum(attempt)};

	cm_sql_run(&drop, values, NULL);
}

bool
cm_store_save_log_mark(int64 job_id, int64 records, int64 hash, int64 bytes, bool incomplete)
{
	static CmSql save = {
		"UPDATE cm_internal.queue SET log_records = $2, log_hash = $3, log_bytes = $4,"
		" logs_incomplete = $5 WHERE job_id IN"
		" (SELECT job_id FROM cm_internal.queue WHERE job_id = $1 FOR NO KEY UPDATE SKIP LOCKED)",
		5,
		{INT8OID, INT8OID, INT8OID, INT8OID, BOOLOID},
		NULL,
		0};
	Datum values[5] = {Int64GetDatum(job_id), Int64GetDatum(records), Int64GetDatum(hash),
					   Int64GetDatum(bytes), BoolGetDatum(incomplete)};

	return cm_sql_run(&save, values, NULL) == 1;
}
