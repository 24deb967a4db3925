/*
 * executor_logs.c
 *		What an attempt printed: followed while it runs, reconciled once after
 *		it has ended.
 *
 * A live view loses lines on some engines (the unterminated last one, or
 * what was written while an engine restarted), so after the exit the whole
 * log is read once more without following: as many records as are stored are
 * skipped, and what is behind them is new.  The skipped records must be the
 * stored ones, which a running hash tells.  If they are not, the engine has
 * dropped some of it, and the job says so: the log as it is now replaces what
 * is stored, unless it is shorter, when what is stored stays.
 *
 * An engine may tell anything, and for ever.  The last reading ends as soon as
 * nothing more of it would be kept, and is given up when it hardly moves.
 *
 * Records are numbered over both streams in the order of the engine's log.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "executor_internal.h"
#include "guc.h"

/* Within a minute: what cannot be read then is removed with its container. */
#define MAX_READ_TRIES 16
/* Between tries, longer each time, so that a host that is gone is known to be
 * before the last. */
#define RETRY_MS 500
#define MAX_RETRY_MS 5000
/* The last reading is given up when less than so much comes in so long; that
 * counts as several tries. */
#define STALL_MS 20000
#define STALL_BYTES 4096
#define STALL_TRIES 8
#define RECORD_OVERHEAD_BYTES 75

static void take_log_bytes(CmHttpRequest *request, void *arg);
static void note_log_ended(CmHttpRequest *request, void *arg);

/* --- buffers for the next transaction --- */

static void
init_buffers(CmTaskLogs *logs)
{
	for (int i = 0; i < 2; i++)
	{
		initStringInfo(&logs->numbers[i]);
		initStringInfo(&logs->times[i]);
		initStringInfo(&logs->lengths[i]);
		initStringInfo(&logs->bytes[i]);
	}
}

static void
free_buffers(CmTaskLogs *logs)
{
	for (int i = 0; i < 2; i++)
	{
		if (logs->bytes[i].data == NULL)
			continue;
		pfree(logs->numbers[i].data);
		pfree(logs->times[i].data);
		pfree(logs->lengths[i].data);
		pfree(logs->bytes[i].data);
		logs->bytes[i].data = NULL;
	}
}

static size_t
count_waiting_bytes(const CmTaskLogs *logs)
{
	size_t n = 0;

	if (logs->bytes[0].data == NULL)
		return 0;
	for (int i = 0; i < 2; i++)
		n += logs->bytes[i].len + logs->numbers[i].len + logs->times[i].len + logs->lengths[i].len;
	return n;
}

/* Large buffers go back to the system between bursts. */
static void
empty_buffers(CmTaskLogs *logs)
{
	cm_ex.log_bytes_waiting -= count_waiting_bytes(logs);
	free_buffers(logs);
	logs->waiting_since_ms = 0;
}

static bool
is_there_room(const CmTaskLogs *logs)
{
	return count_waiting_bytes(logs) < CM_LOG_HIGH_BYTES &&
		   cm_ex.log_bytes_waiting < CM_LOG_TOTAL_HIGH_BYTES;
}

void
cm_logs_init(CmTaskLogs *logs, const CmTaken *taken)
{
	memset(logs, 0, sizeof(*logs));
	logs->n_records = taken->log_records;
	logs->hash = taken->log_hash;
	logs->n_bytes = taken->log_bytes;
	logs->seq[0] = taken->log_seq[0];
	logs->seq[1] = taken->log_seq[1];
	logs->incomplete = taken->logs_incomplete;
	cm_logstream_init(&logs->stream);
}

void
cm_logs_free(CmTaskLogs *logs)
{
	if (logs->request != NULL)
		cm_http_cancel(logs->request);
	logs->request = NULL;
	cm_logstream_free(&logs->stream);
	empty_buffers(logs);
}

/* --- records --- */

static int64
hash_record(int64 hash, const CmLogRecord *record)
{
	return (int64) hash_bytes_extended((const unsigned char *) record->bytes, record->n_bytes,
									   (uint64) hash * 31 + record->stream);
}

/* What is kept of one attempt at most. */
static int64
get_limit(const CmTask *task)
{
	int64 all_bytes = (int64) cm_guc_max_log_size_kb * 1024;
	int64 own_bytes = task->spec.log_limit_mb * 1024 * 1024;

	return own_bytes > 0 ? Min(own_bytes, all_bytes) : all_bytes;
}

void
cm_logs_keep_record(CmTask *task, const CmLogRecord *record)
{
	CmTaskLogs *logs = &task->logs;
	int i = record->stream == CM_LOG_STDERR ? 1 : 0;
	int32 length = (int32) record->n_bytes;
	size_t n_before = count_waiting_bytes(logs);

	/* An empty one counts, too, or they could come for ever. */
	if (logs->n_bytes + Max(length, 1) > get_limit(task))
		logs->is_full = logs->incomplete = true;
	if (logs->is_full)
		return;
	if (logs->bytes[0].data == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(task->context);

		init_buffers(logs);
		MemoryContextSwitchTo(caller);
	}
	appendBinaryStringInfo(&logs->numbers[i], (const char *) &logs->n_records, sizeof(int64));
	appendBinaryStringInfo(&logs->times[i], (const char *) &record->at_us, sizeof(int64));
	appendBinaryStringInfo(&logs->lengths[i], (const char *) &length, sizeof(int32));
	appendBinaryStringInfo(&logs->bytes[i], record->bytes, length);
	logs->hash = hash_record(logs->hash, record);
	logs->n_records++;
	logs->n_bytes += Max(length, 1);
	cm_ex.log_bytes_waiting += count_waiting_bytes(logs) - n_before;
	if (logs->waiting_since_ms == 0)
		logs->waiting_since_ms = cm_ex.now_ms;
}

static void
take_record(CmTask *task, const CmLogRecord *record)
{
	CmTaskLogs *logs = &task->logs;

	if (record->stream == CM_LOG_ENGINE_ERROR)
	{
		logs->engine_error = true;
		return;
	}
	logs->n_read++;
	if (logs->to_skip > 0)
	{
		logs->skipped_hash = hash_record(logs->skipped_hash, record);
		if (--logs->to_skip == 0 && logs->skipped_hash != logs->hash)
			logs->mismatch = true;
	}
	else if (!logs->mismatch)
		cm_logs_keep_record(task, record);
}

/* --- reading --- */

static void
begin_reading(CmTask *task, bool follow)
{
	CmTaskLogs *logs = &task->logs;

	cm_logstream_free(&logs->stream);
	cm_logstream_init(&logs->stream);
	logs->is_following = follow;
	logs->is_over = logs->is_stalled = false;
	logs->to_skip = logs->n_records;
	logs->skipped_hash = 0;
	logs->n_read = 0;
	logs->mismatch = logs->engine_error = false;
	logs->retry_ms = 0;
	logs->watch_ms = cm_ex.now_ms;
	logs->watched_bytes = 0;
	logs->request = cm_engine_begin_logs(&task->host->engine, task->container_id, follow,
										 take_log_bytes, note_log_ended, task);
	cm_ex.counters.http_requests++;
}

void
cm_logs_stop(CmTask *task)
{
	if (task->logs.request != NULL)
		cm_http_cancel(task->logs.request);
	task->logs.request = NULL;
}

void
cm_logs_follow(CmTask *task)
{
	if (task->logs.request == NULL)
		begin_reading(task, true);
}

/* Begins the last reading; on a host that is away it is begun when it is back. */
void
cm_logs_collect(CmTask *task)
{
	cm_logs_stop(task);
	if (task->host->phase == CM_HOST_READY)
		begin_reading(task, false);
}

/* True when all that has arrived is taken; false: storing must come first. */
static bool
take_what_is_there(CmTask *task)
{
	CmTaskLogs *logs = &task->logs;
	CmLogRecord record;
	const char *bytes;
	size_t n_bytes;

	for (;;)
	{
		CmLogNext next = CM_LOG_RECORD;

		while (is_there_room(logs) && next == CM_LOG_RECORD)
		{
			next = cm_logstream_next(&logs->stream, &record);
			if (next == CM_LOG_RECORD)
				take_record(task, &record);
		}
		if (next == CM_LOG_CORRUPT)
			return true;
		if (next == CM_LOG_RECORD)
		{
			/* Unless that is to wait: see executor_db.c. */
			if (task->retry_ms <= cm_ex.now_ms)
				cm_ex.db_wanted = true;
			return false;
		}
		bytes = cm_http_body(logs->request, &n_bytes);
		if (n_bytes == 0)
			return true;
		cm_logstream_feed(&logs->stream, bytes, n_bytes);
		logs->watched_bytes += n_bytes;
		cm_http_consume(logs->request, n_bytes);
	}
}

static bool
is_corrupt(CmTaskLogs *logs)
{
	return logs->stream.error != NULL || logs->engine_error;
}

/* Whatever comes yet, nothing of it would be kept. */
static bool
is_enough(const CmTaskLogs *logs)
{
	return logs->mismatch || (logs->is_full && logs->to_skip == 0);
}

/* The log does not begin with what is stored of it. */
static bool
begin_repair(CmTask *task)
{
	CmTaskLogs *logs = &task->logs;

	logs->incomplete = true;
	if (logs->was_replaced || logs->n_read < logs->n_records)
		return false;
	logs->was_replaced = true;
	logs->drop_stored = true;
	logs->is_full = false;
	logs->n_records = logs->hash = logs->n_bytes = 0;
	empty_buffers(logs);
	begin_reading(task, false);
	return true;
}

/*
 * Engines keep the output in files of a bounded size, with about so much
 * beside each record; when they are full, the oldest goes without a word.
 */
static bool
may_have_been_rotated(const CmTaskLogs *logs)
{
	return logs->n_bytes + RECORD_OVERHEAD_BYTES * logs->n_read >= CM_ENGINE_LOG_FILE_BYTES;
}

/* The last reading came to its end, one way or another. */
static void
end_collecting(CmTask *task, bool is_good)
{
	CmTaskLogs *logs = &task->logs;

	if (!is_good && ++logs->n_tries < MAX_READ_TRIES)
	{
		logs->retry_ms = cm_ex.now_ms + Min(RETRY_MS * logs->n_tries, MAX_RETRY_MS);
		return;
	}
	if (!is_good)
		logs->incomplete = true;
	else if ((logs->mismatch || logs->to_skip > 0) && begin_repair(task))
		return;
	if (may_have_been_rotated(logs))
		logs->incomplete = true;
	cm_task_note_output_read(task);
}

/* A follow that ended: the container has, or the connection. */
static void
end_following(CmTask *task)
{
	if (task->is_ending || task->request != NULL)
		return;
	task->look_again = true;
	/* If it runs on after all, take it up again in a while. */
	task->follow_ms = cm_ex.now_ms + 1000;
	cm_task_step(task);
}

static void
end_reading(CmTask *task)
{
	CmTaskLogs *logs = &task->logs;
	CmHttpRequest *request = logs->request;
	CmFault fault;
	bool is_good = cm_engine_read_stream_end(request, &fault) && !is_corrupt(logs) &&
				   cm_logstream_pending(&logs->stream) == 0;
	bool is_away = !is_good && fault.kind == CM_FAULT_UNREACHABLE;

	logs->request = NULL;
	cm_http_finish(request);
	if (is_away)
		cm_host_suspect(task->host);
	/* An answer such as 404 or 501 will not change; 500 may. */
	if (!is_good && fault.kind == CM_FAULT_REFUSED && fault.http_status != 500)
		logs->n_tries = MAX_READ_TRIES;
	if (logs->is_following)
		end_following(task);
	else
		end_collecting(task, is_good);
}

/* Nothing more can be understood of it, or need be. */
static void
break_off(CmTask *task, bool is_good)
{
	cm_logs_stop(task);
	if (task->logs.is_following)
		end_following(task);
	else
		end_collecting(task, is_good);
}

static void
pump(CmTask *task)
{
	CmTaskLogs *logs = &task->logs;

	if (logs->request == NULL)
	{
		logs->is_stalled = false;
		return;
	}
	logs->is_stalled =
		cm_http_status(logs->request) == 200 && !is_corrupt(logs) && !take_what_is_there(task);
	if (logs->is_stalled)
		return;
	if (!logs->is_over && (is_corrupt(logs) || (is_enough(logs) && !logs->is_following)))
		break_off(task, !is_corrupt(logs));
	else if (logs->is_over)
		end_reading(task);
}

static void
take_log_bytes(CmHttpRequest *request, void *arg)
{
	pump(arg);
}

static void
note_log_ended(CmHttpRequest *request, void *arg)
{
	CmTask *task = arg;

	task->logs.is_over = true;
	pump(task);
}

/* --- the clock --- */

/* True: it is the engine's turn, and hardly anything comes. */
static bool
has_stopped_coming(CmTaskLogs *logs)
{
	if (logs->is_stalled || logs->is_over || logs->watched_bytes >= STALL_BYTES)
	{
		logs->watch_ms = cm_ex.now_ms;
		logs->watched_bytes = 0;
	}
	return cm_ex.now_ms - logs->watch_ms >= STALL_MS;
}

/* Only the last reading is watched: a job may run for hours and print nothing. */
int64
cm_logs_tick(CmTask *task)
{
	CmTaskLogs *logs = &task->logs;

	if (!task->wants_output || task->host->phase != CM_HOST_READY)
		return 0;
	if (logs->request == NULL && logs->retry_ms != 0 && cm_ex.now_ms >= logs->retry_ms)
		begin_reading(task, false);
	else if (logs->request != NULL && has_stopped_coming(logs))
	{
		logs->n_tries += STALL_TRIES - 1;
		break_off(task, false);
	}
	return logs->request != NULL ? logs->watch_ms + STALL_MS : logs->retry_ms;
}

/* --- storing --- */

bool
cm_logs_are_waiting(const CmTask *task)
{
	return task->logs.waiting_since_ms != 0 || task->logs.drop_stored;
}

/* Arrays in PostgreSQL are at most 1 GB; chunks stay far below. */
#define MAX_CHUNK_BYTES (1024 * 1024)
#define MAX_CHUNK_RECORDS 8192

static int
count_chunk_records(const int32 *lengths, int n, size_t *n_bytes)
{
	int count = 0;

	*n_bytes = 0;
	while (count < n && count < MAX_CHUNK_RECORDS &&
		   (count == 0 || *n_bytes + lengths[count] <= MAX_CHUNK_BYTES))
		*n_bytes += lengths[count++];
	return count;
}

static void
store_stream(CmTask *task, int i, int *seq)
{
	CmTaskLogs *logs = &task->logs;
	int n = logs->numbers[i].len / sizeof(int64);
	int done = 0;
	size_t n_bytes_done = 0;

	while (done < n)
	{
		CmChunk chunk;

		chunk.stream = i == 0 ? CM_LOG_STDOUT : CM_LOG_STDERR;
		chunk.numbers = (int64 *) logs->numbers[i].data + done;
		chunk.times_us = (int64 *) logs->times[i].data + done;
		chunk.lengths = (int32 *) logs->lengths[i].data + done;
		chunk.bytes = logs->bytes[i].data + n_bytes_done;
		chunk.n_records = count_chunk_records(chunk.lengths, n - done, &chunk.n_bytes);
		cm_store_append_chunk(task->spec.job_id, task->spec.attempt, &chunk, seq);
		done += chunk.n_records;
		n_bytes_done += chunk.n_bytes;
	}
}

bool
cm_logs_store(CmTask *task, int *seq)
{
	CmTaskLogs *logs = &task->logs;

	seq[0] = logs->seq[0];
	seq[1] = logs->seq[1];
	if (!cm_store_save_log_mark(task->spec.job_id, logs->n_records, logs->hash, logs->n_bytes,
								logs->incomplete))
		return false;
	if (logs->drop_stored)
	{
		cm_store_drop_chunks(task->spec.job_id, task->spec.attempt);
		seq[0] = seq[1] = 0;
	}
	if (logs->bytes[0].data == NULL)
		return true;
	store_stream(task, 0, &seq[0]);
	store_stream(task, 1, &seq[1]);
	return true;
}

void
cm_logs_note_stored(CmTask *task, const int *seq)
{
	CmTaskLogs *logs = &task->logs;

	logs->seq[0] = seq[0];
	logs->seq[1] = seq[1];
	logs->drop_stored = false;
	empty_buffers(logs);
}

void
cm_logs_read_on(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->logs.is_stalled)
			pump(task);
	}
}
