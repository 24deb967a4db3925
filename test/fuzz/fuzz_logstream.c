/*
 * fuzz_logstream.c
 *		Log streams: any cut gives the same records and the same end; what was
 *		given out and what is pending is what was fed; memory is bounded; a time
 *		that is read is within the years that can be written.
 */
#include "fuzz.h"
#include "logstream.h"

#define FNV_START UINT64_C(14695981039346656037)
#define MIN_TIME_US (INT64_C(-62167219200000000) - INT64_C(86400000000)) /* 0000-01-01 */
#define MAX_TIME_US (INT64_C(253402300799999999) + INT64_C(86400000000)) /* 9999-12-31 */

/* What a stream came to. */
typedef struct Outcome
{
	size_t n_records;
	uint64_t hash;
	size_t pending;
	bool is_corrupt;
} Outcome;

static uint64_t
add_to_hash(uint64_t hash, const void *bytes, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
		hash = (hash ^ ((const unsigned char *) bytes)[i]) * UINT64_C(1099511628211);
	return hash;
}

static void
take_record(const CmLogRecord *record, Outcome *outcome)
{
	REQUIRE(record->stream >= CM_LOG_STDOUT && record->stream <= CM_LOG_ENGINE_ERROR);
	REQUIRE(record->n_bytes <= CM_LOG_MAX_FRAME_BYTES);
	REQUIRE(record->at_us >= MIN_TIME_US && record->at_us <= MAX_TIME_US);
	outcome->n_records++;
	outcome->hash = add_to_hash(outcome->hash, &record->stream, sizeof(record->stream));
	outcome->hash = add_to_hash(outcome->hash, &record->at_us, sizeof(record->at_us));
	outcome->hash = add_to_hash(outcome->hash, &record->n_bytes, sizeof(record->n_bytes));
	outcome->hash = add_to_hash(outcome->hash, record->bytes, record->n_bytes);
}

/* In pieces of the sizes that follow from the seed; 0: in one. */
static Outcome
decode(const uint8_t *data, size_t n_bytes, uint32_t seed)
{
	Outcome outcome = {.hash = FNV_START};
	CmLogStream stream;
	CmLogRecord record;
	CmLogNext next = CM_LOG_NEED_BYTES;

	cm_logstream_init(&stream);
	while (n_bytes > 0 && next != CM_LOG_CORRUPT)
	{
		size_t n_piece = n_bytes;

		if (seed != 0)
		{
			seed = seed * 1664525u + 1013904223u;
			n_piece = 1 + (seed >> 16) % (seed >> 30 == 0 ? n_bytes : 24);
			n_piece = n_piece > n_bytes ? n_bytes : n_piece;
		}
		REQUIRE(cm_logstream_feed(&stream, (const char *) data, n_piece));
		data += n_piece;
		n_bytes -= n_piece;
		while ((next = cm_logstream_next(&stream, &record)) == CM_LOG_RECORD)
			take_record(&record, &outcome);
		REQUIRE(stream.size <= 1024 ||
				stream.size < 4 * (cm_logstream_pending(&stream) + n_piece) ||
				stream.size <= 64 * 1024);
	}
	outcome.is_corrupt = next == CM_LOG_CORRUPT;
	/* Where it is corrupt, more or less of what follows was fed. */
	outcome.pending = outcome.is_corrupt ? 0 : cm_logstream_pending(&stream);
	REQUIRE(outcome.is_corrupt == (stream.error != NULL));
	cm_logstream_free(&stream);
	return outcome;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	Outcome whole = decode(data, n_bytes, 0);

	for (uint32_t seed = 1; seed <= 3; seed++)
	{
		Outcome cut = decode(data, n_bytes, seed * 2654435761u);

		REQUIRE(cut.n_records == whole.n_records && cut.hash == whole.hash);
		REQUIRE(cut.pending == whole.pending && cut.is_corrupt == whole.is_corrupt);
	}
	return 0;
}
