/*
 * shmem.c
 *		What processes of one server tell each other about executors.
 *
 * One block of fixed size, found by name: preloaded it is made when the server
 * starts, else by the first process that needs it, out of the room that the
 * server leaves to spare.
 *
 * Two ways of access.  What people read and what starts and stops processes is
 * under one lock.  What is done in commit callbacks goes without, by atomics:
 * a process that commits sets flags and then looks for an executor; one that
 * leaves clears its place and then looks at the flags.  Whichever is second
 * sees the other, so a wake-up is never lost between the two.  The worst that
 * a slot changing hands under such a reader can do is to wake somebody for
 * nothing.
 *
 * Nothing that may throw is called while the lock is held.  Slots are left in
 * before_shmem_exit, when this process still has its place in the process
 * array; a process that dies without it takes the server's shared memory,
 * and so this block, with it.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "shmem.h"

#define MAX_REQUESTS 64
#define MAX_HOLDS 8 /* of one transaction */

/* A start that has brought nothing by then may be tried again. */
#define START_IS_STALE_MS 10000

typedef struct CmSlot
{
	pg_atomic_uint32 database; /* 0: the slot is free; written under the lock */
	pg_atomic_uint32 proc;	   /* index of the executor's process + 1; 0: none */
	pg_atomic_uint32 wake_flags;
	pg_atomic_uint32 phase;
	pg_atomic_uint32 n_holds; /* transactions that keep executors out */

	/* under the lock, but for last_turn_at and the counters */
	bool is_stopped;
	CmExecutorStatus status; /* database and phase: in copies only */
} CmSlot;

/* proc is cleared without the lock and set last under it. */
typedef struct CmWaiter
{
	pg_atomic_uint32 proc; /* index + 1; 0: the place is free */
	Oid database;
	int64 job_id;
} CmWaiter;

/* Under the lock. */
typedef struct SharedPulse
{
	Oid database; /* InvalidOid: the place is free */
	CmPulse pulse;
} SharedPulse;

typedef struct CmShared
{
	LWLock lock;
	pg_atomic_uint32 launcher_proc; /* index + 1; 0: none */
	pg_atomic_uint32 n_waiters;
	pg_atomic_uint32 requests[MAX_REQUESTS]; /* databases; 0: free */
	CmSlot slots[CM_MAX_DATABASES];
	CmWaiter waiters[CM_MAX_WAITERS];
	SharedPulse pulses[CM_MAX_PULSES];
} CmShared;

static CmShared *shared = NULL;
static bool is_preloaded = false;
static shmem_request_hook_type next_shmem_request = NULL;
static shmem_startup_hook_type next_shmem_startup = NULL;

/* Of this process. */
static CmSlot *my_slot = NULL;
static CmWaiter *my_waiter = NULL;
static bool is_launcher = false;
static bool exit_callback_is_set = false;

/* Of this process' transaction. */
static bool xact_callback_is_set = false;
static uint32 flags_at_commit = 0;
static Oid held_databases[MAX_HOLDS];
static int n_held_databases = 0;

/* --- getting at it --- */

static void
init_shared(void)
{
	memset(shared, 0, sizeof(CmShared));
	LWLockInitialize(&shared->lock, LWLockNewTrancheId());
	pg_atomic_init_u32(&shared->launcher_proc, 0);
	pg_atomic_init_u32(&shared->n_waiters, 0);
	for (int i = 0; i < MAX_REQUESTS; i++)
		pg_atomic_init_u32(&shared->requests[i], 0);
	for (int i = 0; i < CM_MAX_WAITERS; i++)
		pg_atomic_init_u32(&shared->waiters[i].proc, 0);
	for (int i = 0; i < CM_MAX_DATABASES; i++)
	{
		pg_atomic_init_u32(&shared->slots[i].database, InvalidOid);
		pg_atomic_init_u32(&shared->slots[i].proc, 0);
		pg_atomic_init_u32(&shared->slots[i].wake_flags, 0);
		pg_atomic_init_u32(&shared->slots[i].phase, CM_PHASE_NONE);
		pg_atomic_init_u32(&shared->slots[i].n_holds, 0);
	}
}

static void
map_shared(void)
{
	bool found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("container_manager", sizeof(CmShared), &found);
	if (!found)
		init_shared();
	LWLockRelease(AddinShmemInitLock);
	LWLockRegisterTranche(shared->lock.tranche, "container_manager");
}

static inline void
attach(void)
{
	if (shared == NULL)
		map_shared();
}

static void
request_room(void)
{
	if (next_shmem_request != NULL)
		next_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(CmShared)));
}

/* Runs again after a crash of the server, on new memory. */
static void
start_up(void)
{
	if (next_shmem_startup != NULL)
		next_shmem_startup();
	map_shared();
}

void
cm_shmem_install_hooks(void)
{
	is_preloaded = true;
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_room;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = start_up;
}

bool
cm_shmem_is_preloaded(void)
{
	return is_preloaded;
}

/* --- parts --- */

/* A number read from a place that its process may have left meanwhile. */
static void
set_latch_of(uint32 proc)
{
	if (proc != 0)
		SetLatch(&GetPGProcByNumber(proc - 1)->procLatch);
}

static uint32
my_proc(void)
{
	return (uint32) cm_my_proc_number() + 1;
}

static CmSlot *
find_slot(Oid database)
{
	for (int i = 0; i < CM_MAX_DATABASES; i++)
	{
		if (pg_atomic_read_u32(&shared->slots[i].database) == database)
			return &shared->slots[i];
	}
	return NULL;
}

/* Does a slot hold nothing but the memory of an earlier look? */
static bool
is_reusable(CmSlot *slot)
{
	uint32 phase = pg_atomic_read_u32(&slot->phase);

	return slot->status.pid == 0 && pg_atomic_read_u32(&slot->n_holds) == 0 &&
		   (phase == CM_PHASE_NONE || phase == CM_PHASE_NO_EXTENSION ||
			phase == CM_PHASE_DISABLED || phase == CM_PHASE_NO_WORKER_SLOT);
}

static void
reset_slot(CmSlot *slot, Oid database)
{
	pg_atomic_write_u32(&slot->database, InvalidOid);
	pg_atomic_write_u32(&slot->phase, CM_PHASE_NONE);
	pg_atomic_write_u32(&slot->wake_flags, 0);
	slot->is_stopped = false;
	memset(&slot->status, 0, sizeof(slot->status));
	pg_write_barrier();
	pg_atomic_write_u32(&slot->database, database);
}

/* Under the lock.  NULL: all are taken. */
static CmSlot *
find_or_make_slot(Oid database)
{
	CmSlot *slot = find_slot(database);

	if (slot == NULL)
		slot = find_slot(InvalidOid);
	for (int i = 0; slot == NULL && i < CM_MAX_DATABASES; i++)
	{
		if (is_reusable(&shared->slots[i]))
			slot = &shared->slots[i];
	}
	if (slot != NULL && pg_atomic_read_u32(&slot->database) != database)
		reset_slot(slot, database);
	return slot;
}

static void
wake_launcher(void)
{
	set_latch_of(pg_atomic_read_u32(&shared->launcher_proc));
}

/*
 * Without a lock.  Two processes may enter the same database twice, which
 * does no harm; when all places are taken the launcher has work enough, and
 * the next commit asks again.
 */
static void
post_request(Oid database)
{
	bool is_posted = !is_preloaded;

	for (int i = 0; !is_posted && i < MAX_REQUESTS; i++)
		is_posted = pg_atomic_read_u32(&shared->requests[i]) == database;
	for (int i = 0; !is_posted && i < MAX_REQUESTS; i++)
	{
		uint32 expected = 0;

		is_posted = pg_atomic_compare_exchange_u32(&shared->requests[i], &expected, database);
	}
	wake_launcher();
}

/*
 * Whoever releases a hold lowers the count and then reads the phase; here the
 * phase is written and then the count is read: one of the two asks for the
 * executor.
 */
static void
mark_held(CmSlot *slot)
{
	pg_atomic_write_u32(&slot->phase, CM_PHASE_HELD);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&slot->n_holds) == 0)
		post_request(pg_atomic_read_u32(&slot->database));
}

/* Under the lock: is the database closed to executors?  Leaves the phase that
 * says why. */
static bool
is_kept_out(CmSlot *slot)
{
	if (pg_atomic_read_u32(&slot->n_holds) > 0)
		mark_held(slot);
	else if (slot->is_stopped)
		pg_atomic_write_u32(&slot->phase, CM_PHASE_STOPPED);
	else
		return false;
	return true;
}

/* --- the hosts' pulse --- */

static SharedPulse *
find_pulse(Oid database, int host_id)
{
	for (int i = 0; i < CM_MAX_PULSES; i++)
	{
		SharedPulse *found = &shared->pulses[i];

		if (found->database == database &&
			(found->pulse.host_id == host_id || database == InvalidOid))
			return found;
	}
	return NULL;
}

void
cm_shmem_note_pulse(int host_id, TimestampTz checked_at, int64 response_us, int failures)
{
	SharedPulse *found;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	found = find_pulse(MyDatabaseId, host_id);
	if (found == NULL)
		found = find_pulse(InvalidOid, 0);
	if (found != NULL)
	{
		found->database = MyDatabaseId;
		found->pulse = (CmPulse){host_id, checked_at, response_us, failures};
	}
	LWLockRelease(&shared->lock);
}

void
cm_shmem_forget_pulse(int host_id)
{
	SharedPulse *found;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	found = find_pulse(MyDatabaseId, host_id);
	if (found != NULL)
		found->database = InvalidOid;
	LWLockRelease(&shared->lock);
}

/* Under the lock. */
static void
forget_pulses(Oid database)
{
	for (int i = 0; i < CM_MAX_PULSES; i++)
		if (shared->pulses[i].database == database)
			shared->pulses[i].database = InvalidOid;
}

int
cm_shmem_read_pulses(CmPulse *pulses)
{
	int n = 0;

	attach();
	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < CM_MAX_PULSES; i++)
		if (shared->pulses[i].database == MyDatabaseId)
			pulses[n++] = shared->pulses[i].pulse;
	LWLockRelease(&shared->lock);
	return n;
}

/* --- leaving --- */

static void
leave_executor(void)
{
	CmSlot *slot = my_slot;
	Oid database = pg_atomic_read_u32(&slot->database);
	uint32 phase = pg_atomic_read_u32(&slot->phase);
	uint32 flags;

	my_slot = NULL;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot->status.pid = 0;
	slot->status.blocked_on[0] = '\0';
	slot->status.n_blockers = 0;
	pg_atomic_write_u32(&slot->proc, 0);
	forget_pulses(database);
	if (phase != CM_PHASE_NO_EXTENSION && phase != CM_PHASE_DISABLED && !is_kept_out(slot))
		pg_atomic_write_u32(&slot->phase, CM_PHASE_CRASHED);
	flags = pg_atomic_exchange_u32(&slot->wake_flags, 0);
	LWLockRelease(&shared->lock);

	/* CREATE EXTENSION may have been committed since this process looked */
	if ((flags & CM_WAKE_EXTENSION) != 0 && phase == CM_PHASE_NO_EXTENSION)
		post_request(database);
	wake_launcher();
}

static void
release_hold(Oid database)
{
	CmSlot *slot = find_slot(database);

	if (slot != NULL && pg_atomic_sub_fetch_u32(&slot->n_holds, 1) == 0 &&
		pg_atomic_read_u32(&slot->phase) == CM_PHASE_HELD)
		post_request(database);
}

static void
release_holds(void)
{
	while (n_held_databases > 0)
		release_hold(held_databases[--n_held_databases]);
}

static void
leave_at_exit(int code, Datum arg)
{
	release_holds();
	cm_shmem_leave_waiter();
	if (my_slot != NULL)
		leave_executor();
	if (is_launcher)
		pg_atomic_write_u32(&shared->launcher_proc, 0);
	is_launcher = false;
}

/* Comes before any state that would have to be left. */
static void
ensure_exit_callback(void)
{
	attach();
	if (exit_callback_is_set)
		return;
	before_shmem_exit(leave_at_exit, (Datum) 0);
	exit_callback_is_set = true;
}

/*
 * Runs after the transaction has become visible to others.  Neither throws nor
 * allocates nor locks: an error after the commit would bring the server down.
 * A prepared transaction wakes nobody; its rows are found by the next poll.
 */
static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (flags_at_commit != 0)
				cm_shmem_wake(MyDatabaseId, flags_at_commit);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	flags_at_commit = 0;
	release_holds();
	cm_shmem_leave_waiter();
}

static void
ensure_xact_callback(void)
{
	ensure_exit_callback();
	if (xact_callback_is_set)
		return;
	RegisterXactCallback(end_transaction, NULL);
	xact_callback_is_set = true;
}

/* --- executors --- */

bool
cm_shmem_enter_executor(Oid database)
{
	CmSlot *slot;
	bool is_mine;

	ensure_exit_callback();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(database);
	is_mine = slot != NULL && slot->status.pid == 0 && !is_kept_out(slot);
	if (is_mine)
	{
		slot->status.pid = MyProcPid;
		slot->status.started_at = GetCurrentTimestamp();
		slot->status.last_turn_at = 0;
		memset(&slot->status.counters, 0, sizeof(slot->status.counters));
		pg_atomic_write_u32(&slot->wake_flags, 0);
		pg_atomic_write_u32(&slot->phase, CM_PHASE_STARTING);
		pg_atomic_write_u32(&slot->proc, my_proc());
		my_slot = slot;
	}
	LWLockRelease(&shared->lock);
	return is_mine;
}

void
cm_shmem_begin_work(void)
{
	if (my_slot == NULL)
		return;
	pg_atomic_fetch_or_u32(&my_slot->wake_flags, CM_WAKE_ALL);
	pg_atomic_write_u32(&my_slot->phase, CM_PHASE_AT_WORK);
	wake_launcher();
}

void
cm_shmem_set_phase(Oid database, CmExecutorPhase phase)
{
	CmSlot *slot;

	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot != NULL)
		pg_atomic_write_u32(&slot->phase, phase);
	LWLockRelease(&shared->lock);
}

uint32
cm_shmem_take_wake_flags(void)
{
	return my_slot == NULL ? 0 : pg_atomic_exchange_u32(&my_slot->wake_flags, 0);
}

void
cm_shmem_note_turn(const CmExecutorCounters *counters)
{
	if (my_slot == NULL)
		return;
	my_slot->status.last_turn_at = GetCurrentTimestamp();
	my_slot->status.counters = *counters;
}

static void
copy_clipped(char *to, size_t to_size, const char *text)
{
	int n = pg_mbcliplen(text, (int) strlen(text), (int) to_size - 1);

	memcpy(to, text, n);
	to[n] = '\0';
}

void
cm_shmem_note_error(const char *message)
{
	TimestampTz now = GetCurrentTimestamp();

	if (my_slot == NULL)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	copy_clipped(my_slot->status.last_error, sizeof(my_slot->status.last_error), message);
	my_slot->status.last_error_at = now;
	LWLockRelease(&shared->lock);
}

void
cm_shmem_note_blockers(const char *table, const int *pids, int n_pids)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	copy_clipped(my_slot->status.blocked_on, sizeof(my_slot->status.blocked_on),
				 table == NULL ? "" : table);
	my_slot->status.n_blockers = table == NULL ? 0 : Min(n_pids, CM_MAX_BLOCKERS);
	for (int i = 0; i < my_slot->status.n_blockers; i++)
		my_slot->status.blockers[i] = pids[i];
	LWLockRelease(&shared->lock);
}

bool
cm_shmem_executor_status(Oid database, CmExecutorStatus *status)
{
	CmSlot *slot;

	attach();
	memset(status, 0, sizeof(*status));
	LWLockAcquire(&shared->lock, LW_SHARED);
	slot = find_slot(database);
	if (slot != NULL)
	{
		*status = slot->status;
		status->phase = (CmExecutorPhase) pg_atomic_read_u32(&slot->phase);
	}
	LWLockRelease(&shared->lock);
	status->database = database;
	return slot != NULL;
}

/* --- waking --- */

/*
 * Would a process that looks at the database find more than was found before?
 * In the other phases the launcher starts one by itself, or must not.
 */
static bool
is_worth_a_look(uint32 phase, uint32 flags)
{
	return phase == CM_PHASE_NONE || phase == CM_PHASE_NO_EXTENSION ||
		   (phase == CM_PHASE_DISABLED && (flags & CM_WAKE_EXTENSION) != 0);
}

void
cm_shmem_wake(Oid database, uint32 flags)
{
	CmSlot *slot;
	uint32 earlier;
	uint32 proc;

	if (shared == NULL)
		return;
	slot = find_slot(database);
	if (slot == NULL)
	{
		post_request(database);
		return;
	}

	/* flags before proc, see the head of this file */
	earlier = pg_atomic_fetch_or_u32(&slot->wake_flags, flags);
	proc = pg_atomic_read_u32(&slot->proc);
	if (proc != 0)
	{
		if ((earlier & flags) != flags)
			set_latch_of(proc);
	}
	else if (is_worth_a_look(pg_atomic_read_u32(&slot->phase), flags))
		post_request(database);

	/* the slot went to another database meanwhile */
	if (pg_atomic_read_u32(&slot->database) != database)
		post_request(database);
}

void
cm_shmem_wake_at_commit(uint32 flags)
{
	ensure_xact_callback();
	flags_at_commit |= flags;
}

/* --- waiters --- */

bool
cm_shmem_enter_waiter(int64 job_id)
{
	ensure_xact_callback();
	cm_shmem_leave_waiter();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; my_waiter == NULL && i < CM_MAX_WAITERS; i++)
	{
		if (pg_atomic_read_u32(&shared->waiters[i].proc) == 0)
			my_waiter = &shared->waiters[i];
	}
	if (my_waiter != NULL)
	{
		my_waiter->database = MyDatabaseId;
		my_waiter->job_id = job_id;
		pg_atomic_write_u32(&my_waiter->proc, my_proc());
		pg_atomic_fetch_add_u32(&shared->n_waiters, 1);
	}
	LWLockRelease(&shared->lock);
	return my_waiter != NULL;
}

void
cm_shmem_leave_waiter(void)
{
	if (my_waiter == NULL)
		return;
	pg_atomic_write_u32(&my_waiter->proc, 0);
	pg_atomic_fetch_sub_u32(&shared->n_waiters, 1);
	my_waiter = NULL;
}

static bool
is_among(int64 job_id, const int64 *job_ids, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (job_ids[i] == job_id)
			return true;
	}
	return false;
}

/* The lock keeps places from being taken anew while they are read. */
void
cm_shmem_wake_waiters(const int64 *job_ids, int n)
{
	attach();

	/* a waiter enters and then looks at the job: either it sees the end or we
	 * see it, as a commit is as good as a barrier */
	if (n == 0 || pg_atomic_read_u32(&shared->n_waiters) == 0)
		return;
	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < CM_MAX_WAITERS; i++)
	{
		CmWaiter *waiter = &shared->waiters[i];
		uint32 proc = pg_atomic_read_u32(&waiter->proc);

		if (proc != 0 && waiter->database == MyDatabaseId && is_among(waiter->job_id, job_ids, n))
			set_latch_of(proc);
	}
	LWLockRelease(&shared->lock);
}

/* --- starting and sending away --- */

static bool
is_being_started(CmSlot *slot, TimestampTz now)
{
	return pg_atomic_read_u32(&slot->phase) == CM_PHASE_STARTING &&
		   !TimestampDifferenceExceeds(slot->status.started_at, now, START_IS_STALE_MS);
}

CmStart
cm_shmem_begin_start(Oid database)
{
	TimestampTz now = GetCurrentTimestamp();
	CmSlot *slot;
	CmStart result;

	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(database);
	if (slot == NULL)
		result = CM_START_FULL;
	else if (slot->status.pid != 0 || is_being_started(slot, now))
		result = CM_START_RUNNING;
	else if (is_kept_out(slot))
		result = CM_START_KEPT_OUT;
	else
	{
		result = CM_START_NOW;
		slot->status.started_at = now;
		pg_atomic_write_u32(&slot->phase, CM_PHASE_STARTING);
	}
	LWLockRelease(&shared->lock);
	return result;
}

bool
cm_shmem_allow(Oid database)
{
	CmSlot *slot;

	attach();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(database);
	if (slot != NULL)
	{
		slot->is_stopped = false;
		if (slot->status.pid == 0 && pg_atomic_read_u32(&slot->phase) != CM_PHASE_STARTING)
			pg_atomic_write_u32(&slot->phase, CM_PHASE_NONE);
	}
	LWLockRelease(&shared->lock);
	return slot != NULL;
}

void
cm_shmem_request(Oid database)
{
	attach();
	post_request(database);
}

/* Under the lock, which a process takes before it ends: so the pid is its. */
static int
tell_to_go(CmSlot *slot)
{
	if (slot->status.pid != 0)
		kill(slot->status.pid, SIGTERM);
	return slot->status.pid;
}

bool
cm_shmem_stop(Oid database, int *pid)
{
	CmSlot *slot;

	attach();
	*pid = 0;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(database);
	if (slot != NULL)
	{
		slot->is_stopped = true;
		*pid = tell_to_go(slot);
		if (*pid == 0)
			pg_atomic_write_u32(&slot->phase, CM_PHASE_STOPPED);
	}
	LWLockRelease(&shared->lock);
	return slot != NULL;
}

bool
cm_shmem_hold(Oid database, int *pid)
{
	CmSlot *slot;

	*pid = 0;
	ensure_xact_callback();
	if (n_held_databases == MAX_HOLDS)
		return false;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot != NULL)
	{
		pg_atomic_fetch_add_u32(&slot->n_holds, 1);
		held_databases[n_held_databases++] = database;
		*pid = tell_to_go(slot);
	}
	LWLockRelease(&shared->lock);
	return slot != NULL;
}

/*
 * The slot is left early in a process' end; the server counts it as connected
 * until it has left the process array.
 */
static bool
is_gone(Oid database, int pid)
{
	CmExecutorStatus status;

	cm_shmem_executor_status(database, &status);
	return status.pid != pid && BackendPidGetProc(pid) == NULL;
}

bool
cm_shmem_await_exit(Oid database, int pid, int timeout_ms)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);

	while (!is_gone(database, pid))
	{
		if (GetCurrentTimestamp() >= deadline)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 5,
						 cm_wait_event("ContainerManagerStepAside"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* --- the launcher --- */

void
cm_shmem_enter_launcher(void)
{
	ensure_exit_callback();
	is_launcher = true;
	pg_atomic_write_u32(&shared->launcher_proc, my_proc());
}

bool
cm_shmem_launcher_is_there(void)
{
	attach();
	return pg_atomic_read_u32(&shared->launcher_proc) != 0;
}

bool
cm_shmem_take_request(Oid *database)
{
	for (int i = 0; i < MAX_REQUESTS; i++)
	{
		*database = pg_atomic_exchange_u32(&shared->requests[i], InvalidOid);
		if (OidIsValid(*database))
			return true;
	}
	return false;
}

int
cm_shmem_list_databases(Oid *databases)
{
	int n = 0;

	for (int i = 0; i < CM_MAX_DATABASES; i++)
	{
		databases[n] = pg_atomic_read_u32(&shared->slots[i].database);
		if (OidIsValid(databases[n]))
			n++;
	}
	return n;
}

void
cm_shmem_forget(Oid database)
{
	CmSlot *slot;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot != NULL && slot->status.pid == 0 && pg_atomic_read_u32(&slot->n_holds) == 0)
		reset_slot(slot, InvalidOid);
	LWLockRelease(&shared->lock);
}
