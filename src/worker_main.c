/*
 * worker_main.c
 *		The process in which an executor lives.
 *
 * It looks whether the extension is there and wanted; if so it stays and is
 * the database's executor, else it goes.  Nobody restarts it but the launcher,
 * which knows whether the database still exists: the server itself would go
 * on for ever, once a second.
 *
 * It runs as the bootstrap superuser, in databases whose owners may set what
 * they like for whoever connects.  So everything that could make our SQL mean
 * something else is set here, above what ALTER DATABASE and the files say, and
 * users' triggers do not fire (session_replication_role).
 *
 * An error that reaches this floor ends the process with exit code 1.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "executor.h"
#include "guc.h"
#include "shmem.h"
#include "worker_main.h"

/* Third key of our advisory lock; SQL functions use 1 and 2. */
#define LOCK_KEY_SPACE 3

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

static const Setting session_settings[] = {
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"session_replication_role", "replica"},
	{"row_security", "off"},
	{"lock_timeout", "200ms"},
	{"statement_timeout", "0"},
	{"transaction_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"extra_float_digits", "1"},
	{"jit", "off"},
	/* Small batches by key, whatever the statistics say of tables that change so fast. */
	{"plan_cache_mode", "force_generic_plan"},
	{"enable_seqscan", "off"},
	{"enable_bitmapscan", "off"},
	{"enable_hashjoin", "off"},
	{"enable_mergejoin", "off"},
	{"application_name", "container_manager executor"},
};

BackgroundWorkerHandle *
cm_worker_start(Oid database)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "container_manager executor for database %u",
			 database);
	strlcpy(worker.bgw_type, "container_manager executor", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "container_manager", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "cm_executor_main", sizeof(worker.bgw_function_name));

	return RegisterDynamicBackgroundWorker(&worker, &handle) ? handle : NULL;
}

/* Settings that this server does not have are left out. */
static void
fix_settings(void)
{
	for (size_t i = 0; i < lengthof(session_settings); i++)
	{
		const Setting *setting = &session_settings[i];

		if (GetConfigOption(setting->name, true, false) != NULL)
			SetConfigOption(setting->name, setting->value, PGC_SUSET, PGC_S_OVERRIDE);
	}
}

static void
connect_to(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	fix_settings();
	cm_guc_reload();
}

/*
 * The lock outlives transactions.  The slot in shared memory says the same;
 * this one is released by the server itself, whatever becomes of ours.
 */
static bool
lock_database(void)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, LOCK_KEY_SPACE);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static bool
has_extension(void)
{
	return OidIsValid(get_extension_oid("container_manager", true));
}

/*
 * Is there work for an executor?  If not, the phase says why.  The flags are
 * cleared first: one that is set when we leave came after we looked.
 */
static bool
is_wanted(Oid database)
{
	bool is_there;
	bool is_locked;

	(void) cm_shmem_take_wake_flags();

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	is_there = has_extension();
	is_locked = is_there && lock_database();
	CommitTransactionCommand();

	if (!is_there)
		cm_shmem_set_phase(database, CM_PHASE_NO_EXTENSION);
	else if (!cm_guc_enabled)
		cm_shmem_set_phase(database, CM_PHASE_DISABLED);
	else if (!is_locked)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("another process holds the executor lock of this database")));
	else
		return true;
	return false;
}

/*
 * The error is for the log; the last words of it are kept for cm_status.  It
 * may have been thrown with locks held, of which ours could be one.
 */
static void
keep_error(MemoryContext context)
{
	ErrorData *error;

	LWLockReleaseAll();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	cm_shmem_note_error(error->message != NULL ? error->message : "unknown error");
	FreeErrorData(error);
}

static CmExecutorEnd
run(void)
{
	volatile CmExecutorEnd end = CM_EXECUTOR_NO_EXTENSION;

	PG_TRY();
	{
		cm_shmem_begin_work();
		end = cm_executor_run();
	}
	PG_CATCH();
	{
		keep_error(TopMemoryContext);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return end;
}

void
cm_executor_main(Datum database)
{
	Oid oid = DatumGetObjectId(database);
	CmExecutorEnd end = CM_EXECUTOR_START_ANEW;

	if (!cm_shmem_enter_executor(oid))
		proc_exit(0);
	connect_to(oid);
	while (end == CM_EXECUTOR_START_ANEW)
	{
		if (!is_wanted(oid))
			proc_exit(0);
		end = run();
	}
	cm_shmem_set_phase(oid, cm_guc_enabled ? CM_PHASE_NO_EXTENSION : CM_PHASE_DISABLED);
	proc_exit(0);
}
