/*
 * sqlapi_submit.c
 *		The triggers that check a submitted job and put it on the queue.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "guc.h"
#include "placement.h"
#include "policy.h"
#include "retry.h"
#include "shmem.h"
#include "sqlapi_environment.h"
#include "sqlapi_schedule.h"
#include "sqlapi_templates.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"
#include "store.h"

bool cm_submit_is_dry_run = false;

/* --- a job is submitted --- */

/* Epoch of the database; it changes only with the extension's tables. */
static pg_uuid_t *
get_epoch(Relation jobs)
{
	static pg_uuid_t epoch;
	static Oid known_for = InvalidOid;
	static CmTriggerSql load = {
		"SELECT epoch FROM cm_internal.current_identity /* %s */", 0, {0}, InvalidOid, NULL};
	bool is_null;

	if (known_for == RelationGetRelid(jobs))
		return &epoch;
	if (cm_sqlapi_run_in_trigger(&load, jobs, NULL) != 1)
		elog(ERROR, "table cm_internal.identity does not have exactly one row");
	memcpy(&epoch,
		   DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null)),
		   sizeof(epoch));
	known_for = RelationGetRelid(jobs);
	return &epoch;
}

/* The row being written, changed column by column. */
typedef struct JobRow
{
	Relation relation;
	TupleDesc desc;
	HeapTuple tuple;
	int n_changes;
	int columns[64];
	Datum values[64];
	bool nulls[64];
} JobRow;

static Datum
get_value(const JobRow *row, const char *column, bool *is_null)
{
	int number = SPI_fnumber(row->desc, column);

	if (number <= 0)
		elog(ERROR, "cm_jobs has no column \"%s\"", column);
	return heap_getattr(row->tuple, number, row->desc, is_null);
}

static bool
is_column_null(const JobRow *row, const char *column)
{
	bool is_null;

	(void) get_value(row, column, &is_null);
	return is_null;
}

static void
set_value(JobRow *row, const char *column, Datum value, bool is_null)
{
	Assert(row->n_changes < lengthof(row->columns));
	row->columns[row->n_changes] = SPI_fnumber(row->desc, column);
	row->values[row->n_changes] = value;
	row->nulls[row->n_changes] = is_null;
	row->n_changes++;
}

/* NULL means unsaid, also where the column has a default. */
static void
set_if_null(JobRow *row, const char *column, Datum value)
{
	if (is_column_null(row, column))
		set_value(row, column, value, false);
}

static void
apply_changes(JobRow *row)
{
	if (row->n_changes == 0)
		return;
	row->tuple = heap_modify_tuple_by_cols(row->tuple, row->desc, row->n_changes, row->columns,
										   row->values, row->nulls);
	row->n_changes = 0;
}

static Datum
make_jsonb(const char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

static Datum
make_numeric(double value)
{
	return DirectFunctionCall1(float8_numeric, Float8GetDatum(value));
}

static Datum
make_interval_of(const char *text)
{
	return DirectFunctionCall3(interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static void
fill_in_defaults(JobRow *row)
{
	set_if_null(row, "namespace", CStringGetTextDatum("default"));
	set_if_null(row, "status", CStringGetTextDatum("pending"));
	set_if_null(row, "run_as", CStringGetTextDatum(cm_guc_default_run_as));
	set_if_null(row, "memory_limit", Int32GetDatum(cm_guc_default_memory_limit_mb));
	set_if_null(row, "cpu_limit", make_numeric(cm_guc_default_cpu_limit));
	set_if_null(row, "timeout_seconds", Int32GetDatum(cm_guc_default_timeout_s));
	set_if_null(row, "networks", make_jsonb("[\"bridge\"]"));
	set_if_null(row, "priority", Int32GetDatum(50));
	set_if_null(row, "run_at", TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	set_if_null(row, "max_attempts", Int32GetDatum(1));
	set_if_null(row, "retry_on", CStringGetTextDatum(CM_RETRY_DEFAULT));
	set_if_null(row, "retry_delay", make_interval_of("10 s"));
	set_if_null(row, "on_host_loss", CStringGetTextDatum("wait"));
	set_if_null(row, "host_loss_grace", make_interval_of("5 min"));
	set_if_null(row, "placement_strategy",
				CStringGetTextDatum(cm_placement_word(cm_guc_placement_strategy)));
	if (!is_column_null(row, "unique_key"))
		set_if_null(row, "on_conflict", CStringGetTextDatum("error"));
	if (!is_column_null(row, "concurrency_key"))
		set_if_null(row, "concurrency_limit", Int32GetDatum(1));
	set_if_null(row, "labels", make_jsonb("{}"));
	set_if_null(row, "read_only", BoolGetDatum(true));
	set_if_null(row, "tmpfs", make_jsonb("{}"));
	set_if_null(
		row, "owner",
		DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(GetUserId(), false))));
}

static void
throw_not_yours(const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s of a job cannot be given", column), errdetail("The executor sets it."),
			 errhint("Leave the column out."), err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
			 err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

/* What describes the state is as it is in a job that nobody has touched. */
static void
check_state_columns(const JobRow *row)
{
	static const char *const must_be_null[] = {"failure_reason", "detail",		   "error",
											   "hint",			 "requested_host", "container_id",
											   "exit_code",		 "started_at",	   "completed_at"};
	bool is_null;
	Datum status = get_value(row, "status", &is_null);

	for (int i = 0; i < lengthof(must_be_null); i++)
		if (!is_column_null(row, must_be_null[i]))
			throw_not_yours(must_be_null[i]);
	if (strcmp(TextDatumGetCString(status), "pending") != 0)
		throw_not_yours("status");
	if (DatumGetInt32(get_value(row, "attempt", &is_null)) != 0)
		throw_not_yours("attempt");
	if (DatumGetBool(get_value(row, "oom_killed", &is_null)))
		throw_not_yours("oom_killed");
	if (DatumGetBool(get_value(row, "logs_incomplete", &is_null)))
		throw_not_yours("logs_incomplete");
	if (strcmp(NameStr(*DatumGetName(get_value(row, "owner", &is_null))),
			   GetUserNameFromId(GetUserId(), false)) != 0)
		throw_not_yours("owner");
}

static void
check_definition(const JobRow *row)
{
	CmJobSpec spec;
	CmProblem problem;
	CmLimits limits = cm_guc_limits();

	memset(&problem, 0, sizeof(problem));
	if (is_column_null(row, "image"))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("image is missing"),
						errhint("Name an image, such as 'busybox:1.36'."),
						err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
						err_generic_string(PG_DIAG_COLUMN_NAME, "image")));
	if (!cm_store_read_spec(row->tuple, row->desc, &spec, &problem) ||
		!cm_policy_check(&spec, &limits, &problem))
		cm_store_throw_problem(&problem, "cm_jobs");
}

static void
throw_bad_value(const char *column, const char *message, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
					errhint("%s", hint), err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

/* What the guard does not look at, since it does not concern the engine. */
static void
check_schedule(const JobRow *row)
{
	bool is_null;
	int priority = DatumGetInt32(get_value(row, "priority", &is_null));
	TimestampTz run_at = DatumGetTimestampTz(get_value(row, "run_at", &is_null));
	Datum max_wait = get_value(row, "max_wait", &is_null);
	Interval *wait;

	if (priority < 0 || priority > 100)
		throw_bad_value("priority", psprintf("priority of %d is out of range", priority),
						"Priorities are 0 to 100; higher is started first.");
	if (TIMESTAMP_NOT_FINITE(run_at))
		throw_bad_value("run_at", "run_at is infinite", "Give a time, or leave it out.");
	if (run_at > GetCurrentTimestamp() + 36525 * USECS_PER_DAY)
		throw_bad_value("run_at", "run_at is over 100 years ahead", "Give an earlier time.");
	(void) get_value(row, "max_wait", &is_null);
	if (is_null)
		return;
	wait = DatumGetIntervalP(max_wait);
	if (wait->time < 0 || wait->day < 0 || wait->month < 0)
		throw_bad_value("max_wait", "max_wait is negative",
						"Give a positive interval, or leave it out.");
	if (wait->month > 12 * 100 || wait->day > 36500 || wait->time > 36500 * USECS_PER_DAY)
		throw_bad_value("max_wait", "max_wait is over 100 years", "Leave it out to wait for ever.");
}

static void
check_placement(const JobRow *row)
{
	bool is_null;
	char *word = TextDatumGetCString(get_value(row, "placement_strategy", &is_null));
	CmStrategy strategy;

	if (!cm_placement_parse(word, &strategy))
		throw_bad_value("placement_strategy",
						psprintf("placement_strategy of \"%s\" is not known", word),
						"Write least_loaded, round_robin, weighted, resources or pack.");
	if (!is_column_null(row, "host") && !is_column_null(row, "host_labels"))
		throw_bad_value("host_labels", "host and host_labels are both given",
						"Leave one of them out: a host that is named is not chosen by its labels.");
}

/* Of a sequence; 0 where it has not yet given any. */
static int64
get_last_value(Oid sequence)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum last;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(sequence);
	fcinfo->args[0].isnull = false;
	last = pg_sequence_last_value(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetInt64(last);
}

/*
 * An id out of turn would be in the way of somebody else's job.  Those that
 * the sequence has given are this row's own, or its neighbours'.
 */
static void
check_id(const JobRow *row)
{
	bool is_null;
	int64 id = DatumGetInt64(get_value(row, "id", &is_null));
	Oid sequence =
		getIdentitySequence(RelationGetRelid(row->relation), SPI_fnumber(row->desc, "id"), false);

	if (id < 1 || id > get_last_value(sequence))
		throw_not_yours("id");
}

static void
check_host(JobRow *row)
{
	/* The host stays until the job is on the queue, where its removal sees it. */
	static CmTriggerSql find = {
		"SELECT FROM %s.cm_hosts WHERE name = $1 FOR KEY SHARE", 1, {TEXTOID}, InvalidOid, NULL};
	bool is_null;
	Datum host = get_value(row, "host", &is_null);

	if (is_null)
		return;
	if (cm_sqlapi_run_in_trigger(&find, row->relation, &host) == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("host \"%s\" does not exist", TextDatumGetCString(host)),
						errhint("The hosts are in cm_hosts; cm_add_host() adds one."),
						err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
						err_generic_string(PG_DIAG_COLUMN_NAME, "host")));
	set_value(row, "requested_host", host, false);
}

/*
 * A row that comes with an epoch comes out of a dump: it is not run, and stays
 * as it is, but that it says so.
 */
static bool
is_restored(const JobRow *row)
{
	if (is_column_null(row, "epoch"))
		return false;
	if (!superuser() && !cm_class_ownercheck(RelationGetRelid(row->relation), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("epoch of a job cannot be given"),
				 errdetail("Only a superuser or the owner of cm_jobs may restore jobs."),
				 errhint("Leave the column out.")));
	return true;
}

/* Is it a row that somebody might expect to be run? */
static bool
is_copy_of_unfinished(const JobRow *row)
{
	bool is_null;
	bool is_own;
	Datum epoch = get_value(row, "epoch", &is_null);
	CmAsOwner as_owner;

	if (!is_column_null(row, "completed_at"))
		return false;
	cm_sqlapi_begin_as(row->relation->rd_rel->relowner, &as_owner);
	is_own = memcmp(get_epoch(row->relation), DatumGetUUIDP(epoch), sizeof(pg_uuid_t)) == 0;
	cm_sqlapi_end_as_owner(&as_owner);
	return !is_own;
}

static void
complete_restored_job(JobRow *row)
{
	if (is_copy_of_unfinished(row))
		set_value(row, "detail", CStringGetTextDatum("restored from a dump; does not run here"),
				  false);
	fill_in_defaults(row);
	apply_changes(row);
}

/* What its template gives it, and its environment from all layers. */
static HeapTuple
fill_from_templates(Relation jobs, HeapTuple said)
{
	char *template_environment = NULL;
	HeapTuple filled = cm_sqlapi_fill_from_template(jobs, said, &template_environment);

	return cm_sqlapi_merge_environment(jobs, said, filled, template_environment);
}

/* 0, or the job that makes this one needless. */
static int64
complete_job(JobRow *row)
{
	Datum now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	CmAsOwner as_owner;
	Datum epoch;
	int64 holder;
	Oid submitter = GetUserId();

	if (!is_column_null(row, "environment_sources"))
		throw_not_yours("environment_sources");
	row->tuple = fill_from_templates(row->relation, row->tuple);
	fill_in_defaults(row);
	set_value(row, "created_at", now, false);
	set_value(row, "updated_at", now, false);
	apply_changes(row);
	check_state_columns(row);
	check_schedule(row);
	check_placement(row);
	cm_sqlapi_check_keys(row->relation, row->tuple);
	cm_sqlapi_begin_as(row->relation->rd_rel->relowner, &as_owner);
	epoch = UUIDPGetDatum(get_epoch(row->relation));
	check_id(row);
	check_host(row);
	cm_sqlapi_end_as_owner(&as_owner);
	set_value(row, "epoch", epoch, false);
	apply_changes(row);
	check_definition(row);
	cm_sqlapi_check_secrets(row->relation, row->tuple, submitter);
	cm_sqlapi_check_dependencies(row->relation, row->tuple);
	/* Last, for it may disturb another job. */
	cm_sqlapi_begin_as(row->relation->rd_rel->relowner, &as_owner);
	cm_sqlapi_lock_dependencies(row->relation, row->tuple);
	holder = cm_sqlapi_take_unique_key(row->relation, row->tuple, submitter);
	cm_sqlapi_end_as_owner(&as_owner);
	cm_sqlapi_note_checked(holder);
	return holder;
}

void
cm_sqlapi_check_unsubmitted(Relation jobs, HeapTuple job)
{
	JobRow row = {.relation = jobs, .desc = RelationGetDescr(jobs), .tuple = job};
	CmAsOwner as_owner;

	fill_in_defaults(&row);
	apply_changes(&row);
	check_schedule(&row);
	check_placement(&row);
	cm_sqlapi_begin_as(jobs->rd_rel->relowner, &as_owner);
	check_host(&row);
	cm_sqlapi_end_as_owner(&as_owner);
	check_definition(&row);
}

PG_FUNCTION_INFO_V1(cm_check_job);

Datum
cm_check_job(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	MemoryContext caller = CurrentMemoryContext;
	JobRow row = {0};
	HeapTuple result;
	int64 holder = 0;

	row.relation = trigger->tg_relation;
	row.desc = RelationGetDescr(trigger->tg_relation);
	row.tuple = trigger->tg_trigtuple;
	SPI_connect();
	if (is_restored(&row))
		complete_restored_job(&row);
	else
		holder = complete_job(&row);
	MemoryContextSwitchTo(caller);
	result = holder == 0 ? heap_copytuple(row.tuple) : NULL;
	SPI_finish();
	return PointerGetDatum(result);
}

/* --- and queued --- */

/* The sentence that tells why nobody would run it, or NULL. */
static const char *
find_why_not_run(const char **hint)
{
	CmExecutorStatus status;

	if (cm_shmem_executor_status(MyDatabaseId, &status) &&
		(status.phase == CM_PHASE_AT_WORK || status.phase == CM_PHASE_STARTING))
		return NULL;
	if (status.phase == CM_PHASE_ON_HOLD)
	{
		*hint = "See cm_status for why, and what to do.";
		return "this server is on hold";
	}
	if (!cm_guc_enabled)
	{
		*hint =
			"Turn container_manager.enabled on for this database, then call cm_start_executor().";
		return "container_manager.enabled is off";
	}
	if (!cm_shmem_is_preloaded())
	{
		*hint =
			"Add container_manager to shared_preload_libraries in postgresql.conf and restart, or call cm_start_executor() for now.";
		return "container_manager is not in shared_preload_libraries, and cm_start_executor() was not called";
	}
	/* The launcher starts one on its own, unless it cannot. */
	if (!cm_shmem_executor_status(MyDatabaseId, &status) || status.phase == CM_PHASE_NONE ||
		status.phase == CM_PHASE_NO_EXTENSION)
		return NULL;
	*hint = "See cm_status.";
	return "the executor is not running";
}

static void
warn_if_nobody_runs_it(void)
{
	const char *hint = "";
	const char *why = find_why_not_run(&hint);

	if (why != NULL)
		ereport(WARNING, (errmsg("the job is queued, but nobody runs it: %s", why),
						  errhint("%s", hint), errhidecontext(true)));
}

PG_FUNCTION_INFO_V1(cm_enqueue_jobs);

Datum
cm_enqueue_jobs(PG_FUNCTION_ARGS)
{
	static CmTriggerSql enqueue = {
		"WITH dependencies AS (INSERT INTO cm_internal.dependencies (job_id, depends_on, any_end)"
		" SELECT DISTINCT n.id, d.id, coalesce(n.depends_on_any_end, false) FROM cm_new_jobs n"
		" CROSS JOIN LATERAL unnest(n.depends_on) d (id)"
		" WHERE n.status = 'pending' AND n.attempt = 0 AND n.epoch = $1"
		" ON CONFLICT (job_id, depends_on) DO UPDATE SET any_end = excluded.any_end)"
		" INSERT INTO cm_internal.queue (job_id, placement, priority, run_at, is_due, expires_at,"
		" waits_for, is_settled, concurrency_key, concurrency_limit)"
		" SELECT n.id, coalesce(h.id, cm_internal.placement_key(n.host_labels, n.placement_strategy,"
		" n.memory_limit, n.cpu_limit, 1000)), n.priority, n.run_at, n.run_at <= now(), n.run_at + n.max_wait,"
		" w.n, w.n = 0, CASE WHEN n.concurrency_key IS NOT NULL THEN ARRAY[n.namespace, n.concurrency_key] END,"
		" n.concurrency_limit"
		" FROM cm_new_jobs n LEFT JOIN %s.cm_hosts h ON h.name = n.requested_host"
		/* The key's other rows were written when it was taken. */
		" CROSS JOIN LATERAL (SELECT CASE WHEN n.depends_on IS NULL AND n.unique_key IS NULL THEN 0 ELSE"
		"  (SELECT count(*)::int4 FROM (SELECT unnest(n.depends_on) UNION"
		"   SELECT d.depends_on FROM cm_internal.dependencies d WHERE d.job_id = n.id) d) END AS n) w"
		" WHERE n.status = 'pending' AND n.attempt = 0 AND n.epoch = $1",
		1,
		{UUIDOID},
		InvalidOid,
		NULL};
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	CmAsOwner as_owner;
	Datum epoch;
	uint64 n;

	SPI_connect();
	SPI_register_trigger_data(trigger);
	cm_sqlapi_begin_as(trigger->tg_relation->rd_rel->relowner, &as_owner);
	epoch = UUIDPGetDatum(get_epoch(trigger->tg_relation));
	n = cm_sqlapi_run_in_trigger(&enqueue, trigger->tg_relation, &epoch);
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	if (n > 0 && !cm_submit_is_dry_run)
	{
		cm_shmem_wake_at_commit(CM_WAKE_JOBS);
		warn_if_nobody_runs_it();
	}
	return PointerGetDatum(NULL);
}
