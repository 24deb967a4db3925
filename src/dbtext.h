/*
 * dbtext.h
 *		Bytes of unknown making become text of this database.
 *
 * Floor 1.  What containers write is taken for UTF-8.  A byte that is not, a
 * NUL, and a character that the database's encoding has not got are replaced:
 * by U+FFFD where the database is UTF-8, by '?' elsewhere.  In an SQL_ASCII
 * database every byte but NUL is kept.  Nothing is thrown for what the bytes
 * are; the caller learns whether something was replaced.
 */
#ifndef CM_DBTEXT_H
#define CM_DBTEXT_H

#include "postgres.h"
#include "lib/stringinfo.h"

/* One conversion.  Bytes may come in pieces, cut within a character. */
typedef struct CmDbText
{
	StringInfo out; /* the caller's; text is appended */
	bool is_lossy;	/* something was replaced */
	Oid conversion; /* from UTF-8; InvalidOid: ASCII only */
	int n_carried;
	char carried[4]; /* start of a character cut by a piece's end */
} CmDbText;

/* Looks up the conversion: needs a transaction. */
extern void cm_dbtext_init(CmDbText *text, StringInfo out);

/*
 * Appends; false: the text would pass 1 GB, and is of no use any more.
 * Finish counts what was carried as cut off for good; text can then be fed
 * anew.
 */
extern bool cm_dbtext_feed(CmDbText *text, const char *bytes, size_t n_bytes);
extern bool cm_dbtext_finish(CmDbText *text);

#endif /* CM_DBTEXT_H */
