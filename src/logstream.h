/*
 * logstream.h
 *		Decoder of an engine's multiplexed log stream.
 *
 * Floor 0: pure, decoupled from I/O: bytes are fed as they come, in pieces of
 * any size, and whole records are taken out.  The stream is a sequence of
 * frames { u8 type; u8 0,0,0; u32be length; payload }; with timestamps=1 each
 * payload begins with an RFC 3339 time and one space.  A frame is one record:
 * a line with its newline, or a part of at most 16 kB of a longer line, or
 * the unterminated end of the output.
 *
 * Memory comes from malloc, so that it may be used where errors cannot be
 * thrown; a decoder holds at most one frame beyond what was fed and not taken.
 */
#ifndef CM_LOGSTREAM_H
#define CM_LOGSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CM_LOG_STDOUT 1
#define CM_LOG_STDERR 2
#define CM_LOG_ENGINE_ERROR 3 /* "Error grabbing logs: ...": not job output */

/* No engine makes longer frames; more is garbage. */
#define CM_LOG_MAX_FRAME_BYTES (1024 * 1024)

typedef struct CmLogRecord
{
	int stream;		   /* CM_LOG_... */
	int64_t at_us;	   /* engine's clock, microseconds since 1970 UTC;
						* 0 where the payload bears no time */
	const char *bytes; /* payload without the time; valid until the
						* next call on the decoder */
	size_t n_bytes;
} CmLogRecord;

typedef enum CmLogNext
{
	CM_LOG_RECORD,	   /* *record is filled */
	CM_LOG_NEED_BYTES, /* no whole record is there */
	CM_LOG_CORRUPT,	   /* not a log stream, or memory is out; for good */
} CmLogNext;

typedef struct CmLogStream
{
	char *buffer;
	size_t begin; /* first byte not taken */
	size_t end;	  /* one past the last byte fed */
	size_t size;
	const char *error; /* why it is corrupt, or NULL */
} CmLogStream;

extern void cm_logstream_init(CmLogStream *stream);
extern void cm_logstream_free(CmLogStream *stream);

/* Copies the bytes; false where the stream is corrupt, or now is: memory is out. */
extern bool cm_logstream_feed(CmLogStream *stream, const char *bytes, size_t n_bytes);
extern CmLogNext cm_logstream_next(CmLogStream *stream, CmLogRecord *record);

/* Bytes fed but not yet taken as records: not 0 at the end of a torn stream. */
extern size_t cm_logstream_pending(const CmLogStream *stream);

/*
 * Parses "2026-11-21T20:43:52.903214210Z" (0 to 9 fraction digits, 'Z' or a
 * numeric zone) of exactly n_bytes; digits beyond microseconds are dropped.
 * false: it is not such a time, and *at_us is unchanged.
 */
extern bool cm_logstream_parse_time(const char *text, size_t n_bytes, int64_t *at_us);

#endif /* CM_LOGSTREAM_H */
