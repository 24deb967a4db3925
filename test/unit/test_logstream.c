/*
 * test_logstream.c
 *		The log decoder: any cut, garbage, times, and the cost of small pieces.
 */
#include <stdlib.h>
#include <time.h>

#include "logstream.h"
#include "tap.h"

#define STAMP "2026-11-21T20:43:52.903214210Z"
#define STAMP_US INT64_C(1795293832903214)
#define MAX_PAYLOAD 20000

/* A stream under construction. */
typedef struct Bytes
{
	char *data;
	size_t n;
	size_t size;
} Bytes;

/* The same numbers in every run: a failure can be run again. */
static uint32_t random_state = 20261121;

static uint32_t
random_below(uint32_t bound)
{
	random_state = random_state * 1664525u + 1013904223u;
	return (random_state >> 8) % bound;
}

static void
append(Bytes *to, const void *data, size_t n)
{
	if (to->n + n > to->size)
	{
		to->size = 2 * (to->n + n);
		to->data = realloc(to->data, to->size);
	}
	if (n > 0)
		memcpy(to->data + to->n, data, n);
	to->n += n;
}

static void
append_header(Bytes *to, int type, uint32_t length)
{
	unsigned char header[8] = {(unsigned char) type};

	for (int i = 0; i < 4; i++)
		header[4 + i] = (unsigned char) (length >> (24 - 8 * i));
	append(to, header, sizeof(header));
}

static void
append_frame(Bytes *to, int type, const char *payload, size_t n)
{
	append_header(to, type, (uint32_t) n);
	append(to, payload, n);
}

static const struct
{
	const char *name;
	int stream;
	const char *payload;
	size_t n_payload;
	int64_t at_us;
	const char *bytes;
	size_t n_bytes;
} frame_rows[] = {
#define PAYLOAD(text) text, sizeof(text) - 1
	{"a line", CM_LOG_STDOUT, PAYLOAD(STAMP " hello\n"), STAMP_US, PAYLOAD("hello\n")},
	{"a line of stderr", CM_LOG_STDERR, PAYLOAD(STAMP " oops\n"), STAMP_US, PAYLOAD("oops\n")},
	{"an error of the engine", CM_LOG_ENGINE_ERROR, PAYLOAD("Error grabbing logs: EOF"), 0,
	 PAYLOAD("Error grabbing logs: EOF")},
	{"an empty line", CM_LOG_STDOUT, PAYLOAD(STAMP " \n"), STAMP_US, PAYLOAD("\n")},
	{"a time and nothing", CM_LOG_STDOUT, PAYLOAD(STAMP " "), STAMP_US, PAYLOAD("")},
	{"no payload", CM_LOG_STDOUT, PAYLOAD(""), 0, PAYLOAD("")},
	{"no newline at the end", CM_LOG_STDOUT, PAYLOAD(STAMP " tail"), STAMP_US, PAYLOAD("tail")},
	{"a second space is the job's", CM_LOG_STDOUT, PAYLOAD(STAMP "  x\n"), STAMP_US,
	 PAYLOAD(" x\n")},
	{"a second time is the job's", CM_LOG_STDOUT, PAYLOAD(STAMP " " STAMP " x"), STAMP_US,
	 PAYLOAD(STAMP " x")},
	{"NUL and bytes that are not UTF-8", CM_LOG_STDOUT, PAYLOAD(STAMP " a\0b\xff\xfe\r\n"),
	 STAMP_US, PAYLOAD("a\0b\xff\xfe\r\n")},
	{"seconds only, as podman has it", CM_LOG_STDOUT, PAYLOAD("2026-11-21T20:43:52Z x"),
	 INT64_C(1795293832000000), PAYLOAD("x")},
	{"the longest time", CM_LOG_STDOUT, PAYLOAD("2026-11-21T20:43:52.903214210+00:00 x"), STAMP_US,
	 PAYLOAD("x")},
	{"no time", CM_LOG_STDOUT, PAYLOAD("hello world\n"), 0, PAYLOAD("hello world\n")},
	{"no time and no space", CM_LOG_STDOUT, PAYLOAD("hello\n"), 0, PAYLOAD("hello\n")},
	{"a time without a space", CM_LOG_STDOUT, PAYLOAD(STAMP), 0, PAYLOAD(STAMP)},
	{"a time and a newline", CM_LOG_STDOUT, PAYLOAD(STAMP "\n"), 0, PAYLOAD(STAMP "\n")},
	{"a time that is none", CM_LOG_STDOUT, PAYLOAD("2026-13-21T20:43:52Z x"), 0,
	 PAYLOAD("2026-13-21T20:43:52Z x")},
	{"a space at the front", CM_LOG_STDOUT, PAYLOAD(" " STAMP " x"), 0, PAYLOAD(" " STAMP " x")},
	{"a space alone", CM_LOG_STDOUT, PAYLOAD(" "), 0, PAYLOAD(" ")},
	{"a first word too long for a time", CM_LOG_STDOUT,
	 PAYLOAD("2026-11-21T20:43:52.903214210+00:000 x"), 0,
	 PAYLOAD("2026-11-21T20:43:52.903214210+00:000 x")},
};

static void
build_frame_rows(Bytes *to)
{
	for (size_t i = 0; i < lengthof(frame_rows); i++)
		append_frame(to, frame_rows[i].stream, frame_rows[i].payload, frame_rows[i].n_payload);
}

/* Is the record that of the row?  Without a line of TAP. */
static bool
is_row(const CmLogRecord *record, size_t row)
{
	return row < lengthof(frame_rows) && record->stream == frame_rows[row].stream &&
		   record->at_us == frame_rows[row].at_us && record->n_bytes == frame_rows[row].n_bytes &&
		   memcmp(record->bytes, frame_rows[row].bytes, record->n_bytes) == 0;
}

static void
test_frames(void)
{
	for (size_t i = 0; i < lengthof(frame_rows); i++)
	{
		CmLogStream stream;
		CmLogRecord record = {0};
		Bytes bytes = {0};

		append_frame(&bytes, frame_rows[i].stream, frame_rows[i].payload, frame_rows[i].n_payload);
		cm_logstream_init(&stream);
		ok(cm_logstream_feed(&stream, bytes.data, bytes.n), "%s: fed", frame_rows[i].name);
		is_int(cm_logstream_next(&stream, &record), CM_LOG_RECORD, "%s: there", frame_rows[i].name);
		is_int(record.stream, frame_rows[i].stream, "%s: stream", frame_rows[i].name);
		is_int(record.at_us, frame_rows[i].at_us, "%s: time", frame_rows[i].name);
		is_bytes(record.bytes, record.n_bytes, frame_rows[i].bytes, frame_rows[i].n_bytes,
				 "%s: bytes", frame_rows[i].name);
		is_int(cm_logstream_next(&stream, &record), CM_LOG_NEED_BYTES, "%s: no more",
			   frame_rows[i].name);
		is_int((int64_t) cm_logstream_pending(&stream), 0, "%s: nothing pending",
			   frame_rows[i].name);
		cm_logstream_free(&stream);
		free(bytes.data);
	}
}

/*
 * Feeds a copy of exactly n bytes, so that ASan sees a byte read too far.
 * Takes what is there; returns the row after the last record, or -1 where a
 * record was not that of its row.
 */
static int
feed_and_take(CmLogStream *stream, const char *data, size_t n, int row)
{
	char *copy = malloc(n > 0 ? n : 1);
	CmLogRecord record;

	memcpy(copy, data, n);
	if (!cm_logstream_feed(stream, copy, n))
		row = -1;
	free(copy);
	while (row >= 0 && cm_logstream_next(stream, &record) == CM_LOG_RECORD)
		row = is_row(&record, (size_t) row) ? row + 1 : -1;
	return row;
}

/* Every place to cut the stream in two. */
static void
test_two_pieces(void)
{
	Bytes bytes = {0};
	int n_right = 0;

	build_frame_rows(&bytes);
	for (size_t cut = 0; cut <= bytes.n; cut++)
	{
		CmLogStream stream;
		int row;

		cm_logstream_init(&stream);
		row = feed_and_take(&stream, bytes.data, cut, 0);
		row = feed_and_take(&stream, bytes.data + cut, bytes.n - cut, row);
		n_right += row == (int) lengthof(frame_rows) && cm_logstream_pending(&stream) == 0;
		cm_logstream_free(&stream);
	}
	is_int(n_right, (int64_t) bytes.n + 1, "whole after any one cut");
	free(bytes.data);
}

/* Pieces of one size; 1 is byte by byte. */
static void
test_equal_pieces(void)
{
	Bytes bytes = {0};

	build_frame_rows(&bytes);
	for (size_t size = 1; size <= 64; size++)
	{
		CmLogStream stream;
		int row = 0;

		cm_logstream_init(&stream);
		for (size_t at = 0; at < bytes.n; at += size)
			row = feed_and_take(&stream, bytes.data + at, bytes.n - at < size ? bytes.n - at : size,
								row);
		is_int(row, lengthof(frame_rows), "whole in pieces of %zu", size);
		cm_logstream_free(&stream);
	}
	free(bytes.data);
}

/* Feeds in random pieces, not always taking; returns a sum over the records. */
static uint64_t
sum_in_pieces(const Bytes *bytes, uint32_t max_piece, int *n_records)
{
	CmLogStream stream;
	CmLogRecord record;
	uint64_t sum = 0;

	*n_records = 0;
	cm_logstream_init(&stream);
	for (size_t at = 0, n; at < bytes->n; at += n)
	{
		n = 1 + random_below(max_piece);
		n = n < bytes->n - at ? n : bytes->n - at;
		cm_logstream_feed(&stream, bytes->data + at, n);
		if (random_below(3) == 0 && at + n < bytes->n)
			continue;
		while (cm_logstream_next(&stream, &record) == CM_LOG_RECORD)
		{
			sum = sum * 31 + (uint64_t) record.stream;
			for (size_t i = 0; i < record.n_bytes; i++)
				sum = sum * 31 + (unsigned char) record.bytes[i];
			(*n_records)++;
		}
	}
	if (cm_logstream_pending(&stream) != 0)
		*n_records = -1;
	cm_logstream_free(&stream);
	return sum;
}

/* Frames of random sizes, contents and streams give the same, however cut. */
static void
test_random_pieces(void)
{
	static const uint32_t piece_sizes[] = {1, 7, 100, 4096, 65536, 1000000};
	static char payload[MAX_PAYLOAD];
	Bytes bytes = {0};
	int n_frames = 300;
	int n_records;
	uint64_t sum;

	for (int i = 0; i < n_frames; i++)
	{
		size_t n = random_below(i % 10 == 0 ? MAX_PAYLOAD : 200);

		for (size_t j = 0; j < n; j++)
			payload[j] = (char) random_below(256);
		append_frame(&bytes, 1 + (int) random_below(3), payload, n);
	}
	sum = sum_in_pieces(&bytes, 100000000, &n_records);
	is_int(n_records, n_frames, "random frames, fed at once");
	for (int i = 0; i < 30; i++)
	{
		uint32_t size = piece_sizes[(size_t) i % lengthof(piece_sizes)];

		ok(sum_in_pieces(&bytes, size, &n_records) == sum && n_records == n_frames,
		   "random frames, run %d in pieces up to %" PRIu32, i, size);
	}
	free(bytes.data);
}

#define UNKNOWN "frame of an unknown type"
#define NO_HEADER "frame header is not that of a log stream"
#define LONG_FRAME "frame is longer than any engine makes them"

static const struct
{
	const char *name;
	const char *bytes;
	size_t n_bytes;
	const char *error; /* NULL: waits for more */
} header_rows[] = {
	{"type 0, standard input", PAYLOAD("\0\0\0\0\0\0\0\1x"), UNKNOWN},
	{"type 4", PAYLOAD("\4\0\0\0\0\0\0\1x"), UNKNOWN},
	{"type 255", PAYLOAD("\xff\0\0\0\0\0\0\1x"), UNKNOWN},
	{"a terminal's output", PAYLOAD("hello\r\n"), UNKNOWN},
	{"an error's JSON", PAYLOAD("{\"message\":\"no\"}"), UNKNOWN},
	{"one bad byte alone", PAYLOAD("h"), UNKNOWN},
	{"first pad byte", PAYLOAD("\1\1\0\0\0\0\0\0"), NO_HEADER},
	{"second pad byte", PAYLOAD("\1\0\1\0\0\0\0\0"), NO_HEADER},
	{"third pad byte", PAYLOAD("\1\0\0\xff\0\0\0\0"), NO_HEADER},
	{"first pad byte, cut after it", PAYLOAD("\2x"), NO_HEADER},
	{"third pad byte, cut after it", PAYLOAD("\3\0\0x"), NO_HEADER},
	{"length of 1 MiB and 1", PAYLOAD("\1\0\0\0\0\x10\0\1"), LONG_FRAME},
	{"length of 4 GiB less 1", PAYLOAD("\1\0\0\0\xff\xff\xff\xff"), LONG_FRAME},
	{"length of 2 GiB", PAYLOAD("\1\0\0\0\x80\0\0\0"), LONG_FRAME},
	{"length of 1 MiB", PAYLOAD("\1\0\0\0\0\x10\0\0"), NULL},
	{"no bytes", PAYLOAD(""), NULL},
	{"type alone", PAYLOAD("\1"), NULL},
	{"type and padding", PAYLOAD("\1\0\0\0"), NULL},
	{"header without its last byte", PAYLOAD("\1\0\0\0\0\0\0"), NULL},
	{"header without payload", PAYLOAD("\1\0\0\0\0\0\0\1"), NULL},
	{"payload without its last byte", PAYLOAD("\1\0\0\0\0\0\0\2x"), NULL},
};

/* A good frame first: it is still had, and what follows is judged. */
static void
test_headers(void)
{
	for (size_t i = 0; i < lengthof(header_rows); i++)
	{
		const char *name = header_rows[i].name;
		bool is_corrupt = header_rows[i].error != NULL;
		CmLogStream stream;
		CmLogRecord record;
		Bytes bytes = {0};

		append_frame(&bytes, CM_LOG_STDOUT, "x", 1);
		append(&bytes, header_rows[i].bytes, header_rows[i].n_bytes);
		cm_logstream_init(&stream);
		ok(cm_logstream_feed(&stream, bytes.data, bytes.n), "%s: fed", name);
		is_int(cm_logstream_next(&stream, &record), CM_LOG_RECORD, "%s: good frame", name);
		is_int(cm_logstream_next(&stream, &record), is_corrupt ? CM_LOG_CORRUPT : CM_LOG_NEED_BYTES,
			   "%s: verdict", name);
		is_str(stream.error, header_rows[i].error, "%s: error", name);
		is_int((int64_t) cm_logstream_pending(&stream), (int64_t) header_rows[i].n_bytes,
			   "%s: pending", name);
		ok(cm_logstream_feed(&stream, "", 0) != is_corrupt, "%s: can go on", name);
		is_int(cm_logstream_next(&stream, &record), is_corrupt ? CM_LOG_CORRUPT : CM_LOG_NEED_BYTES,
			   "%s: for good", name);
		cm_logstream_free(&stream);
		free(bytes.data);
	}
}

static void
test_empty_stream(void)
{
	CmLogStream stream;
	CmLogRecord record;

	cm_logstream_init(&stream);
	is_int(cm_logstream_next(&stream, &record), CM_LOG_NEED_BYTES, "new: no record");
	is_int((int64_t) cm_logstream_pending(&stream), 0, "new: nothing pending");
	ok(cm_logstream_feed(&stream, NULL, 0), "new: nothing fed");
	ok(stream.error == NULL, "new: no error");
	cm_logstream_free(&stream);
	cm_logstream_free(&stream);
	ok(stream.buffer == NULL, "may be freed twice");
}

/* More bytes than there can be memory for: an error, not a crash. */
static void
test_out_of_memory(void)
{
	CmLogStream stream;
	CmLogRecord record;

	cm_logstream_init(&stream);
	cm_logstream_feed(&stream, "\1", 1);
	ok(!cm_logstream_feed(&stream, "x", SIZE_MAX), "too much is refused");
	is_str(stream.error, "out of memory", "and said");
	is_int(cm_logstream_next(&stream, &record), CM_LOG_CORRUPT, "and final");
	ok(!cm_logstream_feed(&stream, "x", 1), "no more is taken");
	cm_logstream_free(&stream);
}

/* The largest frame comes whole, and its buffer is given back. */
static void
test_largest_frame(void)
{
	char *payload = calloc(1, CM_LOG_MAX_FRAME_BYTES);
	CmLogStream stream;
	CmLogRecord record = {0};
	Bytes bytes = {0};

	append_frame(&bytes, CM_LOG_STDERR, payload, CM_LOG_MAX_FRAME_BYTES);
	cm_logstream_init(&stream);
	for (size_t at = 0; at < bytes.n; at += 1000)
		cm_logstream_feed(&stream, bytes.data + at, bytes.n - at < 1000 ? bytes.n - at : 1000);
	ok(stream.size <= 4 * bytes.n, "buffer of the largest frame is bounded");
	is_int(cm_logstream_next(&stream, &record), CM_LOG_RECORD, "largest frame is there");
	is_int((int64_t) record.n_bytes, CM_LOG_MAX_FRAME_BYTES, "largest frame is whole");
	is_int(cm_logstream_next(&stream, &record), CM_LOG_NEED_BYTES, "largest frame is the last");
	is_int((int64_t) stream.size, 0, "largest buffer is given back");
	ok(cm_logstream_feed(&stream, "\1", 1), "and had again");
	cm_logstream_free(&stream);
	free(payload);
	free(bytes.data);
}

/*
 * The cost of a byte must not grow with what is buffered: 32 MiB of tiny
 * frames in one piece, taken one by one with a byte fed after each, would be
 * moved 1.6 million times by a decoder that moves what stays at every call.
 */
static void
test_is_linear(void)
{
	CmLogStream stream;
	CmLogRecord record;
	Bytes bytes = {0};
	int n_frames = 1600000;
	int n_records = 0;
	clock_t begin;

	for (int i = 0; i < n_frames; i++)
		append_frame(&bytes, CM_LOG_STDOUT, "0123456789ab", 12);
	begin = clock();
	cm_logstream_init(&stream);
	cm_logstream_feed(&stream, bytes.data, bytes.n);
	for (size_t at = 0; cm_logstream_next(&stream, &record) == CM_LOG_RECORD; at++)
	{
		n_records++;
		if (at < bytes.n)
			cm_logstream_feed(&stream, bytes.data + at, 1);
	}
	ok(n_records > n_frames, "all the frames, and those fed meanwhile");
	ok((double) (clock() - begin) / CLOCKS_PER_SEC < 20.0,
	   "in a time that only a linear decoder keeps");
	cm_logstream_free(&stream);
	free(bytes.data);
}

static const struct
{
	const char *text;
	int64_t at_us;
} time_rows[] = {
	{STAMP, STAMP_US},
	{"1970-01-01T00:00:00Z", 0},
	{"1970-01-01T00:00:00.000001Z", 1},
	{"1970-01-01T00:00:00.000000999Z", 0},
	{"1969-12-31T23:59:59.999999Z", -1},
	{"1969-12-31T23:59:59.9999999Z", -1},
	{"2000-02-29T00:00:00Z", INT64_C(951782400000000)},
	{"2000-03-01T00:00:00Z", INT64_C(951868800000000)},
	{"2024-02-29T12:00:00Z", INT64_C(1709208000000000)},
	{"2100-02-28T00:00:00Z", INT64_C(4107456000000000)},
	{"2100-03-01T00:00:00Z", INT64_C(4107542400000000)},
	{"1900-01-01T00:00:00Z", INT64_C(-2208988800000000)},
	{"0001-01-01T00:00:00Z", INT64_C(-62135596800000000)},
	{"0000-01-01T00:00:00Z", INT64_C(-62167219200000000)},
	{"0000-02-29T00:00:00Z", INT64_C(-62162121600000000)},
	{"9999-12-31T23:59:59.999999999Z", INT64_C(253402300799999999)},
	{"2026-11-21T20:43:52Z", INT64_C(1795293832000000)},
	{"2026-11-21T20:43:52.9Z", INT64_C(1795293832900000)},
	{"2026-11-21T20:43:52.90Z", INT64_C(1795293832900000)},
	{"2026-11-21T20:43:52.903Z", INT64_C(1795293832903000)},
	{"2026-11-21T20:43:52.903214Z", STAMP_US},
	{"2026-11-21T20:43:52.903214999Z", STAMP_US},
	{"2026-11-21T20:43:52.903214210+00:00", STAMP_US},
	{"2026-11-21T20:43:52.903214210-00:00", STAMP_US},
	{"2026-11-21T22:43:52.903214210+02:00", STAMP_US},
	{"2026-11-22T02:13:52.903214210+05:30", STAMP_US},
	{"2026-11-21T12:43:52.903214210-08:00", STAMP_US},
	{"2026-11-22T20:42:52.903214210+23:59", STAMP_US},
	{"2026-11-20T20:44:52.903214210-23:59", STAMP_US},
};

static const char *const bad_times[] = {
	"",
	"Z",
	"2026",
	"2026-11-21",
	"2026-11-21T20:43",
	"2026-11-21T20:43:52",
	"2026-11-21T20:43:52.",
	"2026-11-21T20:43:52.Z",
	"2026-11-21T20:43:52.9",
	"2026-11-21T20:43:52.9032142101Z",
	"2026-11-21T20:43:52,9Z",
	"2026-11-21T20:43:52.9 Z",
	"2026-11-21 20:43:52Z",
	"2026-11-21t20:43:52Z",
	"2026-11-21T20:43:52z",
	"2026-11-21T20:43:52ZZ",
	"2026-11-21T20:43:52Z ",
	" 2026-11-21T20:43:52Z",
	"2026-00-21T20:43:52Z",
	"2026-13-21T20:43:52Z",
	"2026-99-21T20:43:52Z",
	"2026-11-00T20:43:52Z",
	"2026-11-31T20:43:52Z",
	"2026-12-32T20:43:52Z",
	"2026-02-29T20:43:52Z",
	"2024-02-30T20:43:52Z",
	"1900-02-29T00:00:00Z",
	"2100-02-29T00:00:00Z",
	"2026-04-31T00:00:00Z",
	"2026-06-31T00:00:00Z",
	"2026-09-31T00:00:00Z",
	"2026-11-21T24:00:00Z",
	"2026-11-21T99:00:00Z",
	"2026-11-21T20:60:00Z",
	"2026-11-21T20:43:60Z",
	"2026-11-21T20:43:52+24:00",
	"2026-11-21T20:43:52+02:60",
	"2026-11-21T20:43:52+0200",
	"2026-11-21T20:43:52+02",
	"2026-11-21T20:43:52+2:00",
	"2026-11-21T20:43:52+02:0",
	"2026-11-21T20:43:52+02:000",
	"2026-11-21T20:43:52+",
	"2026-11-21T20:43:52Z+02:00",
	"26-11-21T20:43:52Z",
	"12026-11-21T20:43:52Z",
	"-026-11-21T20:43:52Z",
	"+026-11-21T20:43:52Z",
	"2026-1-21T20:43:52Z",
	"2026-11-1T20:43:52Z",
	"2026/11/21T20:43:52Z",
	"2026-11-21T20-43-52Z",
	"20a6-11-21T20:43:52Z",
	"2026-11-21T2o:43:52Z",
	"2026-11-21T20:43:5\xd9\xa2Z",
	"2026-11-21T20:43: 2Z",
};

static void
test_times(void)
{
	int64_t at_us;

	for (size_t i = 0; i < lengthof(time_rows); i++)
	{
		at_us = -77;
		ok(cm_logstream_parse_time(time_rows[i].text, strlen(time_rows[i].text), &at_us), "time %s",
		   time_rows[i].text);
		is_int(at_us, time_rows[i].at_us, "value of %s", time_rows[i].text);
	}
	for (size_t i = 0; i < lengthof(bad_times); i++)
	{
		at_us = -77;
		ok(!cm_logstream_parse_time(bad_times[i], strlen(bad_times[i]), &at_us), "no time: %s",
		   bad_times[i]);
		is_int(at_us, -77, "value stays for %s", bad_times[i]);
	}
}

/* Every shorter text is none, and nothing beyond n_bytes is read. */
static void
test_cut_times(void)
{
	int64_t at_us;

	for (size_t n = 0; n < strlen(STAMP); n++)
	{
		char *copy = malloc(n > 0 ? n : 1);

		memcpy(copy, STAMP, n);
		ok(!cm_logstream_parse_time(copy, n, &at_us), "no time in its first %zu bytes", n);
		free(copy);
	}
}

/* Each day of 800 years is one day after the one before. */
static void
test_calendar(void)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int64_t last_us = INT64_C(-11676182400000000); /* 1599-12-31 */
	int n_wrong = 0;

	for (int year = 1600; year < 2400; year++)
	{
		bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

		for (int month = 1; month <= 12; month++)
		{
			for (int day = 1; day <= days[month - 1] + (month == 2 && is_leap ? 1 : 0); day++)
			{
				char text[64];
				int64_t at_us = 0;

				snprintf(text, sizeof(text), "%04d-%02d-%02dT00:00:00Z", year, month, day);
				cm_logstream_parse_time(text, strlen(text), &at_us);
				n_wrong += at_us != last_us + INT64_C(86400000000);
				last_us = at_us;
			}
		}
	}
	is_int(n_wrong, 0, "days follow each other for 800 years");
}

int
main(void)
{
	test_frames();
	test_two_pieces();
	test_equal_pieces();
	test_random_pieces();
	test_headers();
	test_empty_stream();
	test_out_of_memory();
	test_largest_frame();
	test_is_linear();
	test_times();
	test_cut_times();
	test_calendar();
	return tap_done();
}
