/*
 * store_asked.c
 *		What was asked of hosts: cm_internal.host_requests.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "store.h"
#include "store_sql.h"

static bool
read_action(const char *word, CmAskedAction *action)
{
	static const char *const words[] = {"create_network", "remove_network", "create_volume",
										"remove_volume"};

	for (int i = 0; i < lengthof(words); i++)
	{
		if (strcmp(word, words[i]) != 0)
			continue;
		*action = (CmAskedAction) i;
		return true;
	}
	return false;
}

/* Those of a copy of this database are not its own. */
CmAsked *
cm_store_load_asked(int max_per_host, int *n)
{
	static CmSql load = {
		"SELECT r.id, r.host_id, r.host, r.action, r.name, r.namespace, r.driver, r.subnet::text,"
		" r.subnet6::text, r.parent, r.internal, r.owner, r.size_limit FROM (SELECT *, row_number()"
		"  OVER (PARTITION BY host_id ORDER BY id) AS position FROM cm_internal.host_requests"
		"  WHERE state = 'waiting' AND epoch = (SELECT i.epoch FROM cm_internal.identity i)) r"
		" WHERE r.position <= $1 ORDER BY r.id",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max_per_host);
	int n_rows = (int) cm_sql_run(&load, &value, NULL);
	CmAsked *asked = palloc0(sizeof(CmAsked) * Max(n_rows, 1));

	*n = 0;
	for (int i = 0; i < n_rows; i++)
	{
		CmAsked *row = &asked[*n];

		if (!read_action(cm_sql_text(i, 4), &row->action))
			continue;
		row->id = cm_sql_int64(i, 1, 0);
		row->host_id = cm_sql_int32(i, 2, 0);
		row->host = cm_sql_text(i, 3);
		row->name = cm_sql_text(i, 5);
		row->namespace_name = cm_sql_text(i, 6);
		row->driver = cm_sql_text(i, 7);
		row->subnet = cm_sql_text(i, 8);
		row->subnet6 = cm_sql_text(i, 9);
		row->parent = cm_sql_text(i, 10);
		row->is_internal = cm_sql_bool(i, 11);
		row->owner = cm_sql_text(i, 12);
		row->size_mb = cm_sql_int32(i, 13, 0);
		(*n)++;
	}
	return asked;
}

bool
cm_store_save_asked(int64 id, const char *error, const char *hint)
{
	static CmSql save = {
		"WITH old AS (DELETE FROM cm_internal.host_requests r WHERE r.id IN (SELECT o.id"
		"  FROM cm_internal.host_requests o WHERE o.finished_at < now() - interval '7 days'"
		"  FOR UPDATE SKIP LOCKED))"
		" UPDATE cm_internal.host_requests r SET error = $2, hint = $3,"
		" state = CASE WHEN $2 IS NULL THEN 'done' ELSE 'failed' END,"
		" finished_at = clock_timestamp() WHERE r.id IN (SELECT o.id"
		"  FROM cm_internal.host_requests o WHERE o.id = $1 FOR UPDATE SKIP LOCKED)",
		3,
		{INT8OID, TEXTOID, TEXTOID},
		NULL,
		0};
	static CmSql find = {
		"SELECT FROM cm_internal.host_requests WHERE id = $1", 1, {INT8OID}, NULL, 0};
	Datum values[3] = {Int64GetDatum(id)};
	char nulls[4] = "   ";

	nulls[1] = error == NULL ? 'n' : ' ';
	if (error != NULL)
		values[1] = CStringGetTextDatum(cm_store_text_from_utf8(error));
	nulls[2] = hint == NULL ? 'n' : ' ';
	if (hint != NULL)
		values[2] = CStringGetTextDatum(cm_store_text_from_utf8(hint));
	return cm_sql_run(&save, values, nulls) == 1 || cm_sql_run(&find, values, NULL) == 0;
}
