/*
 * lifecycle.h
 *		The life of one attempt: what follows from what is recorded, what is
 *		seen, and the time.
 *
 * Floor 0: pure.  Time comes in as an argument (milliseconds of one monotonic
 * clock), and nothing is done here: the caller carries out the action, and
 * records the next state before any action that depends on it.
 *
 *	pending -> launching -> running -> completed | failed | timeout | cancelled
 *
 * The words are the same in SQL, in notifications and in the README.
 */
#ifndef CM_LIFECYCLE_H
#define CM_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include "jobspec.h"

typedef enum CmState
{
	CM_PENDING,	  /* waits for a slot, or for its time */
	CM_LAUNCHING, /* has a host: image pull, create, start */
	CM_RUNNING,	  /* its container was started */
	CM_COMPLETED, /* an exit code that means success */
	CM_FAILED,	  /* did not complete; see the reason */
	CM_TIMEOUT,	  /* ran into its time limit and was stopped */
	CM_CANCELLED  /* ended because somebody asked for it */
} CmState;
#define CM_N_STATES (CM_CANCELLED + 1)

/* What is seen of an attempt on its host. */
typedef enum CmSeen
{
	CM_SEEN_UNKNOWN, /* the host has not told */
	CM_SEEN_ABSENT,	 /* it told that there is no such container */
	CM_SEEN_CREATED, /* there, never started */
	CM_SEEN_RUNNING,
	CM_SEEN_EXITED /* was started and is over */
} CmSeen;
#define CM_N_SEEN (CM_SEEN_EXITED + 1)

typedef enum CmReason
{
	CM_REASON_NONE,
	CM_REASON_EXIT_CODE,
	CM_REASON_OOM,
	CM_REASON_KILLED,
	CM_REASON_TIMEOUT,
	CM_REASON_CANCELLED,
	CM_REASON_EXPIRED,
	CM_REASON_DEPENDENCY_FAILED,
	CM_REASON_IMAGE_PULL,
	CM_REASON_IMAGE_POLICY,
	CM_REASON_CREATE,
	CM_REASON_START,
	CM_REASON_NETWORK,
	CM_REASON_POLICY,
	CM_REASON_HOST_LOST,
	CM_REASON_ABANDONED,
	CM_REASON_INFRASTRUCTURE
} CmReason;
#define CM_N_REASONS (CM_REASON_INFRASTRUCTURE + 1)

/* What is to be done on the host. */
typedef enum CmAction
{
	CM_DO_NOTHING, /* wait: for the host, or until wake_ms */
	CM_DO_CREATE,  /* make the container */
	CM_DO_CHECK,   /* compare it with what was asked for */
	CM_DO_SAVE_ID, /* record its id; only then may it be started */
	CM_DO_START,
	CM_DO_DISCARD, /* remove a container that was never started */
	CM_DO_TERM,	   /* ask it to end (SIGTERM, or its stop_signal) */
	CM_DO_KILL,	   /* end it (SIGKILL) */
	CM_DO_COLLECT, /* read what it printed, then record the end */
	CM_DO_REMOVE   /* remove what is left of it */
} CmAction;

/* Why a running container is being stopped. */
typedef enum CmStop
{
	CM_STOP_NOT,
	CM_STOP_CANCEL,
	CM_STOP_TIMEOUT
} CmStop;

typedef struct CmSituation
{
	/* what is recorded, durably */
	CmState state;
	bool has_id; /* the container's id is recorded: a start may
				  * have been sent */
	bool cancel_requested;
	bool abandoned; /* an administrator says that its host is gone for good */
	bool is_kept;	/* it is over, and what has ended stays for a while */

	/* what is seen */
	CmSeen seen;
	int exit_code;		  /* of CM_SEEN_EXITED */
	bool is_checked;	  /* of CM_SEEN_CREATED: it is what was asked for */
	bool oom_killed;	  /* of CM_SEEN_EXITED */
	bool killed_by_other; /* a kill that was not ours was seen */
	bool host_was_away;	  /* the engine was out of reach while it ran */
	bool ran_too_long;	  /* by the engine's clock, to the time limit */

	/* what was tried */
	CmReason refusal;	/* the engine refused to create or start it */
	bool start_unsure;	/* a start may be under way whose answer is lost */
	bool engine_forgot; /* ... and the engine was restarted since: the
						 * container may run without its knowledge */
	bool discarded;		/* we removed it before it ever started */
	CmStop stop;		/* a SIGTERM of ours was accepted */
	bool kill_sent;		/* likewise a SIGKILL */

	/* what its definition says */
	CmExitCodes success_exit_codes; /* unsaid: 0 alone */
	int stop_signal;				/* number of the signal that asks it to end; 0: SIGTERM's */

	/* time */
	int64_t now_ms;
	int64_t expires_ms;	 /* must have started by then; 0: never */
	int64_t deadline_ms; /* must have ended by then; 0: not running */
	int64_t sure_ms;	 /* when an unsure start counts as not sent */
	int64_t lost_ms;	 /* when its silent host counts as lost; 0: never */
	int64_t stop_sent_ms;
	int64_t grace_ms;	   /* between SIGTERM and SIGKILL */
	int64_t kill_again_ms; /* if it runs on; 0: not by time */
} CmSituation;

typedef struct CmDecision
{
	CmState next;	 /* the same state: nothing to record */
	CmReason reason; /* of a terminal state */
	CmAction action;
	int64_t wake_ms; /* decide again then at the latest; 0: not by time */
} CmDecision;

/* Is it an exit code that means success? */
extern bool cm_lifecycle_is_success(const CmExitCodes *codes, int exit_code);

extern CmDecision cm_lifecycle_decide(const CmSituation *situation);

extern bool cm_lifecycle_is_terminal(CmState state);
extern const char *cm_lifecycle_state_word(CmState state);
/* false: no such word. */
extern bool cm_lifecycle_parse_state(const char *word, CmState *state);
/* NULL for CM_REASON_NONE. */
extern const char *cm_lifecycle_reason_word(CmReason reason);

#endif /* CM_LIFECYCLE_H */
