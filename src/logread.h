/*
 * logread.h
 *		Reads what containers wrote, out of cm_internal.log_chunks.
 *
 * Floor 3.  Needs an SPI connection, an active snapshot and the right to read
 * the table.  Memory is that of one chunk and one line per stream, however
 * much there is; only the two functions that return everything at once need
 * as much as that.
 */
#ifndef CM_LOGREAD_H
#define CM_LOGREAD_H

#include "postgres.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

#include "logstream.h"

/* What is to be read. */
typedef struct CmLogWish
{
	int64 job_id;
	int attempt;
	int stream; /* CM_LOG_STDOUT, CM_LOG_STDERR; 0: both */
	bool has_since;
	TimestampTz since; /* lines that began then or later */
	int64 tail;		   /* of those, this many at the end; -1: all */
} CmLogWish;

/*
 * A line without its newline: made of one record, or of the parts that a long
 * line comes in.  The last one need not have had a newline.
 */
typedef struct CmLogLine
{
	int stream;
	int64 number;		   /* of its first record, over both streams */
	TimestampTz logged_at; /* of its first record */
	const char *bytes;	   /* until the next call */
	int n_bytes;
} CmLogLine;

typedef struct CmLogReader CmLogReader;

/* Lines of both streams come in the order of their first records. */
extern CmLogReader *cm_logread_open(const CmLogWish *wish);
extern bool cm_logread_next(CmLogReader *reader, CmLogLine *line);
extern void cm_logread_close(CmLogReader *reader);

/*
 * Append everything that one stream holds to a buffer, which keeps its memory
 * context: as it was written, or as text of this database; the latter returns
 * whether something had to be replaced.
 */
extern void cm_logread_append_bytes(int64 job_id, int attempt, int stream, StringInfo out);
extern bool cm_logread_append_text(int64 job_id, int attempt, int stream, StringInfo out);

#endif /* CM_LOGREAD_H */
