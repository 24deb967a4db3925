/*
 * store_schedule.c
 *		What keeps pending jobs from being started: other jobs that must end first,
 *		a concurrency_key that enough others have, and pauses.
 *
 * A job that may not be started is not in the index that claims read, so that it
 * costs them nothing.  What lets it in again is done in the transaction that
 * makes it so: the executor alone records ends, so what it sees there is the
 * truth, and a crash undoes both or neither.
 *
 * Rows that somebody has locked are left as they are; the caller hears of it,
 * and has everything looked through later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "store.h"
#include "store_sql.h"

/* Rows that one statement puts aside, or looks at, at most. */
#define MAX_UNPAUSED 10000
#define MAX_HELD 2000
#define MAX_SETTLED 1000
#define MAX_PAUSED_AHEAD 2000

static Datum
make_ids(const int64 *ids, int n)
{
	CmColumn column;

	cm_column_init(&column, INT8OID, n);
	for (int i = 0; i < n; i++)
		cm_column_add_int64(&column, ids[i]);
	return cm_column_array(&column);
}

/* --- dependencies --- */

/*
 * Of rows of cm_internal.dependencies whose job has ended, or is not there any
 * more: takes them off, and tells the jobs that waited.  One that is about to be
 * retried has not ended.
 */
#define APPLY_ENDS(which)                                                                                          \
	"WITH ended AS MATERIALIZED (SELECT d.job_id, d.depends_on,"                                                   \
	" d.any_end OR coalesce(j.status = 'completed', false) AS is_met"                                              \
	" FROM cm_internal.dependencies d JOIN cm_internal.queue q ON q.job_id = d.job_id"                             \
	" LEFT JOIN @extschema@.cm_jobs j ON j.id = d.depends_on"                                                      \
	" WHERE " which " AND (j.id IS NULL OR j.completed_at IS NOT NULL)"                                            \
	" AND NOT EXISTS (SELECT FROM cm_internal.requests r"                                                          \
	"  WHERE r.job_id = d.depends_on AND r.action = 'retry')),"                                                    \
	" told AS MATERIALIZED (SELECT q.job_id FROM cm_internal.queue q"                                              \
	" WHERE q.job_id = ANY (ARRAY(SELECT e.job_id FROM ended e)) FOR NO KEY UPDATE SKIP LOCKED),"                  \
	" gone AS (DELETE FROM cm_internal.dependencies d USING ended e, told t"                                       \
	" WHERE d.job_id = e.job_id AND d.depends_on = e.depends_on AND t.job_id = e.job_id),"                         \
	" moved AS (UPDATE cm_internal.queue q SET waits_for = greatest(q.waits_for - s.n, 0),"                        \
	" failed_dependency = coalesce(q.failed_dependency, s.failed)"                                                 \
	" FROM (SELECT e.job_id, count(*)::int4 AS n,"                                                                 \
	"  min(e.depends_on) FILTER (WHERE NOT e.is_met) AS failed"                                                    \
	"  FROM ended e JOIN told t ON t.job_id = e.job_id GROUP BY e.job_id) s"                                       \
	" WHERE q.job_id = s.job_id AND q.job_id = ANY (ARRAY(SELECT t.job_id FROM told t)) AND q.status = 'pending')" \
	" SELECT (SELECT count(*) FROM told), (SELECT count(DISTINCT e.job_id) FROM ended e)"

static void
apply_ends(CmSql *sql, const Datum *value, CmMoved *moved)
{
	int n_told;

	cm_sql_run(sql, value, NULL);
	n_told = (int) cm_sql_int64(0, 1, 0);
	moved->n += n_told;
	moved->is_behind = moved->is_behind || n_told < cm_sql_int64(0, 2, 0);
}

/*
 * What the jobs that have ended waited for, and the keys that they had, go with
 * them.  One that was to replace another, and ended first, gives it the key back.
 */
static void
forget_ended(Datum ids)
{
	static CmSql forget = {
		"WITH heirs AS MATERIALIZED (SELECT d.job_id, max(d.depends_on) AS heir"
		" FROM cm_internal.dependencies d JOIN cm_internal.queue q ON q.job_id = d.depends_on"
		" WHERE d.job_id = ANY ($1) AND d.replaces GROUP BY d.job_id),"
		" keys AS MATERIALIZED (SELECT k.namespace, k.unique_key, k.job_id"
		" FROM cm_internal.unique_keys k WHERE k.job_id = ANY ($1) FOR UPDATE SKIP LOCKED),"
		" back AS (UPDATE cm_internal.unique_keys u SET job_id = h.heir"
		" FROM keys k JOIN heirs h ON h.job_id = k.job_id"
		" WHERE u.namespace = k.namespace AND u.unique_key = k.unique_key),"
		" gone AS (DELETE FROM cm_internal.unique_keys u USING keys k"
		" WHERE u.namespace = k.namespace AND u.unique_key = k.unique_key"
		" AND NOT EXISTS (SELECT FROM heirs h WHERE h.job_id = k.job_id))"
		" DELETE FROM cm_internal.dependencies d WHERE d.job_id = ANY ($1)",
		1,
		{INT8ARRAYOID},
		NULL,
		0};

	cm_sql_run(&forget, &ids, NULL);
}

void
cm_store_note_ends(const int64 *job_ids, int n, CmMoved *moved)
{
	/* Most jobs have nothing to do with others. */
	static CmSql look = {
		"SELECT EXISTS (SELECT FROM cm_internal.dependencies d WHERE d.depends_on = ANY ($1)),"
		" EXISTS (SELECT FROM cm_internal.dependencies d WHERE d.job_id = ANY ($1))"
		" OR EXISTS (SELECT FROM cm_internal.unique_keys k WHERE k.job_id = ANY ($1))",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	static CmSql apply = {APPLY_ENDS("d.depends_on = ANY ($1)"), 1, {INT8ARRAYOID}, NULL, 0};
	Datum ids;
	bool are_waited_for;
	bool have_more;

	if (n == 0)
		return;
	ids = make_ids(job_ids, n);
	cm_sql_run(&look, &ids, NULL);
	are_waited_for = cm_sql_bool(0, 1);
	have_more = cm_sql_bool(0, 2);
	if (are_waited_for)
		apply_ends(&apply, &ids, moved);
	if (have_more)
		forget_ended(ids);
}

bool
cm_store_settle(CmMoved *moved)
{
	static CmSql select = {
		"SELECT job_id FROM cm_internal.queue WHERE NOT is_settled ORDER BY job_id LIMIT $1"
		" FOR NO KEY UPDATE SKIP LOCKED",
		1,
		{INT4OID},
		NULL,
		0};
	static CmSql apply = {APPLY_ENDS("d.job_id = ANY ($1)"), 1, {INT8ARRAYOID}, NULL, 0};
	static CmSql settle = {"UPDATE cm_internal.queue SET is_settled = true WHERE job_id = ANY ($1)",
						   1,
						   {INT8ARRAYOID},
						   NULL,
						   0};
	Datum value = Int32GetDatum(MAX_SETTLED);
	int n = (int) cm_sql_run(&select, &value, NULL);
	int64 *ids = palloc(sizeof(int64) * Max(n, 1));

	for (int i = 0; i < n; i++)
		ids[i] = cm_sql_int64(i, 1, 0);
	if (n == 0)
		return false;
	value = make_ids(ids, n);
	apply_ends(&apply, &value, moved);
	cm_sql_run(&settle, &value, NULL);
	return n == MAX_SETTLED;
}

CmDoomed *
cm_store_load_doomed(int max, int64 unsure_up_to, int *n)
{
	static CmSql load = {
		"SELECT q.job_id, q.attempt, q.failed_dependency, j.status, j.failure_reason"
		" FROM cm_internal.queue q LEFT JOIN @extschema@.cm_jobs j ON j.id = q.failed_dependency"
		" WHERE q.failed_dependency IS NOT NULL AND q.status = 'pending' AND q.job_id > $2"
		" ORDER BY q.job_id LIMIT $1 FOR UPDATE OF q SKIP LOCKED",
		2,
		{INT4OID, INT8OID},
		NULL,
		0};
	Datum values[2] = {Int32GetDatum(max), Int64GetDatum(unsure_up_to)};
	CmDoomed *jobs;

	*n = (int) cm_sql_run(&load, values, NULL);
	jobs = palloc(sizeof(CmDoomed) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		jobs[i].job_id = cm_sql_int64(i, 1, 0);
		jobs[i].attempt = cm_sql_int32(i, 2, 0);
		jobs[i].failed_dependency = cm_sql_int64(i, 3, 0);
		jobs[i].status = cm_sql_text(i, 4);
		jobs[i].reason = cm_sql_text(i, 5);
	}
	return jobs;
}

void
cm_store_forget_dependencies(const int64 *job_ids, int n)
{
	static CmSql forget = {
		"WITH d AS (DELETE FROM cm_internal.dependencies WHERE job_id = ANY ($1))"
		" UPDATE cm_internal.queue SET waits_for = 0, failed_dependency = NULL, is_settled = true,"
		" is_paused = false, is_held = false WHERE job_id = ANY ($1)",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	Datum ids = make_ids(job_ids, n);

	cm_sql_run(&forget, &ids, NULL);
}

/* --- concurrency keys --- */

/*
 * Of those held for each key, n for each placement: what is let in at one may find
 * no host, and must not keep others from theirs.  Jobs of $1 have left their key.
 */
#define RELEASE_HELD(keys)                                                                       \
	"UPDATE cm_internal.queue q SET is_held = false WHERE q.job_id = ANY (ARRAY(SELECT h.job_id" \
	" FROM (SELECT l.concurrency_key, l.n, (SELECT count(*) FROM cm_internal.queue t"            \
	"   WHERE t.concurrency_key = l.concurrency_key AND t.concurrency_key IS NOT NULL"           \
	"   AND t.status <> 'pending' AND t.job_id <> ALL ($1)) AS n_taken"                          \
	"  FROM (" keys ") l) l"                                                                     \
	" CROSS JOIN LATERAL (WITH RECURSIVE p (placement) AS ("                                     \
	"   (SELECT k.placement FROM cm_internal.queue k WHERE k.is_held"                            \
	"    AND k.concurrency_key = l.concurrency_key ORDER BY k.placement LIMIT 1)"                \
	"   UNION ALL SELECT (SELECT k.placement FROM cm_internal.queue k WHERE k.is_held"           \
	"    AND k.concurrency_key = l.concurrency_key AND k.placement > p.placement"                \
	"    ORDER BY k.placement LIMIT 1) FROM p WHERE p.placement IS NOT NULL)"                    \
	"  SELECT p.placement FROM p WHERE p.placement IS NOT NULL) p"                               \
	" CROSS JOIN LATERAL (SELECT k.job_id FROM cm_internal.queue k WHERE k.is_held"              \
	"  AND k.concurrency_key = l.concurrency_key AND k.placement = p.placement"                  \
	"  AND k.concurrency_limit > l.n_taken ORDER BY k.priority DESC, k.run_at, k.job_id"         \
	"  LIMIT l.n FOR UPDATE SKIP LOCKED) h))"

/* As many as have left. */
void
cm_store_release_keys(const int64 *job_ids, int n, CmMoved *moved)
{
	static CmSql release = {
		RELEASE_HELD(
			"SELECT k.concurrency_key, count(*) AS n FROM cm_internal.queue k"
			" WHERE k.job_id = ANY ($1) AND k.concurrency_key IS NOT NULL GROUP BY k.concurrency_key"),
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	Datum ids;

	if (n == 0)
		return;
	ids = make_ids(job_ids, n);
	moved->n += (int) cm_sql_run(&release, &ids, NULL);
}

CmGate *
cm_store_load_gates(const int64 *job_ids, int n, const int64 *chosen, int n_chosen, int *n_gates)
{
	static CmSql load = {
		"SELECT q.job_id, dense_rank() OVER (ORDER BY q.concurrency_key)::int4, q.concurrency_limit,"
		" (SELECT count(*) FROM cm_internal.queue t WHERE t.concurrency_key = q.concurrency_key"
		"  AND t.concurrency_key IS NOT NULL AND t.status <> 'pending')"
		" + (SELECT count(*) FROM cm_internal.queue t WHERE t.concurrency_key = q.concurrency_key"
		"  AND t.job_id = ANY ($2) AND t.status = 'pending')"
		" FROM cm_internal.queue q WHERE q.job_id = ANY ($1) AND q.concurrency_key IS NOT NULL",
		2,
		{INT8ARRAYOID, INT8ARRAYOID},
		NULL,
		0};
	Datum values[2] = {make_ids(job_ids, n), make_ids(chosen, n_chosen)};
	CmGate *gates;

	*n_gates = (int) cm_sql_run(&load, values, NULL);
	gates = palloc(sizeof(CmGate) * Max(*n_gates, 1));
	for (int i = 0; i < *n_gates; i++)
	{
		gates[i].job_id = cm_sql_int64(i, 1, 0);
		gates[i].key = cm_sql_int32(i, 2, 0);
		gates[i].limit = cm_sql_int32(i, 3, 1);
		gates[i].n_taken = (int) cm_sql_int64(i, 4, 0);
	}
	return gates;
}

/* Many that wait with the key and may not go either: a claim meets each key seldom. */
int
cm_store_hold(const int64 *job_ids, int n, const int64 *chosen, int n_chosen)
{
	static CmSql hold = {
		"UPDATE cm_internal.queue q SET is_held = true WHERE q.job_id = ANY (ARRAY(SELECT k.job_id"
		" FROM (SELECT h.concurrency_key, max(h.concurrency_limit) AS most FROM cm_internal.queue h"
		"  WHERE h.job_id = ANY ($1) GROUP BY h.concurrency_key) h"
		" JOIN cm_internal.queue k ON k.concurrency_key = h.concurrency_key AND k.concurrency_limit <= h.most"
		" WHERE k.status = 'pending' AND k.is_ready AND k.concurrency_key IS NOT NULL"
		" AND k.job_id <> ALL ($2) LIMIT $3 FOR UPDATE OF k SKIP LOCKED))",
		3,
		{INT8ARRAYOID, INT8ARRAYOID, INT4OID},
		NULL,
		0};
	Datum values[3] = {make_ids(job_ids, n), make_ids(chosen, n_chosen), Int32GetDatum(MAX_HELD)};

	return (int) cm_sql_run(&hold, values, NULL);
}

/* --- pauses --- */

#define IS_PAUSED                                                                          \
	"EXISTS (SELECT FROM cm_internal.pauses p WHERE (p.namespace IS NULL OR p.namespace =" \
	" j.namespace) AND (p.template IS NULL OR p.template = j.template))"

/* The jobs that have met a pause, and those like them that stand behind. */
int
cm_store_put_paused_aside(const int64 *job_ids, int n, CmMoved *moved)
{
	static CmSql put = {
		"UPDATE cm_internal.queue q SET is_paused = true WHERE q.job_id IN (SELECT a.job_id"
		" FROM cm_internal.queue a WHERE a.job_id IN (SELECT k.job_id"
		"  FROM (SELECT DISTINCT k.placement FROM cm_internal.queue k WHERE k.job_id = ANY ($1)) p"
		"  CROSS JOIN LATERAL (SELECT k.job_id FROM cm_internal.queue k WHERE k.placement = p.placement"
		"   AND k.status = 'pending' AND k.is_ready"
		"   ORDER BY k.priority DESC, k.run_at, k.job_id LIMIT $2) k"
		"  JOIN @extschema@.cm_jobs j ON j.id = k.job_id WHERE " IS_PAUSED
		") FOR UPDATE SKIP LOCKED)"
		" RETURNING q.job_id",
		2,
		{INT8ARRAYOID, INT4OID},
		NULL,
		0};
	Datum values[2] = {make_ids(job_ids, n), Int32GetDatum(MAX_PAUSED_AHEAD)};
	int n_put = (int) cm_sql_run(&put, values, NULL);
	int64 *ids = palloc(sizeof(int64) * Max(n_put, 1));

	for (int i = 0; i < n_put; i++)
		ids[i] = cm_sql_int64(i, 1, 0);
	/* They may have been let in where a key was to be had. */
	cm_store_release_keys(ids, n_put, moved);
	return n_put;
}

bool
cm_store_end_pauses(CmMoved *moved)
{
	static CmSql end = {
		"WITH free AS MATERIALIZED (SELECT q.job_id FROM cm_internal.queue q"
		" JOIN @extschema@.cm_jobs j ON j.id = q.job_id WHERE q.status = 'pending' AND q.is_due"
		" AND NOT q.is_ready AND q.is_paused AND NOT " IS_PAUSED " LIMIT $1),"
		" locked AS MATERIALIZED (SELECT q.job_id FROM cm_internal.queue q"
		" WHERE q.job_id IN (SELECT f.job_id FROM free f) FOR NO KEY UPDATE SKIP LOCKED),"
		" freed AS (UPDATE cm_internal.queue q SET is_paused = false FROM locked l WHERE q.job_id = l.job_id)"
		" SELECT (SELECT count(*) FROM locked), (SELECT count(*) FROM free)",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(MAX_UNPAUSED);
	int64 n_free;

	cm_sql_run(&end, &value, NULL);
	n_free = cm_sql_int64(0, 2, 0);
	moved->n += (int) cm_sql_int64(0, 1, 0);
	moved->is_behind = moved->is_behind || cm_sql_int64(0, 1, 0) < n_free;
	return n_free == MAX_UNPAUSED;
}

/* --- what was left undone --- */

void
cm_store_mend_schedule(CmMoved *moved)
{
	static CmSql apply = {APPLY_ENDS("true"), 0, {0}, NULL, 0};
	/* Where a key has room.  Claims hold again those that are too many. */
	static CmSql release = {
		RELEASE_HELD(
			"SELECT k.concurrency_key, max(k.concurrency_limit) AS n FROM cm_internal.queue k"
			" WHERE k.is_held GROUP BY k.concurrency_key HAVING max(k.concurrency_limit) >"
			" (SELECT count(*) FROM cm_internal.queue t WHERE t.concurrency_key = k.concurrency_key"
			"  AND t.concurrency_key IS NOT NULL AND t.status <> 'pending')"),
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	static CmSql forget = {
		"DELETE FROM cm_internal.unique_keys u WHERE u.ctid = ANY (ARRAY (SELECT k.ctid"
		" FROM cm_internal.unique_keys k WHERE NOT cm_internal.is_unfinished(k.job_id) FOR UPDATE SKIP LOCKED))"
		" AND NOT cm_internal.is_unfinished(u.job_id)",
		0,
		{0},
		NULL,
		0};

	Datum none = make_ids(NULL, 0);

	apply_ends(&apply, NULL, moved);
	moved->n += (int) cm_sql_run(&release, &none, NULL);
	cm_sql_run(&forget, NULL, NULL);
}
