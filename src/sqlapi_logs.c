/*
 * sqlapi_logs.c
 *		SQL functions that give back what a job's container wrote.
 *
 * Each first finds the job in cm_jobs as the caller, which checks the caller's
 * rights, and then reads the stored output as the tables' owner.  They see what
 * their statement's snapshot shows, so that two of them in one query agree also
 * while the job goes on writing.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dbtext.h"
#include "logread.h"
#include "sqlapi_util.h"

PG_FUNCTION_INFO_V1(cm_job_logs);
PG_FUNCTION_INFO_V1(cm_job_output);
PG_FUNCTION_INFO_V1(cm_job_stderr);
PG_FUNCTION_INFO_V1(cm_job_output_bytes);
PG_FUNCTION_INFO_V1(cm_job_output_lossy);
PG_FUNCTION_INFO_V1(cm_job_result);

/* An attempt whose output is being read. */
typedef struct Reading
{
	int64 job_id;
	int attempt;
	CmAsOwner as_owner;
} Reading;

/* attempt_arg is the number of the argument; where it is NULL, the last one. */
static void
choose_attempt(FunctionCallInfo fcinfo, int attempt_arg, Reading *reading)
{
	int last = cm_sqlapi_find_job(fcinfo, reading->job_id);

	reading->attempt = last;
	if (PG_ARGISNULL(attempt_arg))
		return;
	reading->attempt = PG_GETARG_INT32(attempt_arg);
	if (reading->attempt < 1 || reading->attempt > last)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("job " INT64_FORMAT " has no attempt %d", reading->job_id,
							   reading->attempt),
						last > 0 ? errhint("Its attempts are 1 to %d.", last)
								 : errhint("No attempt to run it was made yet.")));
}

/* False: there is nothing to read, for lack of a job or of an attempt. */
static bool
begin_reading(FunctionCallInfo fcinfo, int attempt_arg, Reading *reading)
{
	if (PG_ARGISNULL(0))
		return false;
	reading->job_id = PG_GETARG_INT64(0);
	SPI_connect();
	choose_attempt(fcinfo, attempt_arg, reading);
	if (reading->attempt == 0)
	{
		SPI_finish();
		return false;
	}
	cm_sqlapi_begin_as_owner(fcinfo, &reading->as_owner);
	return true;
}

static void
end_reading(const Reading *reading)
{
	cm_sqlapi_end_as_owner(&reading->as_owner);
	SPI_finish();
}

/* CM_LOG_STDOUT or CM_LOG_STDERR; fallback where the argument is NULL. */
static int
get_stream(FunctionCallInfo fcinfo, int arg, int fallback)
{
	char *name;

	if (PG_ARGISNULL(arg))
		return fallback;
	name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	if (strcmp(name, "stdout") == 0)
		return CM_LOG_STDOUT;
	if (strcmp(name, "stderr") == 0)
		return CM_LOG_STDERR;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown stream \"%s\"", name),
					errhint("A stream is \"stdout\" or \"stderr\".")));
}

static const char *
name_stream(int stream)
{
	return stream == CM_LOG_STDOUT ? "stdout" : "stderr";
}

/* --- lines --- */

static void
get_wish(FunctionCallInfo fcinfo, CmLogWish *wish)
{
	wish->stream = get_stream(fcinfo, 2, 0);
	wish->has_since = !PG_ARGISNULL(3);
	wish->since = wish->has_since ? PG_GETARG_TIMESTAMPTZ(3) : 0;
	wish->tail = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT32(4);
	if (!PG_ARGISNULL(4) && wish->tail < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("tail must not be negative: " INT64_FORMAT, wish->tail)));
}

/* Room is left for the rest of the row, which is to stay below 1 GB as well. */
static void
convert_line(CmDbText *text, const CmLogLine *line, int64 job_id)
{
	bool fits = cm_dbtext_feed(text, line->bytes, line->n_bytes) && cm_dbtext_finish(text);

	if (!fits || (Size) text->out->len > MaxAllocSize - BLCKSZ)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("a line of job " INT64_FORMAT " is longer than 1 GB", job_id),
						errhint("Read the output with cm_job_output_bytes.")));
}

/* Reserves the header of a text or bytea value at the start of the buffer. */
static void
begin_varlena(StringInfo buffer)
{
	static const char header[VARHDRSZ] = {0};

	resetStringInfo(buffer);
	appendBinaryStringInfo(buffer, header, VARHDRSZ);
}

static Datum
end_varlena(StringInfo buffer)
{
	SET_VARSIZE(buffer->data, buffer->len);
	return PointerGetDatum(buffer->data);
}

static void
put_lines(ReturnSetInfo *result, const CmLogWish *wish)
{
	CmLogReader *reader = cm_logread_open(wish);
	Datum names[3] = {0};
	bool nulls[3] = {false};
	StringInfoData buffer;
	CmDbText text;
	CmLogLine line;

	initStringInfo(&buffer);
	cm_dbtext_init(&text, &buffer);
	for (int stream = CM_LOG_STDOUT; stream <= CM_LOG_STDERR; stream++)
		names[stream] = CStringGetTextDatum(name_stream(stream));
	while (cm_logread_next(reader, &line))
	{
		Datum values[3] = {TimestampTzGetDatum(line.logged_at), names[line.stream]};

		CHECK_FOR_INTERRUPTS();
		begin_varlena(&buffer);
		convert_line(&text, &line, wish->job_id);
		values[2] = end_varlena(&buffer);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	cm_logread_close(reader);
}

Datum
cm_job_logs(PG_FUNCTION_ARGS)
{
	Reading reading;
	CmLogWish wish;

	InitMaterializedSRF(fcinfo, 0);
	get_wish(fcinfo, &wish);
	if (begin_reading(fcinfo, 1, &reading))
	{
		wish.job_id = reading.job_id;
		wish.attempt = reading.attempt;
		put_lines((ReturnSetInfo *) fcinfo->resultinfo, &wish);
		end_reading(&reading);
	}
	return (Datum) 0;
}

/* --- everything at once --- */

/* The buffer is made here: what SPI_connect brings is gone at SPI_finish. */
static bool
read_text(FunctionCallInfo fcinfo, int stream, StringInfo buffer)
{
	Reading reading;

	initStringInfo(buffer);
	begin_varlena(buffer);
	if (!begin_reading(fcinfo, 1, &reading))
		return false;
	cm_logread_append_text(reading.job_id, reading.attempt, stream, buffer);
	end_reading(&reading);
	return true;
}

Datum
cm_job_output(PG_FUNCTION_ARGS)
{
	StringInfoData buffer;

	if (!read_text(fcinfo, CM_LOG_STDOUT, &buffer))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(end_varlena(&buffer));
}

Datum
cm_job_stderr(PG_FUNCTION_ARGS)
{
	StringInfoData buffer;

	if (!read_text(fcinfo, CM_LOG_STDERR, &buffer))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(end_varlena(&buffer));
}

Datum
cm_job_output_bytes(PG_FUNCTION_ARGS)
{
	int stream = get_stream(fcinfo, 1, CM_LOG_STDOUT);
	Reading reading;
	StringInfoData buffer;

	initStringInfo(&buffer);
	begin_varlena(&buffer);
	if (!begin_reading(fcinfo, 2, &reading))
		PG_RETURN_NULL();
	cm_logread_append_bytes(reading.job_id, reading.attempt, stream, &buffer);
	end_reading(&reading);
	PG_RETURN_DATUM(end_varlena(&buffer));
}

Datum
cm_job_output_lossy(PG_FUNCTION_ARGS)
{
	bool is_lossy = false;
	Reading reading;

	if (!begin_reading(fcinfo, 1, &reading))
		PG_RETURN_NULL();
	for (int stream = CM_LOG_STDOUT; stream <= CM_LOG_STDERR && !is_lossy; stream++)
	{
		StringInfoData text;

		initStringInfo(&text);
		is_lossy = cm_logread_append_text(reading.job_id, reading.attempt, stream, &text);
		pfree(text.data);
	}
	end_reading(&reading);
	PG_RETURN_BOOL(is_lossy);
}

/* --- JSON --- */

/* Does the error say that the text is not JSON, or none that we can hold? */
static bool
is_about_the_text(const ErrorData *error)
{
	int category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return category == ERRCODE_DATA_EXCEPTION || category == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

typedef struct Parsing
{
	const char *text;
	Datum value;
	MemoryContext context; /* of the value */
} Parsing;

static void
parse_json(void *argument)
{
	Parsing *parsing = argument;

	MemoryContextSwitchTo(parsing->context);
	parsing->value = DirectFunctionCall1(jsonb_in, CStringGetDatum(parsing->text));
}

/* jsonb_in says by an error that something is not JSON. */
static bool
is_json(Parsing *parsing)
{
	ErrorData *error = cm_sqlapi_try(parse_json, parsing);

	if (error != NULL && !is_about_the_text(error))
		ReThrowError(error);
	return error == NULL;
}

/* Cuts the text behind its last line that is not blank, and gives that. */
static const char *
take_last_line(char *text)
{
	size_t end = strlen(text);
	size_t begin;

	while (end > 0 && strchr(" \t\r\n", text[end - 1]) != NULL)
		end--;
	for (begin = end; begin > 0 && text[begin - 1] != '\n'; begin--)
		;
	text[end] = '\0';
	return text + begin;
}

Datum
cm_job_result(PG_FUNCTION_ARGS)
{
	StringInfoData buffer;
	Parsing parsing = {.context = CurrentMemoryContext};

	if (!read_text(fcinfo, CM_LOG_STDOUT, &buffer))
		PG_RETURN_NULL();
	parsing.text = buffer.data + VARHDRSZ;
	if (is_json(&parsing))
		PG_RETURN_DATUM(parsing.value);
	parsing.text = take_last_line(buffer.data + VARHDRSZ);
	if (is_json(&parsing))
		PG_RETURN_DATUM(parsing.value);
	PG_RETURN_NULL();
}
