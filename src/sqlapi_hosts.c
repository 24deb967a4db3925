/*
 * sqlapi_hosts.c
 *		Hosts as SQL sees them: the check of every row, and a look at an engine
 *		while somebody waits.
 *
 * Floor 5.  Whoever may write cm_hosts may do so by plain INSERT and UPDATE, so
 * the checks are in a row trigger and cm_add_host (PL/pgSQL) adds nothing to
 * them.  The functions that ask an engine know no tables: they are given the
 * connection string, so that a host added in this very transaction can be
 * asked.  They wait in this backend, interruptibly; a cancelled one leaves
 * nothing behind, because its connection belongs to a memory context.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "chars.h"
#include "compat.h"
#include "diagnosis.h"
#include "endpoint.h"
#include "engine.h"
#include "policy.h"
#include "shmem.h"
#include "store.h"
#include "sqlapi_util.h"

#define MAX_TIMEOUT_MS (60 * 60 * 1000)
#define INFO_TIMEOUT_MS (10 * 1000)

PG_FUNCTION_INFO_V1(cm_hosts_check_row);
PG_FUNCTION_INFO_V1(cm_hosts_wake);
PG_FUNCTION_INFO_V1(cm_hosts_probe_engine);
PG_FUNCTION_INFO_V1(cm_hosts_read_info);
PG_FUNCTION_INFO_V1(cm_hosts_list_engine);
PG_FUNCTION_INFO_V1(cm_hosts_nearest_word);

/* --- the check of a row --- */

/* The row on its way into cm_hosts, and its name as messages show it. */
typedef struct HostRow
{
	Relation relation;
	HeapTuple tuple;
	char shown[CM_MAX_NAME_BYTES + 1];
} HostRow;

static int
find_column(const HostRow *row, const char *column)
{
	int number = get_attnum(RelationGetRelid(row->relation), column);

	if (number <= 0)
		elog(ERROR, "cm_hosts has no column \"%s\"", column);
	return number;
}

static Datum
get_column(const HostRow *row, const char *column, bool *is_null)
{
	return heap_getattr(row->tuple, find_column(row, column), RelationGetDescr(row->relation),
						is_null);
}

/* NULL where the column is NULL. */
static const char *
get_text(const HostRow *row, const char *column)
{
	bool is_null;
	Datum value = get_column(row, column, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

static bool
get_bool(const HostRow *row, const char *column)
{
	bool is_null;
	Datum value = get_column(row, column, &is_null);

	return !is_null && DatumGetBool(value);
}

static void
set_column(HostRow *row, const char *column, Datum value)
{
	int number = find_column(row, column);
	bool is_null = false;

	row->tuple = heap_modify_tuple_by_cols(row->tuple, RelationGetDescr(row->relation), 1, &number,
										   &value, &is_null);
}

pg_noreturn static void
refuse(const char *sqlstate, const char *column, const char *message, const char *detail,
	   const char *hint)
{
	CmProblem problem;

	strlcpy(problem.sqlstate, sqlstate, sizeof(problem.sqlstate));
	strlcpy(problem.column, column, sizeof(problem.column));
	strlcpy(problem.message, message, sizeof(problem.message));
	strlcpy(problem.detail, detail, sizeof(problem.detail));
	strlcpy(problem.hint, hint, sizeof(problem.hint));
	cm_store_throw_problem(&problem, "cm_hosts");
}

/* A name fit for a one-line message, whatever it holds. */
static void
show_name(const char *name, char *out, size_t out_size)
{
	int length = pg_mbcliplen(name, strlen(name), out_size - 1);

	memcpy(out, name, length);
	out[length] = '\0';
	for (char *c = out; *c != '\0'; c++)
	{
		memset(c, '?', cm_chars_control_length(c));
	}
}

static void
check_name(HostRow *row)
{
	const char *name = get_text(row, "name");

	show_name(name != NULL ? name : "", row->shown, sizeof(row->shown));
	if (name == NULL)
		refuse("22023", "name", "name of the host is missing", "",
			   "Give it a short name such as local or build-1.");
	if (!cm_policy_is_plain_name(name))
		refuse(
			"22023", "name", psprintf("invalid host name \"%s\"", row->shown),
			"A host name is 1 to 63 letters, digits, \"_\", \".\" and \"-\", and begins with a letter or digit.",
			"Use a short name such as local or build-1; the address goes into connection_string.");
}

/* tls_enabled and tls_verify follow the kind of endpoint where unsaid. */
static void
check_tls(HostRow *row, const CmEndpoint *endpoint)
{
	static const char *const columns[] = {"tls_enabled", "tls_verify"};
	bool is_unix = endpoint->kind == CM_ENDPOINT_UNIX;
	bool is_null;

	for (int i = 0; i < lengthof(columns); i++)
	{
		(void) get_column(row, columns[i], &is_null);
		if (is_null)
			set_column(row, columns[i], BoolGetDatum(!is_unix));
		else if (is_unix && get_bool(row, columns[i]))
			refuse("22023", columns[i],
				   psprintf("%s cannot be true for host \"%s\"", columns[i], row->shown),
				   "Unix sockets are guarded by file permissions; there is no TLS on them.",
				   psprintf("Leave %s out.", columns[i]));
	}
	if (is_unix && get_text(row, "tls_cert_path") != NULL)
		refuse("22023", "tls_cert_path",
			   psprintf("tls_cert_path cannot be given for host \"%s\"", row->shown),
			   "Unix sockets are guarded by file permissions; there is no TLS on them.",
			   "Leave tls_cert_path out.");
}

static void
check_endpoint(HostRow *row)
{
	const char *text = get_text(row, "connection_string");
	CmEndpoint endpoint;
	char error[256];
	char hint[512];

	if (text == NULL)
		refuse("22023", "connection_string",
			   psprintf("connection_string of host \"%s\" is missing", row->shown), "",
			   "Write unix:///var/run/docker.sock, for instance.");
	if (!cm_endpoint_parse(text, &endpoint, error, sizeof(error), hint, sizeof(hint)))
		refuse("22P02", "connection_string",
			   psprintf("invalid connection_string for host \"%s\": %s", row->shown, error),
			   "A connection string is unix:///path of a socket or tcp://host:port.",
			   hint[0] != '\0' ? hint : "Write unix:///var/run/docker.sock, for instance.");
	if (endpoint.kind == CM_ENDPOINT_TCP)
		refuse("0A000", "connection_string",
			   psprintf("host \"%s\": tcp hosts are not available in this version", row->shown),
			   "Only engines on the machine of the database server can be used.",
			   "Use a unix socket, such as unix:///var/run/docker.sock.");
	set_column(row, "host_type", CStringGetTextDatum("unix"));
	check_tls(row, &endpoint);
}

static void
check_range(const HostRow *row, const char *column, int min, int max)
{
	bool is_null;
	int value = DatumGetInt32(get_column(row, column, &is_null));

	if (!is_null && (value < min || value > max))
		refuse("22023", column,
			   psprintf("%s %d of host \"%s\" is out of range", column, value, row->shown),
			   psprintf("It must be from %d to %d.", min, max), "");
}

static void
check_executor_type(const HostRow *row)
{
	const char *type = get_text(row, "executor_type");

	if (type == NULL || strcmp(type, "docker") == 0)
		return;
	if (strcmp(type, "mock") == 0)
		refuse("0A000", "executor_type", "executor_type \"mock\" is not available in this version",
			   psprintf("Host \"%s\" can only be driven by docker.", row->shown),
			   "Leave executor_type out.");
	refuse("22023", "executor_type", psprintf("unknown executor_type for host \"%s\"", row->shown),
		   "The only executor type of this version is docker.", "Leave executor_type out.");
}

static void
check_executor_config(const HostRow *row)
{
	bool is_null;
	Datum config = get_column(row, "executor_config", &is_null);
	JsonbIterator *iterator;
	JsonbValue value;

	/* What is no object is left to the table's CHECK. */
	if (is_null || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(config)))
		return;
	iterator = JsonbIteratorInit(&DatumGetJsonbP(config)->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	if (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		char key[CM_MAX_NAME_BYTES + 1];

		show_name(pnstrdup(value.val.string.val, value.val.string.len), key, sizeof(key));
		refuse("0A000", "executor_config",
			   psprintf("executor_config \"%s\" is not available in this version", key),
			   "This version knows no options of executor types.", "Leave executor_config out.");
	}
}

static void
check_labels(const HostRow *row)
{
	bool is_null;
	Datum labels = get_column(row, "labels", &is_null);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	char key[CM_MAX_NAME_BYTES + 1] = "";

	if (is_null || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(labels)))
		return;
	iterator = JsonbIteratorInit(&DatumGetJsonbP(labels)->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			show_name(pnstrdup(value.val.string.val, value.val.string.len), key, sizeof(key));
		else if (token == WJB_VALUE && value.type == jbvBinary)
			refuse("22023", "labels",
				   psprintf("label \"%s\" of host \"%s\" is not a single value", key, row->shown),
				   "Labels are compared as a whole; arrays and objects are no labels.",
				   "Write a text, a number or a boolean.");
	}
}

static void
check_is_row_trigger(const FunctionCallInfo fcinfo, const char *function)
{
	const TriggerData *trigdata = (const TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		elog(ERROR, "%s must be called as trigger before insert or update of a row", function);
}

/* BEFORE INSERT OR UPDATE on cm_hosts: checks the row and fills what follows. */
Datum
cm_hosts_check_row(PG_FUNCTION_ARGS)
{
	const TriggerData *trigdata = (const TriggerData *) fcinfo->context;
	HostRow row;
	bool is_update;

	check_is_row_trigger(fcinfo, "cm_internal.check_host");
	is_update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	row.relation = trigdata->tg_relation;
	row.tuple = is_update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;

	check_name(&row);
	check_endpoint(&row);
	check_range(&row, "max_concurrent_jobs", 0, 10000);
	check_range(&row, "weight", 1, 1000);
	check_executor_type(&row);
	check_executor_config(&row);
	check_labels(&row);
	if (is_update)
		set_column(&row, "updated_at", TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	return PointerGetDatum(row.tuple);
}

/* AFTER statement trigger on cm_hosts and cm_internal.host_drains. */
Datum
cm_hosts_wake(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "cm_internal.wake_hosts must be called as trigger");
	cm_shmem_wake_at_commit(CM_WAKE_HOSTS);
	return PointerGetDatum(NULL);
}

/* --- a look at an engine --- */

/* Throws only on a string that no row of cm_hosts can hold. */
static void
open_engine(const char *connection_string, CmEngine *engine)
{
	char error[256];
	char hint[512];

	memset(engine, 0, sizeof(*engine));
	if (!cm_endpoint_parse(connection_string, &engine->endpoint, error, sizeof(error), hint,
						   sizeof(hint)))
		ereport(ERROR, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				errmsg("invalid connection_string: %s", error));
	strlcpy(engine->pool, "probe", sizeof(engine->pool));
	engine->http = cm_http_new(CurrentMemoryContext);
}

/* Also says what the engine may be spoken to in; false: *diagnosis tells why. */
static bool
ask_version(CmEngine *engine, int64 timeout_ms, CmVersion *version, CmDiagnosis *diagnosis)
{
	bool is_done = false;
	CmFault fault = {0};
	CmHttpRequest *request;
	bool is_ok;

	request = cm_engine_begin_version(engine, timeout_ms, cm_engine_note_done, &is_done);
	cm_engine_wait(engine->http, &is_done);
	is_ok = cm_engine_read_version(request, engine, version, &fault);
	if (!is_ok)
		cm_diagnosis_make(&engine->endpoint, cm_http_outcome(request), &fault, diagnosis);
	cm_http_finish(request);
	return is_ok;
}

static bool
ask_info(CmEngine *engine, int64 timeout_ms, CmEngineInfo *info, CmDiagnosis *diagnosis)
{
	bool is_done = false;
	CmFault fault = {0};
	CmHttpRequest *request;
	bool is_ok;

	request = cm_engine_begin_info(engine, timeout_ms, cm_engine_note_done, &is_done);
	cm_engine_wait(engine->http, &is_done);
	is_ok = cm_engine_read_info(request, info, &fault);
	if (!is_ok)
		cm_diagnosis_make(&engine->endpoint, cm_http_outcome(request), &fault, diagnosis);
	cm_http_finish(request);
	return is_ok;
}

static int64
get_timeout_ms(const Interval *timeout)
{
	double ms = cm_sqlapi_interval_ms(timeout);

	if (!(ms >= 1 && ms <= MAX_TIMEOUT_MS))
		ereport(ERROR, errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("timeout is not between 1 millisecond and 1 hour"));
	return (int64) ms;
}

static void
set_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL || text[0] == '\0';
	values[column] = nulls[column] ? (Datum) 0 : CStringGetTextDatum(text);
}

/*
 * (connection_string, timeout) -> ok, latency_ms, engine_version, api_version,
 * error, hint.
 */
Datum
cm_hosts_probe_engine(PG_FUNCTION_ARGS)
{
	const char *connection_string = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64 timeout_ms = get_timeout_ms(PG_GETARG_INTERVAL_P(1));
	MemoryContext context;
	MemoryContext caller;
	CmEngine engine;
	CmVersion version;
	CmDiagnosis diagnosis = {{0}, {0}};
	instr_time begin;
	instr_time end;
	bool is_ok;
	TupleDesc desc;
	Datum values[6];
	bool nulls[6] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	context = AllocSetContextCreate(CurrentMemoryContext, "engine probe", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	open_engine(connection_string, &engine);
	INSTR_TIME_SET_CURRENT(begin);
	is_ok = ask_version(&engine, timeout_ms, &version, &diagnosis);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	MemoryContextSwitchTo(caller);

	values[0] = BoolGetDatum(is_ok);
	values[1] = Float8GetDatum(INSTR_TIME_GET_MILLISEC(end));
	nulls[1] = !is_ok;
	set_text(values, nulls, 2, is_ok ? cm_store_text_from_utf8(version.engine_version) : NULL);
	set_text(values, nulls, 3, is_ok ? psprintf("1.%d", engine.api_minor) : NULL);
	set_text(values, nulls, 4, diagnosis.error);
	set_text(values, nulls, 5, diagnosis.hint);
	MemoryContextDelete(context);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* (host, connection_string) -> the engine's answer to /info, as JSON text. */
Datum
cm_hosts_read_info(PG_FUNCTION_ARGS)
{
	const char *host = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *connection_string = text_to_cstring(PG_GETARG_TEXT_PP(1));
	MemoryContext context;
	MemoryContext caller;
	CmEngine engine;
	CmVersion version;
	CmEngineInfo info;
	CmDiagnosis diagnosis = {{0}, {0}};
	text *result;

	context = AllocSetContextCreate(CurrentMemoryContext, "engine probe", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	open_engine(connection_string, &engine);
	if (!ask_version(&engine, INFO_TIMEOUT_MS, &version, &diagnosis) ||
		!ask_info(&engine, INFO_TIMEOUT_MS, &info, &diagnosis))
		ereport(ERROR, errcode(ERRCODE_IO_ERROR), errmsg("host \"%s\": %s", host, diagnosis.error),
				diagnosis.hint[0] != '\0' ? errhint("%s", diagnosis.hint) : 0);
	MemoryContextSwitchTo(caller);
	result = cstring_to_text(cm_store_text_from_utf8(pnstrdup(info.json, info.n_json)));
	MemoryContextDelete(context);
	PG_RETURN_TEXT_P(result);
}

/* --- what runs there --- */

static bool
ask_list(CmEngine *engine, CmShown **shown, int *n, CmDiagnosis *diagnosis)
{
	bool is_done = false;
	CmFault fault = {0};
	CmHttpRequest *request;
	bool is_ok;

	request = cm_engine_begin_list_all(engine, cm_engine_note_done, &is_done);
	cm_engine_wait(engine->http, &is_done);
	is_ok = cm_engine_read_list_all(request, shown, n, &fault);
	if (!is_ok)
		cm_diagnosis_make(&engine->endpoint, cm_http_outcome(request), &fault, diagnosis);
	cm_http_finish(request);
	return is_ok;
}

static TimestampTz
read_unix_time(int64 seconds)
{
	return (TimestampTz) (seconds - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) *
		   USECS_PER_SEC;
}

/* What an engine says of time is believed from 1970 to 9999. */
static void
put_shown(ReturnSetInfo *result, const CmShown *shown)
{
	const CmContainerLabels *labels = &shown->listed.labels;
	Datum values[9];
	bool nulls[9] = {0};

	values[0] = CStringGetTextDatum(shown->listed.id);
	set_text(values, nulls, 1, cm_store_text_from_utf8(shown->name));
	set_text(values, nulls, 2, cm_store_text_from_utf8(shown->image));
	set_text(values, nulls, 3, cm_store_text_from_utf8(shown->state));
	nulls[4] = shown->created_at_s <= 0 || shown->created_at_s > INT64_C(253402300799);
	values[4] = nulls[4] ? (Datum) 0 : TimestampTzGetDatum(read_unix_time(shown->created_at_s));
	values[5] = DirectFunctionCall1(uuid_in, CStringGetDatum(labels->epoch));
	nulls[6] = labels->incarnation == 0;
	values[6] = Int32GetDatum(labels->incarnation);
	values[7] = Int64GetDatum(labels->job_id);
	values[8] = Int32GetDatum(labels->attempt);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* (host, connection_string) -> containers of jobs; see sql/40-hosts.sql. */
Datum
cm_hosts_list_engine(PG_FUNCTION_ARGS)
{
	const char *host = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *connection_string = text_to_cstring(PG_GETARG_TEXT_PP(1));
	MemoryContext context;
	MemoryContext caller;
	CmEngine engine;
	CmVersion version;
	CmDiagnosis diagnosis = {{0}, {0}};
	CmShown *shown;
	int n;

	InitMaterializedSRF(fcinfo, 0);
	context = AllocSetContextCreate(CurrentMemoryContext, "engine probe", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	open_engine(connection_string, &engine);
	if (!ask_version(&engine, INFO_TIMEOUT_MS, &version, &diagnosis) ||
		!ask_list(&engine, &shown, &n, &diagnosis))
		ereport(ERROR, errcode(ERRCODE_IO_ERROR), errmsg("host \"%s\": %s", host, diagnosis.error),
				diagnosis.hint[0] != '\0' ? errhint("%s", diagnosis.hint) : 0);
	for (int i = 0; i < n; i++)
		put_shown((ReturnSetInfo *) fcinfo->resultinfo, &shown[i]);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return (Datum) 0;
}

/* --- misspelt names --- */

/* (word, words) -> that of the words which was probably meant, or NULL. */
Datum
cm_hosts_nearest_word(PG_FUNCTION_ARGS)
{
	const char *word = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *nearest;
	char **words;
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  &n);
	words = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		words[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	nearest = cm_sqlapi_find_nearest(word, strlen(word), n, words);
	if (nearest == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(nearest));
}
