/*
 * store_spec.c
 *		Reads a row of cm_jobs into a CmJobSpec.
 *
 * Used when a row is written (the problem becomes an ERROR) and when it is
 * claimed (the problem becomes a failure), so that both see the same job.
 * Columns are found by name: a newer library may meet older tables.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "chars.h"
#include "docker_json.h"
#include "store.h"
#include "store_options.h"

#define NANO_PER_CPU INT64_C(1000000000)
#define MAX_CPUS_READ 1e6 /* more is said as this much */
#define MAX_SHOWN_BYTES 64
#define MAX_HOST_LABELS 16
#define MAX_HOST_LABEL_BYTES 255

/* What reading one row carries along. */
typedef struct RowReader
{
	HeapTuple tuple;
	TupleDesc desc;
	CmProblem *problem;
	bool failed;
} RowReader;

static void
object(RowReader *reader, const char *sqlstate, const char *column, const char *message,
	   const char *detail, const char *hint)
{
	CmProblem *problem = reader->problem;

	if (reader->failed)
		return;
	reader->failed = true;
	strlcpy(problem->sqlstate, sqlstate, sizeof(problem->sqlstate));
	strlcpy(problem->column, column, sizeof(problem->column));
	strlcpy(problem->message, message, sizeof(problem->message));
	strlcpy(problem->detail, detail ? detail : "", sizeof(problem->detail));
	strlcpy(problem->hint, hint ? hint : "", sizeof(problem->hint));
}

static Datum
get_column(RowReader *reader, const char *column, bool *is_null)
{
	int number = SPI_fnumber(reader->desc, column);

	if (number <= 0)
		elog(ERROR, "cm_jobs has no column \"%s\"", column);
	return heap_getattr(reader->tuple, number, reader->desc, is_null);
}

/*
 * Text of the database to UTF-8.  Databases in SQL_ASCII hold bytes of any
 * kind, so those are checked.
 */
static const char *
to_utf8(RowReader *reader, const char *column, char *text)
{
	int n_bytes = strlen(text);

	if (GetDatabaseEncoding() == PG_UTF8)
		return text;
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		if (pg_verify_mbstr(PG_UTF8, text, n_bytes, true))
			return text;
		object(
			reader, "22023", column, psprintf("%s is not valid UTF-8", column),
			"Containers are given text in UTF-8, and a database in SQL_ASCII passes bytes on as they are.",
			"Write the text in UTF-8.");
		return "";
	}
	return pg_server_to_any(text, n_bytes, PG_UTF8);
}

static const char *
get_text(RowReader *reader, const char *column)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);

	return is_null ? NULL : to_utf8(reader, column, TextDatumGetCString(value));
}

static int64
get_int(RowReader *reader, const char *column, int64 fallback)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);

	return is_null ? fallback : DatumGetInt32(value);
}

static void
get_words(RowReader *reader, const char *column, CmWords *words)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);
	Datum *items;
	bool *nulls;

	memset(words, 0, sizeof(*words));
	if (is_null)
		return;
	words->is_set = true;
	if (ARR_NDIM(DatumGetArrayTypeP(value)) > 1)
	{
		object(reader, "22023", column, psprintf("%s has more than one dimension", column), NULL,
			   "Write one list, such as ARRAY['ls', '-l'].");
		return;
	}
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &items, &nulls,
					  &words->count);
	words->words = palloc0(sizeof(char *) * Max(words->count, 1));
	for (int i = 0; i < words->count; i++)
	{
		if (nulls[i])
			object(reader, "22023", column, psprintf("%s has a NULL in it", column),
				   psprintf("Item %d is NULL.", i + 1), "Write an empty string, or leave it out.");
		else
			words->words[i] = to_utf8(reader, column, TextDatumGetCString(items[i]));
	}
}

static const CmJson *
get_json(RowReader *reader, const char *column)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);
	Jsonb *jsonb;
	const char *text;
	const char *error;
	CmJson *json;

	if (is_null)
		return NULL;
	jsonb = DatumGetJsonbP(value);
	text = to_utf8(reader, column, JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
	if (reader->failed)
		return NULL;
	json = cm_json_parse(text, strlen(text), &error);
	if (json == NULL)
		object(reader, "22023", column, psprintf("%s cannot be used", column),
			   psprintf("%s.", error), NULL);
	return json;
}

/* The beginning of a key that a user wrote, fit for one line of UTF-8. */
static const char *
show_key(const char *key)
{
	int n_bytes = cm_chars_cut(key, MAX_SHOWN_BYTES);
	char *shown = psprintf("%.*s%s", n_bytes, key, key[n_bytes] ? "..." : "");

	for (char *c = shown; *c != '\0'; c++)
		memset(c, '?', cm_chars_control_length(c));
	return shown;
}

static bool
is_scalar(const CmJson *value)
{
	return value->kind == CM_JSON_STRING || value->kind == CM_JSON_NUMBER ||
		   value->kind == CM_JSON_BOOL;
}

/* {"NAME": scalar, ...}: numbers and booleans become their text. */
static const CmPair *
get_pairs(RowReader *reader, const char *column, int *n)
{
	const CmJson *json = get_json(reader, column);
	CmPair *pairs;

	*n = 0;
	if (json == NULL)
		return NULL;
	if (json->kind != CM_JSON_OBJECT)
	{
		object(reader, "22023", column, psprintf("%s is not a JSON object", column), NULL,
			   "Write it as {\"NAME\": \"value\"}.");
		return NULL;
	}
	pairs = palloc(sizeof(CmPair) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
	{
		const CmJson *item = json->items[i];

		if (!is_scalar(item))
			object(reader, "22023", column,
				   psprintf("%s \"%s\" is not a text, a number or a boolean", column,
							show_key(item->name)),
				   NULL, "Write the value as a string.");
		pairs[i].name = item->name;
		pairs[i].value = item->text;
	}
	*n = json->count;
	return pairs;
}

/* They do not concern the engine; claims compare them. */
static void
check_host_labels(RowReader *reader)
{
	int n;
	const CmPair *labels = get_pairs(reader, "host_labels", &n);

	if (n > MAX_HOST_LABELS)
		object(reader, "53400", "host_labels",
			   psprintf("host_labels has %d labels, more than the %d allowed", n, MAX_HOST_LABELS),
			   NULL, "Ask for fewer.");
	for (int i = 0; i < n && !reader->failed; i++)
	{
		if (labels[i].name[0] == '\0' || strlen(labels[i].name) > MAX_HOST_LABEL_BYTES ||
			strlen(labels[i].value) > MAX_HOST_LABEL_BYTES)
			object(reader, "22023", "host_labels",
				   psprintf("host_labels \"%s\" cannot be used", show_key(labels[i].name)),
				   psprintf("Name and value may have %d bytes each, and the name at least one.",
							MAX_HOST_LABEL_BYTES),
				   "Write them as they are in cm_hosts.labels.");
	}
}

static const CmTmpfs *
get_tmpfs(RowReader *reader, int *n)
{
	const CmJson *json = get_json(reader, "tmpfs");
	CmTmpfs *mounts;

	*n = 0;
	if (json == NULL)
		return NULL;
	if (json->kind != CM_JSON_OBJECT)
	{
		object(reader, "22023", "tmpfs", "tmpfs is not a JSON object", NULL,
			   "Write it as {\"/path\": MB}.");
		return NULL;
	}
	mounts = palloc(sizeof(CmTmpfs) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
	{
		const CmJson *item = json->items[i];

		mounts[i].target = item->name;
		mounts[i].size_mb = cm_json_int(item, -1);
		if (item->kind != CM_JSON_NUMBER || mounts[i].size_mb < 0)
			object(
				reader, "22023", "tmpfs",
				psprintf("size of tmpfs \"%s\" is not a whole number of MB", show_key(item->name)),
				NULL, "Write it as {\"/path\": 64}.");
	}
	*n = json->count;
	return mounts;
}

static void
get_options(RowReader *reader, CmJobSpec *spec)
{
	const CmJson *json = get_json(reader, "docker_options");

	if (json == NULL)
		return;
	if (json->kind == CM_JSON_OBJECT)
		cm_store_read_options(json, spec);
	else
		object(
			reader, "22023", "docker_options", "docker_options is not a JSON object", NULL,
			"Write it as {\"Hostname\": \"worker\", \"HostConfig\": {\"Dns\": [\"10.0.0.1\"]}}.");
}

/* Only members that are known; the hint names them. */
static bool
check_members(RowReader *reader, const char *column, const CmJson *item, const char *const *names,
			  const char *hint)
{
	for (int i = 0; i < item->count; i++)
	{
		const char *const *name = names;

		while (*name != NULL && strcmp(*name, item->items[i]->name) != 0)
			name++;
		if (*name != NULL)
			continue;
		object(reader, "22023", column,
			   psprintf("%s has an unknown key \"%s\"", column, show_key(item->items[i]->name)),
			   NULL, hint);
		return false;
	}
	return true;
}

/* NULL where it is not there, or null. */
static const char *
get_member_text(RowReader *reader, const char *column, const CmJson *item, const char *name)
{
	const CmJson *member = cm_json_get(item, name);

	if (member == NULL || member->kind == CM_JSON_NULL)
		return NULL;
	if (member->kind != CM_JSON_STRING)
		object(reader, "22023", column, psprintf("%s in %s is not a text", name, column), NULL,
			   "Write it as a string.");
	return cm_json_string(member, NULL);
}

static void
get_aliases(RowReader *reader, const CmJson *item, CmWords *aliases)
{
	const CmJson *member = cm_json_get(item, "aliases");

	if (member == NULL || member->kind == CM_JSON_NULL)
		return;
	if (member->kind != CM_JSON_ARRAY)
	{
		object(reader, "22023", "networks", "aliases in networks is not a JSON array", NULL,
			   "Write it as [\"api\"].");
		return;
	}
	aliases->is_set = true;
	aliases->count = member->count;
	aliases->words = palloc(sizeof(char *) * Max(member->count, 1));
	for (int i = 0; i < member->count; i++)
	{
		aliases->words[i] = cm_json_string(member->items[i], "");
		if (member->items[i]->kind != CM_JSON_STRING)
			object(reader, "22023", "networks", "aliases in networks has what is not a text", NULL,
				   "Write it as [\"api\"].");
	}
}

static void
get_network(RowReader *reader, const CmJson *item, CmNetwork *network)
{
	static const char *const names[] = {"network_name", "aliases", "ip", "ip6", NULL};

	if (item->kind == CM_JSON_STRING)
	{
		network->name = item->text;
		return;
	}
	if (item->kind != CM_JSON_OBJECT)
	{
		object(reader, "22023", "networks", "networks has what is neither a text nor an object",
			   NULL, "Write it as [\"bridge\"] or [{\"network_name\": \"backend\"}].");
		return;
	}
	if (!check_members(reader, "networks", item, names,
					   "The keys are network_name, aliases, ip and ip6."))
		return;
	network->name = get_member_text(reader, "networks", item, "network_name");
	network->ip = get_member_text(reader, "networks", item, "ip");
	network->ip6 = get_member_text(reader, "networks", item, "ip6");
	get_aliases(reader, item, &network->aliases);
}

/* Unsaid: the engine's bridge. */
static const CmNetwork *
get_networks(RowReader *reader, int *n)
{
	static const CmNetwork bridge = {.name = "bridge"};
	const CmJson *json = get_json(reader, "networks");
	CmNetwork *networks;

	*n = 1;
	if (json == NULL)
		return &bridge;
	if (json->kind != CM_JSON_ARRAY)
	{
		object(reader, "22023", "networks", "networks is not a JSON array", NULL,
			   "Write it as [\"bridge\"].");
		return &bridge;
	}
	*n = json->count;
	networks = palloc0(sizeof(CmNetwork) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
		get_network(reader, json->items[i], &networks[i]);
	return networks;
}

static void
get_volume(RowReader *reader, const CmJson *item, CmVolume *volume)
{
	static const char *const names[] = {"name", "target", "read_only", NULL};
	const CmJson *read_only = cm_json_get(item, "read_only");

	if (item->kind != CM_JSON_OBJECT)
	{
		object(reader, "22023", "volumes", "volumes has what is not an object", NULL,
			   "Write it as [{\"name\": \"data\", \"target\": \"/data\"}].");
		return;
	}
	if (!check_members(reader, "volumes", item, names, "The keys are name, target and read_only."))
		return;
	volume->name = get_member_text(reader, "volumes", item, "name");
	volume->target = get_member_text(reader, "volumes", item, "target");
	volume->read_only = cm_json_bool(read_only, false);
	if (read_only != NULL && read_only->kind != CM_JSON_BOOL && read_only->kind != CM_JSON_NULL)
		object(reader, "22023", "volumes", "read_only in volumes is not a boolean", NULL,
			   "Write true or false.");
}

static const CmVolume *
get_volumes(RowReader *reader, int *n)
{
	const CmJson *json = get_json(reader, "volumes");
	CmVolume *volumes;

	*n = 0;
	if (json == NULL)
		return NULL;
	if (json->kind != CM_JSON_ARRAY)
	{
		object(reader, "22023", "volumes", "volumes is not a JSON array", NULL,
			   "Write it as [{\"name\": \"data\", \"target\": \"/data\"}].");
		return NULL;
	}
	*n = json->count;
	volumes = palloc0(sizeof(CmVolume) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
		get_volume(reader, json->items[i], &volumes[i]);
	return volumes;
}

static int64
get_nano_cpus(RowReader *reader)
{
	bool is_null;
	Datum value = get_column(reader, "cpu_limit", &is_null);
	double cpus =
		is_null ? 0 : DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, value));

	/* NaN and absurd numbers must not reach the cast. */
	if (isnan(cpus))
	{
		object(reader, "22023", "cpu_limit", "cpu_limit is not a number", NULL,
			   "Write it as a number of CPU cores, such as 0.5.");
		return 0;
	}
	cpus = Max(Min(cpus, MAX_CPUS_READ), -MAX_CPUS_READ);
	return (int64) rint(cpus * NANO_PER_CPU);
}

/* A number, or {"soft": number, "hard": number}. */
static void
read_ulimit(RowReader *reader, const CmJson *item, CmUlimit *ulimit)
{
	const CmJson *soft = cm_json_get(item, "soft");
	const CmJson *hard = cm_json_get(item, "hard");
	bool is_pair = item->kind == CM_JSON_OBJECT && item->count == 2 && soft != NULL && hard != NULL;

	ulimit->name = item->name;
	ulimit->soft = cm_json_int(is_pair ? soft : item, PG_INT64_MIN);
	ulimit->hard = cm_json_int(is_pair ? hard : item, PG_INT64_MIN);
	if (ulimit->soft == PG_INT64_MIN || ulimit->hard == PG_INT64_MIN)
		object(reader, "22023", "ulimits",
			   psprintf("ulimit \"%s\" is not a whole number", show_key(item->name)), NULL,
			   "Write it as {\"nofile\": 1024} or {\"nofile\": {\"soft\": 512, \"hard\": 1024}}.");
}

static const CmUlimit *
get_ulimits(RowReader *reader, int *n)
{
	const CmJson *json = get_json(reader, "ulimits");
	CmUlimit *ulimits;

	*n = 0;
	if (json == NULL)
		return NULL;
	if (json->kind != CM_JSON_OBJECT)
	{
		object(reader, "22023", "ulimits", "ulimits is not a JSON object", NULL,
			   "Write it as {\"nofile\": 1024}.");
		return NULL;
	}
	ulimits = palloc(sizeof(CmUlimit) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
		read_ulimit(reader, json->items[i], &ulimits[i]);
	*n = json->count;
	return ulimits;
}

/* What is said must be something: 0 would be taken for unsaid. */
static int64
get_size(RowReader *reader, const char *column)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);

	if (!is_null && DatumGetInt32(value) < 1)
		object(reader, "22023", column,
			   psprintf("%s of %d is not a positive number", column, DatumGetInt32(value)), NULL,
			   "Leave it out for the default.");
	return is_null ? 0 : DatumGetInt32(value);
}

static void
add_exit_code(RowReader *reader, Datum value, bool is_null, CmExitCodes *codes)
{
	int32 code = is_null ? -1 : DatumGetInt32(value);

	if (code >= 0 && code <= 255)
		codes->bits[code / 8] |= (uint8_t) (1 << code % 8);
	else
		object(reader, "22023", "success_exit_codes",
			   is_null ? "success_exit_codes has a NULL in it"
					   : psprintf("success_exit_codes cannot have %d", code),
			   NULL, "Exit codes are 0 to 255.");
}

static void
get_exit_codes(RowReader *reader, CmExitCodes *codes)
{
	bool is_null;
	Datum value = get_column(reader, "success_exit_codes", &is_null);
	Datum *items;
	bool *nulls;
	int n;

	memset(codes, 0, sizeof(*codes));
	if (is_null)
		return;
	codes->is_set = true;
	deconstruct_array(DatumGetArrayTypeP(value), INT4OID, sizeof(int32), true, TYPALIGN_INT, &items,
					  &nulls, &n);
	for (int i = 0; i < n; i++)
		add_exit_code(reader, items[i], nulls[i], codes);
}

/* Months count as 30 days.  Out of any range that is let pass: a minute below 0. */
static int64
get_pause_ms(RowReader *reader, const char *column)
{
	bool is_null;
	Datum value = get_column(reader, column, &is_null);
	const Interval *pause;

	if (is_null)
		return 0;
	pause = DatumGetIntervalP(value);
	if (abs(pause->month) > 12 * 1000 || abs(pause->day) > 365 * 1000 ||
		pause->time / USECS_PER_DAY > 365 * 1000)
		return -SECS_PER_MINUTE * 1000;
	return ((int64) pause->month * DAYS_PER_MONTH + pause->day) * SECS_PER_DAY * 1000 +
		   pause->time / 1000;
}

/* -1: unsaid. */
static int64
get_stop_grace_ms(RowReader *reader)
{
	bool is_null;
	int64 grace_ms = get_pause_ms(reader, "stop_grace");

	(void) get_column(reader, "stop_grace", &is_null);
	if (is_null)
		return -1;
	return grace_ms < 0 ? PG_INT64_MIN : grace_ms;
}

static CmHostLoss
get_host_loss(RowReader *reader)
{
	static const char *const words[] = {"wait", "fail", "retry"};
	const char *word = get_text(reader, "on_host_loss");

	for (int i = 0; word != NULL && i < lengthof(words); i++)
		if (strcmp(word, words[i]) == 0)
			return (CmHostLoss) i;
	object(reader, "22023", "on_host_loss",
		   psprintf("on_host_loss of \"%s\" is not known", show_key(word ? word : "")), NULL,
		   "Write wait, fail or retry.");
	return CM_HOST_LOSS_WAIT;
}

bool
cm_store_read_spec(HeapTuple tuple, TupleDesc desc, CmJobSpec *spec, CmProblem *problem)
{
	RowReader reader = {tuple, desc, problem, false};
	bool is_null;

	memset(spec, 0, sizeof(*spec));
	spec->job_id = DatumGetInt64(get_column(&reader, "id", &is_null));
	spec->attempt = get_int(&reader, "attempt", 0);
	spec->namespace_name = get_text(&reader, "namespace");
	spec->name = get_text(&reader, "name");
	spec->image = get_text(&reader, "image");
	spec->command = get_text(&reader, "command");
	get_words(&reader, "args", &spec->args);
	get_words(&reader, "entrypoint", &spec->entrypoint);
	spec->environment = get_pairs(&reader, "environment", &spec->n_environment);
	spec->secrets = get_pairs(&reader, "secret_environment", &spec->n_secrets);
	spec->labels = get_pairs(&reader, "labels", &spec->n_labels);
	spec->working_directory = get_text(&reader, "working_directory");
	spec->run_as = get_text(&reader, "run_as");
	spec->networks = get_networks(&reader, &spec->n_networks);
	spec->read_only = DatumGetBool(get_column(&reader, "read_only", &is_null));
	spec->tmpfs = get_tmpfs(&reader, &spec->n_tmpfs);
	spec->volumes = get_volumes(&reader, &spec->n_volumes);
	get_options(&reader, spec);
	spec->memory_limit_mb = get_int(&reader, "memory_limit", 0);
	spec->nano_cpus = get_nano_cpus(&reader);
	spec->timeout_seconds = get_int(&reader, "timeout_seconds", 0);
	spec->ulimits = get_ulimits(&reader, &spec->n_ulimits);
	spec->shm_size_mb = get_size(&reader, "shm_size");
	spec->pids_limit = get_size(&reader, "pids_limit");
	spec->log_limit_mb = get_size(&reader, "log_limit");
	spec->stop_signal = get_text(&reader, "stop_signal");
	spec->stop_grace_ms = get_stop_grace_ms(&reader);
	get_exit_codes(&reader, &spec->success_exit_codes);
	spec->max_attempts = get_int(&reader, "max_attempts", 1);
	spec->retry_on = get_text(&reader, "retry_on");
	spec->retry_delay_ms = get_pause_ms(&reader, "retry_delay");
	spec->on_host_loss = get_host_loss(&reader);
	spec->host_loss_grace_ms = get_pause_ms(&reader, "host_loss_grace");
	spec->keep_container_ms = get_pause_ms(&reader, "keep_container");
	check_host_labels(&reader);
	return !reader.failed;
}

void
cm_store_throw_problem(const CmProblem *problem, const char *table)
{
	const char *state = problem->sqlstate[0] ? problem->sqlstate : "22023";

	cm_store_log_violation(problem, GetUserNameFromId(GetUserId(), false), 0);
	/* The guard speaks UTF-8, as do the values that it quotes. */
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg("%s", cm_store_text_from_utf8(problem->message)),
			 problem->detail[0] ? errdetail("%s", cm_store_text_from_utf8(problem->detail)) : 0,
			 problem->hint[0] ? errhint("%s", cm_store_text_from_utf8(problem->hint)) : 0,
			 err_generic_string(PG_DIAG_TABLE_NAME, table),
			 err_generic_string(PG_DIAG_COLUMN_NAME, problem->column)));
	pg_unreachable();
}

/*
 * Conversions need a catalog look-up, hence a transaction, and must not throw:
 * the text may come from an engine.
 */
char *
cm_store_text_from_utf8(const char *utf8)
{
	int encoding = GetDatabaseEncoding();
	int n_bytes = strlen(utf8);
	int n_max;
	char *text;
	Oid proc;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pstrdup(utf8);
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	n_max = n_bytes * MAX_CONVERSION_GROWTH + 1;
	text = palloc(n_max);
	if (!OidIsValid(proc) ||
		pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, utf8), n_bytes,
									  (unsigned char *) text, n_max, true) < n_bytes)
	{
		/* Keep what every encoding has. */
		for (int i = 0; i <= n_bytes; i++)
			text[i] = IS_HIGHBIT_SET(utf8[i]) ? '?' : utf8[i];
	}
	return text;
}
