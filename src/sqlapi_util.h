/*
 * sqlapi_util.h
 *		What SQL-callable functions share: whose rights they use, where the
 *		extension's tables are, and their arguments.
 *
 * Floor 5.  The functions run with the rights of whoever calls them, so that
 * reading cm_jobs asks for the caller's privileges and row security by itself.
 * For tables that callers may not read they become the owner of cm_jobs for a
 * moment.
 */
#ifndef CM_SQLAPI_UTIL_H
#define CM_SQLAPI_UTIL_H

#include "postgres.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/timestamp.h"

/* The extension's schema, which is the called function's: quoted. */
extern const char *cm_sqlapi_schema(FunctionCallInfo fcinfo);

/*
 * Between begin and end the process has the rights of cm_jobs' owner, and a
 * search_path that users cannot put anything into.  An error ends it, too: the
 * abort of the (sub)transaction restores both.
 */
typedef struct CmAsOwner
{
	Oid user_id;
	int security_context;
	int guc_level;
} CmAsOwner;

/* Owner of cm_jobs. */
extern Oid cm_sqlapi_owner(FunctionCallInfo fcinfo);
extern void cm_sqlapi_begin_as_owner(FunctionCallInfo fcinfo, CmAsOwner *as_owner);
/* The same where the owner is known, as that of a trigger's table is. */
extern void cm_sqlapi_begin_as(Oid owner, CmAsOwner *as_owner);
extern void cm_sqlapi_end_as_owner(const CmAsOwner *as_owner);

/*
 * Calls the function in a subtransaction that is rolled back in any case, and
 * gives back its error, NULL for none, in the current context.
 */
extern ErrorData *cm_sqlapi_try(void (*function)(void *), void *argument);

/*
 * A statement that reads one job: its $1, a bigint.  "@extschema@" in the text
 * becomes the extension's schema.  Declared static; planned at first use.
 */
typedef struct CmJobQuery
{
	const char *text;
	SPIPlanPtr plan;
	Oid schema; /* that the plan is for */
} CmJobQuery;

/*
 * Runs it under the active snapshot; false: no row.  The row is in SPI_tuptable
 * until SPI_finish.
 */
extern bool cm_sqlapi_read_job(FunctionCallInfo fcinfo, CmJobQuery *query, int64 job_id);
/* A column of that row; as text it is in the current context, NULL for NULL. */
extern Datum cm_sqlapi_job_datum(int column, bool *is_null);
extern char *cm_sqlapi_job_text(int column);

/*
 * The job's current or last attempt, 0: none yet.  Throws where the caller may
 * not read cm_jobs, or sees no such job there.
 */
extern int cm_sqlapi_find_job(FunctionCallInfo fcinfo, int64 job_id);

/* Months count as 30 days. */
extern double cm_sqlapi_interval_ms(const Interval *interval);

extern void cm_sqlapi_throw_no_job(int64 job_id) pg_attribute_noreturn();

/* Which of the words was meant?  NULL: none is like it; words may hold NULLs. */
extern const char *cm_sqlapi_find_nearest(const char *word, int n_word, int n_words,
										  char *const *words);

#endif /* CM_SQLAPI_UTIL_H */
