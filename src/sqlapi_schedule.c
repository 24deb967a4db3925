/*
 * sqlapi_schedule.c
 *		What a submitted job says of its order among others.
 *
 * Ids only grow, and a job may depend on jobs with smaller ids alone: whatever
 * ids a statement gives its rows, no cycle can come of it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "sqlapi_schedule.h"
#include "sqlapi_triggers.h"

#define MAX_DEPENDENCIES 10000
#define MAX_KEY_BYTES 255
#define MAX_CONCURRENCY 10000

static void
refuse(int sqlstate, const char *column, const char *message, const char *hint)
{
	ereport(ERROR, (errcode(sqlstate), errmsg("%s", message), errhint("%s", hint),
					err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

static Datum
get_value(Relation jobs, HeapTuple job, const char *column, bool *is_null)
{
	TupleDesc desc = RelationGetDescr(jobs);
	int number = SPI_fnumber(desc, column);

	if (number <= 0)
		elog(ERROR, "cm_jobs has no column \"%s\"", column);
	return heap_getattr(job, number, desc, is_null);
}

static bool
is_null_in(Relation jobs, HeapTuple job, const char *column)
{
	bool is_null;

	(void) get_value(jobs, job, column, &is_null);
	return is_null;
}

static int64
get_id(Relation jobs, HeapTuple job)
{
	bool is_null;

	return DatumGetInt64(get_value(jobs, job, "id", &is_null));
}

/* --- dependencies --- */

/* False: there are none. */
static bool
get_dependencies(Relation jobs, HeapTuple job, Datum *ids)
{
	bool is_null;

	*ids = get_value(jobs, job, "depends_on", &is_null);
	return !is_null && ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(*ids)),
									  ARR_DIMS(DatumGetArrayTypeP(*ids))) > 0;
}

static void
check_list(ArrayType *ids)
{
	int n = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));

	if (ARR_NDIM(ids) > 1)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "depends_on",
			   "depends_on has more than one dimension", "Write one list, such as '{12,15}'.");
	if (array_contains_nulls(ids))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "depends_on", "depends_on has a NULL in it",
			   "Leave it out, or write the id of a job.");
	if (n > MAX_DEPENDENCIES)
		refuse(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "depends_on",
			   psprintf("depends_on has %d jobs, more than the %d allowed", n, MAX_DEPENDENCIES),
			   "Have another job wait for some of them, and this one for that.");
}

/* Why a row of the query below is no job to wait for. */
static void
refuse_dependency(int64 job_id)
{
	bool is_null;
	TupleDesc desc = SPI_tuptable->tupdesc;
	int64 id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], desc, 1, &is_null));
	bool is_there = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], desc, 2, &is_null));

	if (!is_there)
		refuse(
			ERRCODE_UNDEFINED_OBJECT, "depends_on",
			psprintf("job %lld, which it depends on, does not exist", (long long) id),
			"It must be there already, in this transaction or committed, and you must be allowed to see it.");
	if (id >= job_id)
		refuse(
			ERRCODE_INVALID_PARAMETER_VALUE, "depends_on",
			psprintf("job %lld cannot depend on job %lld", (long long) job_id, (long long) id),
			"Jobs can only depend on earlier ones, whose ids are smaller: so there are no cycles.");
	refuse(
		ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "depends_on",
		psprintf(
			"job %lld, which it depends on, is a copy from another database and does not run here",
			(long long) id),
		"cm_adopt_restored_jobs() has such jobs run here.");
}

void
cm_sqlapi_check_dependencies(Relation jobs, HeapTuple job)
{
	/* The search_path is whoever submits' own. */
	static CmTriggerSql find = {
		"SELECT d.id, j.id IS NOT NULL FROM pg_catalog.unnest($1) AS d (id)"
		" LEFT JOIN %s.cm_jobs j ON j.id OPERATOR(pg_catalog.=) d.id"
		" WHERE j.id IS NULL OR d.id OPERATOR(pg_catalog.>=) $2"
		" OR (j.completed_at IS NULL AND j.epoch OPERATOR(pg_catalog.<>) $3)"
		" ORDER BY j.id IS NOT NULL, d.id USING OPERATOR(pg_catalog.<) LIMIT 1",
		3,
		{INT8ARRAYOID, INT8OID, UUIDOID},
		InvalidOid,
		NULL};
	Datum values[3];
	bool is_null;

	if (!get_dependencies(jobs, job, &values[0]))
	{
		if (!is_null_in(jobs, job, "depends_on_any_end") && is_null_in(jobs, job, "depends_on"))
			refuse(ERRCODE_INVALID_PARAMETER_VALUE, "depends_on_any_end",
				   "depends_on_any_end is given without depends_on", "Leave it out.");
		return;
	}
	check_list(DatumGetArrayTypeP(values[0]));
	values[1] = Int64GetDatum(get_id(jobs, job));
	values[2] = get_value(jobs, job, "epoch", &is_null);
	if (cm_sqlapi_run_in_trigger(&find, jobs, values) > 0)
		refuse_dependency(DatumGetInt64(values[1]));
}

void
cm_sqlapi_lock_dependencies(Relation jobs, HeapTuple job)
{
	/* The executor's changes of a row do not wait for such a lock; DELETE does. */
	static CmTriggerSql lock = {"SELECT FROM %s.cm_jobs WHERE id = ANY ($1) FOR KEY SHARE",
								1,
								{INT8ARRAYOID},
								InvalidOid,
								NULL};
	Datum ids;

	if (get_dependencies(jobs, job, &ids))
		cm_sqlapi_run_in_trigger(&lock, jobs, &ids);
}

/* --- keys --- */

static void
check_key(Relation jobs, HeapTuple job, const char *column)
{
	bool is_null;
	Datum value = get_value(jobs, job, column, &is_null);
	const char *key;

	if (is_null)
		return;
	key = TextDatumGetCString(value);
	if (key[0] == '\0')
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, column, psprintf("%s is empty", column),
			   "Leave it out, or write a name.");
	if (strlen(key) > MAX_KEY_BYTES)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, column,
			   psprintf("%s is longer than %d bytes", column, MAX_KEY_BYTES),
			   "Shorten it; a hash of a long one does as well.");
	for (const char *c = key; *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			refuse(ERRCODE_INVALID_PARAMETER_VALUE, column,
				   psprintf("%s has a control character in it", column), "Write one line of text.");
}

static void
check_on_conflict(Relation jobs, HeapTuple job)
{
	bool is_null;
	Datum value = get_value(jobs, job, "on_conflict", &is_null);
	const char *word;

	if (is_null)
		return;
	word = TextDatumGetCString(value);
	if (strcmp(word, "error") != 0 && strcmp(word, "skip") != 0 && strcmp(word, "replace") != 0)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "on_conflict",
			   psprintf("on_conflict of \"%.*s\" is not known", 64, word),
			   "Write error, skip or replace.");
	if (is_null_in(jobs, job, "unique_key"))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "on_conflict",
			   "on_conflict is given without unique_key", "Leave it out, or give a unique_key.");
}

static void
check_concurrency(Relation jobs, HeapTuple job)
{
	bool is_null;
	int limit = DatumGetInt32(get_value(jobs, job, "concurrency_limit", &is_null));

	if (is_null)
		return;
	if (is_null_in(jobs, job, "concurrency_key"))
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "concurrency_limit",
			   "concurrency_limit is given without concurrency_key",
			   "Leave it out, or give a concurrency_key.");
	if (limit < 1 || limit > MAX_CONCURRENCY)
		refuse(ERRCODE_INVALID_PARAMETER_VALUE, "concurrency_limit",
			   psprintf("concurrency_limit of %d is out of range", limit),
			   psprintf("Write 1 to %d.", MAX_CONCURRENCY));
}

void
cm_sqlapi_check_keys(Relation jobs, HeapTuple job)
{
	check_key(jobs, job, "unique_key");
	check_on_conflict(jobs, job);
	check_key(jobs, job, "concurrency_key");
	check_concurrency(jobs, job);
}

int64
cm_sqlapi_take_unique_key(Relation jobs, HeapTuple job, Oid submitter)
{
	static CmTriggerSql take = {
		"SELECT cm_internal.take_unique_key($1, $2, $3, coalesce($4, 'error'), $5, $6) /* %s */",
		6,
		{TEXTOID, TEXTOID, INT8OID, TEXTOID, NAMEOID, INT8ARRAYOID},
		InvalidOid,
		NULL};
	static const char *const columns[] = {"namespace",	 "unique_key", "id",
										  "on_conflict", NULL,		   "depends_on"};
	Datum values[6];
	char nulls[7] = "      ";
	bool is_null;
	Datum holder;

	if (is_null_in(jobs, job, "unique_key"))
		return 0;
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (columns[i] == NULL)
			continue;
		values[i] = get_value(jobs, job, columns[i], &is_null);
		nulls[i] = is_null ? 'n' : ' ';
	}
	values[4] = DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(submitter, false)));
	cm_sqlapi_run_in_trigger_nulls(&take, jobs, values, nulls);
	holder = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	return is_null ? 0 : DatumGetInt64(holder);
}

/* --- who submits --- */

CmSubmission *cm_sqlapi_submission = NULL;

static int
get_trigger_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

void
cm_sqlapi_begin_submission(CmSubmission *submission)
{
	memset(submission, 0, sizeof(*submission));
	submission->depth = get_trigger_depth();
	cm_sqlapi_submission = submission;
}

void
cm_sqlapi_end_submission(CmSubmission *before)
{
	cm_sqlapi_submission = before;
}

void
cm_sqlapi_note_checked(int64 skipped_for)
{
	CmSubmission *submission = cm_sqlapi_submission;

	/* Deeper down it is somebody else's trigger that submits, too. */
	if (submission == NULL || get_trigger_depth() != submission->depth + 1)
		return;
	if (skipped_for != 0)
	{
		if (submission->n_skipped == submission->n_space)
			elog(ERROR, "more jobs were skipped than submitted");
		submission->skipped_at[submission->n_skipped] = submission->n_checked;
		submission->skipped_for[submission->n_skipped++] = skipped_for;
	}
	submission->n_checked++;
}
