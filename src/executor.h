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
	CM_EXECUTOR_NO_EXTENSION, /* it is not there, or was dropped */
	CM_EXECUTOR_DISABLED,	  /* container_manager.enabled was turned off */
	CM_EXECUTOR_START_ANEW	  /* dropped and made again: begin from scratch */
} CmExecutorEnd;

/*
 * Runs for as long as the extension is in the database and enabled.
 * Containers of a dropped extension are gone, as far as hosts could be
 * reached, when it returns.  All that it held is freed then.  The caller has connected, set up
 * signals and the session.
 */
extern CmExecutorEnd cm_executor_run(void);

#endif /* CM_EXECUTOR_H */
