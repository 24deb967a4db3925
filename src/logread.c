/*
 * logread.c
 *		Reads what containers wrote, out of cm_internal.log_chunks.
 *
 * Each stream is a cursor over its chunks in order; a line reader on top of it
 * joins the parts of long lines, and the two line readers are merged by the
 * numbers of the lines' first records.
 *
 * The end of much output is found without reading all of it: newlines are
 * counted from the last chunk backwards, or the first chunk with a record of
 * the wanted time is looked up, and reading begins there.  A chunk may begin
 * within a line, so what such a start finds up to the first newline is
 * dropped; the start is chosen so that this line is not wanted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/timestamp.h"

#include "dbtext.h"
#include "logread.h"

/* A statement that is planned once for the session. */
typedef struct ChunkQuery
{
	const char *text;
	Oid last_type; /* of $4; the first three are always the same */
	SPIPlanPtr plan;
} ChunkQuery;

#define OF_STREAM                   \
	"FROM cm_internal.log_chunks c" \
	" WHERE c.job_id = $1 AND c.attempt = $2 AND c.stream = $3"

static ChunkQuery forward_query = {
	"SELECT c.bytes, c.record_numbers, c.record_times, c.record_lengths " OF_STREAM
	" AND c.seq >= $4 ORDER BY c.seq",
	INT4OID, NULL};

static ChunkQuery backward_query = {
	"SELECT c.bytes, c.seq " OF_STREAM " AND c.seq >= $4 ORDER BY c.seq DESC", INT4OID, NULL};

static ChunkQuery since_query = {
	"SELECT (SELECT max(p.seq) FROM cm_internal.log_chunks p"
	" WHERE p.job_id = $1 AND p.attempt = $2 AND p.stream = $3 AND p.seq < c.seq) " OF_STREAM
	" AND $4 <= ANY (c.record_times) ORDER BY c.seq",
	TIMESTAMPTZOID, NULL};

/* Where reading of a stream begins. */
typedef struct Start
{
	int seq;
	bool is_within_line; /* maybe; what is up to the first newline is dropped */
} Start;

#define FROM_THE_BEGINNING ((Start){PG_INT32_MIN, false})

/* A cursor over chunks, and the one it stands on. */
typedef struct ChunkCursor
{
	Portal portal;
	MemoryContext context; /* holds the chunk's values */
	const char *bytes;
	int n_bytes;
	const int64 *numbers;
	const TimestampTz *times;
	const int32 *lengths;
	int n_records;
} ChunkCursor;

/* The lines of one stream. */
typedef struct LineReader
{
	ChunkCursor chunks;
	int record;		 /* that is being read, of the chunk */
	int record_left; /* bytes of it that are not taken */
	const char *at;	 /* the first of those */
	bool drops_first;
	bool is_begun; /* line holds a line's start */
	bool is_there; /* line is whole and not taken */
	CmLogLine line;
	StringInfoData buffer;
} LineReader;

struct CmLogReader
{
	CmLogWish wish;
	int64 n_skipped; /* lines before the tail, to be left out */
	int n_streams;
	LineReader streams[2];
};

/* --- chunks --- */

static void
report_too_long(const CmLogWish *wish, const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("%s of job " INT64_FORMAT " is longer than 1 GB", what, wish->job_id),
					errhint("%s", hint)));
}

static Portal
open_cursor(ChunkQuery *query, const CmLogWish *wish, int stream, Datum last)
{
	Datum values[4] = {Int64GetDatum(wish->job_id), Int32GetDatum(wish->attempt),
					   Int32GetDatum(stream), last};

	if (query->plan == NULL)
	{
		Oid types[4] = {INT8OID, INT4OID, INT4OID, query->last_type};
		SPIPlanPtr plan =
			SPI_prepare_cursor(query->text, 4, types, CURSOR_OPT_NO_SCROLL | CURSOR_OPT_FAST_PLAN);

		if (plan == NULL)
			elog(ERROR, "could not plan \"%s\": %s", query->text,
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		query->plan = plan;
	}
	return SPI_cursor_open(NULL, query->plan, values, NULL, true);
}

/* Fetches one row; it is in SPI_tuptable then, to be freed by the caller. */
static bool
fetch_row(Portal portal)
{
	CHECK_FOR_INTERRUPTS();
	SPI_cursor_fetch(portal, true, 1);
	if (SPI_processed > 0)
		return true;
	SPI_freetuptable(SPI_tuptable);
	return false;
}

static Datum
get_column(int column, bool *is_null)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, is_null);
}

static void
open_chunks(ChunkCursor *chunks, ChunkQuery *query, const CmLogWish *wish, int stream,
			int first_seq)
{
	memset(chunks, 0, sizeof(*chunks));
	chunks->portal = open_cursor(query, wish, stream, Int32GetDatum(first_seq));
	chunks->context = AllocSetContextCreate(CurrentMemoryContext, "container_manager log chunk",
											ALLOCSET_DEFAULT_SIZES);
}

static void
close_chunks(ChunkCursor *chunks)
{
	SPI_cursor_close(chunks->portal);
	MemoryContextDelete(chunks->context);
}

/* Goes to the next chunk; of its columns only the bytes are unpacked. */
static bool
next_chunk(ChunkCursor *chunks)
{
	MemoryContext caller;
	bool is_null;
	bytea *bytes;

	MemoryContextReset(chunks->context);
	if (!fetch_row(chunks->portal))
		return false;
	caller = MemoryContextSwitchTo(chunks->context);
	bytes = DatumGetByteaPCopy(get_column(1, &is_null));
	chunks->bytes = VARDATA(bytes);
	chunks->n_bytes = VARSIZE(bytes) - VARHDRSZ;
	MemoryContextSwitchTo(caller);
	return true;
}

/* The values of an array of fixed-length ones; *n is -1 where one is NULL. */
static void *
unpack_array(int column, int *n)
{
	bool is_null;
	ArrayType *array = DatumGetArrayTypePCopy(get_column(column, &is_null));

	*n = ARR_HASNULL(array) ? -1 : ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	return (char *) array + ARR_OVERHEAD_NONULLS(ARR_NDIM(array));
}

/* Like next_chunk, with the records that the bytes are made of. */
static bool
next_chunk_of_records(ChunkCursor *chunks, const CmLogWish *wish)
{
	MemoryContext caller;
	int64 sum = 0;
	int n_times;
	int n_lengths;

	if (!next_chunk(chunks))
		return false;
	caller = MemoryContextSwitchTo(chunks->context);
	chunks->numbers = unpack_array(2, &chunks->n_records);
	chunks->times = unpack_array(3, &n_times);
	chunks->lengths = unpack_array(4, &n_lengths);
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);

	if (n_times == chunks->n_records && n_lengths == chunks->n_records)
	{
		for (int i = 0; i < n_lengths; i++)
			sum += chunks->lengths[i] < 0 ? PG_INT32_MAX : chunks->lengths[i];
	}
	if (chunks->n_records < 0 || n_times != chunks->n_records || n_lengths != chunks->n_records ||
		sum != chunks->n_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the stored output of job " INT64_FORMAT " is damaged", wish->job_id),
				 errdetail("A chunk of attempt %d does not match the lengths of its records.",
						   wish->attempt)));
	return true;
}

/* --- lines of one stream --- */

static void
open_lines(LineReader *lines, const CmLogWish *wish, int stream, Start start)
{
	memset(lines, 0, sizeof(*lines));
	open_chunks(&lines->chunks, &forward_query, wish, stream, start.seq);
	lines->drops_first = start.is_within_line;
	lines->line.stream = stream;
	initStringInfo(&lines->buffer);
}

static void
close_lines(LineReader *lines)
{
	close_chunks(&lines->chunks);
	pfree(lines->buffer.data);
}

/* Stands on a record with bytes left, or there is no more. */
static bool
find_bytes(LineReader *lines, const CmLogWish *wish)
{
	ChunkCursor *chunks = &lines->chunks;

	while (lines->record_left == 0)
	{
		if (lines->record + 1 < chunks->n_records)
			lines->record++;
		else if (next_chunk_of_records(chunks, wish))
		{
			lines->record = 0;
			lines->at = chunks->bytes;
		}
		else
		{
			chunks->n_records = 0;
			return false;
		}
		lines->record_left = chunks->n_records > 0 ? chunks->lengths[lines->record] : 0;
	}
	return true;
}

/* Takes the record's bytes up to its end or a newline; true: a newline. */
static bool
take_piece(LineReader *lines, const CmLogWish *wish)
{
	const char *newline = memchr(lines->at, '\n', lines->record_left);
	int n_piece = newline != NULL ? (int) (newline - lines->at) : lines->record_left;
	int n_taken = n_piece + (newline != NULL ? 1 : 0);

	if (!lines->is_begun)
	{
		lines->is_begun = true;
		lines->line.number = lines->chunks.numbers[lines->record];
		lines->line.logged_at = lines->chunks.times[lines->record];
		resetStringInfo(&lines->buffer);
	}
	if (!lines->drops_first)
	{
		if ((Size) lines->buffer.len + n_piece + 1 > MaxAllocSize)
			report_too_long(wish, "a line", "Read the output with cm_job_output_bytes.");
		appendBinaryStringInfo(&lines->buffer, lines->at, n_piece);
	}
	lines->at += n_taken;
	lines->record_left -= n_taken;
	return newline != NULL;
}

/* Makes lines->line whole; false: there is none. */
static bool
read_line(LineReader *lines, const CmLogWish *wish)
{
	while (find_bytes(lines, wish))
	{
		if (!take_piece(lines, wish))
			continue;
		lines->is_begun = false;
		if (!lines->drops_first)
			return true;
		lines->drops_first = false;
	}
	if (!lines->is_begun || lines->drops_first)
		return false;
	lines->is_begun = false;
	return true;
}

/* Sees to it that the next wanted line is there, unless there is none. */
static void
look_ahead(LineReader *lines, const CmLogWish *wish)
{
	while (!lines->is_there && read_line(lines, wish))
	{
		lines->is_there = !wish->has_since || lines->line.logged_at >= wish->since;
		lines->line.bytes = lines->buffer.data;
		lines->line.n_bytes = lines->buffer.len;
	}
}

/* --- where to begin --- */

static int64
count_newlines(const char *bytes, int n_bytes)
{
	const char *end = bytes + n_bytes;
	int64 n = 0;

	while ((bytes = memchr(bytes, '\n', end - bytes)) != NULL)
	{
		n++;
		bytes++;
	}
	return n;
}

/*
 * A start with the last wish->tail lines behind it.  One newline more than
 * that, because what is before the first one may be the end of a line.
 */
static Start
find_tail(const CmLogWish *wish, int stream)
{
	ChunkCursor chunks;
	Start start = FROM_THE_BEGINNING;
	int64 n_newlines = 0;

	open_chunks(&chunks, &backward_query, wish, stream, start.seq);
	while (n_newlines <= wish->tail && next_chunk(&chunks))
	{
		bool is_null;

		n_newlines += count_newlines(chunks.bytes, chunks.n_bytes);
		if (n_newlines > wish->tail)
			start = (Start){DatumGetInt32(get_column(2, &is_null)), true};
		SPI_freetuptable(SPI_tuptable);
	}
	close_chunks(&chunks);
	return start;
}

/*
 * The chunk before the first one with a record of that time: a line that is
 * under way where it begins, began too early.  False: there is no such record.
 */
static bool
find_since(const CmLogWish *wish, int stream, Start *start)
{
	Portal portal = open_cursor(&since_query, wish, stream, TimestampTzGetDatum(wish->since));
	bool is_found = fetch_row(portal);

	*start = FROM_THE_BEGINNING;
	if (is_found)
	{
		bool is_null;
		Datum seq = get_column(1, &is_null);

		if (!is_null)
			*start = (Start){DatumGetInt32(seq), true};
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	return is_found;
}

static void
open_stream(CmLogReader *reader, int stream)
{
	Start start = FROM_THE_BEGINNING;

	if (reader->wish.has_since)
	{
		if (!find_since(&reader->wish, stream, &start))
			return;
	}
	else if (reader->wish.tail >= 0)
		start = find_tail(&reader->wish, stream);
	open_lines(&reader->streams[reader->n_streams++], &reader->wish, stream, start);
}

/* --- lines of both --- */

static void
open_streams(CmLogReader *reader)
{
	reader->n_streams = 0;
	if (reader->wish.stream != CM_LOG_STDERR)
		open_stream(reader, CM_LOG_STDOUT);
	if (reader->wish.stream != CM_LOG_STDOUT)
		open_stream(reader, CM_LOG_STDERR);
}

static void
close_streams(CmLogReader *reader)
{
	for (int i = 0; i < reader->n_streams; i++)
		close_lines(&reader->streams[i]);
	reader->n_streams = 0;
}

static bool
next_of_both(CmLogReader *reader, CmLogLine *line)
{
	LineReader *first = NULL;

	for (int i = 0; i < reader->n_streams; i++)
	{
		LineReader *lines = &reader->streams[i];

		look_ahead(lines, &reader->wish);
		if (lines->is_there && (first == NULL || lines->line.number < first->line.number))
			first = lines;
	}
	if (first == NULL)
		return false;
	first->is_there = false;
	*line = first->line;
	return true;
}

/*
 * Reads twice where only the tail is wanted: first to count, then to skip.
 * To remember the last lines instead could take as much memory as all of them.
 */
CmLogReader *
cm_logread_open(const CmLogWish *wish)
{
	CmLogReader *reader = palloc0(sizeof(CmLogReader));

	reader->wish = *wish;
	open_streams(reader);
	if (wish->tail >= 0)
	{
		CmLogLine line;
		int64 n_lines = 0;

		while (next_of_both(reader, &line))
			n_lines++;
		reader->n_skipped = Max(n_lines - wish->tail, 0);
		close_streams(reader);
		open_streams(reader);
	}
	return reader;
}

bool
cm_logread_next(CmLogReader *reader, CmLogLine *line)
{
	for (; reader->n_skipped > 0; reader->n_skipped--)
	{
		if (!next_of_both(reader, line))
			return false;
	}
	return next_of_both(reader, line);
}

void
cm_logread_close(CmLogReader *reader)
{
	close_streams(reader);
	pfree(reader);
}

/* --- everything --- */

void
cm_logread_append_bytes(int64 job_id, int attempt, int stream, StringInfo out)
{
	CmLogWish wish = {.job_id = job_id, .attempt = attempt};
	ChunkCursor chunks;

	open_chunks(&chunks, &forward_query, &wish, stream, PG_INT32_MIN);
	while (next_chunk(&chunks))
	{
		SPI_freetuptable(SPI_tuptable);
		if ((Size) out->len + chunks.n_bytes + 1 > MaxAllocSize)
			report_too_long(&wish, "the output", "Read it line by line with cm_job_logs.");
		appendBinaryStringInfo(out, chunks.bytes, chunks.n_bytes);
	}
	close_chunks(&chunks);
}

bool
cm_logread_append_text(int64 job_id, int attempt, int stream, StringInfo out)
{
	CmLogWish wish = {.job_id = job_id, .attempt = attempt};
	ChunkCursor chunks;
	CmDbText text;
	bool fits = true;

	cm_dbtext_init(&text, out);
	open_chunks(&chunks, &forward_query, &wish, stream, PG_INT32_MIN);
	while (fits && next_chunk(&chunks))
	{
		SPI_freetuptable(SPI_tuptable);
		fits = cm_dbtext_feed(&text, chunks.bytes, chunks.n_bytes);
	}
	if (!fits || !cm_dbtext_finish(&text))
		report_too_long(&wish, "the output",
						"Read it line by line with cm_job_logs, or with cm_job_output_bytes.");
	close_chunks(&chunks);
	return text.is_lossy;
}
