/*
 * lifecycle.c
 *		The whole policy of an attempt's life, in one pure function.
 *
 * Never twice rests on two rules that stand here and nowhere else:
 *
 * 1. A container is started only after its id was recorded.  So if no id is
 *	  recorded, no start was ever sent, and an absent container may be made;
 *	  if one is recorded, an absent container may have run, and is not made
 *	  again.
 * 2. A start whose answer is lost is never sent again.  When the container is
 *	  still not started after a while, it is removed, which makes a late start
 *	  impossible, and another one is made.  Not so where the engine was
 *	  restarted meanwhile: then it may be wrong about what was started.
 *
 * A container is started only after it was seen to be what was asked for.  What
 * is not is a refusal, and is removed.
 *
 * What the engine reports beats what the clock says: an exit that was not yet
 * seen when a limit passed is still an exit.
 */
#include "lifecycle.h"

#include <stddef.h>
#include <string.h>

/* What a process that was asked to end, or was killed, exits with. */
#define EXIT_OF_SIGNAL 128 /* and its number */
#define EXIT_SIGTERM 143
#define EXIT_SIGKILL 137
/* What an engine says that was killed and lost the exit code. */
#define EXIT_LOST 255

static const char *const state_words[CM_N_STATES] = {
	"pending", "launching", "running", "completed", "failed", "timeout", "cancelled"};

static const char *const reason_words[CM_N_REASONS] = {NULL,
													   "exit_code",
													   "oom",
													   "killed",
													   "timeout",
													   "cancelled",
													   "expired",
													   "dependency_failed",
													   "image_pull",
													   "image_policy",
													   "create",
													   "start",
													   "network",
													   "policy",
													   "host_lost",
													   "abandoned",
													   "infrastructure"};

static CmDecision
stay(const CmSituation *s, CmAction action, int64_t wake_ms)
{
	CmDecision d = {s->state, CM_REASON_NONE, action, wake_ms};

	return d;
}

static CmDecision
go(CmState next, CmReason reason, CmAction action)
{
	CmDecision d = {next, reason, action, 0};

	return d;
}

static bool
is_past(int64_t now_ms, int64_t limit_ms)
{
	return limit_ms != 0 && now_ms >= limit_ms;
}

/* Ended before it ever ran; there may be a container to remove. */
static bool
decide_unstarted_end(const CmSituation *s, CmDecision *d)
{
	CmAction clean = s->seen == CM_SEEN_CREATED ? CM_DO_REMOVE : CM_DO_NOTHING;

	if (s->refusal != CM_REASON_NONE)
		*d = go(CM_FAILED, s->refusal, clean);
	else if (s->cancel_requested)
		*d = go(CM_CANCELLED, CM_REASON_CANCELLED, clean);
	else if (is_past(s->now_ms, s->expires_ms))
		*d = go(CM_FAILED, CM_REASON_EXPIRED, clean);
	else
		return false;
	return true;
}

static CmDecision
decide_pending(const CmSituation *s)
{
	CmDecision d;

	if (decide_unstarted_end(s, &d))
		return d;
	return stay(s, CM_DO_NOTHING, s->expires_ms);
}

/*
 * A container that is there and was never started.  While a start may be
 * under way it can still come to life: then nothing may be said of it until
 * it is gone.
 */
static CmDecision
decide_launching_created(const CmSituation *s)
{
	CmDecision d;

	if (s->start_unsure)
	{
		/* An engine that dies in a start takes a running container for a new one. */
		if (s->engine_forgot)
			return go(CM_FAILED, CM_REASON_INFRASTRUCTURE, CM_DO_REMOVE);
		if (s->now_ms < s->sure_ms)
			return stay(s, CM_DO_NOTHING, s->sure_ms);
		return stay(s, CM_DO_DISCARD, 0);
	}
	if (decide_unstarted_end(s, &d))
		return d;
	if (!s->is_checked)
		return stay(s, CM_DO_CHECK, s->expires_ms);
	return stay(s, s->has_id ? CM_DO_START : CM_DO_SAVE_ID, s->expires_ms);
}

static CmDecision
decide_launching_absent(const CmSituation *s)
{
	CmDecision d;
	bool may_have_run = s->has_id && !s->discarded;

	/* Whether it expired cannot be said of what may have started in time. */
	if (may_have_run && s->refusal == CM_REASON_NONE && !s->cancel_requested)
		return go(CM_FAILED, s->killed_by_other ? CM_REASON_KILLED : CM_REASON_INFRASTRUCTURE,
				  CM_DO_NOTHING);
	if (decide_unstarted_end(s, &d))
		return d;
	return stay(s, CM_DO_CREATE, s->expires_ms);
}

/*
 * A host that is silent may run it to its end all the same: so it waits, unless
 * whoever submitted it said not to.
 */
static CmDecision
decide_silent(const CmSituation *s)
{
	if (is_past(s->now_ms, s->lost_ms))
		return go(CM_FAILED, CM_REASON_HOST_LOST, CM_DO_NOTHING);
	return stay(s, CM_DO_NOTHING, s->lost_ms);
}

static CmDecision
decide_launching(const CmSituation *s)
{
	switch (s->seen)
	{
		case CM_SEEN_UNKNOWN:
			return decide_silent(s);
		case CM_SEEN_ABSENT:
			return decide_launching_absent(s);
		case CM_SEEN_CREATED:
			return decide_launching_created(s);
		case CM_SEEN_RUNNING:
		case CM_SEEN_EXITED:
			/* It did run, so it was running, however short. */
			return go(CM_RUNNING, CM_REASON_NONE, CM_DO_NOTHING);
	}
	return stay(s, CM_DO_NOTHING, 0);
}

/*
 * Did the exit follow from our stopping it?  After a crash of ours nobody
 * remembers the signal; then the exit code tells, with what asked for it.
 */
static CmStop
judge_stop(const CmSituation *s)
{
	int exit_stop = s->stop_signal != 0 ? EXIT_OF_SIGNAL + s->stop_signal : EXIT_SIGTERM;
	bool looks_stopped = s->exit_code == exit_stop || s->exit_code == EXIT_SIGKILL;

	if (s->stop != CM_STOP_NOT)
		return s->stop;
	if (looks_stopped && s->cancel_requested)
		return CM_STOP_CANCEL;
	if (looks_stopped && s->ran_too_long)
		return CM_STOP_TIMEOUT;
	return CM_STOP_NOT;
}

/* Exit code 0 fails only where it is not among those that mean success. */
static CmReason
judge_failure(const CmSituation *s)
{
	if (s->exit_code == 0)
		return CM_REASON_EXIT_CODE;
	if (s->oom_killed)
		return CM_REASON_OOM;
	if (s->killed_by_other)
		return CM_REASON_KILLED;
	if (s->host_was_away &&
		(s->exit_code == EXIT_SIGKILL || s->exit_code == EXIT_SIGTERM || s->exit_code == EXIT_LOST))
		return CM_REASON_INFRASTRUCTURE;
	return CM_REASON_EXIT_CODE;
}

bool
cm_lifecycle_is_success(const CmExitCodes *codes, int exit_code)
{
	if (!codes->is_set)
		return exit_code == 0;
	if (exit_code < 0 || exit_code > 255)
		return false;
	return (codes->bits[exit_code / 8] >> exit_code % 8 & 1) != 0;
}

/* A code other than 0 is the program's word only where nobody killed it. */
static bool
has_succeeded(const CmSituation *s)
{
	return cm_lifecycle_is_success(&s->success_exit_codes, s->exit_code) &&
		   (s->exit_code == 0 || judge_failure(s) == CM_REASON_EXIT_CODE);
}

static CmDecision
decide_running_exited(const CmSituation *s)
{
	switch (judge_stop(s))
	{
		case CM_STOP_CANCEL:
			return go(CM_CANCELLED, CM_REASON_CANCELLED, CM_DO_COLLECT);
		case CM_STOP_TIMEOUT:
			return go(CM_TIMEOUT, CM_REASON_TIMEOUT, CM_DO_COLLECT);
		case CM_STOP_NOT:
			break;
	}
	if (has_succeeded(s))
		return go(CM_COMPLETED, CM_REASON_NONE, CM_DO_COLLECT);
	return go(CM_FAILED, judge_failure(s), CM_DO_COLLECT);
}

/* Gone without a trace: there is no exit code and no output to read. */
static CmDecision
decide_running_absent(const CmSituation *s)
{
	switch (s->stop)
	{
		case CM_STOP_CANCEL:
			return go(CM_CANCELLED, CM_REASON_CANCELLED, CM_DO_NOTHING);
		case CM_STOP_TIMEOUT:
			return go(CM_TIMEOUT, CM_REASON_TIMEOUT, CM_DO_NOTHING);
		case CM_STOP_NOT:
			break;
	}
	return go(CM_FAILED, s->killed_by_other ? CM_REASON_KILLED : CM_REASON_INFRASTRUCTURE,
			  CM_DO_NOTHING);
}

/* An engine may accept a SIGKILL and yet not carry it out. */
static CmDecision
kill_now(const CmSituation *s)
{
	if (s->kill_sent && !is_past(s->now_ms, s->kill_again_ms))
		return stay(s, CM_DO_NOTHING, s->kill_again_ms);
	return stay(s, CM_DO_KILL, 0);
}

static CmDecision
decide_running_running(const CmSituation *s)
{
	if (s->stop != CM_STOP_NOT)
	{
		int64_t kill_ms = s->stop_sent_ms + s->grace_ms;

		if (s->kill_sent || s->now_ms >= kill_ms)
			return kill_now(s);
		return stay(s, CM_DO_NOTHING, kill_ms);
	}
	if (s->cancel_requested || is_past(s->now_ms, s->deadline_ms))
		return stay(s, CM_DO_TERM, 0);
	return stay(s, CM_DO_NOTHING, s->deadline_ms);
}

static CmDecision
decide_running(const CmSituation *s)
{
	switch (s->seen)
	{
		case CM_SEEN_UNKNOWN:
			return decide_silent(s);
		case CM_SEEN_ABSENT:
			return decide_running_absent(s);
		case CM_SEEN_CREATED:
			/* The host was set back in time: what ran there is lost. */
			return go(CM_FAILED, CM_REASON_INFRASTRUCTURE, CM_DO_REMOVE);
		case CM_SEEN_RUNNING:
			return decide_running_running(s);
		case CM_SEEN_EXITED:
			return decide_running_exited(s);
	}
	return stay(s, CM_DO_NOTHING, 0);
}

/* What is left on a host of an attempt whose end is recorded. */
static CmDecision
decide_terminal(const CmSituation *s)
{
	switch (s->seen)
	{
		case CM_SEEN_UNKNOWN:
		case CM_SEEN_ABSENT:
			return stay(s, CM_DO_NOTHING, 0);
		case CM_SEEN_CREATED:
			return stay(s, CM_DO_REMOVE, 0);
		case CM_SEEN_EXITED:
			return stay(s, s->is_kept ? CM_DO_NOTHING : CM_DO_REMOVE, 0);
		case CM_SEEN_RUNNING:
			return kill_now(s);
	}
	return stay(s, CM_DO_NOTHING, 0);
}

/* What has ended by itself is not abandoned: how it ended is known. */
static CmDecision
abandon(const CmSituation *s)
{
	return go(CM_FAILED, CM_REASON_ABANDONED,
			  s->seen == CM_SEEN_CREATED ? CM_DO_REMOVE : CM_DO_NOTHING);
}

CmDecision
cm_lifecycle_decide(const CmSituation *situation)
{
	if (situation->abandoned && !cm_lifecycle_is_terminal(situation->state) &&
		situation->seen != CM_SEEN_EXITED)
		return abandon(situation);
	switch (situation->state)
	{
		case CM_PENDING:
			return decide_pending(situation);
		case CM_LAUNCHING:
			return decide_launching(situation);
		case CM_RUNNING:
			return decide_running(situation);
		case CM_COMPLETED:
		case CM_FAILED:
		case CM_TIMEOUT:
		case CM_CANCELLED:
			return decide_terminal(situation);
	}
	return stay(situation, CM_DO_NOTHING, 0);
}

bool
cm_lifecycle_is_terminal(CmState state)
{
	return state >= CM_COMPLETED;
}

const char *
cm_lifecycle_state_word(CmState state)
{
	return state_words[state];
}

bool
cm_lifecycle_parse_state(const char *word, CmState *state)
{
	for (int i = 0; i < CM_N_STATES; i++)
	{
		if (strcmp(word, state_words[i]) == 0)
		{
			*state = (CmState) i;
			return true;
		}
	}
	return false;
}

const char *
cm_lifecycle_reason_word(CmReason reason)
{
	return reason_words[reason];
}
