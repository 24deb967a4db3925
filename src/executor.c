/*
 * executor.c
 *		The event loop.
 *
 * One process, one loop, one blocking call: WaitEventSetWait on our latch,
 * the postmaster's death, and the one descriptor behind which libcurl's
 * sockets are hidden.  A turn takes what has arrived, moves the tasks on in
 * memory, and then makes at most one short transaction, in which everything
 * that the turn brought is recorded and new jobs are taken.  No transaction
 * is open while we wait.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "executor_internal.h"
#include "guc.h"

/* A dropped extension's containers are to be gone in half a minute. */
#define PURGE_MS 25000
#define PURGE_STEP_MS 250
#define OPEN_RETRY_MS 250
/* Between two times that memory is given back to the system. */
#define GIVE_BACK_MS 1000

CmExecutor cm_ex;

int64
cm_executor_now_ms(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

static WaitEventSet *
make_wait_set(void)
{
	WaitEventSet *set = cm_create_wait_event_set(3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, cm_http_fd(cm_ex.http), NULL, NULL);
	return set;
}

static int64
earlier(int64 a_ms, int64 b_ms)
{
	if (a_ms == 0)
		return b_ms;
	if (b_ms == 0)
		return a_ms;
	return Min(a_ms, b_ms);
}

/* When the loop must turn again though nothing happens. */
static long
compute_timeout_ms(int64 next_ms)
{
	int64 http_ms = cm_http_timeout_ms(cm_ex.http);
	int64 wait_ms = Max(next_ms - cm_executor_now_ms(), 0);

	if (http_ms >= 0)
		wait_ms = Min(wait_ms, http_ms);
	return (long) Min(wait_ms, 3600 * 1000L);
}

/* Returns the wake flags that were set. */
static uint32
wait_for_something(WaitEventSet *set, int64 next_ms)
{
	WaitEvent events[3];
	/* Whoever waited in between, for a lock or a standby, has eaten our latch. */
	uint32 flags = cm_shmem_take_wake_flags();
	int n = WaitEventSetWait(set, flags != 0 ? 0 : compute_timeout_ms(next_ms), events, 3,
							 cm_wait_event("ContainerManagerMain"));

	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			cm_ex.counters.wakeups++;
		}
	}
	return flags | cm_shmem_take_wake_flags();
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		cm_guc_reload();
		cm_ex.next_poll_ms = cm_ex.now_ms;
		cm_ex.certificate_check_ms = cm_ex.now_ms;
	}
}

static void
begin_turn(void)
{
	cm_ex.counters.turns++;
	cm_ex.now_ms = cm_executor_now_ms();
	MemoryContextSwitchTo(cm_ex.turn_context);
	MemoryContextReset(cm_ex.turn_context);
}

/*
 * What a busy time took is pages that the C library keeps, with a little in use
 * among them: by that an executor's process would grow from peak to peak.
 */
static void
give_back_memory(void)
{
#ifdef __GLIBC__
	if (!cm_ex.may_give_back || !dlist_is_empty(&cm_ex.tasks) ||
		cm_ex.now_ms < cm_ex.give_back_not_before_ms)
		return;
	malloc_trim(0);
	cm_ex.may_give_back = false;
	cm_ex.give_back_not_before_ms = cm_ex.now_ms + GIVE_BACK_MS;
#endif
}

static void
end_turn(void)
{
	give_back_memory();
	cm_ex.counters.transactions = cm_store_n_transactions();
	cm_shmem_note_turn(&cm_ex.counters);
}

static void
wait_for_change(long timeout_ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					 cm_wait_event("ContainerManagerStart"));
	ResetLatch(MyLatch);
	handle_interrupts();
	MemoryContextReset(cm_ex.turn_context);
}

/*
 * Waits while somebody's lock is in the way, and while this server must not
 * touch what is on the hosts.  Then there are no hosts and no tasks: the process
 * is there and does nothing.
 */
static void
open_database(void)
{
	CmStoreOpening opening;
	bool is_held = false;

	/* While a flag is set nobody sets our latch for it again. */
	(void) cm_shmem_take_wake_flags();
	while ((opening = cm_db_open()) == CM_STORE_BLOCKED || opening == CM_STORE_HELD)
	{
		if (opening == CM_STORE_HELD && !is_held)
		{
			is_held = true;
			cm_shmem_set_phase(MyDatabaseId, CM_PHASE_ON_HOLD);
			ereport(LOG, (errmsg("container_manager: on hold, see cm_status")));
		}
		cm_ex.counters.turns++;
		end_turn();
		wait_for_change(opening == CM_STORE_HELD ? cm_guc_poll_interval_ms : OPEN_RETRY_MS);
		if (!cm_guc_enabled)
			return;
		(void) cm_shmem_take_wake_flags();
	}
	if (is_held)
		cm_shmem_begin_work();
}

static void
start_executor(void)
{
	memset(&cm_ex, 0, sizeof(cm_ex));
	cm_ex.context = AllocSetContextCreate(TopMemoryContext, "container_manager executor",
										  ALLOCSET_DEFAULT_SIZES);
	cm_ex.turn_context =
		AllocSetContextCreate(cm_ex.context, "container_manager turn", ALLOCSET_DEFAULT_SIZES);
	dlist_init(&cm_ex.hosts);
	dlist_init(&cm_ex.tasks);
	dlist_init(&cm_ex.records);
	dlist_init(&cm_ex.asked);
	cm_ex.now_ms = cm_executor_now_ms();
	cm_ex.next_poll_ms = cm_ex.now_ms;
	MemoryContextSwitchTo(cm_ex.turn_context);
	cm_ex.http = cm_http_new(cm_ex.context);
	open_database();
}

/*
 * The extension was dropped.  Its containers are known by their labels alone;
 * nothing is read or written in the database any more.
 */
static void
purge_hosts(WaitEventSet *set)
{
	int64 deadline_ms = cm_executor_now_ms() + PURGE_MS;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
		cm_task_free(dlist_container(CmTask, node, iter.cur));
	cm_asked_forget_all();
	cm_hosts_begin_purge();
	while (!cm_hosts_purge_is_done() && cm_executor_now_ms() < deadline_ms)
	{
		wait_for_something(set, cm_executor_now_ms() + PURGE_STEP_MS);
		handle_interrupts();
		begin_turn();
		cm_http_drain(cm_ex.http);
	}
	cm_hosts_warn_of_unpurged();
}

/* What is asked of hosts comes before the jobs that wait for it. */
static int64
tick(void)
{
	int64 next_ms = earlier(cm_hosts_tick(), cm_asked_tick());

	return earlier(next_ms, cm_tasks_tick());
}

/* One turn of the loop; returns when the next one is due by the clock. */
static int64
take_turn(uint32 wake_flags)
{
	bool has_more;
	int64 next_ms;

	begin_turn();
	has_more = cm_http_drain(cm_ex.http);
	if (cm_ex.superseded_by != 0)
		return cm_ex.now_ms;
	next_ms = tick();
	if (wake_flags != 0 || cm_db_next_ms() <= cm_ex.now_ms)
	{
		cm_db_turn(wake_flags);
		/* What was claimed or committed has moved tasks on. */
		next_ms = tick();
	}
	next_ms = has_more ? cm_ex.now_ms : earlier(next_ms, cm_db_next_ms());
	end_turn();
	return next_ms;
}

/*
 * In builds with a sanitizer: what was malloc'ed and cannot be reached any more,
 * now that all of ours is freed, was forgotten.  Says nothing where nothing was.
 */
static void
report_leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
	(void) __lsan_do_recoverable_leak_check();
#endif
}

static CmExecutorEnd
end_executor(WaitEventSet *set)
{
	CmExecutorEnd end = CM_EXECUTOR_DISABLED;

	if (cm_ex.superseded_by != 0)
	{
		while (!cm_db_record_superseded())
			wait_for_change(OPEN_RETRY_MS);
		end = CM_EXECUTOR_START_ANEW;
	}
	else if (cm_ex.is_dropped)
	{
		purge_hosts(set);
		end = cm_store_is_there() ? CM_EXECUTOR_START_ANEW : CM_EXECUTOR_NO_EXTENSION;
	}
	FreeWaitEventSet(set);
	cm_hosts_free_all();
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextDelete(cm_ex.context);
	report_leaks();
	return end;
}

CmExecutorEnd
cm_executor_run(void)
{
	WaitEventSet *set;
	int64 next_ms;

	start_executor();
	set = make_wait_set();
	next_ms = cm_ex.now_ms;
	while (!cm_ex.is_dropped && cm_ex.superseded_by == 0 && cm_guc_enabled)
	{
		uint32 wake_flags = wait_for_something(set, next_ms);

		handle_interrupts();
		next_ms = take_turn(wake_flags);
	}
	return end_executor(set);
}
