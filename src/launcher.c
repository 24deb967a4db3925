/*
 * launcher.c
 *		The process that starts executors where they are wanted.
 *
 * It is connected to no database, so it is in nobody's way; the price is that
 * it can read pg_database and nothing else.  Whether a database has the
 * extension is found out by a worker that connects to it: it stays as executor
 * or goes.  When the server starts every database is looked at once, a few at
 * a time; later only those that ask through shared memory.
 *
 * A database that something is to be done about, or whose executor is to be
 * watched, has a CmWatch.  Watches are private to this process: when it is
 * restarted it takes over from shared memory the executors that live on.
 *
 * It never polls.  The server sets our latch when a worker of ours ends, an
 * executor when it leaves, a session when it asks; a timeout is used only
 * until something is due.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "backoff.h"
#include "compat.h"
#include "guc.h"
#include "launcher.h"
#include "shmem.h"
#include "worker_main.h"

#define RESTART_AFTER_S 5 /* of the launcher, by the server */
#define MAX_STARTING 4	  /* at once */
#define NO_SLOT_RETRY_MS 10000
#define MIN_DELAY_MS 1000
#define MAX_DELAY_MS 60000
#define GOOD_LIFE_MS 60000 /* an executor that lived so long begins anew */

/* due_at of a watch */
#define NOT_DUE 0

typedef struct CmWatch
{
	Oid database;					/* key */
	BackgroundWorkerHandle *handle; /* of our worker; NULL: none, or one that a
									 * launcher before us started */
	TimestampTz due_at;				/* when to start a worker; NOT_DUE: not at all */
	int failures;					/* since it last lived long enough */
	NameData name;					/* as it was when we last read it */
} CmWatch;

typedef struct CmDatabase
{
	Oid oid;
	NameData name;
	bool is_connectable;
	bool is_template;
} CmDatabase;

/* One turn of the loop. */
typedef struct CmRound
{
	TimestampTz now;
	int n_starting; /* workers that have not yet said what they found */
	bool has_room;	/* as far as we know */
} CmRound;

static HTAB *watches;
static TimestampTz no_slot_until = NOT_DUE;
static bool no_slot_is_logged = false;

void
cm_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_AFTER_S;
	strlcpy(worker.bgw_name, "container_manager launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "container_manager launcher", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "container_manager", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "cm_launcher_main", sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}

/* --- the databases of the server --- */

/* The array is palloc'ed in the current context.  By a plain scan: a process
 * without a database has no catalog caches. */
static CmDatabase *
read_databases(int *n)
{
	MemoryContext context = CurrentMemoryContext;
	CmDatabase *databases = palloc(sizeof(CmDatabase));
	Relation relation;
	TableScanDesc scan;
	HeapTuple tuple;

	*n = 0;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();

	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);

		databases = repalloc(databases, (*n + 1) * sizeof(CmDatabase));
		databases[*n].oid = row->oid;
		databases[*n].name = row->datname;
		databases[*n].is_connectable = row->datallowconn;
		databases[*n].is_template = row->datistemplate;
		(*n)++;
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);

	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/* NULL: there is none of that oid that a worker could connect to. */
static const CmDatabase *
find_connectable(Oid oid, const CmDatabase *databases, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (databases[i].oid == oid)
			return databases[i].is_connectable ? &databases[i] : NULL;
	}
	return NULL;
}

/* --- watches --- */

static CmWatch *
watch_database(Oid database)
{
	bool found;
	CmWatch *watch = hash_search(watches, &database, HASH_ENTER, &found);

	if (!found)
	{
		watch->handle = NULL;
		watch->due_at = NOT_DUE;
		watch->failures = 0;
		namestrcpy(&watch->name, "");
	}
	return watch;
}

static void
forget_watch(CmWatch *watch)
{
	hash_search(watches, &watch->database, HASH_REMOVE, NULL);
}

static void
look_now(Oid database)
{
	watch_database(database)->due_at = GetCurrentTimestamp();
}

/* What another launcher, or this server before the launcher, left behind. */
static void
adopt(Oid database)
{
	CmExecutorStatus status;

	cm_shmem_executor_status(database, &status);
	if (status.pid != 0)
		(void) watch_database(database);
	else if (status.phase == CM_PHASE_NO_EXTENSION)
		cm_shmem_forget(database);
	else if (status.phase != CM_PHASE_STOPPED && status.phase != CM_PHASE_DISABLED)
		look_now(database);
}

static void
adopt_all(void)
{
	Oid databases[CM_MAX_DATABASES];
	int n = cm_shmem_list_databases(databases);

	for (int i = 0; i < n; i++)
		adopt(databases[i]);
}

/* Templates are left alone: a worker there would only be in the way of CREATE
 * DATABASE.  Those that nothing is known of are looked at. */
static void
look_at_all(void)
{
	int n;
	CmDatabase *databases = read_databases(&n);

	for (int i = 0; i < n; i++)
	{
		CmWatch *adopted = hash_search(watches, &databases[i].oid, HASH_FIND, NULL);
		CmExecutorStatus status;

		if (adopted != NULL)
			adopted->name = databases[i].name;
		else if (databases[i].is_connectable && !databases[i].is_template &&
				 !cm_shmem_executor_status(databases[i].oid, &status))
			look_now(databases[i].oid);
	}
}

/* The setting went on: those that it kept out may come. */
static void
look_at_disabled(void)
{
	Oid databases[CM_MAX_DATABASES];
	int n = cm_shmem_list_databases(databases);

	for (int i = 0; i < n; i++)
	{
		CmExecutorStatus status;

		cm_shmem_executor_status(databases[i], &status);
		if (status.phase == CM_PHASE_DISABLED)
			look_now(databases[i]);
	}
}

/*
 * Who asks is told at once when there is no room: so it is tried.  But one
 * that waits because the table of executors is full has its time; each of its
 * commits asks.
 */
static void
take_requests(void)
{
	Oid database;
	CmExecutorStatus status;

	while (cm_shmem_take_request(&database))
	{
		if (!cm_shmem_executor_status(database, &status) &&
			hash_search(watches, &database, HASH_FIND, NULL) != NULL)
			continue;
		look_now(database);
		no_slot_until = NOT_DUE;
	}
}

/* --- workers that ended --- */

static void
schedule_restart(CmWatch *watch, const CmExecutorStatus *status, TimestampTz now)
{
	int64 delay_ms;

	if (TimestampDifferenceExceeds(status->started_at, now, GOOD_LIFE_MS))
		watch->failures = 0;
	watch->failures++;
	delay_ms = cm_backoff_delay_ms(watch->failures, MIN_DELAY_MS, MAX_DELAY_MS,
								   pg_prng_double(&pg_global_prng_state));
	watch->due_at = TimestampTzPlusMilliseconds(now, delay_ms);
	ereport(LOG,
			(errmsg("container_manager executor of database \"%s\" ended, restarting it in %.1f s",
					NameStr(watch->name), delay_ms / 1000.0)));
}

/* A worker of this database is gone: its last phase tells what to do. */
static void
settle(CmWatch *watch, const CmExecutorStatus *status, TimestampTz now)
{
	switch (status->phase)
	{
		case CM_PHASE_NO_EXTENSION:
			cm_shmem_forget(watch->database);
			forget_watch(watch);
			break;
		case CM_PHASE_STARTING:
		case CM_PHASE_AT_WORK:
		case CM_PHASE_ON_HOLD:
		case CM_PHASE_CRASHED:
			schedule_restart(watch, status, now);
			break;
		case CM_PHASE_NONE:
		case CM_PHASE_DISABLED:
		case CM_PHASE_NO_WORKER_SLOT:
		case CM_PHASE_HELD:
		case CM_PHASE_STOPPED:
			/* who ends this state asks for a worker */
			forget_watch(watch);
			break;
	}
}

/* Is the worker still there, or on its way? */
static bool
is_alive(CmWatch *watch, const CmExecutorStatus *status)
{
	pid_t pid;

	if (watch->handle != NULL)
	{
		if (GetBackgroundWorkerPid(watch->handle, &pid) != BGWH_STOPPED)
			return true;
		pfree(watch->handle);
		watch->handle = NULL;
		no_slot_until = NOT_DUE;
	}
	return status->pid != 0;
}

/* Returns whether the watch's worker has yet to say what it found. */
static bool
look_after(CmWatch *watch, TimestampTz now)
{
	bool is_ours = watch->handle != NULL;
	CmExecutorStatus status;

	cm_shmem_executor_status(watch->database, &status);
	if (is_alive(watch, &status))
	{
		bool is_there = status.phase == CM_PHASE_AT_WORK || status.phase == CM_PHASE_ON_HOLD;

		if (is_there)
			watch->due_at = NOT_DUE;
		return !is_there;
	}

	/* read again: it may have ended between the two questions */
	cm_shmem_executor_status(watch->database, &status);
	if (is_ours && status.pid == 0 && status.phase == CM_PHASE_STARTING)
	{
		/* it never came to our code: no fork, or no library */
		status.phase = CM_PHASE_CRASHED;
		cm_shmem_set_phase(watch->database, CM_PHASE_CRASHED);
	}
	if (watch->due_at == NOT_DUE && status.pid == 0)
		settle(watch, &status, now);
	return false;
}

static int
look_after_all(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	CmWatch *watch;
	int n_starting = 0;

	hash_seq_init(&scan, watches);
	while ((watch = hash_seq_search(&scan)) != NULL)
		n_starting += look_after(watch, now) ? 1 : 0;
	return n_starting;
}

/* --- starting --- */

static void
note_no_slot(CmWatch *watch, const CmRound *round)
{
	cm_shmem_set_phase(watch->database, CM_PHASE_NO_WORKER_SLOT);
	no_slot_until = TimestampTzPlusMilliseconds(round->now, NO_SLOT_RETRY_MS);

	/* those under way will make room as soon as they have looked */
	if (round->n_starting > 0 || no_slot_is_logged)
		return;
	no_slot_is_logged = true;
	ereport(
		LOG,
		(errmsg(
			 "no background worker is left for the container_manager executor of database \"%s\"",
			 NameStr(watch->name)),
		 errdetail("It is tried again; other databases may wait, too."),
		 errhint(
			 "Increase max_worker_processes: each database with the extension needs one, the launcher one more.")));
}

/* After the first that finds no room the others are only noted. */
static void
register_worker(CmWatch *watch, CmRound *round)
{
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);

	if (round->has_room)
		watch->handle = cm_worker_start(watch->database);
	MemoryContextSwitchTo(context);
	if (watch->handle == NULL)
	{
		round->has_room = false;
		note_no_slot(watch, round);
		return;
	}
	watch->due_at = NOT_DUE;
	round->n_starting++;
	no_slot_is_logged = false;
}

static void
note_full(CmWatch *watch, const CmRound *round)
{
	static bool is_logged = false;

	watch->due_at = TimestampTzPlusMilliseconds(round->now, MAX_DELAY_MS);
	if (is_logged)
		return;
	is_logged = true;
	ereport(LOG, (errmsg("container_manager has no room for the executor of database \"%s\"",
						 NameStr(watch->name)),
				  errdetail("At most %d databases of a server can have one.", CM_MAX_DATABASES)));
}

static bool
is_due(CmWatch *watch, TimestampTz now)
{
	return watch->handle == NULL && watch->due_at != NOT_DUE && watch->due_at <= now;
}

static void
start_worker(CmWatch *watch, CmRound *round)
{
	switch (cm_shmem_begin_start(watch->database))
	{
		case CM_START_NOW:
			register_worker(watch, round);
			break;
		case CM_START_RUNNING:
			watch->due_at = NOT_DUE;
			break;
		case CM_START_KEPT_OUT:
			forget_watch(watch);
			break;
		case CM_START_FULL:
			note_full(watch, round);
			break;
	}
}

/* Is it due, and could it be started as things stand? */
static bool
is_its_turn(CmWatch *watch, const CmRound *round)
{
	if (!is_due(watch, round->now) || round->n_starting >= MAX_STARTING)
		return false;
	return round->has_room || round->n_starting == 0;
}

static bool
any_is_due(TimestampTz now)
{
	HASH_SEQ_STATUS scan;
	CmWatch *watch;

	hash_seq_init(&scan, watches);
	while ((watch = hash_seq_search(&scan)) != NULL)
	{
		if (is_due(watch, now))
		{
			hash_seq_term(&scan);
			return true;
		}
	}
	return false;
}

/*
 * A database that is gone is forgotten here, not found missing by a worker
 * that dies of it.
 */
static void
start_due(CmRound *round)
{
	HASH_SEQ_STATUS scan;
	CmWatch *watch;
	CmDatabase *databases;
	int n;

	if (round->n_starting >= MAX_STARTING || round->now < no_slot_until || !any_is_due(round->now))
		return;
	databases = read_databases(&n);
	hash_seq_init(&scan, watches);
	while ((watch = hash_seq_search(&scan)) != NULL)
	{
		const CmDatabase *database = find_connectable(watch->database, databases, n);

		if (!is_its_turn(watch, round))
			continue;
		if (database != NULL)
		{
			watch->name = database->name;
			start_worker(watch, round);
		}
		else
		{
			cm_shmem_forget(watch->database);
			forget_watch(watch);
		}
	}
}

/* --- the loop --- */

/* -1: nothing is due before somebody sets our latch. */
static long
time_to_wait_ms(const CmRound *round)
{
	HASH_SEQ_STATUS scan;
	CmWatch *watch;
	long wait_ms = -1;

	if (round->n_starting >= MAX_STARTING)
		return -1;
	hash_seq_init(&scan, watches);
	while ((watch = hash_seq_search(&scan)) != NULL)
	{
		long until_ms;

		if (watch->handle != NULL || watch->due_at == NOT_DUE)
			continue;
		until_ms = TimestampDifferenceMilliseconds(round->now, Max(watch->due_at, no_slot_until));
		if (wait_ms < 0 || until_ms < wait_ms)
			wait_ms = until_ms;
	}
	return wait_ms;
}

static void
wait_for_news(long wait_ms)
{
	int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (wait_ms >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatch(MyLatch, events, wait_ms, cm_wait_event("ContainerManagerLauncherMain"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
reload(void)
{
	bool was_enabled = cm_guc_enabled;

	ConfigReloadPending = false;
	cm_guc_reload();
	if (cm_guc_enabled && !was_enabled)
		look_at_disabled();
}

static void
begin(void)
{
	HASHCTL control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(CmWatch),
	};

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	cm_guc_reload();

	watches = hash_create("container_manager watches", 64, &control, HASH_ELEM | HASH_BLOBS);
	cm_shmem_enter_launcher();
	pgstat_report_appname("container_manager launcher");
}

void
cm_launcher_main(Datum unused)
{
	MemoryContext turn;

	begin();
	turn = AllocSetContextCreate(TopMemoryContext, "container_manager launcher",
								 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn);
	adopt_all();
	look_at_all();
	for (;;)
	{
		CmRound round = {.has_room = true};

		take_requests();
		round.now = GetCurrentTimestamp();
		round.n_starting = look_after_all(round.now);
		start_due(&round);
		wait_for_news(time_to_wait_ms(&round));
		if (ConfigReloadPending)
			reload();
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
	}
}
