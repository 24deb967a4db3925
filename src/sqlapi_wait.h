/*
 * sqlapi_wait.h
 *		What SQL functions and procedures that wait have in common.
 *
 * Floor 5, for sqlapi*.c only.
 */
#ifndef CM_SQLAPI_WAIT_H
#define CM_SQLAPI_WAIT_H

#include "postgres.h"
#include "fmgr.h"

#define CM_WAIT_FOR_EVER_MS PG_INT64_MAX
#define CM_WAIT_DEFAULT_MS (60 * 1000)

/* What is waited for. */
typedef struct CmWait
{
	int64 key; /* whom the executor wakes: a job's id, or CM_WAITER_FOR_HOSTS */
	/*
	 * Looks, in a subtransaction and under the latest snapshot of its own.  May
	 * throw where waiting would be in vain.
	 */
	bool (*is_over)(void *argument);
	void *argument;
	void (*name_it)(void *argument); /* an errcontext, for who cancels */
} CmWait;

/* false: the timeout came first. */
extern bool cm_sqlapi_wait(const CmWait *wait, int64 timeout_ms);

/*
 * A look: calls the function in a subtransaction, which is rolled back, with
 * the latest snapshot and SPI.
 */
extern void cm_sqlapi_look(void (*function)(void *), void *argument);

/* The argument as a timeout; a century and more counts as for ever. */
extern int64 cm_sqlapi_wait_timeout_ms(FunctionCallInfo fcinfo, int arg, int64 fallback_ms);

/* In a procedure: throws where it may not end transactions. */
extern void cm_sqlapi_check_may_commit(FunctionCallInfo fcinfo, const char *procedure,
									   const char *instead);
/* Between SPI_connect_ext(SPI_OPT_NONATOMIC) and SPI_finish. */
extern void cm_sqlapi_commit_to_wait(void);

/* The row of a procedure's INOUT arguments, in the current memory context. */
extern Datum cm_sqlapi_make_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

#endif /* CM_SQLAPI_WAIT_H */
