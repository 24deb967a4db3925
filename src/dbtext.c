/*
 * dbtext.c
 *		Bytes of unknown making become text of this database.
 *
 * The server's verifier says how far the bytes are good; one byte is replaced
 * there and the verifier asked again.  Good UTF-8 is converted in pieces small
 * enough for a buffer on the stack, in the mode that stops before a character
 * it cannot convert instead of throwing.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "dbtext.h"

#define PIECE_BYTES 2048

void
cm_dbtext_init(CmDbText *text, StringInfo out)
{
	int encoding = GetDatabaseEncoding();

	memset(text, 0, sizeof(*text));
	text->out = out;
	if (encoding != PG_UTF8 && encoding != PG_SQL_ASCII)
		text->conversion = FindDefaultConversionProc(PG_UTF8, encoding);
}

/* The encoding that the bytes are checked against. */
static int
source_encoding(void)
{
	return GetDatabaseEncoding() == PG_SQL_ASCII ? PG_SQL_ASCII : PG_UTF8;
}

/* A StringInfo holds at most MaxAllocSize with its terminating NUL. */
static bool
append(CmDbText *text, const char *bytes, size_t n_bytes)
{
	if ((Size) text->out->len + n_bytes + 1 > MaxAllocSize)
		return false;
	appendBinaryStringInfo(text->out, bytes, (int) n_bytes);
	return true;
}

static bool
append_replacement(CmDbText *text)
{
	text->is_lossy = true;
	if (GetDatabaseEncoding() == PG_UTF8)
		return append(text, "\xEF\xBF\xBD", 3);
	return append(text, "?", 1);
}

/* Appends what has a counterpart; returns how many bytes that were. */
static int
convert_start(CmDbText *text, const char *bytes, int n_bytes, bool *fits)
{
	unsigned char converted[PIECE_BYTES * MAX_CONVERSION_GROWTH + MAX_CONVERSION_GROWTH];
	int n_done = 0;

	if (!OidIsValid(text->conversion))
	{
		while (n_done < n_bytes && !IS_HIGHBIT_SET(bytes[n_done]))
			n_done++;
		*fits = append(text, bytes, n_done);
		return n_done;
	}
	n_done = pg_do_encoding_conversion_buf(text->conversion, PG_UTF8, GetDatabaseEncoding(),
										   (unsigned char *) unconstify(char *, bytes), n_bytes,
										   converted, sizeof(converted), true);
	*fits = append(text, (char *) converted, strlen((char *) converted));
	return n_done;
}

/* For bytes that are good in the source encoding. */
static bool
append_good(CmDbText *text, const char *bytes, int n_bytes)
{
	bool fits = true;

	if (source_encoding() == GetDatabaseEncoding())
		return append(text, bytes, n_bytes);
	while (fits && n_bytes > 0)
	{
		int n_piece = pg_encoding_mbcliplen(PG_UTF8, bytes, n_bytes, PIECE_BYTES);
		int n_done = convert_start(text, bytes, n_piece, &fits);

		if (fits && n_done < n_piece)
		{
			n_done += pg_utf_mblen((const unsigned char *) bytes + n_done);
			fits = append_replacement(text);
		}
		bytes += n_done;
		n_bytes -= n_done;
	}
	return fits;
}

static bool
append_any(CmDbText *text, const char *bytes, int n_bytes)
{
	while (n_bytes > 0)
	{
		int n_good = pg_encoding_verifymbstr(source_encoding(), bytes, n_bytes);

		if (!append_good(text, bytes, n_good))
			return false;
		bytes += n_good;
		n_bytes -= n_good;
		if (n_bytes == 0)
			break;
		if (!append_replacement(text))
			return false;
		bytes++;
		n_bytes--;
	}
	return true;
}

/* How many bytes at the end may be a character that goes on. */
static int
count_cut_bytes(const char *bytes, int n_bytes)
{
	if (source_encoding() != PG_UTF8)
		return 0;
	for (int n_cut = 1; n_cut <= 3 && n_cut <= n_bytes; n_cut++)
	{
		const unsigned char *lead = (const unsigned char *) bytes + n_bytes - n_cut;

		if ((*lead & 0xc0) != 0x80)
			return pg_utf_mblen(lead) > n_cut ? n_cut : 0;
	}
	return 0;
}

/* One more byte for a character whose start was carried. */
static bool
complete_carried(CmDbText *text, char byte)
{
	int n_cut;
	int n_ready;
	bool fits;

	text->carried[text->n_carried++] = byte;
	n_cut = count_cut_bytes(text->carried, text->n_carried);
	n_ready = text->n_carried - n_cut;
	fits = append_any(text, text->carried, n_ready);
	memmove(text->carried, text->carried + n_ready, n_cut);
	text->n_carried = n_cut;
	return fits;
}

bool
cm_dbtext_feed(CmDbText *text, const char *bytes, size_t n_bytes)
{
	int n_cut;

	if (n_bytes > MaxAllocSize)
		return false;
	for (; text->n_carried > 0 && n_bytes > 0; n_bytes--)
	{
		if (!complete_carried(text, *bytes++))
			return false;
	}
	n_cut = count_cut_bytes(bytes, (int) n_bytes);
	if (!append_any(text, bytes, (int) n_bytes - n_cut))
		return false;
	if (n_cut > 0)
		memcpy(text->carried, bytes + n_bytes - n_cut, n_cut);
	text->n_carried += n_cut;
	return true;
}

bool
cm_dbtext_finish(CmDbText *text)
{
	int n_carried = text->n_carried;

	text->n_carried = 0;
	return append_any(text, text->carried, n_carried);
}
