/*
 * sqlapi_engines.c
 *		A look at an engine while somebody waits.
 *
 * Floor 5.  These functions know no tables: they are given the connection
 * string, so that a host added in this very transaction can be asked.  They
 * wait in this backend, interruptibly; a cancelled one leaves nothing behind,
 * because its connection belongs to a memory context.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "diagnosis.h"
#include "endpoint.h"
#include "engine.h"
#include "sqlapi_util.h"
#include "store.h"

#define MAX_TIMEOUT_MS (60 * 60 * 1000)
#define INFO_TIMEOUT_MS (10 * 1000)
#define MAX_PROBES_AT_ONCE 100 /* each is an open file */

PG_FUNCTION_INFO_V1(cm_hosts_probe_engines);
PG_FUNCTION_INFO_V1(cm_hosts_read_info);
PG_FUNCTION_INFO_V1(cm_hosts_list_engine);

/* Throws only on a string that no row of cm_hosts can hold. */
static void
open_engine(const char *connection_string, CmHttp *http, int number, CmEngine *engine)
{
	char error[256];
	char hint[512];

	memset(engine, 0, sizeof(*engine));
	if (!cm_endpoint_parse(connection_string, &engine->endpoint, error, sizeof(error), hint,
						   sizeof(hint)))
		ereport(ERROR, errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				errmsg("invalid connection_string: %s", error));
	snprintf(engine->pool, sizeof(engine->pool), "probe%d", number);
	engine->http = http;
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
	is_ok = cm_engine_read_info(request, engine, info, &fault);
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

/* --- whether they answer --- */

/* One of several engines that are asked at the same time. */
typedef struct Probe
{
	struct Probes *all;
	CmEngine engine;
	instr_time begin;
	double latency_ms;
	bool is_ok;
	CmVersion version;
	CmDiagnosis diagnosis;
} Probe;

typedef struct Probes
{
	Probe *probes;
	int n;
	int n_begun;
	int n_ended;
	int64 timeout_ms;
	bool are_done;
} Probes;

static void begin_next_probe(Probes *all);

static void
note_probe(CmHttpRequest *request, void *arg)
{
	Probe *probe = arg;
	Probes *all = probe->all;
	CmFault fault = {0};
	instr_time end;

	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, probe->begin);
	probe->latency_ms = INSTR_TIME_GET_MILLISEC(end);
	probe->is_ok = cm_engine_read_version(request, &probe->engine, &probe->version, &fault);
	if (!probe->is_ok)
		cm_diagnosis_make(&probe->engine.endpoint, cm_http_outcome(request), &fault,
						  &probe->diagnosis);
	cm_http_finish(request);
	all->are_done = ++all->n_ended == all->n;
	begin_next_probe(all);
}

static void
begin_next_probe(Probes *all)
{
	Probe *probe;

	if (all->n_begun == all->n)
		return;
	probe = &all->probes[all->n_begun++];
	INSTR_TIME_SET_CURRENT(probe->begin);
	cm_engine_begin_version(&probe->engine, all->timeout_ms, note_probe, probe);
}

/* In one loop, so that those that hang cost the time of one. */
static void
run_probes(Probes *all, ArrayType *connection_strings)
{
	CmHttp *http = cm_http_new(CurrentMemoryContext);
	Datum *strings;

	deconstruct_array(connection_strings, TEXTOID, -1, false, TYPALIGN_INT, &strings, NULL,
					  &all->n);
	all->probes = palloc0(sizeof(Probe) * Max(all->n, 1));
	for (int i = 0; i < all->n; i++)
	{
		all->probes[i].all = all;
		open_engine(TextDatumGetCString(strings[i]), http, i, &all->probes[i].engine);
	}
	all->are_done = all->n == 0;
	for (int i = 0; i < MAX_PROBES_AT_ONCE; i++)
		begin_next_probe(all);
	cm_engine_wait(http, &all->are_done);
}

static void
put_probe(ReturnSetInfo *result, int n, const Probe *probe)
{
	Datum values[7];
	bool nulls[7] = {0};

	values[0] = Int32GetDatum(n);
	values[1] = BoolGetDatum(probe->is_ok);
	values[2] = Float8GetDatum(probe->latency_ms);
	nulls[2] = !probe->is_ok;
	set_text(values, nulls, 3,
			 probe->is_ok ? cm_store_text_from_utf8(probe->version.engine_version) : NULL);
	set_text(values, nulls, 4, probe->is_ok ? psprintf("1.%d", probe->engine.api_minor) : NULL);
	set_text(values, nulls, 5, probe->diagnosis.error);
	set_text(values, nulls, 6, probe->diagnosis.hint);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * (connection_strings, timeout) -> n, ok, latency_ms, engine_version, api_version,
 * error, hint; n counts from 1.
 */
Datum
cm_hosts_probe_engines(PG_FUNCTION_ARGS)
{
	Probes all = {.timeout_ms = get_timeout_ms(PG_GETARG_INTERVAL_P(1))};
	MemoryContext context;
	MemoryContext caller;

	InitMaterializedSRF(fcinfo, 0);
	context = AllocSetContextCreate(CurrentMemoryContext, "engine probe", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	run_probes(&all, PG_GETARG_ARRAYTYPE_P(0));
	for (int i = 0; i < all.n; i++)
		put_probe((ReturnSetInfo *) fcinfo->resultinfo, i + 1, &all.probes[i]);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return (Datum) 0;
}

/* --- what they tell of themselves --- */

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
	open_engine(connection_string, cm_http_new(CurrentMemoryContext), 0, &engine);
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
	open_engine(connection_string, cm_http_new(CurrentMemoryContext), 0, &engine);
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
