/*
 * executor_internal.h
 *		What the executor's files share.
 *
 * Floor 4, for executor*.c only.  There is one executor in a process: cm_ex.
 *
 * All work hangs on three kinds of things: hosts (a connection each, in
 * executor_hosts.c), tasks (an attempt each, executor_tasks.c, with its calls
 * in executor_calls.c, those for its networks and volumes in executor_attach.c, and its
 * output in executor_logs.c) and the turn's transaction
 *(executor_db.c).  Whatever happens to a task ends in cm_task_step(), which asks the lifecycle what
 * follows.
 */
#ifndef CM_EXECUTOR_INTERNAL_H
#define CM_EXECUTOR_INTERNAL_H

#include "postgres.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"

#include "engine.h"
#include "executor.h"
#include "lifecycle.h"
#include "logstream.h"
#include "pacer.h"
#include "passwd.h"
#include "shmem.h"
#include "store.h"

/* Starts in flight on a host of which nothing is known yet: two per CPU, within these. */
#define CM_MIN_FIRST_STARTS 4
#define CM_MAX_FIRST_STARTS 16

/* Output is stored when it is this old, or this much. */
#define CM_LOG_FLUSH_MS 200
#define CM_LOG_FLUSH_BYTES (512 * 1024)
/* A task with this much output in memory stops reading until it is stored. */
#define CM_LOG_HIGH_BYTES (4 * 1024 * 1024)
/* And so do all, when together they have this much. */
#define CM_LOG_TOTAL_HIGH_BYTES (64 * 1024 * 1024)

/* --- executor types --- */

typedef struct CmExecHost CmExecHost;
typedef struct CmTask CmTask;

/*
 * What drives a host.  The line is drawn below the decisions and above the
 * calls: when something is to be done, and what follows from what was seen, is
 * the same for all (lifecycle, executor_tasks.c, executor_db.c); how it is done
 * is the type's.  A type that talks to an engine does so by requests, and a
 * type that does not need not look like one.
 *
 * Each function of a task changes what is known of it (task->s, above all
 * s.seen) and then calls cm_task_step(), at once or when an answer comes; until
 * then task->request is set.  It may free the task, as the last thing it does.
 * What a type keeps in memory may be lost at any time: whoever takes the task up
 * again has the row (state, container id, started_at) and what the host tells.
 *
 * "Never twice" is the type's to keep: inspect must not say ABSENT or CREATED
 * of what may have run, unless it sets s.start_unsure.
 */
typedef struct CmExecutorType
{
	const char *word; /* in cm_hosts.executor_type */
	bool is_paced;	  /* many starts at once would slow it: see above */
	bool is_lasting;  /* what it made is there without the executor, and must be
					   * removed when the extension is dropped */

	/* The row's executor_config came, or changed; NULL: nothing is in it. */
	void (*configure)(CmExecHost *host, const char *config);
	/* Leads to cm_host_become_ready() or cm_host_lose(); next_ms is set. */
	void (*connect)(CmExecHost *host);
	/* The heartbeat of one that is ready. */
	void (*refresh)(CmExecHost *host);

	void (*inspect)(CmTask *task);
	void (*create)(CmTask *task);
	void (*start)(CmTask *task);
	/* Removes what was never started; the task may be created anew. */
	void (*discard)(CmTask *task);
	void (*term)(CmTask *task);
	void (*kill)(CmTask *task);
	/* Removes what has ended; the task is freed. */
	void (*remove)(CmTask *task);
	/* Output while it runs; and the last of it, then cm_task_note_output_read(). */
	void (*follow)(CmTask *task);
	void (*collect)(CmTask *task);
} CmExecutorType;

extern const CmExecutorType cm_executor_docker; /* executor_hosts.c */
extern const CmExecutorType cm_executor_mock;	/* executor_mock.c */

/* --- hosts --- */

typedef enum CmHostPhase
{
	CM_HOST_AWAY,		 /* not connected; next try at next_ms */
	CM_HOST_ASKING,		 /* /version, /info, and who is in charge, are asked for */
	CM_HOST_SUBSCRIBING, /* the event stream is being opened */
	CM_HOST_LISTING,	 /* the first full list is under way */
	CM_HOST_READY
} CmHostPhase;

/* Of containers under way on one host. */
#define CM_MAX_REMOVALS 64

/* A container that no task claims, as last listed. */
typedef struct CmStray
{
	char id[CM_CONTAINER_ID_LEN + 1];
	int64 job_id;
	int attempt;
	bool is_running;
	bool is_known; /* looked up, and left alone */
	int64 seen_since_ms;
	int64 removed_ms; /* when its removal was last asked for; 0: never */
} CmStray;

/* A pull that tasks wait for. */
typedef struct CmPullUnderWay
{
	dlist_node node;
	CmExecHost *host;
	char *image;
	CmHttpRequest *request;
	CmPull pull;
	int64 last_progress_ms;
} CmPullUnderWay;

struct CmExecHost
{
	dlist_node node;
	MemoryContext context;
	int id;
	char *name;
	const CmExecutorType *type;
	MemoryContext type_context; /* NULL, or of what follows */
	void *of_type;				/* what the type keeps of it */
	CmHostAddress address;		/* its texts are in address_context */
	MemoryContext address_context;
	CmEngine engine;
	MemoryContext registries_context;
	CmRegistryAuth *registries; /* in it */
	int n_registries;
	char *presented;	   /* the certificate that its engine showed last, PEM; NULL: none */
	char tls_problem[512]; /* of certificates that were renewed; as logged */
	bool is_configured;	   /* its row is there */
	bool is_active;
	int slots;
	int weight;
	bool auto_pull_images;
	bool require_userns;
	char *removed_by;			  /* it is to go, its jobs with it; NULL: it is not */
	int64 enabled_since_ms;		  /* when it was last made active; 0: it always was */
	char accepted_engine_id[128]; /* by an administrator, in place of engine_id; or "" */

	CmHostPhase phase;
	CmHttpRequest *request; /* version, info, marks or list */
	CmHttpRequest *events;
	int64 list_begun_ms;
	int64 next_ms;	/* next try, or next list */
	int64 info_ms;	/* when it is to be asked for its facts again */
	int64 asked_us; /* when the look under way began */
	int64 ready_since_ms;
	int failures;
	int connection;			/* counts connections lost */
	int64 engine_at_us;		/* the engine's clock when it was last asked, ... */
	CmEngineMemory memory;	/* ... and how far back it remembered then */
	int n_memory_failures;	/* since it last said */
	TimestampTz away_since; /* 0: it is there */
	int64 away_since_ms;	/* the same by the clock of now_ms */

	bool state_changed; /* what follows is to be recorded */
	char engine_version[64];
	CmEngineFacts facts;
	bool has_facts;		 /* of this connection or an earlier one */
	char engine_id[128]; /* the engine that its jobs are on; "": any */
	char error[512];
	char hint[512];
	bool drain_wanted; /* silent for too long: to be recorded as disabled */
	int64 drain_not_before_ms;

	CmPacer pacer;	   /* bounds, once it is begun, ... */
	int n_starting;	   /* ... the tasks that hold one of its start slots */
	int64 last_chosen; /* grows with each job that it is given */
	dlist_head pulls;
	CmStray *strays;
	int n_strays;
	bool strays_are_new;  /* not looked up since the last list */
	int n_removing;		  /* of them, under way */
	bool has_more_strays; /* to be removed when these are */
	int n_unmarking;	  /* old marks being removed */
	bool may_be_purged;	  /* the extension was dropped, and what is there is ours */
	bool is_purged;		  /* nothing of ours was left at the last look */
	bool was_listed;	  /* once since this process began */
	bool is_marked;		  /* our mark was made and is to be seen */
};

/* --- tasks --- */

/* The output of one attempt. */
typedef struct CmTaskLogs
{
	/* what is stored or about to be */
	int64 n_records;
	int64 hash; /* over all of them */
	int64 n_bytes;
	int seq[2]; /* next chunk per stream */
	bool incomplete;
	bool is_full; /* over its limit: no more is kept */

	/* what waits for the next transaction */
	StringInfoData numbers[2]; /* int64 each */
	StringInfoData times[2];   /* int64 */
	StringInfoData lengths[2]; /* int32 */
	StringInfoData bytes[2];
	int64 waiting_since_ms; /* 0: nothing waits */
	bool drop_stored;		/* what is stored is to be replaced */

	/* the reading that is under way */
	CmHttpRequest *request;
	CmLogStream stream;
	bool is_following;
	bool is_over;	 /* the request is done, bytes may be unread */
	bool is_stalled; /* bytes are left unread until some are stored */
	int64 to_skip;	 /* records that are stored already */
	int64 skipped_hash;
	int64 n_read;	   /* records read in all */
	bool mismatch;	   /* what was skipped is not what is stored */
	bool engine_error; /* the engine says in it that it cannot go on */
	bool was_replaced;
	int n_tries;
	int64 retry_ms;		 /* when to read again what failed; 0: not */
	int64 watch_ms;		 /* since when its bytes are counted, ... */
	int64 watched_bytes; /* ... to see that they do not stop coming */
} CmTaskLogs;

/*
 * So often an engine may say no in one attempt to what should have worked, as to
 * removals (what is left is then found by a later list) or to a name that no
 * container has, or lose what it has just made, before it is believed.
 */
#define CM_MAX_REFUSALS 8

struct CmTask
{
	dlist_node node;
	MemoryContext context;
	CmJobSpec spec;
	const CmSealed *secrets; /* of spec.secrets, or NULL */
	CmProblem *problem;
	CmExecHost *host;
	char *container_name;
	int pids_limit;								/* the setting's when it was made */
	CmImageUser image_user;						/* as far as it is known, ... */
	bool has_image_user;						/* ... once its image was asked */
	char probe_id[CM_CONTAINER_ID_LEN + 1];		/* a container to read its files from */
	char spec_hash[65];							/* of the container to be; "": not known yet */
	char container_id[CM_CONTAINER_ID_LEN + 1]; /* "": not known */
	TimestampTz claimed_at;
	TimestampTz started_at;

	CmSituation s;
	CmDecision end;	   /* of a job whose end is being recorded */
	int64 wake_ms;	   /* 0: not by time */
	bool is_ending;	   /* output is read, then the end is recorded */
	bool wants_output; /* ... and it is not read yet */
	bool is_recorded;  /* ... and it was */
	bool holds_start_slot;
	bool waits_for_slot;
	bool waits_for_id;	/* saved, not yet committed */
	int64 retry_ms;		/* not 0: what it has to record waits until then, */
	int n_unstored;		/* for it could not be stored, so often in a row; */
	bool is_locked_out; /* or for somebody has its row locked */
	bool look_again;	/* something happened: inspect */
	bool image_pulled;
	bool must_ask_memory;		/* whether the engine was restarted since */
	bool saw_start;				/* an event told that it was started */
	bool saw_oom;				/* likewise that a process of it was killed for memory */
	int foreign_signal;			/* sent by somebody else; it may live with it */
	bool is_signalling;			/* a signal of ours is under way */
	bool settling;				/* removed unstarted; events may still come */
	bool is_half_made;			/* its container is not yet attached to all it is to have */
	int n_looked_at;			/* networks, then volumes, before it is made */
	int n_joined;				/* networks */
	int n_given;				/* volumes that have their owner */
	const char **volume_owners; /* as they were asked for, each NULL or text; NULL: none */
	bool waits_for_asked;		/* for what was asked of its host before */
	CmReason start_refusal;		/* the engine's answer, inspect to confirm it */
	int connection;				/* of the host when it was started */
	int n_looks;				/* inspects that an unsure start has had */
	int n_failures;				/* of calls in a row */
	int64 failing_since_ms;		/* the first of them */
	int n_refusals;				/* answers in a row that said no */
	int n_lost;					/* containers that were gone as soon as they were made */
	int64 created_ms;			/* when its container was made; 0: not by us */
	int64 follow_ms;			/* when to begin following its output */
	int64 look_ms;				/* when to inspect it, though nothing happens; 0: not */
	void *of_type;				/* what the host's type keeps of it, in its context */

	CmHttpRequest *request; /* the one call in flight */
	CmPullUnderWay *pull;	/* or what it waits for */
	CmInspect seen;			/* of an exited container */
	TimestampTz engine_started_at;
	TimestampTz engine_finished_at;
	char *error; /* of a refusal */
	char *error_detail;
	char *error_hint;
	char *detail; /* what the row says, or should */
	bool detail_changed;
	CmTaskLogs logs;
};

/* A transition that waits for the next transaction. */
typedef struct CmWaitingRecord
{
	dlist_node node;
	MemoryContext context;
	CmTask *task;
	CmRecord record;
} CmWaitingRecord;

/* --- the executor --- */

#define CM_MAX_DB_STEPS 24

typedef struct CmExecutor
{
	CmHttp *http;
	CmIdentity identity;
	Oid extension;
	MemoryContext context;		/* for as long as the process lives */
	MemoryContext turn_context; /* reset every turn */
	dlist_head hosts;
	dlist_head tasks;
	dlist_head records;
	dlist_head asked; /* of hosts: see executor_asked.c */
	int64 now_ms;	  /* when this turn began */

	/* the database's side */
	bool db_wanted;			/* there is something to record or to take */
	bool slots_changed;		/* a slot became free, or a host usable */
	int64 db_not_before_ms; /* after an error, or a lock in the way */
	int64 next_poll_ms;
	int64 next_due_ms; /* the next run_at or expiry; 0: none */
	int db_failures;
	int careful_turns;						   /* steps go into transactions of their own */
	int64 step_not_before_ms[CM_MAX_DB_STEPS]; /* a step that failed waits alone */
	int64 hosts_mark;
	bool hosts_loaded;
	int64 n_chosen; /* claims so far, for the order of hosts' turns */
	int64 placements_check_ms;
	bool no_placements;		 /* as last seen, and no job came since */
	bool has_ready;			 /* pending jobs that found no slot */
	bool has_orphans;		 /* jobs under way whose host's row is gone */
	bool has_old_pending;	 /* at the start, jobs up to identity.old_jobs_up_to */
	bool schedule_is_behind; /* jobs may wait for what has happened: look all through */
	int64 pauses_mark;		 /* -1: not yet looked at */
	int64 publish_check_ms;
	int64 certificate_check_ms;
	int64 log_bytes_waiting; /* of all tasks */
	bool may_give_back;		 /* tasks were freed since memory was last given back */
	int64 give_back_not_before_ms;
	bool is_dropped;
	int superseded_by;		/* another server's incarnation; 0: we are in charge */
	char superseded_on[64]; /* the host that shows it */
	CmExecutorCounters counters;
} CmExecutor;

extern CmExecutor cm_ex;

/* executor.c */
extern int64 cm_executor_now_ms(void);

/* executor_hosts.c */
extern void cm_hosts_apply_rows(const CmHostRow *rows, int n);
extern CmExecHost *cm_hosts_find(int id);
extern bool cm_host_has_tasks(const CmExecHost *host);
/* What is due by the clock; returns the next time that anything is. */
extern int64 cm_hosts_tick(void);
/* Something went wrong with a call: look whether the host is still there. */
extern void cm_host_suspect(CmExecHost *host);
/* For placement: an array of the hosts, in the current context. */
extern CmCandidate *cm_hosts_candidates(int *n);
/*
 * Jobs up to this one may have been started on a host that was not yet looked at,
 * by the server before us: they must not be started elsewhere.
 */
extern int64 cm_hosts_unsure_jobs_up_to(void);
/* Memory that is not in a context of ours. */
extern void cm_hosts_free_all(void);
/* Of a list in order: the first of *count containers of the task's attempt, or NULL. */
extern CmListed *cm_hosts_find_listed(CmListed *listed, int n, const CmTask *task, int *count);
extern void cm_host_drop_requests(CmExecHost *host);
/* All tasks there wait, and it is tried again after a pause: at next_ms. */
extern void cm_host_lose(CmExecHost *host, const char *error, const char *hint);
/* Tasks and claims may go on; next_ms is when it is looked at next. */
extern void cm_host_become_ready(CmExecHost *host);
/* Removes the mark of that incarnation from the host. */
extern void cm_host_remove_mark(CmExecHost *host, int incarnation);

/* executor_pulls.c */
extern void cm_host_pull(CmExecHost *host, CmTask *task);
extern void cm_host_leave_pull(CmTask *task);
extern void cm_host_end_stalled_pulls(CmExecHost *host);

/* executor_strays.c */
/* The host was listed: of what is in order there, keeps what no task claims. */
extern void cm_host_keep_strays(CmExecHost *host, CmListed *listed, int n);
/* What the database knows of the host's strays; removes those that may go. */
extern void cm_hosts_judge_strays(CmExecHost *host, const int *attempts);

/* executor_purge.c */
/* Removes all our containers from all hosts that answer. */
extern void cm_hosts_begin_purge(void);
extern bool cm_hosts_purge_is_done(void);
extern void cm_hosts_warn_of_unpurged(void);

/* executor_health.c */
/* Marks the begin of a look, and its end. */
extern void cm_health_begin_look(CmExecHost *host);
extern void cm_health_note_answer(const CmExecHost *host);
extern void cm_health_note_silence(const CmExecHost *host);
/*
 * Takes what the engine tells of itself.  false: it is not the engine that the
 * host's unfinished jobs are on, nor one that an administrator accepted; then
 * error and hint say so, and nothing may be done there.
 */
extern bool cm_health_take_facts(CmExecHost *host, const CmEngineFacts *facts, char *error,
								 size_t error_size, char *hint, size_t hint_size);
/* May jobs be started on what answers there?  NULL: yes; else why not. */
extern const char *cm_health_objection(const CmExecHost *host);
/*
 * What follows when a host is silent for long: it is disabled, or its jobs are
 * given up, where an administrator said so.  Returns the next time, or 0.
 */
extern int64 cm_health_tick(CmExecHost *host);

/* executor_tasks.c */
extern CmTask *cm_task_new(const CmTaken *taken, bool is_recovered);
extern void cm_task_step(CmTask *task);
/* Releases everything it holds; the task is gone then. */
extern void cm_task_free(CmTask *task);
extern CmTask *cm_task_find(int64 job_id, int attempt);
extern void cm_task_cancel(CmTask *task);
/* An administrator says that its host is gone for good. */
extern void cm_task_abandon(CmTask *task, const char *by, const char *reason);
/* Says in the record of an end whether, and when, another attempt follows. */
extern void cm_task_plan_retry(const CmJobSpec *spec, CmRecord *record);
/* The host's full list says this of the task; NULL: it is not on it. */
extern void cm_task_note_listed(CmTask *task, const CmListed *listed);
extern void cm_task_note_event(CmTask *task, const CmEvent *event);
extern void cm_task_note_pulled(CmTask *task, bool is_there, const char *error);
extern void cm_task_note_host_lost(CmTask *task);
extern void cm_task_set_detail(CmTask *task, const char *detail);
/* A record of it was committed. */
extern void cm_task_note_recorded(CmTask *task, const CmRecord *record);
/* Its output has been read, as far as it can be. */
extern void cm_task_note_output_read(CmTask *task);
/* A SIGTERM was accepted. */
extern void cm_task_note_term(CmTask *task);
extern void cm_task_give_start_slots(CmExecHost *host);
extern int64 cm_tasks_tick(void);

/* For the task's life; NULL stays NULL. */
extern char *cm_task_keep_text(CmTask *task, const char *text);
extern void cm_task_release_start_slot(CmTask *task);

/* executor_calls.c */
extern void cm_call_inspect(CmTask *task);
extern void cm_call_recall(CmTask *task);
extern void cm_call_create(CmTask *task);
extern void cm_call_start(CmTask *task);
/* Removes a container that was never started; then the task settles a while. */
extern void cm_call_discard(CmTask *task);
extern void cm_call_term(CmTask *task);
extern void cm_call_kill(CmTask *task);
extern void cm_call_remove(CmTask *task);
/* The call in flight is over, or given up; its request is freed by the caller. */
extern CmTask *cm_call_end(void *task);
extern void cm_task_end_settling(CmTask *task);
/* It will not be started, and why; error, detail and hint are copied. */
extern void cm_task_refuse(CmTask *task, CmReason reason, const char *error, const char *detail,
						   const char *hint);

/* The call failed in transport: nothing is known until it was looked at again. */
extern void cm_call_lose_sight(CmTask *task);
extern void cm_call_note_image_missing(CmTask *task, const CmFault *fault);
extern void cm_call_note_create_refused(CmTask *task, const CmFault *fault);
/* The create body of the task; spec_hash is set. */
extern char *cm_call_make_body(CmTask *task);

/* executor_guard.c */
/* Is what was made what was asked for?  false: it is refused. */
extern bool cm_guard_check_made(CmTask *task, const CmInspect *inspect);
/* run_as is 'image', and who that is was not yet found out. */
extern bool cm_guard_needs_user(const CmTask *task);
/* Finds it out, then steps the task. */
extern void cm_guard_find_user(CmTask *task);

/* What follows from a fault of any kind that says nothing of the task itself. */
extern void cm_call_note_fault(CmTask *task, const CmFault *fault);

/* executor_attach.c */
/* Before the container is made: begins the next look; false: none is left. */
extern bool cm_attach_begin_look(CmTask *task);
/* There it is, and its id is not recorded: is_half_made says whether more is to do. */
extern void cm_attach_note_made(CmTask *task);
/* While it is half made: begins what is next, or ends that. */
extern void cm_attach_go_on(CmTask *task);
/* Does an engine's refusal concern a network? */
extern bool cm_attach_is_network_refusal(const CmFault *fault);
extern const char *cm_attach_tell_network(const CmTask *task, const CmFault *fault);

/* executor_asked.c */
/* Something is asked of the host that was not done yet: jobs come after it. */
extern bool cm_asked_is_waiting(const CmExecHost *host);
/* In a transaction: takes what is new, records what is done. */
extern void cm_asked_load(void);
extern void cm_asked_save(void);
/* After its commit. */
extern void cm_asked_note_saved(void);
/* The extension is gone, or another server is in charge. */
extern void cm_asked_forget_all(void);
/* What is due by the clock; returns the next time that anything is, or 0. */
extern int64 cm_asked_tick(void);

/* executor_words.c */
/* Says why the attempt ended as it did: error, hint, and the engine's words
 * (detail), each NULL where there is nothing to say; in the turn's context. */
extern void cm_words_of_end(const CmTask *task, const CmDecision *end, CmRecord *record);
/* What is said of a job whose attempt is followed by another one. */
extern const char *cm_words_of_retry(const CmJobSpec *spec, const CmRecord *record);
/* What to do about an engine's refusal, or NULL. */
extern const char *cm_words_hint_of_refusal(const CmFault *fault);

/* executor_spec.c */
extern void cm_spec_copy(CmJobSpec *to, const CmJobSpec *from, MemoryContext context);

/* executor_secrets.c */
extern const CmSealed *cm_secrets_keep(const CmSealed *secrets, int n, MemoryContext context);
/* The body of its create request, to be wiped where it has secrets; NULL: they cannot
 * be opened, and the task is refused. */
extern char *cm_secrets_make_body(CmTask *task);
extern void cm_secrets_keep_registries(CmExecHost *host, const CmHostRow *row);
/* What the registry of its image is told of us, or NULL; false: it cannot be told, and
 * the task is refused. */
extern bool cm_secrets_make_registry_auth(CmTask *task, char **header);
/* Wiped and freed; NULL: nothing. */
extern void cm_secrets_wipe_text(char *text);

/* executor_logs.c */
extern void cm_logs_init(CmTaskLogs *logs, const CmTaken *taken);
extern void cm_logs_free(CmTaskLogs *logs);
extern void cm_logs_follow(CmTask *task);
/* Reads what is there to the end; then cm_task_note_output_read(). */
extern void cm_logs_collect(CmTask *task);
extern void cm_logs_stop(CmTask *task);
/* Keeps what was read, up to log_limit or max_log_size. */
extern void cm_logs_keep_record(CmTask *task, const CmLogRecord *record);
extern bool cm_logs_are_waiting(const CmTask *task);
/* In a transaction: stores what waits; false: it cannot be stored now. */
extern bool cm_logs_store(CmTask *task, int *seq);
/* After its commit. */
extern void cm_logs_note_stored(CmTask *task, const int *seq);
/* There is room again: reads on where reading had stopped for want of it. */
extern void cm_logs_read_on(void);
/* What is due by the clock; returns the next time that anything is, or 0. */
extern int64 cm_logs_tick(CmTask *task);

/* executor_db.c */
/* BLOCKED and HELD: to be tried again. */
extern CmStoreOpening cm_db_open(void);
/* We are superseded; false: it could not be recorded now. */
extern bool cm_db_record_superseded(void);
extern void cm_db_record(CmTask *task, const CmRecord *record);
extern void cm_db_forget_task(CmTask *task);
/* When the next transaction is due by the clock, or by what waits. */
extern int64 cm_db_next_ms(void);
extern void cm_db_turn(uint32 wake_flags);

#endif /* CM_EXECUTOR_INTERNAL_H */
