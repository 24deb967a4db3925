/*
 * test_lifecycle.c
 *		The life of an attempt: a row for each pair of state and observation
 *		and for each thing that changes what follows, and what must hold of
 *		every situation there is.
 *
 * The clock of all rows stands at NOW; limits lie before or behind it.
 */
#include "lifecycle.h"
#include "tap.h"

#define NOW INT64_C(100000)
#define PAST INT64_C(99999)
#define LATER INT64_C(100001)
#define GRACE INT64_C(10000)

#define BASE .now_ms = NOW, .grace_ms = GRACE
#define AT(a_state, a_seen) BASE, .state = CM_##a_state, .seen = CM_SEEN_##a_seen

typedef struct Row
{
	const char *name;
	CmSituation s;
	CmDecision wanted; /* next, reason, action, wake_ms */
} Row;

static const char *const seen_words[CM_N_SEEN] = {"unknown", "absent", "created", "running",
												  "exited"};

#define R(reason) CM_REASON_##reason

/* clang-format off */
/* Every pair, nothing else being said: exit code 0, no limits. */
static const Row pair_rows[] = {
	{"pending, unknown", {AT(PENDING, UNKNOWN)}, {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},
	{"pending, absent", {AT(PENDING, ABSENT)}, {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},
	{"pending, created", {AT(PENDING, CREATED)}, {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},
	{"pending, running", {AT(PENDING, RUNNING)}, {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},
	{"pending, exited", {AT(PENDING, EXITED)}, {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},
	{"launching, unknown", {AT(LAUNCHING, UNKNOWN)}, {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, 0}},
	{"launching, absent", {AT(LAUNCHING, ABSENT)}, {CM_LAUNCHING, R(NONE), CM_DO_CREATE, 0}},
	{"launching, created", {AT(LAUNCHING, CREATED)}, {CM_LAUNCHING, R(NONE), CM_DO_CHECK, 0}},
	{"launching, running", {AT(LAUNCHING, RUNNING)}, {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"launching, exited", {AT(LAUNCHING, EXITED)}, {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"running, unknown", {AT(RUNNING, UNKNOWN)}, {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"running, absent", {AT(RUNNING, ABSENT)}, {CM_FAILED, R(INFRASTRUCTURE), CM_DO_NOTHING, 0}},
	{"running, created", {AT(RUNNING, CREATED)}, {CM_FAILED, R(INFRASTRUCTURE), CM_DO_REMOVE, 0}},
	{"running, running", {AT(RUNNING, RUNNING)}, {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"running, exited", {AT(RUNNING, EXITED)}, {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"completed, unknown", {AT(COMPLETED, UNKNOWN)}, {CM_COMPLETED, R(NONE), CM_DO_NOTHING, 0}},
	{"completed, absent", {AT(COMPLETED, ABSENT)}, {CM_COMPLETED, R(NONE), CM_DO_NOTHING, 0}},
	{"completed, created", {AT(COMPLETED, CREATED)}, {CM_COMPLETED, R(NONE), CM_DO_REMOVE, 0}},
	{"completed, running", {AT(COMPLETED, RUNNING)}, {CM_COMPLETED, R(NONE), CM_DO_KILL, 0}},
	{"completed, exited", {AT(COMPLETED, EXITED)}, {CM_COMPLETED, R(NONE), CM_DO_REMOVE, 0}},
	{"failed, unknown", {AT(FAILED, UNKNOWN)}, {CM_FAILED, R(NONE), CM_DO_NOTHING, 0}},
	{"failed, absent", {AT(FAILED, ABSENT)}, {CM_FAILED, R(NONE), CM_DO_NOTHING, 0}},
	{"failed, created", {AT(FAILED, CREATED)}, {CM_FAILED, R(NONE), CM_DO_REMOVE, 0}},
	{"failed, running", {AT(FAILED, RUNNING)}, {CM_FAILED, R(NONE), CM_DO_KILL, 0}},
	{"failed, exited", {AT(FAILED, EXITED)}, {CM_FAILED, R(NONE), CM_DO_REMOVE, 0}},
	{"timeout, unknown", {AT(TIMEOUT, UNKNOWN)}, {CM_TIMEOUT, R(NONE), CM_DO_NOTHING, 0}},
	{"timeout, absent", {AT(TIMEOUT, ABSENT)}, {CM_TIMEOUT, R(NONE), CM_DO_NOTHING, 0}},
	{"timeout, created", {AT(TIMEOUT, CREATED)}, {CM_TIMEOUT, R(NONE), CM_DO_REMOVE, 0}},
	{"timeout, running", {AT(TIMEOUT, RUNNING)}, {CM_TIMEOUT, R(NONE), CM_DO_KILL, 0}},
	{"timeout, exited", {AT(TIMEOUT, EXITED)}, {CM_TIMEOUT, R(NONE), CM_DO_REMOVE, 0}},
	{"cancelled, unknown", {AT(CANCELLED, UNKNOWN)}, {CM_CANCELLED, R(NONE), CM_DO_NOTHING, 0}},
	{"cancelled, absent", {AT(CANCELLED, ABSENT)}, {CM_CANCELLED, R(NONE), CM_DO_NOTHING, 0}},
	{"cancelled, created", {AT(CANCELLED, CREATED)}, {CM_CANCELLED, R(NONE), CM_DO_REMOVE, 0}},
	{"cancelled, running", {AT(CANCELLED, RUNNING)}, {CM_CANCELLED, R(NONE), CM_DO_KILL, 0}},
	{"cancelled, exited", {AT(CANCELLED, EXITED)}, {CM_CANCELLED, R(NONE), CM_DO_REMOVE, 0}},
};

static const Row flag_rows[] = {
	/* pending */
	{"waits no longer than it may", {AT(PENDING, UNKNOWN), .expires_ms = LATER},
	 {CM_PENDING, R(NONE), CM_DO_NOTHING, LATER}},
	{"expires at the very moment", {AT(PENDING, UNKNOWN), .expires_ms = NOW},
	 {CM_FAILED, R(EXPIRED), CM_DO_NOTHING, 0}},
	{"expired while nobody looked", {AT(PENDING, UNKNOWN), .expires_ms = PAST},
	 {CM_FAILED, R(EXPIRED), CM_DO_NOTHING, 0}},
	{"cancelled while it waits", {AT(PENDING, UNKNOWN), .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_NOTHING, 0}},
	{"cancelled and expired: asked for comes first",
	 {AT(PENDING, UNKNOWN), .cancel_requested = true, .expires_ms = PAST},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_NOTHING, 0}},
	{"refused by the guard before a launch", {AT(PENDING, UNKNOWN), .refusal = R(POLICY)},
	 {CM_FAILED, R(POLICY), CM_DO_NOTHING, 0}},
	{"a deadline means nothing to who waits", {AT(PENDING, UNKNOWN), .deadline_ms = PAST},
	 {CM_PENDING, R(NONE), CM_DO_NOTHING, 0}},

	/* launching, and the host is silent: nothing is known, so nothing is said */
	{"cancel waits for a silent host", {AT(LAUNCHING, UNKNOWN), .cancel_requested = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, 0}},
	{"expiry waits for a silent host", {AT(LAUNCHING, UNKNOWN), .expires_ms = PAST},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, 0}},
	{"refusal waits for a silent host", {AT(LAUNCHING, UNKNOWN), .refusal = R(START)},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, 0}},
	{"a silent host is not lost yet", {AT(LAUNCHING, UNKNOWN), .lost_ms = LATER},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, LATER}},
	{"a silent host counts as lost", {AT(LAUNCHING, UNKNOWN), .lost_ms = NOW},
	 {CM_FAILED, R(HOST_LOST), CM_DO_NOTHING, 0}},
	{"lost, and cancelled: whether it ran is not known",
	 {AT(LAUNCHING, UNKNOWN), .has_id = true, .cancel_requested = true, .lost_ms = PAST},
	 {CM_FAILED, R(HOST_LOST), CM_DO_NOTHING, 0}},
	{"a host that tells is not lost", {AT(LAUNCHING, ABSENT), .lost_ms = PAST},
	 {CM_LAUNCHING, R(NONE), CM_DO_CREATE, 0}},

	/* running, and the host is silent */
	{"it waits, however long", {AT(RUNNING, UNKNOWN), .deadline_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"its host is not lost yet", {AT(RUNNING, UNKNOWN), .lost_ms = LATER},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, LATER}},
	{"its host counts as lost", {AT(RUNNING, UNKNOWN), .lost_ms = PAST},
	 {CM_FAILED, R(HOST_LOST), CM_DO_NOTHING, 0}},
	{"its host tells of it: not lost", {AT(RUNNING, RUNNING), .lost_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},

	/* a SIGKILL that was sent */
	{"has time to do its work",
	 {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = PAST, .kill_sent = true, .kill_again_ms = LATER},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, LATER}},
	{"is sent again where it did not",
	 {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = PAST, .kill_sent = true, .kill_again_ms = NOW},
	 {CM_RUNNING, R(NONE), CM_DO_KILL, 0}},
	{"also to what is left over", {AT(FAILED, RUNNING), .kill_sent = true, .kill_again_ms = PAST},
	 {CM_FAILED, R(NONE), CM_DO_KILL, 0}},

	/* abandoned */
	{"abandoned while launching", {AT(LAUNCHING, UNKNOWN), .abandoned = true},
	 {CM_FAILED, R(ABANDONED), CM_DO_NOTHING, 0}},
	{"abandoned before its start", {AT(LAUNCHING, CREATED), .abandoned = true, .has_id = true},
	 {CM_FAILED, R(ABANDONED), CM_DO_REMOVE, 0}},
	{"abandoned while running", {AT(RUNNING, UNKNOWN), .abandoned = true},
	 {CM_FAILED, R(ABANDONED), CM_DO_NOTHING, 0}},
	{"abandoned, and runs after all", {AT(RUNNING, RUNNING), .abandoned = true},
	 {CM_FAILED, R(ABANDONED), CM_DO_NOTHING, 0}},
	{"abandoned, but it has ended by itself", {AT(RUNNING, EXITED), .abandoned = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"abandoned, cancelled and lost", {AT(RUNNING, UNKNOWN), .abandoned = true, .cancel_requested = true,
	 .lost_ms = PAST}, {CM_FAILED, R(ABANDONED), CM_DO_NOTHING, 0}},
	{"abandoned before, and found running", {AT(FAILED, RUNNING), .abandoned = true},
	 {CM_FAILED, R(NONE), CM_DO_KILL, 0}},

	/* launching, no container */
	{"made again after it was discarded", {AT(LAUNCHING, ABSENT), .has_id = true, .discarded = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_CREATE, 0}},
	{"made, and expires later", {AT(LAUNCHING, ABSENT), .expires_ms = LATER},
	 {CM_LAUNCHING, R(NONE), CM_DO_CREATE, LATER}},
	{"image is missing", {AT(LAUNCHING, ABSENT), .refusal = R(IMAGE_PULL)},
	 {CM_FAILED, R(IMAGE_PULL), CM_DO_NOTHING, 0}},
	{"engine refuses to create", {AT(LAUNCHING, ABSENT), .refusal = R(CREATE)},
	 {CM_FAILED, R(CREATE), CM_DO_NOTHING, 0}},
	{"cancelled before there is a container", {AT(LAUNCHING, ABSENT), .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_NOTHING, 0}},
	{"expired before there is a container", {AT(LAUNCHING, ABSENT), .expires_ms = NOW},
	 {CM_FAILED, R(EXPIRED), CM_DO_NOTHING, 0}},
	{"expired after it was discarded",
	 {AT(LAUNCHING, ABSENT), .has_id = true, .discarded = true, .expires_ms = NOW},
	 {CM_FAILED, R(EXPIRED), CM_DO_NOTHING, 0}},
	{"gone, and may have run: never made again", {AT(LAUNCHING, ABSENT), .has_id = true},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_NOTHING, 0}},
	{"gone by somebody's hand", {AT(LAUNCHING, ABSENT), .has_id = true, .killed_by_other = true},
	 {CM_FAILED, R(KILLED), CM_DO_NOTHING, 0}},
	{"gone, may have run: not called expired",
	 {AT(LAUNCHING, ABSENT), .has_id = true, .expires_ms = PAST},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_NOTHING, 0}},
	{"gone, start unsure: never made again", {AT(LAUNCHING, ABSENT), .has_id = true, .start_unsure = true},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_NOTHING, 0}},
	{"gone, but it was to be cancelled", {AT(LAUNCHING, ABSENT), .has_id = true, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_NOTHING, 0}},

	/* launching, made, not started */
	{"as it was asked for: its id is recorded", {AT(LAUNCHING, CREATED), .is_checked = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_SAVE_ID, 0}},
	{"started once its id is recorded", {AT(LAUNCHING, CREATED), .is_checked = true, .has_id = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_START, 0}},
	{"started, and expires later",
	 {AT(LAUNCHING, CREATED), .is_checked = true, .has_id = true, .expires_ms = LATER},
	 {CM_LAUNCHING, R(NONE), CM_DO_START, LATER}},
	{"found with its id: not started unseen", {AT(LAUNCHING, CREATED), .has_id = true, .expires_ms = LATER},
	 {CM_LAUNCHING, R(NONE), CM_DO_CHECK, LATER}},
	{"not what was asked for", {AT(LAUNCHING, CREATED), .refusal = R(POLICY)},
	 {CM_FAILED, R(POLICY), CM_DO_REMOVE, 0}},
	{"not what was asked for, and a start may be under way",
	 {AT(LAUNCHING, CREATED), .has_id = true, .refusal = R(POLICY), .start_unsure = true, .sure_ms = NOW},
	 {CM_LAUNCHING, R(NONE), CM_DO_DISCARD, 0}},
	{"refused at start", {AT(LAUNCHING, CREATED), .has_id = true, .refusal = R(START)},
	 {CM_FAILED, R(START), CM_DO_REMOVE, 0}},
	{"network is missing", {AT(LAUNCHING, CREATED), .has_id = true, .refusal = R(NETWORK)},
	 {CM_FAILED, R(NETWORK), CM_DO_REMOVE, 0}},
	{"cancelled before the start", {AT(LAUNCHING, CREATED), .has_id = true, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_REMOVE, 0}},
	{"expired before the start", {AT(LAUNCHING, CREATED), .has_id = true, .expires_ms = NOW},
	 {CM_FAILED, R(EXPIRED), CM_DO_REMOVE, 0}},
	{"refusal tells more than expiry",
	 {AT(LAUNCHING, CREATED), .has_id = true, .refusal = R(START), .expires_ms = PAST},
	 {CM_FAILED, R(START), CM_DO_REMOVE, 0}},
	{"refusal tells more than a cancel",
	 {AT(LAUNCHING, CREATED), .has_id = true, .refusal = R(START), .cancel_requested = true},
	 {CM_FAILED, R(START), CM_DO_REMOVE, 0}},
	{"unsure start is waited for", {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .sure_ms = LATER},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, LATER}},
	{"an engine that died in the start knows nothing",
	 {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .engine_forgot = true, .sure_ms = LATER},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_REMOVE, 0}},
	{"where no start was sent it need not know",
	 {AT(LAUNCHING, CREATED), .is_checked = true, .has_id = true, .engine_forgot = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_START, 0}},
	{"unsure start is not sent again", {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .sure_ms = NOW},
	 {CM_LAUNCHING, R(NONE), CM_DO_DISCARD, 0}},
	{"cancel waits for an unsure start",
	 {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .sure_ms = LATER, .cancel_requested = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, LATER}},
	{"expiry waits for an unsure start",
	 {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .sure_ms = LATER, .expires_ms = PAST},
	 {CM_LAUNCHING, R(NONE), CM_DO_NOTHING, LATER}},
	{"cancel removes what may yet start, and says nothing before",
	 {AT(LAUNCHING, CREATED), .has_id = true, .start_unsure = true, .sure_ms = PAST, .cancel_requested = true},
	 {CM_LAUNCHING, R(NONE), CM_DO_DISCARD, 0}},

	/* launching, seen to run */
	{"it runs: cancel comes after it is recorded", {AT(LAUNCHING, RUNNING), .has_id = true, .cancel_requested = true},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"it runs: not expired", {AT(LAUNCHING, RUNNING), .has_id = true, .expires_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"it runs, whatever the start's answer was",
	 {AT(LAUNCHING, RUNNING), .has_id = true, .start_unsure = true, .sure_ms = PAST, .refusal = R(START)},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"it ran and is over: running is recorded first", {AT(LAUNCHING, EXITED), .has_id = true, .exit_code = 3},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},

	/* running, and the host is silent */
	{"cancel waits for a silent host", {AT(RUNNING, UNKNOWN), .has_id = true, .cancel_requested = true},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"deadline waits for a silent host", {AT(RUNNING, UNKNOWN), .has_id = true, .deadline_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},

	/* running, gone */
	{"removed by somebody", {AT(RUNNING, ABSENT), .killed_by_other = true},
	 {CM_FAILED, R(KILLED), CM_DO_NOTHING, 0}},
	{"removed while we cancelled it", {AT(RUNNING, ABSENT), .stop = CM_STOP_CANCEL},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_NOTHING, 0}},
	{"removed while we stopped it for its time", {AT(RUNNING, ABSENT), .stop = CM_STOP_TIMEOUT},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_NOTHING, 0}},

	/* running */
	{"runs until its deadline", {AT(RUNNING, RUNNING), .deadline_ms = LATER},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, LATER}},
	{"its time is over", {AT(RUNNING, RUNNING), .deadline_ms = NOW},
	 {CM_RUNNING, R(NONE), CM_DO_TERM, 0}},
	{"its time is over, nobody looked", {AT(RUNNING, RUNNING), .deadline_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_TERM, 0}},
	{"is to be cancelled", {AT(RUNNING, RUNNING), .cancel_requested = true, .deadline_ms = LATER},
	 {CM_RUNNING, R(NONE), CM_DO_TERM, 0}},
	{"expiry means nothing to who runs", {AT(RUNNING, RUNNING), .expires_ms = PAST},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"has its grace", {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = NOW - GRACE + 1},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, LATER}},
	{"grace is over", {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = NOW - GRACE},
	 {CM_RUNNING, R(NONE), CM_DO_KILL, 0}},
	{"grace of a timeout is over", {AT(RUNNING, RUNNING), .stop = CM_STOP_TIMEOUT, .stop_sent_ms = 0},
	 {CM_RUNNING, R(NONE), CM_DO_KILL, 0}},
	{"no grace at all", {.now_ms = NOW, .state = CM_RUNNING, .seen = CM_SEEN_RUNNING, .stop = CM_STOP_CANCEL, .stop_sent_ms = NOW},
	 {CM_RUNNING, R(NONE), CM_DO_KILL, 0}},
	{"is killed once", {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = 0, .kill_sent = true},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, 0}},
	{"is asked once, deadline or not",
	 {AT(RUNNING, RUNNING), .stop = CM_STOP_CANCEL, .stop_sent_ms = NOW, .deadline_ms = PAST, .cancel_requested = true},
	 {CM_RUNNING, R(NONE), CM_DO_NOTHING, NOW + GRACE}},

	/* exited */
	{"exit code 3", {AT(RUNNING, EXITED), .exit_code = 3}, {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"exit code 137 alone is an exit code", {AT(RUNNING, EXITED), .exit_code = 137},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"killed from outside", {AT(RUNNING, EXITED), .exit_code = 137, .killed_by_other = true},
	 {CM_FAILED, R(KILLED), CM_DO_COLLECT, 0}},
	{"a signal from outside that it outlived", {AT(RUNNING, EXITED), .exit_code = 0, .killed_by_other = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"out of memory", {AT(RUNNING, EXITED), .exit_code = 137, .oom_killed = true},
	 {CM_FAILED, R(OOM), CM_DO_COLLECT, 0}},
	{"out of memory in a child, told as 1", {AT(RUNNING, EXITED), .exit_code = 1, .oom_killed = true},
	 {CM_FAILED, R(OOM), CM_DO_COLLECT, 0}},
	{"out of memory in a child, exit code 0", {AT(RUNNING, EXITED), .exit_code = 0, .oom_killed = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"out of memory tells more than a kill", {AT(RUNNING, EXITED), .exit_code = 137, .oom_killed = true, .killed_by_other = true},
	 {CM_FAILED, R(OOM), CM_DO_COLLECT, 0}},
	{"the engine went down under it", {AT(RUNNING, EXITED), .exit_code = 137, .host_was_away = true},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_COLLECT, 0}},
	{"the engine was shut down under it", {AT(RUNNING, EXITED), .exit_code = 143, .host_was_away = true},
	 {CM_FAILED, R(INFRASTRUCTURE), CM_DO_COLLECT, 0}},
	{"failed by itself while the engine was away", {AT(RUNNING, EXITED), .exit_code = 3, .host_was_away = true},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"completed while the engine was away", {AT(RUNNING, EXITED), .exit_code = 0, .host_was_away = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"exited before a deadline that nobody saw pass", {AT(RUNNING, EXITED), .exit_code = 0, .deadline_ms = PAST},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"failed before a deadline that nobody saw pass", {AT(RUNNING, EXITED), .exit_code = 3, .deadline_ms = PAST, .ran_too_long = true},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"completed before the cancel came", {AT(RUNNING, EXITED), .exit_code = 0, .cancel_requested = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"failed before the cancel came", {AT(RUNNING, EXITED), .exit_code = 3, .cancel_requested = true},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"stopped for a cancel", {AT(RUNNING, EXITED), .exit_code = 143, .stop = CM_STOP_CANCEL, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_COLLECT, 0}},
	{"stopped for a cancel in good order", {AT(RUNNING, EXITED), .exit_code = 0, .stop = CM_STOP_CANCEL, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_COLLECT, 0}},
	{"stopped for its time", {AT(RUNNING, EXITED), .exit_code = 137, .stop = CM_STOP_TIMEOUT, .kill_sent = true},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"stopped for its time in good order", {AT(RUNNING, EXITED), .exit_code = 0, .stop = CM_STOP_TIMEOUT},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"cancelled while being stopped for its time",
	 {AT(RUNNING, EXITED), .exit_code = 143, .stop = CM_STOP_TIMEOUT, .cancel_requested = true},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"stopped by us before a crash of ours: a cancel", {AT(RUNNING, EXITED), .exit_code = 143, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_COLLECT, 0}},
	{"killed by us before a crash of ours: a cancel", {AT(RUNNING, EXITED), .exit_code = 137, .cancel_requested = true},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_COLLECT, 0}},
	{"stopped by us before a crash of ours: its time", {AT(RUNNING, EXITED), .exit_code = 143, .ran_too_long = true},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"ran to its limit and completed", {AT(RUNNING, EXITED), .exit_code = 0, .ran_too_long = true},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"exit code 3 means success", {AT(RUNNING, EXITED), .exit_code = 3, .success_exit_codes = {true, {0x09}}},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"exit code 255 means success", {AT(RUNNING, EXITED), .exit_code = 255, .success_exit_codes = {true, {[31] = 0x80}}},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"exit code 2 is not among them", {AT(RUNNING, EXITED), .exit_code = 2, .success_exit_codes = {true, {0x09}}},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"exit code 0 is not among them", {AT(RUNNING, EXITED), .exit_code = 0, .success_exit_codes = {true, {0x08}}},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"exit code 0 is not among them, and a child was out of memory",
	 {AT(RUNNING, EXITED), .exit_code = 0, .oom_killed = true, .success_exit_codes = {true, {0x08}}},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},
	{"137 means success, but not out of memory",
	 {AT(RUNNING, EXITED), .exit_code = 137, .oom_killed = true, .success_exit_codes = {true, {[17] = 0x02}}},
	 {CM_FAILED, R(OOM), CM_DO_COLLECT, 0}},
	{"137 means success, but not when killed from outside",
	 {AT(RUNNING, EXITED), .exit_code = 137, .killed_by_other = true, .success_exit_codes = {true, {[17] = 0x02}}},
	 {CM_FAILED, R(KILLED), CM_DO_COLLECT, 0}},
	{"137 means success by itself", {AT(RUNNING, EXITED), .exit_code = 137, .success_exit_codes = {true, {[17] = 0x02}}},
	 {CM_COMPLETED, R(NONE), CM_DO_COLLECT, 0}},
	{"stopped for its time with a code that means success",
	 {AT(RUNNING, EXITED), .exit_code = 3, .stop = CM_STOP_TIMEOUT, .success_exit_codes = {true, {0x08}}},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"stopped by another signal before a crash of ours",
	 {AT(RUNNING, EXITED), .exit_code = 138, .cancel_requested = true, .stop_signal = 10},
	 {CM_CANCELLED, R(CANCELLED), CM_DO_COLLECT, 0}},
	{"killed after another signal before a crash of ours",
	 {AT(RUNNING, EXITED), .exit_code = 137, .ran_too_long = true, .stop_signal = 10},
	 {CM_TIMEOUT, R(TIMEOUT), CM_DO_COLLECT, 0}},
	{"a signal that is not its own", {AT(RUNNING, EXITED), .exit_code = 143, .cancel_requested = true, .stop_signal = 10},
	 {CM_FAILED, R(EXIT_CODE), CM_DO_COLLECT, 0}},

	/* over */
	{"kept for a look", {AT(FAILED, EXITED), .is_kept = true, .exit_code = 3},
	 {CM_FAILED, R(NONE), CM_DO_NOTHING, 0}},
	{"kept is what has ended, not what runs", {AT(TIMEOUT, RUNNING), .is_kept = true},
	 {CM_TIMEOUT, R(NONE), CM_DO_KILL, 0}},
	{"nor what never ran", {AT(FAILED, CREATED), .is_kept = true},
	 {CM_FAILED, R(NONE), CM_DO_REMOVE, 0}},
	{"what still runs is killed once", {AT(CANCELLED, RUNNING), .kill_sent = true},
	 {CM_CANCELLED, R(NONE), CM_DO_NOTHING, 0}},
	{"cancel of what is over", {AT(COMPLETED, EXITED), .cancel_requested = true, .exit_code = 137},
	 {CM_COMPLETED, R(NONE), CM_DO_REMOVE, 0}},
	{"never made again when it is over", {AT(FAILED, ABSENT), .discarded = true},
	 {CM_FAILED, R(NONE), CM_DO_NOTHING, 0}},
	{"never started when it is over", {AT(CANCELLED, CREATED), .has_id = true},
	 {CM_CANCELLED, R(NONE), CM_DO_REMOVE, 0}},
};
/* clang-format on */

static void
test_rows(const Row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		CmDecision got = cm_lifecycle_decide(&rows[i].s);
		const CmDecision *wanted = &rows[i].wanted;

		is_str(cm_lifecycle_state_word(got.next), cm_lifecycle_state_word(wanted->next),
			   "%s: state", rows[i].name);
		is_str(cm_lifecycle_reason_word(got.reason), cm_lifecycle_reason_word(wanted->reason),
			   "%s: reason", rows[i].name);
		is_int(got.action, wanted->action, "%s: action", rows[i].name);
		is_int(got.wake_ms, wanted->wake_ms, "%s: wake", rows[i].name);
	}
}

/* The table of pairs has each of them, once. */
static void
test_pairs_are_all(void)
{
	int n_rows[CM_N_STATES][CM_N_SEEN] = {{0}};

	for (size_t i = 0; i < lengthof(pair_rows); i++)
		n_rows[pair_rows[i].s.state][pair_rows[i].s.seen]++;
	for (int state = 0; state < CM_N_STATES; state++)
	{
		for (int seen = 0; seen < CM_N_SEEN; seen++)
			is_int(n_rows[state][seen], 1, "one row for %s, %s",
				   cm_lifecycle_state_word((CmState) state), seen_words[seen]);
	}
}

/* ------------------------------------------------------- every situation */

static const CmReason some_refusals[] = {CM_REASON_NONE, CM_REASON_IMAGE_PULL, CM_REASON_START};
static const int some_exit_codes[] = {0, 3, 137, 143};
static const int64_t some_limits[] = {0, PAST, LATER};

#define N_FLAGS 10
#define N_SITUATIONS                                                                               \
	((int64_t) CM_N_STATES * CM_N_SEEN * 3 * lengthof(some_refusals) * lengthof(some_exit_codes) * \
	 lengthof(some_limits) * lengthof(some_limits) * 2 * 2 * (1 << N_FLAGS))

static int64_t
take(int64_t *number, int64_t n)
{
	int64_t digit = *number % n;

	*number /= n;
	return digit;
}

/* Situations are counted through; limits of one number pass together. */
static CmSituation
make_situation(int64_t number)
{
	CmSituation s = {BASE};

	s.state = (CmState) take(&number, CM_N_STATES);
	s.seen = (CmSeen) take(&number, CM_N_SEEN);
	s.stop = (CmStop) take(&number, 3);
	s.refusal = some_refusals[take(&number, lengthof(some_refusals))];
	s.exit_code = some_exit_codes[take(&number, lengthof(some_exit_codes))];
	s.expires_ms = some_limits[take(&number, lengthof(some_limits))];
	s.deadline_ms = some_limits[take(&number, lengthof(some_limits))];
	s.sure_ms = take(&number, 2) ? LATER : PAST;
	s.stop_sent_ms = take(&number, 2) ? NOW : NOW - GRACE - 1;
	s.has_id = take(&number, 2);
	s.cancel_requested = take(&number, 2);
	s.oom_killed = take(&number, 2);
	s.killed_by_other = take(&number, 2);
	s.host_was_away = take(&number, 2);
	s.ran_too_long = take(&number, 2);
	s.start_unsure = take(&number, 2);
	s.discarded = take(&number, 2);
	s.kill_sent = take(&number, 2);
	s.is_checked = take(&number, 2);
	return s;
}

static bool
keeps_terminal(const CmSituation *s, const CmDecision *d)
{
	return !cm_lifecycle_is_terminal(s->state) || d->next == s->state;
}

/* Forward only, and no state is jumped: an attempt that ran was running. */
static bool
goes_forward(const CmSituation *s, const CmDecision *d)
{
	switch (d->next)
	{
		case CM_PENDING:
		case CM_LAUNCHING:
			return s->state == d->next;
		case CM_RUNNING:
			return s->state == CM_LAUNCHING || s->state == CM_RUNNING;
		case CM_COMPLETED:
		case CM_TIMEOUT:
			return s->state == CM_RUNNING || s->state == d->next;
		case CM_FAILED:
		case CM_CANCELLED:
			return !cm_lifecycle_is_terminal(s->state) || s->state == d->next;
	}
	return false;
}

/* Never twice. */
static bool
starts_rightly(const CmSituation *s, const CmDecision *d)
{
	if (d->action == CM_DO_START)
		return s->has_id && s->is_checked && !s->start_unsure && s->state == CM_LAUNCHING &&
			   d->next == CM_LAUNCHING && s->seen == CM_SEEN_CREATED;
	if (d->action == CM_DO_CREATE)
		return (!s->has_id || s->discarded) && s->state == CM_LAUNCHING &&
			   d->next == CM_LAUNCHING && s->seen == CM_SEEN_ABSENT;
	return true;
}

static bool
starts_nothing_unwanted(const CmSituation *s, const CmDecision *d)
{
	if (d->action != CM_DO_START && d->action != CM_DO_CREATE)
		return true;
	return !s->cancel_requested && s->refusal == CM_REASON_NONE &&
		   (s->expires_ms == 0 || s->now_ms < s->expires_ms);
}

/* What is not known must not be acted on, nor called an end. */
static bool
waits_for_silent_host(const CmSituation *s, const CmDecision *d)
{
	if (s->seen != CM_SEEN_UNKNOWN || s->state == CM_PENDING)
		return true;
	return d->next == s->state && d->action == CM_DO_NOTHING;
}

/* What may still come to life must be gone before an end is recorded. */
static bool
waits_for_unsure_start(const CmSituation *s, const CmDecision *d)
{
	if (s->state != CM_LAUNCHING || s->seen != CM_SEEN_CREATED || !s->start_unsure)
		return true;
	return d->next == CM_LAUNCHING;
}

/* A running container is never removed, and none is recorded as over. */
static bool
spares_running(const CmSituation *s, const CmDecision *d)
{
	if (s->seen != CM_SEEN_RUNNING || s->state == CM_PENDING)
		return true;
	return d->action != CM_DO_REMOVE && d->action != CM_DO_DISCARD && d->action != CM_DO_COLLECT &&
		   (cm_lifecycle_is_terminal(s->state) || d->next == CM_RUNNING);
}

/* What was printed is read before the end is recorded, and before removal. */
static bool
collects_first(const CmSituation *s, const CmDecision *d)
{
	if (s->seen == CM_SEEN_EXITED && s->state == CM_RUNNING)
		return d->action == CM_DO_COLLECT && cm_lifecycle_is_terminal(d->next);
	return d->action != CM_DO_COLLECT;
}

/* A reason is there where an attempt did not complete, and fits the state. */
static bool
gives_reason(const CmSituation *s, const CmDecision *d)
{
	if (d->next == s->state || !cm_lifecycle_is_terminal(d->next))
		return d->reason == CM_REASON_NONE;
	switch (d->next)
	{
		case CM_COMPLETED:
			return d->reason == CM_REASON_NONE && s->exit_code == 0;
		case CM_TIMEOUT:
			return d->reason == CM_REASON_TIMEOUT;
		case CM_CANCELLED:
			return d->reason == CM_REASON_CANCELLED;
		default:
			return d->reason != CM_REASON_NONE && d->reason != CM_REASON_TIMEOUT &&
				   d->reason != CM_REASON_CANCELLED;
	}
}

/* "expired" is said only of what certainly never started. */
static bool
expires_only_unstarted(const CmSituation *s, const CmDecision *d)
{
	if (d->reason != CM_REASON_EXPIRED)
		return true;
	return s->state == CM_PENDING || s->seen == CM_SEEN_CREATED || !s->has_id || s->discarded;
}

/* A wake time lies ahead, or the caller would spin. */
static bool
wakes_ahead(const CmSituation *s, const CmDecision *d)
{
	return d->wake_ms == 0 || d->wake_ms > s->now_ms;
}

/* What is expected from outside, where there is neither action nor time. */
static bool
has_outside_event(const CmSituation *s)
{
	if (s->state == CM_PENDING)
		return true; /* a slot */
	if (s->seen == CM_SEEN_UNKNOWN)
		return true; /* the host's answer */
	if (cm_lifecycle_is_terminal(s->state))
		return s->seen == CM_SEEN_ABSENT || s->seen == CM_SEEN_RUNNING;
	return s->seen == CM_SEEN_RUNNING; /* its end */
}

/* Something is recorded or done, or a time or an event is waited for. */
static bool
is_not_stuck(const CmSituation *s, const CmDecision *d)
{
	return d->next != s->state || d->action != CM_DO_NOTHING || d->wake_ms != 0 ||
		   has_outside_event(s);
}

/* Where an end is wanted of what runs, the wait for it is bounded. */
static bool
ends_what_must_end(const CmSituation *s, const CmDecision *d)
{
	bool must_end = s->cancel_requested || s->stop != CM_STOP_NOT ||
					(s->deadline_ms != 0 && s->now_ms >= s->deadline_ms);

	if (s->state != CM_RUNNING || s->seen != CM_SEEN_RUNNING || !must_end)
		return true;
	if (s->stop != CM_STOP_NOT && s->kill_sent)
		return true;
	return d->action == CM_DO_TERM || d->action == CM_DO_KILL || d->wake_ms != 0;
}

static bool
stops_only_on_demand(const CmSituation *s, const CmDecision *d)
{
	if (d->action == CM_DO_TERM)
		return s->stop == CM_STOP_NOT &&
			   (s->cancel_requested || (s->deadline_ms != 0 && s->now_ms >= s->deadline_ms));
	if (d->action == CM_DO_KILL)
		return !s->kill_sent && (cm_lifecycle_is_terminal(s->state) || s->stop != CM_STOP_NOT);
	return true;
}

static const struct
{
	const char *name;
	bool (*holds)(const CmSituation *s, const CmDecision *d);
} laws[] = {
	{"no terminal state is left", keeps_terminal},
	{"states go forward, one by one", goes_forward},
	{"a start needs a recorded id, a create that nothing can have run", starts_rightly},
	{"nothing is made or started that is to end", starts_nothing_unwanted},
	{"a silent host decides nothing", waits_for_silent_host},
	{"no end while a start may be under way", waits_for_unsure_start},
	{"what runs is neither removed nor called over", spares_running},
	{"output is collected at the end, and only then", collects_first},
	{"an end has the reason that fits it", gives_reason},
	{"expired is only what never started", expires_only_unstarted},
	{"wake times lie ahead", wakes_ahead},
	{"nothing is stuck", is_not_stuck},
	{"what must end is being ended", ends_what_must_end},
	{"signals are sent on demand, SIGKILL once", stops_only_on_demand},
};

static void
print_situation(const CmSituation *s, const CmDecision *d)
{
	printf("#   %s, %s, stop %d, refusal %d, exit code %d, expires %d, deadline %d, sure %d\n",
		   cm_lifecycle_state_word(s->state), seen_words[s->seen], s->stop, s->refusal,
		   s->exit_code, (int) s->expires_ms, (int) s->deadline_ms, (int) s->sure_ms);
	printf("#   has_id %d, cancel %d, oom %d, killed %d, away %d, too long %d, unsure %d, "
		   "discarded %d, kill sent %d\n",
		   s->has_id, s->cancel_requested, s->oom_killed, s->killed_by_other, s->host_was_away,
		   s->ran_too_long, s->start_unsure, s->discarded, s->kill_sent);
	printf("#   decided: %s, reason %d, action %d, wake %d\n", cm_lifecycle_state_word(d->next),
		   d->reason, d->action, (int) d->wake_ms);
}

/* The laws hold in every situation; the first that breaks one is shown. */
static void
test_laws(void)
{
	int64_t n_broken[lengthof(laws)] = {0};

	for (int64_t number = 0; number < (int64_t) N_SITUATIONS; number++)
	{
		CmSituation s = make_situation(number);
		CmDecision d = cm_lifecycle_decide(&s);

		for (size_t i = 0; i < lengthof(laws); i++)
		{
			if (laws[i].holds(&s, &d))
				continue;
			if (n_broken[i]++ == 0)
				print_situation(&s, &d);
		}
	}
	for (size_t i = 0; i < lengthof(laws); i++)
		is_int(n_broken[i], 0, "%s", laws[i].name);
}

/* In every situation: an abandoned attempt ends, whatever else, and starts nothing. */
static void
test_abandoned(void)
{
	int64_t n_broken = 0;

	for (int64_t number = 0; number < (int64_t) N_SITUATIONS; number++)
	{
		CmSituation s = make_situation(number);
		CmDecision d;

		if ((s.state != CM_LAUNCHING && s.state != CM_RUNNING) || s.seen == CM_SEEN_EXITED)
			continue;
		s.abandoned = true;
		d = cm_lifecycle_decide(&s);
		if (d.next != CM_FAILED || d.reason != CM_REASON_ABANDONED ||
			(d.action != CM_DO_NOTHING && d.action != CM_DO_REMOVE))
			n_broken++;
	}
	is_int(n_broken, 0, "what is abandoned ends as that");
}

/* ------------------------------------------------------- words */

static void
test_state_words(void)
{
	CmState state;

	for (int i = 0; i < CM_N_STATES; i++)
	{
		state = CM_N_STATES;
		ok(cm_lifecycle_parse_state(cm_lifecycle_state_word((CmState) i), &state) &&
			   (int) state == i,
		   "state %d: its word is read back", i);
		is_int(cm_lifecycle_is_terminal((CmState) i), i >= CM_COMPLETED, "%s: terminal or not",
			   cm_lifecycle_state_word((CmState) i));
	}
	ok(!cm_lifecycle_parse_state("", &state), "no word is no state");
	ok(!cm_lifecycle_parse_state("Running", &state), "case counts");
	ok(!cm_lifecycle_parse_state("running ", &state), "spaces count");
}

static void
test_reason_words(void)
{
	is_str(cm_lifecycle_reason_word(CM_REASON_NONE), NULL, "no reason has no word");
	for (int i = CM_REASON_NONE + 1; i < CM_N_REASONS; i++)
	{
		const char *word = cm_lifecycle_reason_word((CmReason) i);

		if (!ok(word != NULL && word[strspn(word, "abcdefghijklmnopqrstuvwxyz_")] == '\0',
				"reason %d has a word", i))
			continue;
		for (int j = CM_REASON_NONE + 1; j < i; j++)
			ok(strcmp(word, cm_lifecycle_reason_word((CmReason) j)) != 0, "%s is not %s", word,
			   cm_lifecycle_reason_word((CmReason) j));
	}
	is_str(cm_lifecycle_reason_word(CM_REASON_EXIT_CODE), "exit_code", "first of the words");
	is_str(cm_lifecycle_reason_word(CM_REASON_INFRASTRUCTURE), "infrastructure", "last of them");
}

int
main(void)
{
	test_rows(pair_rows, lengthof(pair_rows));
	test_rows(flag_rows, lengthof(flag_rows));
	test_pairs_are_all();
	test_laws();
	test_abandoned();
	test_state_words();
	test_reason_words();
	return tap_done();
}
