/*
 * store.h
 *		The executor's side of the tables: the only place, with the functions
 *		that users call, where SQL stands.
 *
 * Floor 3.  Everything here runs inside a transaction that cm_store_begin
 * opened; errors are thrown, and whoever opened the transaction aborts it.
 * Text that leaves the tables is UTF-8, text that goes in is converted to the
 * database's encoding, whatever bytes an engine sent.  Results are allocated
 * in the current memory context.
 */
#ifndef CM_STORE_H
#define CM_STORE_H

#include "postgres.h"
#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"

#include "engine.h"
#include "jobspec.h"
#include "lifecycle.h"
#include "placement.h"
#include "policy.h"

/* --- transactions --- */

extern void cm_store_begin(void);
extern void cm_store_commit(void);
/* After an error: ends the transaction, if one is open. */
extern void cm_store_abort(void);

/* Transactions begun so far by this process. */
extern uint64 cm_store_n_transactions(void);

/* A table that could not be locked, and who holds it. */
typedef struct CmLockInTheWay
{
	const char *table;
	int n_pids;
	int pids[8];
} CmLockInTheWay;

typedef enum CmStoreOpening
{
	CM_STORE_OPEN,
	CM_STORE_NO_EXTENSION,
	CM_STORE_HELD,	 /* as a copy, or superseded: see identity.h */
	CM_STORE_BLOCKED /* try again later */
} CmStoreOpening;

/*
 * Finds the extension and who this database is.  To be called in every
 * process once, and again when the extension may have been dropped and made
 * anew.  A copy of another database (CREATE DATABASE ... TEMPLATE) gets an
 * epoch of its own here, and the jobs that came along become inert; a promoted
 * standby and an upgraded cluster get a higher incarnation.
 */
extern CmStoreOpening cm_store_open(CmIdentity *identity, Oid *extension, CmLockInTheWay *lock);

/*
 * Another server has a higher incarnation, as was seen on that host: recorded,
 * so that this one holds from now on.  false: somebody's lock is in the way.
 */
extern bool cm_store_record_superseded(int incarnation, const char *host);

/* Is the extension that was found still there?  One cache look-up. */
extern bool cm_store_is_open(void);

/* In a transaction of its own: is there an extension, whichever? */
extern bool cm_store_is_there(void);

/* Takes the table locks that a turn needs, without waiting; false: not to be had. */
extern bool cm_store_try_lock(CmLockInTheWay *lock);

/* The pids that hold a lock on the job's row or its queue row. */
extern int cm_store_row_blockers(int64 job_id, int *pids, int max_pids);

/* --- hosts --- */

/* A secret as it is stored. */
typedef struct CmSealed
{
	const char *name; /* that it was sealed for */
	const char *bytes;
	size_t n_bytes;
} CmSealed;

#define CM_MAX_REGISTRIES 32

/* What executor_config's registry_auth says of one registry. */
typedef struct CmRegistryAuth
{
	const char *registry; /* as images name it */
	const char *secret;	  /* its name */
	CmSealed sealed;	  /* bytes NULL: there is no such secret */
} CmRegistryAuth;

typedef struct CmHostRow
{
	int id;
	const char *name;
	CmHostAddress address;
	bool is_active; /* and not drained */
	int slots;
	int weight;
	bool auto_pull_images;
	const char *executor_type;
	const char *executor_config; /* JSON */
	bool require_userns;
	CmRegistryAuth *registries;
	int n_registries;
	const char *engine_id;			/* that its jobs are on; NULL: not known */
	const char *accepted_engine_id; /* NULL: none */
	const char *removed_by;			/* NULL: it is to stay */
} CmHostRow;

extern CmHostRow *cm_store_load_hosts(int *n);
/* Their registries; a part of the above, in store_secrets.c. */
extern void cm_store_load_registries(CmHostRow *rows, int n);

typedef struct CmHostState
{
	int host_id;
	const char *state;			/* unknown, healthy, unhealthy */
	const char *engine_version; /* NULL: not known */
	char api_version[16];
	const CmEngineFacts *facts; /* NULL: not known */
	const char *engine_id;		/* NULL: not known */
	const char *error;			/* NULL: none */
	const char *hint;
} CmHostState;

/* False: not now, for somebody holds a lock on the host's row. */
extern bool cm_store_save_host_state(const CmHostState *state);

/* What is in use besides what is stored: of files, and shown by the engine.  PEM,
 * ASCII; NULL: none. */
typedef struct CmHostCertificates
{
	int host_id;
	const char *ca;
	const char *cert;
	const char *presented;
} CmHostCertificates;

/* After the host's state was saved, in the same transaction. */
extern void cm_store_save_host_certificates(const CmHostCertificates *certificates);

/* What follows needs more than the locks of a turn; false: not to be had now. */
extern bool cm_store_try_lock_hosts(void);
/* Disables a host in the executor's name, unless it is already. */
extern bool cm_store_drain_host(int host_id, const char *reason);
/*
 * Of hosts that are to go: asks for the cancellation of their unfinished jobs,
 * and removes those that have none.  Returns how many jobs and hosts that were.
 */
extern int cm_store_remove_hosts(void);

/* Are there pending jobs up to that one? */
extern bool cm_store_has_pending_up_to(int64 job_id);

/* A certificate in use that has ended, or will soon. */
typedef struct CmEndingCertificate
{
	const char *kind; /* "CA", "server", "client" */
	const char *subject;
	const char *host; /* NULL: not of one host */
	const char *not_after;
	bool has_ended;
} CmEndingCertificate;

/* Those that were not told of for a day; they count as told from now on. */
extern CmEndingCertificate *cm_store_note_ending_certificates(int *n);

/* --- taking work --- */

/* One cheap look at what there is to do. */
typedef struct CmPoll
{
	int64 hosts_mark; /* differs when cm_hosts or drains changed */
	bool has_ready;	  /* pending and due */
	bool has_due;	  /* became due, not yet marked so */
	bool has_expired;
	bool has_requests;
	bool has_waiting;  /* jobs whose dependencies are to be looked at, or have failed */
	int64 pauses_mark; /* differs when pauses changed */
	bool is_all_paused;
	bool has_asked;		 /* of hosts */
	bool has_kept_due;	 /* containers that were kept long enough */
	TimestampTz next_at; /* when the next of these comes up; DT_NOEND: none */
} CmPoll;

extern void cm_store_poll(CmPoll *poll);

/* A job that has, or just got, a host. */
typedef struct CmTaken
{
	CmJobSpec spec;
	CmSealed *secrets;	/* of spec.secrets, where it is yet to be created */
	CmProblem *problem; /* the guard's objection, or NULL */
	int host_id;
	CmState state;								/* launching or running */
	char container_id[CM_CONTAINER_ID_LEN + 1]; /* "": none recorded */
	TimestampTz claimed_at;						/* of this attempt; 0: not known */
	TimestampTz started_at;						/* 0: not started */
	TimestampTz expires_at;						/* DT_NOEND: never */
	bool cancel_requested;
	int64 log_records; /* what of its output is stored */
	int64 log_hash;
	int64 log_bytes;
	int log_seq[2]; /* next chunk of stdout, stderr */
	bool logs_incomplete;
} CmTaken;

/*
 * Gives jobs that are launching their secrets, and notes that they were used; one
 * that may not have them gets a problem.  store_secrets.c
 */
extern void cm_store_load_secrets(CmTaken *taken, int n);

/* What the last executor left behind: all rows that are launching or running. */
extern CmTaken *cm_store_load_taken(const CmLimits *limits, int *n);

/* Marks pending jobs whose time has come. */
extern void cm_store_promote_due(void);

/* What a claim leaves behind. */
typedef struct CmClaimLeft
{
	bool is_cut_off; /* more may be had at once */
	bool met_pauses;
	bool is_blocked; /* somebody has the row of a job locked that might be had */
} CmClaimLeft;

/*
 * Claims up to the candidates' free slots, in the order of the queue, raises
 * the attempt and makes them launching.  Candidates come without the hosts that
 * have labels: these are looked up.  Slots and drains are those that stand
 * when the jobs are chosen.  Jobs up to unsure_up_to are taken only where they
 * must run on a certain host.
 */
extern CmTaken *cm_store_claim(CmFleet *fleet, int64 unsure_up_to, const CmLimits *limits,
							   int max_claims, int *n, CmClaimLeft *left);

/* What no job on the queue asks for any more. */
/* false: there are none at all. */
extern bool cm_store_drop_unused_placements(void);

/* A container of ours whose job is perhaps not known to have been taken. */
typedef struct CmFound
{
	int64 job_id;
	int attempt;
	const char *container_id;
} CmFound;

/*
 * Pending jobs up to that one, of which a container of their next attempt was
 * found on the host, become launching there.  Others are left alone.
 */
extern CmTaken *cm_store_take_found(int host_id, const CmFound *found, int n_found, int64 up_to,
									const CmLimits *limits, int *n);

/* Jobs that are not to be started any more, or are to be stopped. */
typedef struct CmUnstarted
{
	int64 job_id;
	int attempt;	 /* the current or last one; 0: none */
	bool is_pending; /* nothing of it is on any host */
} CmUnstarted;

/* Pending jobs whose max_wait is over; at most max. */
/* Those up to unsure_up_to may have been started all the same, and are left. */
extern CmUnstarted *cm_store_load_expired(int max, int64 unsure_up_to, int *n);

/*
 * Takes requests off the table and carries out those that concern the queue
 * alone: priorities, notes of cancellation, and jobs that are to run again.
 * Returns the jobs to be cancelled; *n_queued: how many were put on the queue;
 * *has_more: there may be more requests to be had at once.
 */
extern CmUnstarted *cm_store_take_requests(int max, int *n, int *n_queued, bool *has_more);

/*
 * Attempts whose host an administrator has given up.  Their requests stay until
 * the end is recorded, so that a crash in between loses none.
 */
typedef struct CmAbandoned
{
	int64 job_id;
	int attempt;
	const char *by; /* both UTF-8 */
	const char *reason;
} CmAbandoned;

extern CmAbandoned *cm_store_load_abandoned(int max, int *n);

/*
 * Which attempt of the jobs of these containers may have one: the one under way,
 * or the next of a job that waits.  0 for a finished job, -1 for one that is not
 * there at all, CM_ATTEMPT_KEPT where the container is just that which is kept.
 */
#define CM_ATTEMPT_KEPT (-2)
extern void cm_store_look_up_jobs(const CmFound *found, int n, int *attempts);

/* --- what was asked of hosts (store_asked.c) --- */

typedef enum CmAskedAction
{
	CM_ASKED_CREATE_NETWORK,
	CM_ASKED_REMOVE_NETWORK,
	CM_ASKED_CREATE_VOLUME,
	CM_ASKED_REMOVE_VOLUME
} CmAskedAction;

/* A row that waits; texts are UTF-8, and NULL where they do not belong to it. */
typedef struct CmAsked
{
	int64 id;
	int host_id;
	const char *host;
	CmAskedAction action;
	const char *name;
	const char *namespace_name; /* of volumes */
	const char *driver;			/* of networks, as are the next four */
	const char *subnet;
	const char *subnet6;
	const char *parent;
	bool is_internal;
	const char *owner; /* of volumes */
	int64 size_mb;	   /* likewise; 0: no limit */
} CmAsked;

/* Of each host the first ones, in order. */
extern CmAsked *cm_store_load_asked(int max_per_host, int *n);
/*
 * Records an end; error NULL: it is done.  false: somebody has the row locked.
 * Those that ended long ago are dropped.
 */
extern bool cm_store_save_asked(int64 id, const char *error, const char *hint);

/* --- what keeps pending jobs from being started (store_schedule.c) --- */

/* Jobs that may be started now, or must end; is_behind: rows of others were locked. */
typedef struct CmMoved
{
	int n;
	bool is_behind;
} CmMoved;

/* Those jobs have ended: whoever waits for them hears of it, in this transaction. */
extern void cm_store_note_ends(const int64 *job_ids, int n, CmMoved *moved);

/*
 * Those jobs leave their concurrency_key, or wait no more for it: others may
 * have it.  To be called before their queue rows go.
 */
extern void cm_store_release_keys(const int64 *job_ids, int n, CmMoved *moved);

/* Looks at what new jobs wait for; true: there may be more of them. */
extern bool cm_store_settle(CmMoved *moved);

/* A pending job that depends on one that did not complete. */
typedef struct CmDoomed
{
	int64 job_id;
	int attempt;
	int64 failed_dependency;
	const char *status; /* NULL: that job was deleted */
	const char *reason;
} CmDoomed;

extern CmDoomed *cm_store_load_doomed(int max, int64 unsure_up_to, int *n);

/* Those jobs run already: they wait for nothing. */
extern void cm_store_forget_dependencies(const int64 *job_ids, int n);

/* A job with a concurrency_key that is about to be chosen. */
typedef struct CmGate
{
	int64 job_id;
	int key;	 /* the same for jobs of one key */
	int limit;	 /* it may start while fewer have the key */
	int n_taken; /* that have it, those chosen already included */
} CmGate;

extern CmGate *cm_store_load_gates(const int64 *job_ids, int n, const int64 *chosen, int n_chosen,
								   int *n_gates);

/* Puts those aside that met a full key, with some that wait for it likewise.  How many? */
extern int cm_store_hold(const int64 *job_ids, int n, const int64 *chosen, int n_chosen);

/* Puts those aside that met a pause, and what is paused behind them.  How many? */
extern int cm_store_put_paused_aside(const int64 *job_ids, int n, CmMoved *moved);

/* Lets those in again that no pause is for any more; true: there may be more. */
extern bool cm_store_end_pauses(CmMoved *moved);

/* Looks all through: at the start, and after a row was locked. */
extern void cm_store_mend_schedule(CmMoved *moved);

/* --- recording --- */

typedef struct CmRecord
{
	int64 job_id;
	int attempt;
	CmState state; /* the new one; launching: only the id is saved */
	CmReason reason;
	const char *detail; /* for the event and the row, or NULL */
	const char *error;
	const char *hint;
	int host_id;
	const char *host_name;	  /* NULL: it had none */
	const char *container_id; /* NULL: none */
	bool has_exit_code;
	int exit_code;
	bool oom_killed;
	bool logs_incomplete;
	TimestampTz claimed_at;
	TimestampTz started_at;		   /* 0: it never ran; set by RUNNING */
	TimestampTz engine_started_at; /* by the engine's clock; 0: not known */
	TimestampTz engine_finished_at;
	const char *inspect;	/* JSON or NULL */
	bool never_started;		/* it ended while it was pending: no attempt was made */
	int64 keep_ms;			/* how long its container is kept, if no attempt follows; 0: not */
	TimestampTz keep_until; /* ... and until when; 0: it is not kept */
	bool again;				/* of a terminal state: the attempt's; the job waits for another one */
	TimestampTz again_at;
	const char *again_detail; /* what the row says until then */
	bool done;				  /* out: recorded */
	bool gone;				  /* out: there is no such unfinished job */
} CmRecord;

/*
 * Records transitions, in order.  A row that somebody has locked is left out
 * (done stays false), with all later records of that job.  Who waits for an end
 * is moved in the same transaction.
 */
extern void cm_store_record(CmRecord *records, int n, CmMoved *moved);

/* --- kept containers (store_kept.c) --- */

/* How a job's detail tells of its container, until a time. */
#define CM_KEPT_DETAIL "container kept until "

/*
 * Those of the ends that say keep_until, done and for good, are left on their
 * hosts from now on; the oldest of a host that has too many become due.  For
 * cm_store_record, before the jobs leave the queue.
 */
extern void cm_store_keep_containers(const CmRecord *records, int n);

/*
 * Those that are due are kept no longer: what is left of them is what is left of
 * any finished job.  Returns the hosts that they are on, perhaps more than once.
 */
extern int *cm_store_let_kept_go(int max, int *n);

/* Sets the detail of jobs that are under way; unlocked rows only. */
extern void cm_store_save_detail(int64 job_id, const char *detail);

/* --- output --- */

/* Records of one stream, in order. */
typedef struct CmChunk
{
	int stream; /* CM_LOG_STDOUT or CM_LOG_STDERR */
	int n_records;
	int64 *numbers;
	int64 *times_us; /* since 1970 */
	int32 *lengths;
	const char *bytes;
	size_t n_bytes;
} CmChunk;

/* Appends; *seq is the stream's next chunk number and goes up. */
extern void cm_store_append_chunk(int64 job_id, int attempt, const CmChunk *chunk, int *seq);
extern void cm_store_drop_chunks(int64 job_id, int attempt);
/* Keeps how far the output is stored, for whoever goes on after a crash; false:
 * the row is locked or gone, and nothing may be appended now. */
extern bool cm_store_save_log_mark(int64 job_id, int64 records, int64 hash, int64 bytes,
								   bool incomplete);

/* --- publishing --- */

/* Is there room in the server's queue of notifications? */
extern bool cm_store_may_publish(void);

/*
 * Whether what is inserted into cm_job_events is notified: set by the
 * executor, read by the table's trigger.  False in every other process, so
 * that rows restored from a dump are not news.
 */
extern bool cm_store_is_publishing;

/* --- definitions (store_spec.c) --- */

/*
 * Reads a row of cm_jobs.  false with *problem filled where it is not a
 * definition that this version can run; the guard is not asked.
 */
extern bool cm_store_read_spec(HeapTuple tuple, TupleDesc desc, CmJobSpec *spec,
							   CmProblem *problem);

/* Throws the problem as an ERROR that names column and table. */
extern void cm_store_throw_problem(const CmProblem *problem, const char *table)
	pg_attribute_noreturn();

/* --- what somebody tried and may not, in the server's log (store_audit.c) --- */

/*
 * In a transaction; job_id 0: it is being written.  What is merely wrong is not
 * logged, unless it is of a column by which hosts are attacked.
 */
extern void cm_store_log_violation(const CmProblem *problem, const char *role, int64 job_id);
/* Of a container, or an image, that is not what it may be; also outside of
 * transactions. */
extern void cm_store_log_violation_on_host(const char *host, int64 job_id, const char *field,
										   const char *what);

/* UTF-8 to the database's encoding; what does not fit becomes '?'. */
extern char *cm_store_text_from_utf8(const char *utf8);

#endif /* CM_STORE_H */
