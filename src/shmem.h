/*
 * shmem.h
 *		What processes of one server tell each other about executors: who runs
 *		for which database, who waits for which job, whom to wake.
 *
 * Floor 1.  A few kB of fixed size, so that they can be had with or without
 * shared_preload_libraries.  No pointers and no file descriptors are kept
 * here: a process is named by its index in the server's process array, and
 * setting a latch that has changed hands meanwhile is harmless.
 *
 * All of it may be called from any process; the first use may throw where the
 * server has no room left.  What is said to be fit for commit callbacks
 * neither throws, nor allocates, nor takes a lock.
 */
#ifndef CM_SHMEM_H
#define CM_SHMEM_H

#include "postgres.h"
#include "datatype/timestamp.h"

#define CM_MAX_DATABASES 48 /* databases with an executor */
#define CM_MAX_WAITERS 512	/* sessions in cm_wait_job and its siblings */
#define CM_MAX_PULSES 512	/* hosts whose last look is told */

/* Why the executor is woken; an or of these. */
#define CM_WAKE_JOBS 0x1	  /* jobs were submitted */
#define CM_WAKE_REQUESTS 0x2  /* cancel, set_priority */
#define CM_WAKE_HOSTS 0x4	  /* cm_hosts or host_drains changed */
#define CM_WAKE_EXTENSION 0x8 /* the extension came or went */
#define CM_WAKE_ALL 0xf

typedef enum CmExecutorPhase
{
	CM_PHASE_NONE,	   /* nobody looked yet, or gone */
	CM_PHASE_STARTING, /* registered, not yet at work */
	CM_PHASE_AT_WORK,
	CM_PHASE_ON_HOLD,		 /* there, and does nothing: see identity.h */
	CM_PHASE_NO_EXTENSION,	 /* looked: the extension is not there */
	CM_PHASE_DISABLED,		 /* container_manager.enabled is off there */
	CM_PHASE_CRASHED,		 /* ended by itself; the launcher tries again */
	CM_PHASE_NO_WORKER_SLOT, /* max_worker_processes is used up */
	CM_PHASE_HELD,			 /* stepped aside for DROP DATABASE or the like */
	CM_PHASE_STOPPED		 /* sent away by cm_stop_executor() */
} CmExecutorPhase;

/* What an executor counts; read without a lock. */
typedef struct CmExecutorCounters
{
	uint64 turns;	/* of the loop */
	uint64 wakeups; /* of those, by the latch */
	uint64 transactions;
	uint64 polls; /* of those, only to look for work */
	uint64 claimed;
	uint64 finished;
	uint64 http_requests;
} CmExecutorCounters;

#define CM_MAX_BLOCKERS 8

/* A copy of a slot, for people and for the launcher. */
typedef struct CmExecutorStatus
{
	Oid database;
	int pid; /* 0: none */
	CmExecutorPhase phase;
	TimestampTz started_at;
	TimestampTz last_turn_at;
	TimestampTz last_error_at;
	char last_error[256]; /* kept over a restart */
	char blocked_on[64];  /* table that the executor could not lock */
	int n_blockers;
	int blockers[CM_MAX_BLOCKERS]; /* pids */
	CmExecutorCounters counters;
} CmExecutorStatus;

/* At library load, when preloaded. */
extern void cm_shmem_install_hooks(void);

/* Was the library loaded by shared_preload_libraries? */
extern bool cm_shmem_is_preloaded(void);

/* --- executors --- */

/*
 * Registers this process as the database's executor, phase STARTING; false:
 * there is one, or it is kept out (the phase tells).  Left when the process
 * exits; the phase it leaves behind is the one set last if that is
 * NO_EXTENSION or DISABLED, else HELD, STOPPED or CRASHED.
 */
extern bool cm_shmem_enter_executor(Oid database);
/* Phase AT_WORK, with all wake flags set: what came before must be looked at. */
extern void cm_shmem_begin_work(void);
extern void cm_shmem_set_phase(Oid database, CmExecutorPhase phase);
/* Reads and clears the wake flags of this process's slot. */
extern uint32 cm_shmem_take_wake_flags(void);
extern void cm_shmem_note_turn(const CmExecutorCounters *counters);
extern void cm_shmem_note_error(const char *message);
/* table NULL: no longer blocked. */
extern void cm_shmem_note_blockers(const char *table, const int *pids, int n_pids);
/* false: nothing is known of that database; *status says NONE. */
extern bool cm_shmem_executor_status(Oid database, CmExecutorStatus *status);

/* --- waking --- */

/*
 * Wakes the database's executor, or asks the launcher for one where there is
 * none.  Fit for commit callbacks.  Does nothing in a process that has used
 * nothing else of this file.
 */
extern void cm_shmem_wake(Oid database, uint32 flags);
/* The same for this database when the current transaction has committed. */
extern void cm_shmem_wake_at_commit(uint32 flags);

/* --- waiters --- */

/* In place of a job: woken when any job leaves its host. */
#define CM_WAITER_FOR_HOSTS 0

/*
 * Enters this session as waiting for the job's end, in place of what it waited
 * for before; false: the table is full, poll instead.  Left at the end of the
 * transaction (a commit within a procedure, too) and at exit.
 */
extern bool cm_shmem_enter_waiter(int64 job_id);
extern void cm_shmem_leave_waiter(void);
/* Sets the latch of whoever waits for one of these jobs of this database. */
extern void cm_shmem_wake_waiters(const int64 *job_ids, int n);

/* --- the hosts' pulse --- */

/* How the executor of this database last found a host. */
typedef struct CmPulse
{
	int host_id;
	TimestampTz checked_at;
	int64 response_us; /* -1: it did not answer */
	int failures;	   /* in a row */
} CmPulse;

/* In the executor only.  What is over CM_MAX_PULSES of a server is not kept. */
extern void cm_shmem_note_pulse(int host_id, TimestampTz checked_at, int64 response_us,
								int failures);
extern void cm_shmem_forget_pulse(int host_id);
/* Those of this database while its executor is there; at most CM_MAX_PULSES. */
extern int cm_shmem_read_pulses(CmPulse *pulses);

/* --- starting and sending away --- */

typedef enum CmStart
{
	CM_START_NOW,	   /* the phase is STARTING: register a worker */
	CM_START_RUNNING,  /* there is one, or one is being started */
	CM_START_KEPT_OUT, /* HELD or STOPPED */
	CM_START_FULL	   /* CM_MAX_DATABASES are taken */
} CmStart;

/* Before a worker is registered.  After NOW, a registration that fails is
 * told by cm_shmem_set_phase. */
extern CmStart cm_shmem_begin_start(Oid database);

/* Undoes cm_shmem_stop and forgets what an earlier look found.  false:
 * CM_MAX_DATABASES are taken. */
extern bool cm_shmem_allow(Oid database);
/* Asks the launcher for an executor. */
extern void cm_shmem_request(Oid database);

/*
 * Sends the executor away and keeps it out until cm_shmem_allow() or a restart
 * of the server.  *pid is the process that was told to go, 0: none was there.
 * false: too many databases to remember it.
 */
extern bool cm_shmem_stop(Oid database, int *pid);

/*
 * Sends the executor away and keeps it out until the end of this transaction
 * or of this process; then it is asked for again.  false: nothing to keep out.
 */
extern bool cm_shmem_hold(Oid database, int *pid);

/* Waits until a process that was told to go is gone; false: it is still there.
 * Interruptible. */
extern bool cm_shmem_await_exit(Oid database, int pid, int timeout_ms);

/* --- the launcher --- */

extern void cm_shmem_enter_launcher(void);
extern bool cm_shmem_launcher_is_there(void);
/* Takes a database that asked for an executor; false: none. */
extern bool cm_shmem_take_request(Oid *database);
/* The databases that something is known of; at most CM_MAX_DATABASES. */
extern int cm_shmem_list_databases(Oid *databases);
/* Frees the slot of a database that is gone or has no extension. */
extern void cm_shmem_forget(Oid database);

#endif /* CM_SHMEM_H */
