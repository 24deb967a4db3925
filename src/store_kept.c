/*
 * store_kept.c
 *		Containers that stay for a look after their job has failed.
 *
 * A row says of a container that it is not to be removed yet.  It is written
 * with the end of its job, and its time is over when it is deleted: the container
 * is then what is left of any finished job, and goes like that, whatever happens
 * in between.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "guc.h"
#include "store.h"
#include "store_sql.h"

/* Those of a host beyond the most that it may have: the oldest. */
static void
limit_kept(void)
{
	static CmSql limit = {
		"UPDATE cm_internal.kept_containers SET keep_until = now() WHERE job_id IN"
		" (SELECT o.job_id FROM cm_internal.kept_containers o WHERE o.job_id IN"
		"  (SELECT k.job_id FROM (SELECT job_id, row_number() OVER"
		"   (PARTITION BY host_id ORDER BY kept_at DESC, job_id DESC) AS n"
		"   FROM cm_internal.kept_containers) k WHERE k.n > $1)"
		"  FOR NO KEY UPDATE SKIP LOCKED)",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(cm_guc_max_kept_containers);

	cm_sql_run(&limit, &value, NULL);
}

void
cm_store_keep_containers(const CmRecord *records, int n)
{
	static CmSql keep = {
		"WITH free AS MATERIALIZED (SELECT k.job_id FROM cm_internal.kept_containers k"
		" WHERE k.job_id = ANY ($1) FOR UPDATE SKIP LOCKED)"
		" INSERT INTO cm_internal.kept_containers (job_id, attempt, host_id, container_id, kept_at, keep_until)"
		" SELECT r.job_id, r.attempt, q.host_id, r.container_id, clock_timestamp(), r.keep_until"
		" FROM unnest($1, $2, $3, $4) AS r (job_id, attempt, container_id, keep_until)"
		" JOIN cm_internal.queue q ON q.job_id = r.job_id"
		" WHERE r.job_id IN (SELECT f.job_id FROM free f)"
		" OR NOT EXISTS (SELECT FROM cm_internal.kept_containers k WHERE k.job_id = r.job_id)"
		" ON CONFLICT (job_id) DO UPDATE SET attempt = EXCLUDED.attempt, host_id = EXCLUDED.host_id,"
		" container_id = EXCLUDED.container_id, kept_at = EXCLUDED.kept_at,"
		" keep_until = EXCLUDED.keep_until",
		4,
		{INT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
		NULL,
		0};
	static const Oid types[4] = {INT8OID, INT4OID, TEXTOID, TIMESTAMPTZOID};
	CmColumn columns[4];
	Datum values[4];

	for (int i = 0; i < 4; i++)
		cm_column_init(&columns[i], types[i], 4);
	for (int i = 0; i < n; i++)
	{
		if (!records[i].done || records[i].keep_until == 0)
			continue;
		cm_column_add_int64(&columns[0], records[i].job_id);
		cm_column_add_int32(&columns[1], records[i].attempt);
		cm_column_add_text(&columns[2], records[i].container_id);
		cm_column_add_time(&columns[3], records[i].keep_until);
	}
	if (columns[0].n == 0)
		return;
	for (int i = 0; i < 4; i++)
		values[i] = cm_column_array(&columns[i]);
	cm_sql_run(&keep, values, NULL);
	limit_kept();
}

/* Rows that somebody has locked go on saying it. */
static void
take_back_details(const CmColumn *ids)
{
	static CmSql take_back = {
		"UPDATE @extschema@.cm_jobs SET updated_at = clock_timestamp(),"
		" detail = nullif(regexp_replace(detail, '(; )?" CM_KEPT_DETAIL ".*$', ''), '')"
		" WHERE id IN (SELECT id FROM @extschema@.cm_jobs WHERE id = ANY ($1)"
		" AND detail LIKE '%" CM_KEPT_DETAIL "%' FOR NO KEY UPDATE SKIP LOCKED)",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	Datum value = cm_column_array(ids);

	cm_sql_run(&take_back, &value, NULL);
}

int *
cm_store_let_kept_go(int max, int *n)
{
	static CmSql let_go = {
		"DELETE FROM cm_internal.kept_containers WHERE job_id IN"
		" (SELECT job_id FROM cm_internal.kept_containers WHERE keep_until <= now()"
		"  ORDER BY keep_until LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING job_id, host_id",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max);
	CmColumn ids;
	int *hosts;

	*n = (int) cm_sql_run(&let_go, &value, NULL);
	hosts = palloc(sizeof(int) * Max(*n, 1));
	cm_column_init(&ids, INT8OID, *n);
	for (int i = 0; i < *n; i++)
	{
		cm_column_add_int64(&ids, cm_sql_int64(i, 1, 0));
		hosts[i] = cm_sql_int32(i, 2, 0);
	}
	if (*n > 0)
		take_back_details(&ids);
	return hosts;
}
