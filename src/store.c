/*
 * store.c
 *		The executor's transactions, what it must know of the database it works
 *		for, and the hosts.
 *
 * The executor never waits for a lock: a user may hold one for hours.  Table
 * locks are taken conditionally at the start of a turn's transaction, rows
 * are skipped when locked, and what could not be recorded is kept in memory
 * and tried again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "home.h"
#include "store.h"
#include "store_sql.h"

/* More than a server can be ahead of its standby. */
#define SKIPPED_JOBS 10000
#define SKIPPED_EVENTS 100000

bool cm_store_is_publishing = false;

static MemoryContext caller_context = NULL;
static uint64 n_transactions = 0;

/* The extension as it was found; its schema's name, quoted. */
static Oid extension_oid = InvalidOid;
static Oid extension_schema_oid = InvalidOid;
static char *extension_schema = NULL;
static uint64 n_openings = 0;

/* Tables that a turn touches, and how. */
typedef struct LockedTable
{
	const char *schema; /* NULL: the extension's */
	const char *name;
	LOCKMODE mode;
	Oid relation;
} LockedTable;

static LockedTable locked_tables[] = {
	{NULL, "cm_jobs", RowExclusiveLock, InvalidOid},
	{NULL, "cm_job_events", RowExclusiveLock, InvalidOid},
	{NULL, "cm_job_attempts", RowExclusiveLock, InvalidOid},
	{NULL, "cm_hosts", RowShareLock, InvalidOid},
	{"cm_internal", "identity", RowExclusiveLock, InvalidOid},
	{"cm_internal", "queue", RowExclusiveLock, InvalidOid},
	{"cm_internal", "requests", RowExclusiveLock, InvalidOid},
	{"cm_internal", "dependencies", RowExclusiveLock, InvalidOid},
	{"cm_internal", "unique_keys", RowExclusiveLock, InvalidOid},
	{"cm_internal", "pauses", AccessShareLock, InvalidOid},
	{"cm_internal", "log_chunks", RowExclusiveLock, InvalidOid},
	{"cm_internal", "placements", RowExclusiveLock, InvalidOid},
	{"cm_internal", "kept_containers", RowExclusiveLock, InvalidOid},
	{"cm_internal", "host_drains", AccessShareLock, InvalidOid},
	{"cm_internal", "host_tls", AccessShareLock, InvalidOid},
	{"cm_internal", "secrets", AccessShareLock, InvalidOid},
	{"cm_internal", "secret_uses", RowExclusiveLock, InvalidOid},
	{"cm_internal", "accepted_engines", AccessShareLock, InvalidOid},
	{"cm_internal", "host_certificates", RowExclusiveLock, InvalidOid},
	{"cm_internal", "host_states", RowExclusiveLock, InvalidOid},
	{"cm_internal", "host_requests", RowExclusiveLock, InvalidOid},
	{"cm_internal", "cas", AccessShareLock, InvalidOid},
	{"cm_internal", "issued_certificates", AccessShareLock, InvalidOid},
	{"cm_internal", "certificate_warnings", RowExclusiveLock, InvalidOid},
};

void
cm_store_begin(void)
{
	caller_context = CurrentMemoryContext;
	n_transactions++;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	pgstat_report_activity(STATE_RUNNING, "container_manager: recording and taking jobs");
	MemoryContextSwitchTo(caller_context);
}

static void
report_idle(void)
{
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(caller_context);
}

void
cm_store_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	report_idle();
}

void
cm_store_abort(void)
{
	/* Also where the error came in the middle of a start or a commit. */
	AbortCurrentTransaction();
	report_idle();
}

uint64
cm_store_n_transactions(void)
{
	return n_transactions;
}

const char *
cm_sql_schema(void)
{
	return extension_schema;
}

uint64
cm_sql_generation(void)
{
	return n_openings;
}

static Datum
make_text(const char *utf8, char *null)
{
	*null = utf8 == NULL ? 'n' : ' ';
	return utf8 == NULL ? (Datum) 0 : CStringGetTextDatum(cm_store_text_from_utf8(utf8));
}

/* --- who we are --- */

static void
become_a_copy(const CmIdentityHere *here)
{
	static CmSql new_epoch = {
		"UPDATE cm_internal.identity i SET epoch = c.epoch, incarnation = 1, database_oid = $1,"
		" system_identifier = $2, home = $3, timeline = $4, held_because = NULL,"
		" held_since = NULL, seen_incarnation = 0, seen_on = NULL, take_over_asked = false,"
		" old_jobs_up_to = 0"
		" FROM cm_internal.current_identity c",
		4,
		{OIDOID, INT8OID, TEXTOID, INT8OID},
		NULL,
		0};
	static CmSql calm_jobs = {"UPDATE @extschema@.cm_jobs SET updated_at = clock_timestamp(),"
							  " detail = 'copied with the database; does not run here'"
							  " WHERE id IN (SELECT job_id FROM cm_internal.queue)"
							  " AND epoch <> (SELECT epoch FROM cm_internal.identity)",
							  0,
							  {0},
							  NULL,
							  0};
	static CmSql empty_dependencies = {
		"DELETE FROM cm_internal.dependencies d"
		" WHERE NOT EXISTS (SELECT FROM cm_internal.queue q WHERE q.job_id = d.job_id)",
		0,
		{0},
		NULL,
		0};
	/* What was submitted to the copy itself stays. */
	static CmSql empty_queue = {
		"DELETE FROM cm_internal.queue q USING @extschema@.cm_jobs j, cm_internal.identity i"
		" WHERE j.id = q.job_id AND j.epoch <> i.epoch",
		0,
		{0},
		NULL,
		0};
	static CmSql empty_requests = {
		"DELETE FROM cm_internal.requests r"
		" WHERE NOT EXISTS (SELECT FROM cm_internal.queue q WHERE q.job_id = r.job_id)"
		" AND r.epoch IS DISTINCT FROM (SELECT i.epoch FROM cm_internal.identity i)",
		0,
		{0},
		NULL,
		0};
	/* They are the original's. */
	static CmSql forget_kept = {"DELETE FROM cm_internal.kept_containers", 0, {0}, NULL, 0};
	Datum values[4];

	values[0] = ObjectIdGetDatum(here->database_oid);
	values[1] = Int64GetDatum(here->system_identifier);
	values[2] = CStringGetTextDatum(here->home);
	values[3] = Int64GetDatum(here->timeline);
	cm_sql_run(&new_epoch, values, NULL);
	cm_sql_run(&calm_jobs, NULL, NULL);
	cm_sql_run(&empty_queue, NULL, NULL);
	cm_sql_run(&empty_dependencies, NULL, NULL);
	cm_sql_run(&empty_requests, NULL, NULL);
	cm_sql_run(&forget_kept, NULL, NULL);
	ereport(LOG,
			(errmsg("container_manager: database \"%s\" is a copy of another one",
					get_database_name(MyDatabaseId)),
			 errdetail(
				 "It gets an epoch of its own; unfinished jobs that came along do not run here.")));
}

/* What is recorded of us, and what is found. */
typedef struct Identity
{
	CmIdentity known;
	CmIdentityRow row;
	CmIdentityHere here;
} Identity;

static void
load_identity(Identity *identity)
{
	static CmSql load = {"SELECT i.epoch::text, i.incarnation, i.database_oid::int8,"
						 " i.system_identifier, s.system_identifier, i.home, i.timeline,"
						 " i.held_because, i.take_over_asked, i.old_jobs_up_to"
						 " FROM cm_internal.identity i, pg_control_system() s",
						 0,
						 {0},
						 NULL,
						 0};
	static char home[CM_HOME_SIZE];

	if (!cm_home_read(home))
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not stat file \"%s/PG_VERSION\": %m", DataDir)));
	if (cm_sql_run(&load, NULL, NULL) != 1)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("table cm_internal.identity does not have exactly one row"),
						errhint("Drop the extension and create it anew.")));
	memset(identity, 0, sizeof(*identity));
	strlcpy(identity->known.epoch, cm_sql_text(0, 1), sizeof(identity->known.epoch));
	identity->known.incarnation = cm_sql_int32(0, 2, 1);
	strlcpy(identity->known.home, home, sizeof(identity->known.home));
	identity->known.old_jobs_up_to = cm_sql_int64(0, 10, 0);
	identity->row.database_oid = (Oid) cm_sql_int64(0, 3, 0);
	identity->row.system_identifier = cm_sql_int64(0, 4, 0);
	identity->row.home = cm_sql_text(0, 6);
	identity->row.timeline = cm_sql_int64(0, 7, 0);
	identity->row.hold = cm_identity_parse_hold(cm_sql_text(0, 8));
	identity->row.is_take_over_asked = cm_sql_bool(0, 9);
	identity->here.database_oid = MyDatabaseId;
	identity->here.system_identifier = cm_sql_int64(0, 5, 0);
	identity->here.home = home;
	identity->here.timeline = cm_home_timeline();
	identity->here.was_standby = cm_home_was_standby();
	identity->here.may_take_over_copies = cm_guc_take_over_copies;
}

/*
 * Numbers that the server before us may have given out, unknown to us, are not
 * given out again.  Returns the last one that is known.
 */
static int64
skip_numbers(const char *table, int64 n)
{
	static CmSql skip = {
		"SELECT coalesce(pg_catalog.pg_sequence_last_value(d.objid::regclass), 0),"
		" pg_catalog.setval(d.objid::regclass,"
		" coalesce(pg_catalog.pg_sequence_last_value(d.objid::regclass), 0) + $2)"
		" FROM pg_catalog.pg_depend d WHERE d.deptype = 'i'"
		" AND d.classid = 'pg_catalog.pg_class'::regclass"
		" AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = $1"
		" AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind = 'S')",
		2,
		{OIDOID, INT8OID},
		NULL,
		0};
	Datum values[2];

	values[0] = ObjectIdGetDatum(get_relname_relid(table, extension_schema_oid));
	values[1] = Int64GetDatum(n);
	return cm_sql_run(&skip, values, NULL) == 1 ? cm_sql_int64(0, 1, 0) : 0;
}

/* Returns the last job that is known. */
static int64
skip_all_numbers(void)
{
	(void) skip_numbers("cm_job_events", SKIPPED_EVENTS);
	return skip_numbers("cm_jobs", SKIPPED_JOBS);
}

/* What the server before us did without our knowing: not before a pg_upgrade,
 * which begins when that one has ended. */
static int64
leave_gaps(const Identity *identity)
{
	static CmSql last = {"SELECT max(job_id) FROM cm_internal.queue", 0, {0}, NULL, 0};
	int64 last_job;

	if (identity->row.hold == CM_HOLD_NOT &&
		identity->row.system_identifier != identity->here.system_identifier)
		return identity->known.old_jobs_up_to;
	last_job = skip_all_numbers();
	cm_sql_run(&last, NULL, NULL);
	return Max(last_job, cm_sql_int64(0, 1, 0));
}

static void
take_over(const Identity *identity)
{
	static CmSql raise = {
		"UPDATE cm_internal.identity i SET system_identifier = $1, home = $2, timeline = $3,"
		" incarnation = greatest(i.incarnation, i.seen_incarnation) + 1, old_jobs_up_to = $4,"
		" held_because = NULL, held_since = NULL, seen_incarnation = 0, seen_on = NULL,"
		" take_over_asked = false",
		4,
		{INT8OID, TEXTOID, INT8OID, INT8OID},
		NULL,
		0};
	/* They are what the server before us saw. */
	static CmSql forget_states = {
		"UPDATE cm_internal.host_states SET state = 'unknown', since = clock_timestamp(),"
		" error = NULL, hint = NULL WHERE host_id IN"
		" (SELECT host_id FROM cm_internal.host_states FOR UPDATE SKIP LOCKED)",
		0,
		{0},
		NULL,
		0};
	Datum values[4];

	values[0] = Int64GetDatum(identity->here.system_identifier);
	values[1] = CStringGetTextDatum(identity->here.home);
	values[2] = Int64GetDatum(identity->here.timeline);
	values[3] = Int64GetDatum(leave_gaps(identity));
	cm_sql_run(&raise, values, NULL);
	cm_sql_run(&forget_states, NULL, NULL);
	ereport(LOG, (errmsg("container_manager: database \"%s\" takes over its jobs on this server",
						 get_database_name(MyDatabaseId))));
}

static void
record_hold(CmHold hold, int incarnation, const char *host)
{
	static CmSql record = {
		"UPDATE cm_internal.identity SET held_because = $1, held_since = clock_timestamp(),"
		" seen_incarnation = $2, seen_on = $3, take_over_asked = false",
		3,
		{TEXTOID, INT4OID, TEXTOID},
		NULL,
		0};
	char nulls[4] = "   ";
	Datum values[3];

	values[0] = CStringGetTextDatum(cm_identity_hold_word(hold));
	values[1] = Int32GetDatum(incarnation);
	values[2] = make_text(host, &nulls[2]);
	cm_sql_run(&record, values, nulls);
}

/* Whoever asks for a takeover locks it, too; false: he is just doing so. */
static bool
lock_identity(void)
{
	static CmSql lock = {
		"SELECT FROM cm_internal.identity FOR UPDATE SKIP LOCKED", 0, {0}, NULL, 0};

	return cm_sql_run(&lock, NULL, NULL) == 1;
}

static CmStoreOpening
settle_identity(CmIdentity *known)
{
	Identity identity;
	CmIdentityVerdict verdict;
	CmHold hold;

	load_identity(&identity);
	verdict = cm_identity_judge(&identity.row, &identity.here, &hold);
	if (verdict != CM_IDENTITY_SAME && (verdict != CM_IDENTITY_HOLD || hold != identity.row.hold))
	{
		if (!lock_identity())
			return CM_STORE_BLOCKED;
		load_identity(&identity);
		verdict = cm_identity_judge(&identity.row, &identity.here, &hold);
	}
	if (verdict == CM_IDENTITY_NEW_EPOCH)
		become_a_copy(&identity.here);
	else if (verdict == CM_IDENTITY_TAKE_OVER)
		take_over(&identity);
	else if (verdict == CM_IDENTITY_HOLD && hold != identity.row.hold)
	{
		/* The original goes on giving out numbers: what is submitted here meanwhile
		 * must not be taken for its jobs when this one takes over. */
		skip_all_numbers();
		record_hold(hold, 0, NULL);
	}
	if (verdict == CM_IDENTITY_HOLD)
		return CM_STORE_HELD;
	load_identity(&identity);
	*known = identity.known;
	return CM_STORE_OPEN;
}

bool
cm_store_record_superseded(int incarnation, const char *host)
{
	if (!lock_identity())
		return false;
	record_hold(CM_HOLD_SUPERSEDED, incarnation, host);
	return true;
}

static bool
find_schema(Oid extension)
{
	static const char *query =
		"SELECT extnamespace::int8 FROM pg_catalog.pg_extension WHERE oid = $1";
	Oid types[1] = {OIDOID};
	Datum values[1] = {ObjectIdGetDatum(extension)};
	MemoryContext caller = CurrentMemoryContext;
	Oid schema;

	SPI_execute_with_args(query, 1, types, values, NULL, true, 1);
	MemoryContextSwitchTo(caller);
	if (SPI_processed != 1)
		return false;
	schema = (Oid) cm_sql_int64(0, 1, 0);
	extension_schema_oid = schema;
	if (extension_schema != NULL)
		pfree(extension_schema);
	extension_schema =
		MemoryContextStrdup(TopMemoryContext, quote_identifier(get_namespace_name(schema)));
	for (int i = 0; i < lengthof(locked_tables); i++)
	{
		LockedTable *table = &locked_tables[i];
		Oid in = table->schema ? get_namespace_oid(table->schema, true) : schema;

		table->relation = get_relname_relid(table->name, in);
		if (!OidIsValid(table->relation))
			return false;
	}
	return true;
}

/*
 * With the tables locked the extension cannot be dropped any more; when that
 * fails, somebody is perhaps just doing it.
 */
CmStoreOpening
cm_store_open(CmIdentity *identity, Oid *extension, CmLockInTheWay *lock)
{
	CmStoreOpening opening;

	extension_oid = get_extension_oid("container_manager", true);
	*extension = extension_oid;
	n_openings++;
	if (!OidIsValid(extension_oid) || !find_schema(extension_oid))
		return CM_STORE_NO_EXTENSION;
	if (!cm_store_try_lock(lock))
		return CM_STORE_BLOCKED;
	if (get_extension_oid("container_manager", true) != extension_oid)
		return CM_STORE_NO_EXTENSION;
	opening = settle_identity(identity);
	if (opening == CM_STORE_BLOCKED)
	{
		lock->table = "identity";
		lock->n_pids = 0;
	}
	return opening;
}

/* Somebody may have renamed the schema. */
static bool
is_schema_as_found(void)
{
	const char *name = get_namespace_name(extension_schema_oid);

	return name != NULL && strcmp(quote_identifier(name), extension_schema) == 0;
}

bool
cm_store_is_open(void)
{
	if (get_extension_oid("container_manager", true) != extension_oid)
		return false;
	if (is_schema_as_found())
		return true;
	n_openings++;
	return find_schema(extension_oid);
}

bool
cm_store_is_there(void)
{
	bool is_there;

	cm_store_begin();
	is_there = OidIsValid(get_extension_oid("container_manager", true));
	cm_store_commit();
	return is_there;
}

/* --- locks --- */

static int
read_pids(uint64 n_rows, int *pids, int max_pids)
{
	int n = Min(n_rows, (uint64) max_pids);

	for (int i = 0; i < n; i++)
		pids[i] = cm_sql_int32(i, 1, 0);
	return n;
}

static int
find_table_blockers(Oid relation, int *pids, int max_pids)
{
	static CmSql find = {
		"SELECT DISTINCT pid FROM pg_catalog.pg_locks"
		" WHERE locktype = 'relation' AND relation = $1 AND pid <> pg_backend_pid()"
		" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
		" AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
		" ORDER BY pid",
		1,
		{OIDOID},
		NULL,
		0};
	Datum value = ObjectIdGetDatum(relation);

	return read_pids(cm_sql_run(&find, &value, NULL), pids, max_pids);
}

bool
cm_store_try_lock(CmLockInTheWay *lock)
{
	for (int i = 0; i < lengthof(locked_tables); i++)
	{
		const LockedTable *wanted = &locked_tables[i];

		if (!OidIsValid(wanted->relation) ||
			ConditionalLockRelationOid(wanted->relation, wanted->mode))
			continue;
		lock->table = wanted->name;
		lock->n_pids = find_table_blockers(wanted->relation, lock->pids, lengthof(lock->pids));
		return false;
	}
	return true;
}

int
cm_store_row_blockers(int64 job_id, int *pids, int max_pids)
{
	static CmSql find_exact = {
		"SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l"
		" WHERE l.locktype = 'transactionid' AND l.granted AND l.pid <> pg_backend_pid()"
		" AND l.transactionid IN (SELECT xmax FROM @extschema@.cm_jobs WHERE id = $1"
		" UNION ALL SELECT xmax FROM cm_internal.queue WHERE job_id = $1)",
		1,
		{INT8OID},
		NULL,
		0};
	/* Several share the lock: whoever locked any row of the table. */
	static CmSql find_any = {
		"SELECT DISTINCT pid FROM pg_catalog.pg_locks"
		" WHERE locktype = 'relation' AND relation = $1 AND pid <> pg_backend_pid()"
		" AND mode IN ('RowShareLock', 'RowExclusiveLock')",
		1,
		{OIDOID},
		NULL,
		0};
	Datum value = Int64GetDatum(job_id);
	int n = read_pids(cm_sql_run(&find_exact, &value, NULL), pids, max_pids);

	if (n > 0)
		return n;
	value = ObjectIdGetDatum(locked_tables[0].relation);
	return read_pids(cm_sql_run(&find_any, &value, NULL), pids, max_pids);
}

/* --- hosts --- */

static void
load_address(uint64 row, CmHostAddress *address)
{
	bool is_null;
	Datum key;
	bytea *sealed;

	address->host_id = cm_sql_int32(row, 1, 0);
	address->connection_string = cm_sql_text(row, 3);
	address->tls_enabled = cm_sql_bool(row, 8);
	address->tls_verify = cm_sql_bool(row, 9);
	address->tls_cert_path = cm_sql_text(row, 10);
	address->has_stored_tls = cm_sql_bool(row, 11);
	address->ca = cm_sql_text(row, 12);
	address->cert = cm_sql_text(row, 13);
	key = cm_sql_datum(row, 14, &is_null);
	if (is_null)
		return;
	sealed = DatumGetByteaPCopy(key);
	address->key_sealed = VARDATA(sealed);
	address->n_key_sealed = VARSIZE(sealed) - VARHDRSZ;
}

CmHostRow *
cm_store_load_hosts(int *n)
{
	static CmSql load = {
		"SELECT h.id, h.name, h.connection_string, h.is_active AND d.host_name IS NULL,"
		" h.max_concurrent_jobs, h.weight, h.auto_pull_images,"
		" h.tls_enabled, h.tls_verify, h.tls_cert_path, t.host_id IS NOT NULL, t.ca, t.cert,"
		" t.key_sealed, h.executor_type, h.executor_config::text,"
		" h.executor_config @> '{\"require_userns\": true}',"
		" s.engine_id, a.engine_id, d.removed_by::text"
		" FROM @extschema@.cm_hosts h"
		" LEFT JOIN cm_internal.host_drains d ON d.host_name = h.name"
		" LEFT JOIN cm_internal.host_tls t ON t.host_id = h.id"
		" LEFT JOIN cm_internal.host_states s ON s.host_id = h.id"
		" LEFT JOIN cm_internal.accepted_engines a ON a.host_id = h.id"
		" ORDER BY h.id",
		0,
		{0},
		NULL,
		0};
	CmHostRow *hosts;

	*n = (int) cm_sql_run(&load, NULL, NULL);
	hosts = palloc0(sizeof(CmHostRow) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		hosts[i].id = cm_sql_int32(i, 1, 0);
		hosts[i].name = cm_sql_text(i, 2);
		load_address(i, &hosts[i].address);
		hosts[i].is_active = cm_sql_bool(i, 4);
		hosts[i].slots = cm_sql_int32(i, 5, 0);
		hosts[i].weight = cm_sql_int32(i, 6, 1);
		hosts[i].auto_pull_images = cm_sql_bool(i, 7);
		hosts[i].executor_type = cm_sql_text(i, 15);
		hosts[i].executor_config = cm_sql_text(i, 16);
		hosts[i].require_userns = cm_sql_bool(i, 17);
		hosts[i].engine_id = cm_sql_text(i, 18);
		hosts[i].accepted_engine_id = cm_sql_text(i, 19);
		hosts[i].removed_by = cm_sql_text(i, 20);
	}
	cm_store_load_registries(hosts, *n);
	return hosts;
}

typedef struct Arguments
{
	int n;
	Datum values[CM_SQL_MAX_ARGS];
	char nulls[CM_SQL_MAX_ARGS + 1];
} Arguments;

static void
add_text(Arguments *to, const char *text)
{
	to->nulls[to->n] = ' ';
	to->values[to->n] = make_text(text != NULL && text[0] != '\0' ? text : NULL, &to->nulls[to->n]);
	to->n++;
}

static void
add_int64(Arguments *to, int64 value, bool is_known)
{
	to->nulls[to->n] = is_known ? ' ' : 'n';
	to->values[to->n++] = Int64GetDatum(value);
}

/* Nothing of what was known before is forgotten where there are no facts. */
static void
add_facts(Arguments *to, const CmEngineFacts *facts)
{
	static const CmEngineFacts none = {.disk_free_bytes = -1};
	bool is_known = facts != NULL;

	facts = is_known ? facts : &none;
	add_text(to, facts->id);
	add_int64(to, facts->cpus, facts->cpus > 0);
	add_int64(to, facts->memory_bytes, facts->memory_bytes > 0);
	add_int64(to, facts->containers_running, is_known);
	add_int64(to, facts->containers_paused, is_known);
	add_int64(to, facts->containers_stopped, is_known);
	add_int64(to, facts->images, is_known);
	add_int64(to, facts->disk_free_bytes, facts->disk_free_bytes >= 0);
	add_text(to, facts->storage_driver);
	add_text(to, facts->security_options);
	add_text(to, facts->warnings);
	add_int64(to, facts->is_live_restore, is_known);
	add_int64(to, facts->is_experimental, is_known);
}

bool
cm_store_save_host_state(const CmHostState *state)
{
	static CmSql save = {
		"INSERT INTO cm_internal.host_states AS s (host_id, state, last_seen, engine_version,"
		" api_version, error, hint, engine_id, seen_engine_id, cpus, memory_bytes,"
		" containers_running, containers_paused, containers_stopped, images, disk_free,"
		" storage_driver, security_options, warnings, live_restore, experimental)"
		" SELECT $1, $2, CASE WHEN $2 = 'healthy' THEN clock_timestamp() END, $3, $4, $5, $6, $7,"
		" $8, $9::int4, $10, $11::int4, $12::int4, $13::int4, $14::int4, $15, $16,"
		" string_to_array($17, E'\\n'), string_to_array($18, E'\\n'), $19 <> 0, $20 <> 0"
		" FROM (SELECT FROM @extschema@.cm_hosts WHERE id = $1 FOR KEY SHARE SKIP LOCKED) h"
		" ON CONFLICT (host_id) DO UPDATE SET state = excluded.state,"
		" since = CASE WHEN s.state = excluded.state THEN s.since ELSE clock_timestamp() END,"
		" last_seen = coalesce(excluded.last_seen, s.last_seen),"
		" engine_version = coalesce(excluded.engine_version, s.engine_version),"
		" api_version = coalesce(excluded.api_version, s.api_version),"
		" error = excluded.error, hint = excluded.hint,"
		" engine_id = coalesce(excluded.engine_id, s.engine_id),"
		" (seen_engine_id, cpus, memory_bytes, containers_running, containers_paused,"
		" containers_stopped, images, disk_free, storage_driver, security_options, warnings,"
		" live_restore, experimental) ="
		" (SELECT excluded.seen_engine_id, excluded.cpus, excluded.memory_bytes,"
		" excluded.containers_running, excluded.containers_paused, excluded.containers_stopped,"
		" excluded.images, excluded.disk_free, excluded.storage_driver, excluded.security_options,"
		" excluded.warnings, excluded.live_restore, excluded.experimental"
		" WHERE excluded.live_restore IS NOT NULL"
		" UNION ALL SELECT s.seen_engine_id, s.cpus, s.memory_bytes, s.containers_running,"
		" s.containers_paused, s.containers_stopped, s.images, s.disk_free, s.storage_driver,"
		" s.security_options, s.warnings, s.live_restore, s.experimental"
		" WHERE excluded.live_restore IS NULL)",
		20,
		{INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID,
		 INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID},
		NULL,
		0};
	Arguments arguments = {.n = 1, .values = {Int32GetDatum(state->host_id)}, .nulls = " "};

	add_text(&arguments, state->state);
	add_text(&arguments, state->engine_version);
	add_text(&arguments, state->api_version);
	add_text(&arguments, state->error);
	add_text(&arguments, state->hint);
	add_text(&arguments, state->engine_id);
	add_facts(&arguments, state->facts);
	return cm_sql_run(&save, arguments.values, arguments.nulls) == 1;
}

/*
 * Not among the locks of every turn: whoever locks cm_hosts for himself need not
 * stop all jobs.
 */
bool
cm_store_try_lock_hosts(void)
{
	Oid drains = get_relname_relid("host_drains", get_namespace_oid("cm_internal", false));
	Oid tls = get_relname_relid("host_tls", get_namespace_oid("cm_internal", false));
	Oid engines = get_relname_relid("accepted_engines", get_namespace_oid("cm_internal", false));
	Oid hosts = get_relname_relid("cm_hosts", extension_schema_oid);

	return ConditionalLockRelationOid(drains, RowExclusiveLock) &&
		   ConditionalLockRelationOid(tls, RowExclusiveLock) &&
		   ConditionalLockRelationOid(engines, RowExclusiveLock) &&
		   ConditionalLockRelationOid(hosts, RowExclusiveLock);
}

/* Whoever changes a drain locks the host's row before. */
bool
cm_store_drain_host(int host_id, const char *reason)
{
	static CmSql drain = {
		"INSERT INTO cm_internal.host_drains (host_name, reason, drained_by)"
		" SELECT h.name, $2, 'container_manager'"
		" FROM (SELECT name FROM @extschema@.cm_hosts WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED) h"
		" ON CONFLICT (host_name) DO NOTHING",
		2,
		{INT4OID, TEXTOID},
		NULL,
		0};
	char nulls[3] = "  ";
	Datum values[2];

	values[0] = Int32GetDatum(host_id);
	values[1] = make_text(reason, &nulls[1]);
	return cm_sql_run(&drain, values, nulls) == 1;
}

int
cm_store_remove_hosts(void)
{
	static CmSql cancel = {"INSERT INTO cm_internal.requests (job_id, action, requested_by)"
						   " SELECT q.job_id, 'cancel', d.removed_by FROM cm_internal.host_drains d"
						   " JOIN @extschema@.cm_hosts h ON h.name = d.host_name"
						   " JOIN cm_internal.queue q ON q.host_id = h.id OR q.placement = h.id"
						   " WHERE d.removed_by IS NOT NULL AND q.cancel_requested_by IS NULL"
						   " AND NOT EXISTS (SELECT FROM cm_internal.requests r"
						   "  WHERE r.job_id = q.job_id AND r.action = 'cancel')"
						   " ORDER BY q.job_id LIMIT 1000",
						   0,
						   {0},
						   NULL,
						   0};
	/* Who submits a job for it locks it, too: after this, all of those are seen. */
	static CmSql lock = {
		"SELECT h.id FROM @extschema@.cm_hosts h WHERE EXISTS (SELECT FROM cm_internal.host_drains d"
		" WHERE d.host_name = h.name AND d.removed_by IS NOT NULL) FOR UPDATE SKIP LOCKED",
		0,
		{0},
		NULL,
		0};
	/* No trigger fires here: what is kept of them goes by hand. */
	static CmSql remove = {
		"WITH gone AS (DELETE FROM @extschema@.cm_hosts h WHERE h.id = ANY ($1) AND NOT EXISTS"
		"  (SELECT FROM cm_internal.queue q WHERE q.host_id = h.id OR q.placement = h.id)"
		" RETURNING h.id, h.name),"
		" drains AS (DELETE FROM cm_internal.host_drains d USING gone WHERE d.host_name = gone.name),"
		" states AS (DELETE FROM cm_internal.host_states s USING gone WHERE s.host_id = gone.id),"
		" engines AS (DELETE FROM cm_internal.accepted_engines a USING gone WHERE a.host_id = gone.id),"
		" keys AS (DELETE FROM cm_internal.host_tls t USING gone WHERE t.host_id = gone.id),"
		" certs AS (DELETE FROM cm_internal.host_certificates c USING gone WHERE c.host_id = gone.id),"
		" kept AS (DELETE FROM cm_internal.kept_containers k USING gone WHERE k.host_id = gone.id)"
		" SELECT FROM gone",
		1,
		{INT4ARRAYOID},
		NULL,
		0};
	int n = (int) cm_sql_run(&cancel, NULL, NULL);
	uint64 n_locked = cm_sql_run(&lock, NULL, NULL);
	CmColumn ids;
	Datum value;

	cm_column_init(&ids, INT4OID, Max(n_locked, 1));
	for (uint64 i = 0; i < n_locked; i++)
		cm_column_add_int32(&ids, cm_sql_int32(i, 1, 0));
	value = cm_column_array(&ids);
	return n + (int) cm_sql_run(&remove, &value, NULL);
}

bool
cm_store_has_pending_up_to(int64 job_id)
{
	static CmSql look = {
		"SELECT FROM cm_internal.queue WHERE status = 'pending' AND job_id <= $1 LIMIT 1",
		1,
		{INT8OID},
		NULL,
		0};
	Datum value = Int64GetDatum(job_id);

	return job_id > 0 && cm_sql_run(&look, &value, NULL) == 1;
}

void
cm_store_save_host_certificates(const CmHostCertificates *certificates)
{
	static CmSql save = {
		"WITH seen AS (SELECT * FROM (VALUES ('ca.pem', $2), ('cert.pem', $3), ('presented', $4))"
		"   v (source, cert) WHERE cert IS NOT NULL),"
		" gone AS (DELETE FROM cm_internal.host_certificates c WHERE c.host_id = $1"
		"   AND c.source NOT IN (SELECT source FROM seen))"
		" INSERT INTO cm_internal.host_certificates AS c (host_id, source, cert)"
		" SELECT $1, source, cert FROM seen"
		" ON CONFLICT (host_id, source) DO UPDATE"
		"   SET cert = excluded.cert, seen_at = clock_timestamp() WHERE c.cert <> excluded.cert",
		4,
		{INT4OID, TEXTOID, TEXTOID, TEXTOID},
		NULL,
		0};
	char nulls[5] = "    ";
	Datum values[4];

	values[0] = Int32GetDatum(certificates->host_id);
	values[1] = make_text(certificates->ca, &nulls[1]);
	values[2] = make_text(certificates->cert, &nulls[2]);
	values[3] = make_text(certificates->presented, &nulls[3]);
	cm_sql_run(&save, values, nulls);
}

/* --- is there work? --- */

/*
 * The least of a column rather than EXISTS: only the index made for it has that
 * order.  For one row, a planner without statistics may else take any index and
 * look through the whole queue in vain.
 */
void
cm_store_poll(CmPoll *poll)
{
	static CmSql look = {
		"SELECT (SELECT (coalesce(sum(xmin::text::int8), 0) % 100000007)::int8 * 31 + count(*) FROM @extschema@.cm_hosts)"
		" + 1000003 * (SELECT (coalesce(sum(xmin::text::int8), 0) % 100000007)::int8 * 31 + count(*) FROM cm_internal.host_drains)"
		" + 1000033 * (SELECT (coalesce(sum(xmin::text::int8), 0) % 100000007)::int8 * 31 + count(*) FROM cm_internal.host_tls)"
		" + (SELECT (coalesce(sum(xmin::text::int8), 0) % 100000007)::int8 FROM cm_internal.accepted_engines)"
		" + 1000037 * (SELECT (coalesce(sum(s.xmin::text::int8), 0) % 100000007)::int8 * 31 + count(*)"
		"   FROM @extschema@.cm_hosts h"
		"   CROSS JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(h.executor_config -> 'registry_auth')"
		"     WHEN 'object' THEN h.executor_config -> 'registry_auth' END) r"
		"   JOIN cm_internal.secrets s ON s.namespace = 'default' AND s.name = r.value),"
		" (SELECT min(placement) FROM cm_internal.queue WHERE status = 'pending' AND is_ready) IS NOT NULL,"
		" coalesce((SELECT min(run_at) FROM cm_internal.queue WHERE NOT is_due) <= now(), false),"
		" coalesce((SELECT min(expires_at) FROM cm_internal.queue WHERE status = 'pending' AND expires_at IS NOT NULL) <= now(), false),"
		" EXISTS (SELECT FROM cm_internal.requests),"
		" EXISTS (SELECT FROM cm_internal.kept_containers WHERE keep_until <= now()),"
		" least((SELECT min(run_at) FROM cm_internal.queue WHERE NOT is_due),"
		" (SELECT min(expires_at) FROM cm_internal.queue WHERE status = 'pending' AND expires_at IS NOT NULL),"
		" (SELECT min(keep_until) FROM cm_internal.kept_containers)),"
		" EXISTS (SELECT FROM cm_internal.host_requests WHERE state = 'waiting'),"
		" (SELECT min(run_at) FROM cm_internal.queue WHERE NOT is_settled) IS NOT NULL"
		" OR (SELECT min(failed_dependency) FROM cm_internal.queue WHERE failed_dependency IS NOT NULL) IS NOT NULL,"
		" (SELECT (coalesce(sum(xmin::text::int8), 0) % 100000007)::int8 * 31 + count(*) FROM cm_internal.pauses),"
		" EXISTS (SELECT FROM cm_internal.pauses WHERE namespace IS NULL AND template IS NULL)",
		0,
		{0},
		NULL,
		0};
	bool is_null;
	Datum next_at;

	cm_sql_run(&look, NULL, NULL);
	poll->hosts_mark = cm_sql_int64(0, 1, 0);
	poll->has_ready = cm_sql_bool(0, 2);
	poll->has_due = cm_sql_bool(0, 3);
	poll->has_expired = cm_sql_bool(0, 4);
	poll->has_requests = cm_sql_bool(0, 5);
	poll->has_kept_due = cm_sql_bool(0, 6);
	next_at = cm_sql_datum(0, 7, &is_null);
	poll->has_asked = cm_sql_bool(0, 8);
	poll->next_at = is_null ? DT_NOEND : DatumGetTimestampTz(next_at);
	poll->has_waiting = cm_sql_bool(0, 9);
	poll->pauses_mark = cm_sql_int64(0, 10, 0);
	poll->is_all_paused = cm_sql_bool(0, 11);
}

bool
cm_store_may_publish(void)
{
	static CmSql usage = {"SELECT pg_notification_queue_usage() < 0.9", 0, {0}, NULL, 0};

	return cm_sql_run(&usage, NULL, NULL) == 1 && cm_sql_bool(0, 1);
}
