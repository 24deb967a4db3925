/*
 * store_secrets.c
 *		The sealed secrets that jobs need to be created.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "store.h"
#include "store_sql.h"

static void
object(CmTaken *taken, const char *secret)
{
	CmProblem *problem = palloc0(sizeof(CmProblem));

	strlcpy(problem->sqlstate, "42704", sizeof(problem->sqlstate));
	strlcpy(problem->column, "secret_environment", sizeof(problem->column));
	snprintf(problem->message, sizeof(problem->message),
			 "secret \"%s\" does not exist in namespace \"%s\", or is not for the job's owner",
			 secret, taken->spec.namespace_name);
	strlcpy(problem->hint,
			"Store it by cm_set_secret, or grant it by cm_grant_secret, and retry the job.",
			sizeof(problem->hint));
	taken->problem = problem;
}

static void
read_sealed(CmTaken *taken, int i)
{
	bool is_null;
	bytea *sealed = DatumGetByteaPCopy(cm_sql_datum(0, 1, &is_null));

	taken->secrets[i].name =
		psprintf("%s/%s", taken->spec.namespace_name, taken->spec.secrets[i].value);
	taken->secrets[i].bytes = VARDATA(sealed);
	taken->secrets[i].n_bytes = VARSIZE(sealed) - VARHDRSZ;
}

/* False: it is not there, or not for the job's owner. */
static bool
load_secret(CmTaken *taken, int i)
{
	static CmSql load = {
		"SELECT s.sealed FROM cm_internal.secrets s JOIN @extschema@.cm_jobs j ON j.id = $1"
		" WHERE s.namespace = j.namespace AND s.name = $2"
		" AND cm_internal.may_use_secret(j.owner, s.created_by, s.granted_to)",
		2,
		{INT8OID, TEXTOID},
		NULL,
		0};
	Datum values[2];

	values[0] = Int64GetDatum(taken->spec.job_id);
	values[1] = CStringGetTextDatum(cm_store_text_from_utf8(taken->spec.secrets[i].value));
	if (cm_sql_run(&load, values, NULL) != 1)
		return false;
	read_sealed(taken, i);
	return true;
}

/* A row that somebody has locked is left as it is. */
static void
note_uses(const CmTaken *taken, int n)
{
	static CmSql note = {
		"UPDATE cm_internal.secret_uses SET last_used_at = now() WHERE ctid = ANY (ARRAY("
		"SELECT ctid FROM cm_internal.secret_uses WHERE secret = ANY ($1) FOR UPDATE SKIP LOCKED))",
		1,
		{TEXTARRAYOID},
		NULL,
		0};
	ArrayBuildState *names = NULL;
	Datum value;

	for (int i = 0; i < n; i++)
		for (int s = 0; taken[i].secrets != NULL && s < taken[i].spec.n_secrets; s++)
			names = accumArrayResult(
				names, CStringGetTextDatum(cm_store_text_from_utf8(taken[i].secrets[s].name)),
				false, TEXTOID, CurrentMemoryContext);
	if (names == NULL)
		return;
	value = makeArrayResult(names, CurrentMemoryContext);
	cm_sql_run(&note, &value, NULL);
}

static void
load_all(CmTaken *taken)
{
	taken->secrets = palloc0(sizeof(CmSealed) * taken->spec.n_secrets);
	for (int i = 0; i < taken->spec.n_secrets; i++)
		if (!load_secret(taken, i))
		{
			object(taken, taken->spec.secrets[i].value);
			taken->secrets = NULL;
			return;
		}
}

void
cm_store_load_secrets(CmTaken *taken, int n)
{
	for (int i = 0; i < n; i++)
		if (taken[i].problem == NULL && taken[i].state == CM_LAUNCHING &&
			taken[i].spec.n_secrets > 0)
			load_all(&taken[i]);
	note_uses(taken, n);
}

/* --- for registries --- */

static CmHostRow *
find_row(CmHostRow *rows, int n, int id)
{
	for (int i = 0; i < n; i++)
		if (rows[i].id == id)
			return &rows[i];
	return NULL;
}

static void
add_registry(CmHostRow *row, uint64 at)
{
	CmRegistryAuth *auth;
	bool is_null;
	Datum sealed = cm_sql_datum(at, 4, &is_null);

	if (row->registries == NULL)
		row->registries = palloc0(sizeof(CmRegistryAuth) * CM_MAX_REGISTRIES);
	if (row->n_registries == CM_MAX_REGISTRIES)
		return;
	auth = &row->registries[row->n_registries++];
	auth->registry = cm_sql_text(at, 2);
	auth->secret = cm_sql_text(at, 3);
	auth->sealed.name = psprintf("default/%s", auth->secret);
	if (is_null)
		return;
	auth->sealed.bytes = VARDATA(DatumGetByteaPCopy(sealed));
	auth->sealed.n_bytes = VARSIZE(auth->sealed.bytes - VARHDRSZ) - VARHDRSZ;
}

void
cm_store_load_registries(CmHostRow *rows, int n)
{
	static CmSql load = {
		"SELECT h.id, r.key, r.value, s.sealed FROM @extschema@.cm_hosts h"
		" CROSS JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(h.executor_config -> 'registry_auth')"
		"   WHEN 'object' THEN h.executor_config -> 'registry_auth' END) r"
		" LEFT JOIN cm_internal.secrets s ON s.namespace = 'default' AND s.name = r.value"
		" WHERE h.executor_type = 'docker' ORDER BY h.id, r.key",
		0,
		{0},
		NULL,
		0};
	uint64 n_found = cm_sql_run(&load, NULL, NULL);

	for (uint64 i = 0; i < n_found; i++)
	{
		CmHostRow *row = find_row(rows, n, cm_sql_int32(i, 1, 0));

		if (row != NULL)
			add_registry(row, i);
	}
}
