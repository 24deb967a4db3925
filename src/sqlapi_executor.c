/*
 * sqlapi_executor.c
 *		Starting and stopping the executor of this database by SQL.
 *
 * Preloaded, the launcher is asked, so that it also looks after what was
 * started.  Otherwise the worker is registered from here, and nobody brings it
 * back when it ends.  Neither waits for the end of the caller's transaction,
 * unless the extension itself was made in it and nobody else could see it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "shmem.h"
#include "worker_main.h"

#define MAX_WAIT_MS 10000
#define LOOK_EVERY_MS 20

PG_FUNCTION_INFO_V1(cm_start_executor);
PG_FUNCTION_INFO_V1(cm_stop_executor);
PG_FUNCTION_INFO_V1(cm_announce);

/* --- what to say --- */

/* The line as it has to stand in the file; what else is preloaded is for
 * superusers to see. */
static const char *
make_preload_line(void)
{
	const char *others =
		superuser() ? GetConfigOption("shared_preload_libraries", true, false) : NULL;

	if (others == NULL || others[0] == '\0')
		return "shared_preload_libraries = 'container_manager'";
	return psprintf("shared_preload_libraries = '%s, container_manager'", others);
}

pg_noreturn static void
throw_no_worker_slot(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no background worker is left for the executor"),
			 errdetail("max_worker_processes is %d, and all are in use.", max_worker_processes),
			 errhint("Increase max_worker_processes, and restart the server.")));
}

pg_noreturn static void
throw_full(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("at most %d databases of a server can have an executor", CM_MAX_DATABASES),
			 errhint("Drop the extension in a database that does not need it.")));
}

pg_noreturn static void
throw_disabled(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("container_manager.enabled is off for database \"%s\"",
				get_database_name(MyDatabaseId)),
		 errhint(
			 "ALTER DATABASE %s SET container_manager.enabled = on, then call cm_start_executor() again.",
			 quote_identifier(get_database_name(MyDatabaseId)))));
}

pg_noreturn static void
throw_kept_out(CmExecutorPhase phase)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("executors are kept out of database \"%s\"", get_database_name(MyDatabaseId)),
		 phase == CM_PHASE_HELD
			 ? errdetail("Another session is copying, moving, renaming or dropping the database.")
			 : errdetail("Another session has just called cm_stop_executor().")));
}

pg_noreturn static void
throw_ended(const CmExecutorStatus *status)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("the executor ended before it was at work"),
					status->last_error_at > status->started_at
						? errdetail("Its last error was: %s", status->last_error)
						: 0,
					errhint("The server's log says why.")));
}

pg_noreturn static void
throw_late(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the executor was not at work after %d s", MAX_WAIT_MS / 1000),
			 cm_shmem_is_preloaded() && !cm_shmem_launcher_is_there()
				 ? errdetail("The launcher of container_manager is not running.")
				 : 0,
			 errhint("cm_status tells what has become of it; the server's log may say why.")));
}

/* --- starting --- */

static void
refuse_standby(void)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("no executor can run while the server is in recovery"),
						errhint("It starts by itself when the server is promoted.")));
}

/* Was the extension made, or altered, by this very transaction? */
static bool
is_extension_uncommitted(void)
{
	Oid extension = get_extension_oid("container_manager", true);
	bool result = false;
	Relation relation = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(relation, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}

static void
start_at_commit(void)
{
	if (!cm_shmem_is_preloaded())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the extension was created or altered in this transaction"),
						errdetail("An executor would not see it yet."),
						errhint("Commit, then call cm_start_executor().")));
	if (!cm_shmem_allow(MyDatabaseId))
		throw_full();
	cm_shmem_wake_at_commit(CM_WAKE_EXTENSION);
	ereport(NOTICE, (errmsg("the executor starts when this transaction commits")));
}

/* NULL: somebody else is about to start one. */
static BackgroundWorkerHandle *
start_from_here(void)
{
	BackgroundWorkerHandle *handle;
	CmExecutorStatus status;

	switch (cm_shmem_begin_start(MyDatabaseId))
	{
		case CM_START_NOW:
			break;
		case CM_START_RUNNING:
			return NULL;
		case CM_START_KEPT_OUT:
			cm_shmem_executor_status(MyDatabaseId, &status);
			throw_kept_out(status.phase);
		case CM_START_FULL:
			throw_full();
	}
	handle = cm_worker_start(MyDatabaseId);
	if (handle == NULL)
		cm_shmem_set_phase(MyDatabaseId, CM_PHASE_NO_WORKER_SLOT);
	return handle;
}

/* Returns whether it is at work; throws where it will not be. */
static bool
check_start(BackgroundWorkerHandle *handle)
{
	CmExecutorStatus status;
	pid_t pid;
	bool has_ended = handle != NULL && GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED;

	cm_shmem_executor_status(MyDatabaseId, &status);
	switch (status.phase)
	{
		case CM_PHASE_NONE:
			return false;
		case CM_PHASE_STARTING:
			if (!has_ended || status.pid != 0)
				return false;
			cm_shmem_set_phase(MyDatabaseId, CM_PHASE_CRASHED);
			throw_ended(&status);
		case CM_PHASE_AT_WORK:
		case CM_PHASE_ON_HOLD:
			return true;
		case CM_PHASE_DISABLED:
			throw_disabled();
		case CM_PHASE_NO_WORKER_SLOT:
			throw_no_worker_slot();
		case CM_PHASE_HELD:
		case CM_PHASE_STOPPED:
			throw_kept_out(status.phase);
		case CM_PHASE_NO_EXTENSION:
		case CM_PHASE_CRASHED:
			throw_ended(&status);
	}
	return false;
}

static void
await_start(BackgroundWorkerHandle *handle)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MAX_WAIT_MS);

	while (!check_start(handle))
	{
		if (GetCurrentTimestamp() >= deadline)
			throw_late();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_EVERY_MS,
						 cm_wait_event("ContainerManagerStart"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
start(void)
{
	BackgroundWorkerHandle *handle = NULL;

	if (!cm_shmem_allow(MyDatabaseId))
		throw_full();
	if (cm_shmem_is_preloaded())
		cm_shmem_request(MyDatabaseId);
	else
		handle = start_from_here();
	await_start(handle);
	if (!cm_shmem_is_preloaded())
		ereport(
			WARNING,
			(errmsg("the executor runs until the server is restarted"),
			 errhint(
				 "Add container_manager to shared_preload_libraries in postgresql.conf and restart, or it will not come back after a restart. The line is: %s",
				 make_preload_line())));
}

/* () -> boolean; see sql/45-executor.sql. */
Datum
cm_start_executor(PG_FUNCTION_ARGS)
{
	CmExecutorStatus status;

	refuse_standby();
	cm_shmem_executor_status(MyDatabaseId, &status);
	if (status.phase == CM_PHASE_AT_WORK || status.phase == CM_PHASE_ON_HOLD)
		PG_RETURN_BOOL(false);
	if (is_extension_uncommitted())
		start_at_commit();
	else
		start();
	PG_RETURN_BOOL(true);
}

/* () -> boolean; see sql/45-executor.sql. */
Datum
cm_stop_executor(PG_FUNCTION_ARGS)
{
	int pid;

	if (!cm_shmem_stop(MyDatabaseId, &pid))
		throw_full();
	if (pid == 0)
		PG_RETURN_BOOL(false);
	if (!cm_shmem_await_exit(MyDatabaseId, pid, MAX_WAIT_MS))
		ereport(WARNING, (errmsg("the executor (pid %d) was told to go but is still there", pid)));
	PG_RETURN_BOOL(true);
}

/*
 * () -> void: the install script's last word.  A WARNING, because CREATE
 * EXTENSION swallows a NOTICE.
 */
Datum
cm_announce(PG_FUNCTION_ARGS)
{
	if (cm_shmem_is_preloaded())
		cm_shmem_wake_at_commit(CM_WAKE_EXTENSION);
	else
		ereport(
			WARNING,
			(errmsg("jobs will not run yet: container_manager is not preloaded"),
			 errhint(
				 "In postgresql.conf write \"%s\" and restart; until then, SELECT cm_start_executor() starts the executor by hand.",
				 make_preload_line())));
	PG_RETURN_VOID();
}
