/*
 * executor.h
 *		The event loop that drives the engines for one database.
 *
 * Floor 4.
 */
#ifndef CM_EXECUTOR_H
#define CM_EXECUTOR_H

typedef enum CmExecutorEnd
{
	CM_EXECUTOR_NO_EXTENSION,	/* it is not there, or was dropped */
	CM_EXECUTOR_START_ANEW		/* dropped and made again: begin from scratch */
} CmExecutorEnd;

/*
 * Runs for as long as the extension is in the database.  Containers of a
 * dropped extension are gone, as far as hosts could be reached, when it
 * returns.  The caller has connected, set up signals and the session.
 */
extern CmExecutorEnd cm_executor_run(void);

#endif							/* CM_EXECUTOR_H */
