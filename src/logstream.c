/*
 * logstream.c
 *		Decoder of an engine's multiplexed log stream.
 *
 * Fed bytes stand in one buffer; records point into it.  What was taken is
 * not moved away at once but when room is needed, and only if it is at least
 * as much as what stays: so each byte is moved a bounded number of times,
 * however small the pieces and however large the frames are.
 *
 * A header is judged as its bytes come in.  The raw output of a container
 * with a terminal is then recognised at its first bytes, not taken for a torn
 * frame of a few hundred megabytes.
 */
#include <stdlib.h>
#include <string.h>

#include "chars.h"
#include "logstream.h"

#define HEADER_BYTES 8
#define FIRST_BUFFER_BYTES 1024

/* An idle decoder keeps no larger buffer: there may be thousands of them. */
#define IDLE_BUFFER_BYTES (64 * 1024)

/* "2026-11-21T20:43:52.903214210+00:00" */
#define MAX_TIME_BYTES 35

/* As written; each has at most four digits, so that nothing can overflow. */
typedef struct TimeFields
{
	int year;
	int month;
	int day;
	int hour;
	int minute;
	int second;
	int microsecond;
	int zone_minutes; /* east of Greenwich */
} TimeFields;

/* The rest of a text that is being parsed. */
typedef struct Cursor
{
	const char *at;
	const char *end;
} Cursor;

void
cm_logstream_init(CmLogStream *stream)
{
	memset(stream, 0, sizeof(*stream));
}

void
cm_logstream_free(CmLogStream *stream)
{
	free(stream->buffer);
	memset(stream, 0, sizeof(*stream));
}

size_t
cm_logstream_pending(const CmLogStream *stream)
{
	return stream->end - stream->begin;
}

/* Moves what was not taken to the front of a buffer of new_size bytes. */
static bool
move_to_new_buffer(CmLogStream *stream, size_t new_size)
{
	size_t pending = cm_logstream_pending(stream);
	char *buffer = malloc(new_size);

	if (buffer == NULL)
		return false;
	if (pending > 0)
		memcpy(buffer, stream->buffer + stream->begin, pending);
	free(stream->buffer);
	stream->buffer = buffer;
	stream->size = new_size;
	stream->begin = 0;
	stream->end = pending;
	return true;
}

static bool
make_room(CmLogStream *stream, size_t n_bytes)
{
	size_t pending = cm_logstream_pending(stream);
	size_t new_size = stream->size > 0 ? stream->size : FIRST_BUFFER_BYTES;

	if (pending == 0)
		stream->begin = stream->end = 0;
	if (stream->size - stream->end >= n_bytes)
		return true;

	if (stream->begin >= pending && stream->size - pending >= n_bytes)
	{
		memcpy(stream->buffer, stream->buffer + stream->begin, pending);
		stream->begin = 0;
		stream->end = pending;
		return true;
	}

	if (n_bytes > SIZE_MAX / 4 - pending)
		return false;
	while (new_size < 2 * pending + n_bytes)
		new_size *= 2;
	return move_to_new_buffer(stream, new_size);
}

bool
cm_logstream_feed(CmLogStream *stream, const char *bytes, size_t n_bytes)
{
	if (stream->error != NULL)
		return false;
	if (n_bytes == 0)
		return true;
	if (!make_room(stream, n_bytes))
	{
		stream->error = "out of memory";
		return false;
	}
	memcpy(stream->buffer + stream->end, bytes, n_bytes);
	stream->end += n_bytes;
	return true;
}

/* What is wrong with a header of which the first n_bytes are there. */
static const char *
find_header_fault(const unsigned char *header, size_t n_bytes)
{
	if (n_bytes > 0 && (header[0] < CM_LOG_STDOUT || header[0] > CM_LOG_ENGINE_ERROR))
		return "frame of an unknown type";
	for (size_t i = 1; i < 4 && i < n_bytes; i++)
	{
		if (header[i] != 0)
			return "frame header is not that of a log stream";
	}
	return NULL;
}

static size_t
read_length(const unsigned char *header)
{
	return (size_t) header[4] << 24 | (size_t) header[5] << 16 | (size_t) header[6] << 8 |
		   (size_t) header[7];
}

/* Takes the time off the front of the record, if there is one. */
static void
take_time(CmLogRecord *record)
{
	size_t n_searched = record->n_bytes <= MAX_TIME_BYTES ? record->n_bytes : MAX_TIME_BYTES + 1;
	const char *space = memchr(record->bytes, ' ', n_searched);
	size_t n_time;

	record->at_us = 0;
	if (space == NULL)
		return;
	n_time = (size_t) (space - record->bytes);
	if (!cm_logstream_parse_time(record->bytes, n_time, &record->at_us))
		return;
	record->bytes += n_time + 1;
	record->n_bytes -= n_time + 1;
}

/* Nothing points into the buffer any more, and nothing is in it. */
static void
release_idle_buffer(CmLogStream *stream)
{
	if (stream->size <= IDLE_BUFFER_BYTES)
		return;
	free(stream->buffer);
	stream->buffer = NULL;
	stream->begin = stream->end = stream->size = 0;
}

static CmLogNext
mark_corrupt(CmLogStream *stream, const char *error)
{
	stream->error = error;
	return CM_LOG_CORRUPT;
}

CmLogNext
cm_logstream_next(CmLogStream *stream, CmLogRecord *record)
{
	size_t pending = cm_logstream_pending(stream);
	const unsigned char *header;
	const char *fault;
	size_t length;

	if (stream->error != NULL)
		return CM_LOG_CORRUPT;
	if (pending == 0)
	{
		release_idle_buffer(stream);
		return CM_LOG_NEED_BYTES;
	}

	header = (const unsigned char *) stream->buffer + stream->begin;
	fault = find_header_fault(header, pending);
	if (fault != NULL)
		return mark_corrupt(stream, fault);
	if (pending < HEADER_BYTES)
		return CM_LOG_NEED_BYTES;
	length = read_length(header);
	if (length > CM_LOG_MAX_FRAME_BYTES)
		return mark_corrupt(stream, "frame is longer than any engine makes them");
	if (pending - HEADER_BYTES < length)
		return CM_LOG_NEED_BYTES;

	record->stream = header[0];
	record->bytes = (const char *) header + HEADER_BYTES;
	record->n_bytes = length;
	take_time(record);
	stream->begin += HEADER_BYTES + length;
	return CM_LOG_RECORD;
}

/* Exactly n_digits digits. */
static bool
take_number(Cursor *cursor, int n_digits, int *number)
{
	*number = 0;
	for (int i = 0; i < n_digits; i++)
	{
		if (cursor->at == cursor->end || !cm_chars_is_digit(*cursor->at))
			return false;
		*number = *number * 10 + (*cursor->at++ - '0');
	}
	return true;
}

static bool
take_char(Cursor *cursor, char wanted)
{
	if (cursor->at == cursor->end || *cursor->at != wanted)
		return false;
	cursor->at++;
	return true;
}

/* ".9032142": 1 to 9 digits, of which the last three are dropped; or nothing. */
static bool
take_fraction(Cursor *cursor, int *microsecond)
{
	int n_digits = 0;

	*microsecond = 0;
	if (!take_char(cursor, '.'))
		return true;
	while (n_digits < 9 && cursor->at < cursor->end && cm_chars_is_digit(*cursor->at))
	{
		if (n_digits < 6)
			*microsecond = *microsecond * 10 + (*cursor->at - '0');
		cursor->at++;
		n_digits++;
	}
	for (int i = n_digits; i < 6; i++)
		*microsecond *= 10;
	return n_digits > 0;
}

static bool
take_zone(Cursor *cursor, int *zone_minutes)
{
	bool is_east;
	int hours;
	int minutes;

	*zone_minutes = 0;
	if (take_char(cursor, 'Z'))
		return true;
	is_east = take_char(cursor, '+');
	if (!is_east && !take_char(cursor, '-'))
		return false;
	if (!take_number(cursor, 2, &hours) || !take_char(cursor, ':') ||
		!take_number(cursor, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*zone_minutes = (is_east ? 1 : -1) * (hours * 60 + minutes);
	return true;
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && is_leap ? 29 : days[month - 1];
}

static bool
is_in_calendar(const TimeFields *fields)
{
	return fields->month >= 1 && fields->month <= 12 && fields->day >= 1 &&
		   fields->day <= days_in_month(fields->year, fields->month) && fields->hour <= 23 &&
		   fields->minute <= 59 && fields->second <= 59;
}

/*
 * Days since 1970-01-01 in the proleptic Gregorian calendar.  Years are
 * counted from March, so that the leap day is the last of its year.
 */
static int64_t
count_days(int year, int month, int day)
{
	int shifted_month = (month + 9) % 12;
	int shifted_year = year + 400 - (month <= 2 ? 1 : 0); /* never negative */
	int day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
	int n_leap_days = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;

	/* 719468 days from 0000-03-01 to 1970-01-01; 146097 in 400 years */
	return (int64_t) shifted_year * 365 + n_leap_days + day_of_year - 719468 - 146097;
}

static bool
take_fields(Cursor *cursor, TimeFields *fields)
{
	return take_number(cursor, 4, &fields->year) && take_char(cursor, '-') &&
		   take_number(cursor, 2, &fields->month) && take_char(cursor, '-') &&
		   take_number(cursor, 2, &fields->day) && take_char(cursor, 'T') &&
		   take_number(cursor, 2, &fields->hour) && take_char(cursor, ':') &&
		   take_number(cursor, 2, &fields->minute) && take_char(cursor, ':') &&
		   take_number(cursor, 2, &fields->second) && take_fraction(cursor, &fields->microsecond) &&
		   take_zone(cursor, &fields->zone_minutes);
}

bool
cm_logstream_parse_time(const char *text, size_t n_bytes, int64_t *at_us)
{
	Cursor cursor = {text, text + n_bytes};
	TimeFields fields;
	int64_t minutes;

	if (!take_fields(&cursor, &fields) || cursor.at != cursor.end || !is_in_calendar(&fields))
		return false;
	minutes = count_days(fields.year, fields.month, fields.day) * 1440 + fields.hour * 60 +
			  fields.minute - fields.zone_minutes;
	*at_us = (minutes * 60 + fields.second) * INT64_C(1000000) + fields.microsecond;
	return true;
}
