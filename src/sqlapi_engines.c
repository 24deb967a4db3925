/*
 * sqlapi_engines.c
 *		A look at an engine while somebody waits.
 *
 * Floor 5.  Those about hosts are given the host's row, so that a host added in
 * this very transaction can be asked; what is stored of its TLS they read
 * themselves, for no key goes through SQL.  They wait in this backend,
 * interruptibly; a cancelled one leaves nothing behind, because its connection
 * and its key belong to a memory context.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "compat.h"
#include "diagnosis.h"
#include "endpoint.h"
#include "engine.h"
#include "logstream.h"
#include "sqlapi_util.h"
#include "store.h"
#include "transport.h"

#define MAX_TIMEOUT_MS (60 * 60 * 1000)
#define INFO_TIMEOUT_MS (10 * 1000)
#define MAX_PROBES_AT_ONCE 64

PG_FUNCTION_INFO_V1(cm_hosts_probe_engines);
PG_FUNCTION_INFO_V1(cm_hosts_read_info);
PG_FUNCTION_INFO_V1(cm_hosts_list_engine);
PG_FUNCTION_INFO_V1(cm_hosts_list_networks);
PG_FUNCTION_INFO_V1(cm_hosts_list_volumes);
PG_FUNCTION_INFO_V1(cm_job_processes);
PG_FUNCTION_INFO_V1(cm_job_changes);

/* One engine that is asked, and why it did not answer. */
typedef struct Probe
{
	struct Probes *all;
	const char *host;
	CmEngine engine;
	instr_time begin;
	double latency_ms;
	bool is_ok;
	CmVersion version;
	CmDiagnosis diagnosis;
} Probe;

/* Engines that are asked at the same time. */
typedef struct Probes
{
	MemoryContext context;
	MemoryContextCallback on_reset;
	CmHttp *http;
	Probe *probes;
	int n;
	int n_begun;
	int n_ended;
	int64 timeout_ms;
	bool are_done;
} Probes;

static void
close_transports(void *arg)
{
	Probes *all = arg;

	for (int i = 0; i < all->n; i++)
		cm_transport_close(&all->probes[i].engine);
}

/*
 * For so many engines.  The context lives in the current one, and is deleted by the
 * caller, or with that.
 */
static Probes *
make_probes(int n)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "engine probe", ALLOCSET_DEFAULT_SIZES);
	Probes *all = MemoryContextAllocZero(context, sizeof(Probes));

	all->context = context;
	all->probes = MemoryContextAllocZero(context, sizeof(Probe) * Max(n, 1));
	all->n = n;
	all->on_reset.func = close_transports;
	all->on_reset.arg = all;
	/* Before that of http, for the last comes first: requests use the keys. */
	MemoryContextRegisterResetCallback(context, &all->on_reset);
	all->http = cm_http_new(context);
	return all;
}

static const char *
get_text(HeapTupleHeader row, const char *column)
{
	bool is_null;
	Datum value = GetAttributeByName(row, column, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

static bool
get_bool(HeapTupleHeader row, const char *column)
{
	bool is_null;
	Datum value = GetAttributeByName(row, column, &is_null);

	return !is_null && DatumGetBool(value);
}

/* A column of the first row of SPI's, in the current context; NULL for NULL. */
static char *
get_stored_text(int column)
{
	bool is_null;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

/* SPI's memory goes with SPI_finish, so that the texts are made in ours. */
static void
copy_stored_tls(CmHostAddress *address)
{
	bool is_null;
	Datum key = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &is_null);
	bytea *sealed;

	address->has_stored_tls = true;
	address->ca = get_stored_text(1);
	address->cert = get_stored_text(2);
	if (is_null)
		return;
	sealed = DatumGetByteaPCopy(key);
	address->key_sealed = VARDATA(sealed);
	address->n_key_sealed = VARSIZE(sealed) - VARHDRSZ;
}

static void
read_stored_tls(CmHostAddress *address)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid types[1] = {INT4OID};
	Datum values[1] = {Int32GetDatum(address->host_id)};

	SPI_connect();
	SPI_execute_with_args(
		"SELECT ca, cert, key_sealed FROM cm_internal.host_tls WHERE host_id = $1", 1, types,
		values, NULL, true, 1);
	MemoryContextSwitchTo(caller);
	if (SPI_processed == 1)
		copy_stored_tls(address);
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

static void
read_address(HeapTupleHeader row, CmHostAddress *address)
{
	bool is_null;

	memset(address, 0, sizeof(*address));
	address->host_id = DatumGetInt32(GetAttributeByName(row, "id", &is_null));
	address->connection_string = get_text(row, "connection_string");
	address->tls_enabled = get_bool(row, "tls_enabled");
	address->tls_verify = get_bool(row, "tls_verify");
	address->tls_cert_path = get_text(row, "tls_cert_path");
	read_stored_tls(address);
}

/* row: of cm_hosts.  false: the diagnosis says why the host cannot be asked. */
static bool
open_probe(Probes *all, int number, HeapTupleHeader row)
{
	MemoryContext caller = MemoryContextSwitchTo(all->context);
	Probe *probe = &all->probes[number];
	CmHostAddress address;
	bool is_ok;

	probe->all = all;
	probe->host = get_text(row, "name");
	probe->engine.http = all->http;
	snprintf(probe->engine.pool, sizeof(probe->engine.pool), "probe%d", number);
	read_address(row, &address);
	is_ok = cm_transport_apply(&probe->engine, &address, &probe->diagnosis);
	MemoryContextSwitchTo(caller);
	return is_ok;
}

/* Makes sense of an answer. */
typedef bool (*ReadAnswer)(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault);

/* Waits for the answer to a request; false: the diagnosis tells why. */
static bool
await_answer(Probe *probe, CmHttpRequest *request, const bool *is_done, ReadAnswer read,
			 void *answer)
{
	CmFault fault = {0};
	bool is_ok;

	cm_engine_wait(probe->engine.http, is_done);
	is_ok = read(request, &probe->engine, answer, &fault);
	if (!is_ok)
		cm_diagnosis_make(&probe->engine, request, &fault, &probe->diagnosis);
	cm_http_finish(request);
	return is_ok;
}

static bool
read_version(CmHttpRequest *request, CmEngine *engine, void *version, CmFault *fault)
{
	return cm_engine_read_version(request, engine, version, fault);
}

/* Also says what the engine may be spoken to in. */
static bool
ask_version(Probe *probe, int64 timeout_ms)
{
	bool is_done = false;
	CmHttpRequest *request =
		cm_engine_begin_version(&probe->engine, timeout_ms, cm_engine_note_done, &is_done);

	return await_answer(probe, request, &is_done, read_version, &probe->version);
}

pg_noreturn static void
throw_diagnosis(const Probe *probe)
{
	ereport(ERROR, errcode(ERRCODE_IO_ERROR),
			errmsg("host \"%s\": %s", probe->host, probe->diagnosis.error),
			probe->diagnosis.hint[0] != '\0' ? errhint("%s", probe->diagnosis.hint) : 0);
}

/* Opens it and asks its version; throws where it does not answer. */
static Probe *
open_or_throw(HeapTupleHeader row)
{
	Probes *all = make_probes(1);
	Probe *probe = &all->probes[0];

	if (!open_probe(all, 0, row) || !ask_version(probe, INFO_TIMEOUT_MS))
		throw_diagnosis(probe);
	return probe;
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

static void begin_next_probe(Probes *all);

static void
end_probe(Probe *probe)
{
	Probes *all = probe->all;

	all->are_done = ++all->n_ended == all->n;
}

static void
note_probe(CmHttpRequest *request, void *arg)
{
	Probe *probe = arg;
	CmFault fault = {0};
	instr_time end;

	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, probe->begin);
	probe->latency_ms = INSTR_TIME_GET_MILLISEC(end);
	probe->is_ok = cm_engine_read_version(request, &probe->engine, &probe->version, &fault);
	if (!probe->is_ok)
		cm_diagnosis_make(&probe->engine, request, &fault, &probe->diagnosis);
	cm_http_finish(request);
	end_probe(probe);
	begin_next_probe(probe->all);
}

/* Those whose connection cannot even be tried have ended already. */
static void
begin_next_probe(Probes *all)
{
	Probe *probe;

	while (all->n_begun < all->n && all->probes[all->n_begun].diagnosis.error[0] != '\0')
		end_probe(&all->probes[all->n_begun++]);
	if (all->n_begun == all->n)
		return;
	probe = &all->probes[all->n_begun++];
	INSTR_TIME_SET_CURRENT(probe->begin);
	cm_engine_begin_version(&probe->engine, all->timeout_ms, note_probe, probe);
}

/* In one loop, so that those that hang cost the time of one. */
static Probes *
run_probes(ArrayType *hosts, int64 timeout_ms)
{
	Datum *rows;
	int n;
	int16 length;
	bool is_by_value;
	char alignment;
	Probes *all;

	get_typlenbyvalalign(ARR_ELEMTYPE(hosts), &length, &is_by_value, &alignment);
	deconstruct_array(hosts, ARR_ELEMTYPE(hosts), length, is_by_value, alignment, &rows, NULL, &n);
	all = make_probes(n);
	all->timeout_ms = timeout_ms;
	for (int i = 0; i < n; i++)
		(void) open_probe(all, i, DatumGetHeapTupleHeader(rows[i]));
	all->are_done = n == 0;
	for (int i = 0; i < MAX_PROBES_AT_ONCE; i++)
		begin_next_probe(all);
	cm_engine_wait(all->http, &all->are_done);
	return all;
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
 * (hosts, timeout) -> n, ok, latency_ms, engine_version, api_version, error, hint;
 * n counts from 1.
 */
Datum
cm_hosts_probe_engines(PG_FUNCTION_ARGS)
{
	int64 timeout_ms = get_timeout_ms(PG_GETARG_INTERVAL_P(1));
	Probes *all;

	InitMaterializedSRF(fcinfo, 0);
	all = run_probes(PG_GETARG_ARRAYTYPE_P(0), timeout_ms);
	for (int i = 0; i < all->n; i++)
		put_probe((ReturnSetInfo *) fcinfo->resultinfo, i + 1, &all->probes[i]);
	MemoryContextDelete(all->context);
	return (Datum) 0;
}

/* --- what they tell of themselves --- */

static bool
read_info(CmHttpRequest *request, CmEngine *engine, void *info, CmFault *fault)
{
	return cm_engine_read_info(request, engine, info, fault);
}

/* (host) -> the engine's answer to /info, as JSON text. */
Datum
cm_hosts_read_info(PG_FUNCTION_ARGS)
{
	Probe *probe = open_or_throw(PG_GETARG_HEAPTUPLEHEADER(0));
	bool is_done = false;
	CmHttpRequest *request =
		cm_engine_begin_info(&probe->engine, INFO_TIMEOUT_MS, cm_engine_note_done, &is_done);
	CmEngineInfo info;
	text *result;

	if (!await_answer(probe, request, &is_done, read_info, &info))
		throw_diagnosis(probe);
	result = cstring_to_text(cm_store_text_from_utf8(pnstrdup(info.json, info.n_json)));
	MemoryContextDelete(probe->all->context);
	PG_RETURN_TEXT_P(result);
}

/* --- what is there --- */

typedef CmHttpRequest *(*BeginList)(CmEngine *engine, CmEngineDone on_done, void *arg);

/* For a set of rows: the host that is the first argument gives its list into list,
 * in the probe's context. */
static Probe *
ask_for_list(FunctionCallInfo fcinfo, BeginList begin, ReadAnswer read, void *list)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	Probe *probe;
	bool is_done = false;
	CmHttpRequest *request;

	InitMaterializedSRF(fcinfo, 0);
	probe = open_or_throw(row);
	request = begin(&probe->engine, cm_engine_note_done, &is_done);
	if (!await_answer(probe, request, &is_done, read, list))
		throw_diagnosis(probe);
	return probe;
}

/* --- what runs there --- */

typedef struct ShownList
{
	CmShown *shown;
	int n;
} ShownList;

static bool
read_list(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault)
{
	ShownList *list = answer;

	return cm_engine_read_list_all(request, &list->shown, &list->n, fault);
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

/* (host) -> containers of jobs; see sql/40-hosts.sql. */
Datum
cm_hosts_list_engine(PG_FUNCTION_ARGS)
{
	ShownList list;
	Probe *probe = ask_for_list(fcinfo, cm_engine_begin_list_all, read_list, &list);

	for (int i = 0; i < list.n; i++)
		put_shown((ReturnSetInfo *) fcinfo->resultinfo, &list.shown[i]);
	MemoryContextDelete(probe->all->context);
	return (Datum) 0;
}

/* --- networks and volumes --- */

/* NULL where it is none. */
static void
set_epoch(Datum *values, bool *nulls, int column, const char *epoch)
{
	nulls[column] = !cm_engine_is_uuid(epoch);
	if (!nulls[column])
		values[column] = DirectFunctionCall1(uuid_in, CStringGetDatum(epoch));
}

typedef struct NetworkList
{
	CmNetworkFacts *facts;
	int n;
} NetworkList;

static bool
read_networks(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault)
{
	NetworkList *list = answer;

	return cm_engine_read_networks(request, &list->facts, &list->n, fault);
}

static void
put_network(ReturnSetInfo *result, const CmNetworkFacts *facts)
{
	Datum values[7];
	bool nulls[7] = {0};

	set_text(values, nulls, 0, cm_store_text_from_utf8(facts->name));
	set_text(values, nulls, 1, cm_store_text_from_utf8(facts->driver));
	set_text(values, nulls, 2, cm_store_text_from_utf8(facts->scope));
	values[3] = BoolGetDatum(facts->is_internal);
	set_text(values, nulls, 4, cm_store_text_from_utf8(facts->subnets));
	set_epoch(values, nulls, 5, facts->epoch);
	set_text(values, nulls, 6, cm_store_text_from_utf8(facts->id));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* (host) -> networks; see sql/43-networks.sql. */
Datum
cm_hosts_list_networks(PG_FUNCTION_ARGS)
{
	NetworkList list;
	Probe *probe = ask_for_list(fcinfo, cm_engine_begin_list_networks, read_networks, &list);

	for (int i = 0; i < list.n; i++)
		put_network((ReturnSetInfo *) fcinfo->resultinfo, &list.facts[i]);
	MemoryContextDelete(probe->all->context);
	return (Datum) 0;
}

typedef struct VolumeList
{
	CmVolumeFacts *facts;
	int n;
} VolumeList;

static bool
read_volumes(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault)
{
	VolumeList *list = answer;

	return cm_engine_read_volumes(request, &list->facts, &list->n, fault);
}

/* Engines' own times are in RFC 3339, or are left out. */
static void
set_time(Datum *values, bool *nulls, int column, const char *time)
{
	int64 at_us;

	nulls[column] = !cm_logstream_parse_time(time, strlen(time), &at_us);
	values[column] =
		nulls[column] ? (Datum) 0 : TimestampTzGetDatum(read_unix_time(at_us / USECS_PER_SEC));
}

static void
put_volume(ReturnSetInfo *result, const CmVolumeFacts *facts)
{
	Datum values[6];
	bool nulls[6] = {0};

	set_text(values, nulls, 0, cm_store_text_from_utf8(facts->namespace_name));
	set_text(values, nulls, 1, cm_store_text_from_utf8(facts->name));
	set_text(values, nulls, 2, cm_store_text_from_utf8(facts->owner));
	set_time(values, nulls, 3, facts->created_at);
	set_epoch(values, nulls, 4, facts->epoch);
	set_text(values, nulls, 5, cm_store_text_from_utf8(facts->engine_name));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* (host) -> volumes that a database of ours has made; see sql/43-networks.sql. */
Datum
cm_hosts_list_volumes(PG_FUNCTION_ARGS)
{
	VolumeList list;
	Probe *probe = ask_for_list(fcinfo, cm_engine_begin_list_volumes, read_volumes, &list);

	for (int i = 0; i < list.n; i++)
		put_volume((ReturnSetInfo *) fcinfo->resultinfo, &list.facts[i]);
	MemoryContextDelete(probe->all->context);
	return (Datum) 0;
}

/* --- what is in a job's container --- */

/* Where it is; its host's row is as in cm_hosts. */
typedef struct JobContainer
{
	int64 job_id;
	const char *status;
	HeapTupleHeader host; /* NULL: it has no container, or no host any more */
	const char *host_type;
	const char *id; /* NULL: none */
	bool is_kept;
} JobContainer;

/* A reply about a container that may have gone, or ended, meanwhile. */
typedef struct Peek
{
	CmProcess *processes;
	CmChange *changes;
	int n;
	bool is_gone;
} Peek;

static char *
copy_job_text(MemoryContext context, int column)
{
	const char *text = cm_sqlapi_job_text(column);

	return text != NULL ? MemoryContextStrdup(context, text) : NULL;
}

/* As the owner: callers may read neither hosts nor queue.  The row outlives SPI. */
static void
read_container(FunctionCallInfo fcinfo, JobContainer *container)
{
	static CmJobQuery query = {
		.text =
			"SELECT j.status, coalesce(q.container_id, k.container_id),"
			" k.job_id IS NOT NULL AND q.job_id IS NULL, h.executor_type, h"
			" FROM @extschema@.cm_jobs j LEFT JOIN cm_internal.queue q ON q.job_id = j.id"
			" LEFT JOIN cm_internal.kept_containers k ON k.job_id = j.id"
			" LEFT JOIN @extschema@.cm_hosts h ON h.id = coalesce(q.host_id, k.host_id) WHERE j.id = $1"};
	MemoryContext caller = CurrentMemoryContext;
	bool is_null;
	Datum host;

	SPI_connect();
	if (!cm_sqlapi_read_job(fcinfo, &query, container->job_id))
		cm_sqlapi_throw_no_job(container->job_id);
	container->status = copy_job_text(caller, 1);
	container->id = copy_job_text(caller, 2);
	container->is_kept = DatumGetBool(cm_sqlapi_job_datum(3, &is_null));
	container->host_type = copy_job_text(caller, 4);
	host = cm_sqlapi_job_datum(5, &is_null);
	MemoryContextSwitchTo(caller);
	container->host = container->host_type == NULL ? NULL : DatumGetHeapTupleHeaderCopy(host);
	SPI_finish();
}

pg_noreturn static void
throw_no_container(const JobContainer *container)
{
	ereport(
		ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		errmsg("job " INT64_FORMAT " has no container", container->job_id),
		errdetail("It is %s.", container->status),
		errhint(
			"There is one while a job runs, and after it has failed for as long as its keep_container says."));
}

pg_noreturn static void
throw_not_running(const JobContainer *container)
{
	ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("job " INT64_FORMAT " does not run", container->job_id),
			errdetail("It is %s; its container is kept, without processes.", container->status),
			errhint("SELECT * FROM cm_job_changes(" INT64_FORMAT ") shows what it left.",
					container->job_id));
}

static void
check_container(const JobContainer *container, bool must_run)
{
	if (container->host_type != NULL && strcmp(container->host_type, "docker") != 0)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("job " INT64_FORMAT " has no container", container->job_id),
				errdetail("Its host is of type %s, which runs nothing.", container->host_type));
	if (container->host == NULL || container->id == NULL)
		throw_no_container(container);
	if (must_run && container->is_kept)
		throw_not_running(container);
}

/* Gone, or over: a job that was just there may have ended. */
static bool
is_gone(const CmFault *fault)
{
	return fault->kind == CM_FAULT_REFUSED &&
		   (fault->http_status == 404 || fault->http_status == 409);
}

static bool
read_top(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault)
{
	Peek *peek = answer;

	if (cm_engine_read_top(request, &peek->processes, &peek->n, fault))
		return true;
	peek->is_gone = is_gone(fault);
	return peek->is_gone;
}

static bool
read_changes(CmHttpRequest *request, CmEngine *engine, void *answer, CmFault *fault)
{
	Peek *peek = answer;

	if (cm_engine_read_changes(request, &peek->changes, &peek->n, fault))
		return true;
	peek->is_gone = is_gone(fault);
	return peek->is_gone;
}

typedef CmHttpRequest *(*BeginPeek)(CmEngine *engine, const char *id, CmEngineDone on_done,
									void *arg);

/* Asks the job's host; the answer is in the probe's context. */
static Probe *
peek_into(const JobContainer *container, BeginPeek begin, ReadAnswer read, Peek *peek)
{
	Probe *probe = open_or_throw(container->host);
	MemoryContext caller = MemoryContextSwitchTo(probe->all->context);
	bool is_done = false;
	CmHttpRequest *request = begin(&probe->engine, container->id, cm_engine_note_done, &is_done);

	if (!await_answer(probe, request, &is_done, read, peek))
		throw_diagnosis(probe);
	MemoryContextSwitchTo(caller);
	if (peek->is_gone)
		ereport(ERROR, errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the container of job " INT64_FORMAT " is not there any more, or has ended",
					   container->job_id),
				errhint("SELECT * FROM cm_job_explain(" INT64_FORMAT ");", container->job_id));
	return probe;
}

/* Whoever may read the job may look; his rights are given back at the end. */
static void
begin_peek(FunctionCallInfo fcinfo, JobContainer *container, CmAsOwner *as_owner)
{
	InitMaterializedSRF(fcinfo, 0);
	container->job_id = PG_GETARG_INT64(0);
	SPI_connect();
	(void) cm_sqlapi_find_job(fcinfo, container->job_id);
	SPI_finish();
	cm_sqlapi_begin_as_owner(fcinfo, as_owner);
	read_container(fcinfo, container);
}

static void
set_number(Datum *values, bool *nulls, int column, int64 number)
{
	nulls[column] = number < 0;
	values[column] = Int64GetDatum(number);
}

static void
put_process(ReturnSetInfo *result, const CmProcess *process)
{
	Datum values[5];
	bool nulls[5] = {0};

	set_number(values, nulls, 0, process->pid);
	set_number(values, nulls, 1, process->parent_pid);
	set_text(values, nulls, 2, cm_store_text_from_utf8(process->user));
	set_text(values, nulls, 3, cm_store_text_from_utf8(process->elapsed));
	set_text(values, nulls, 4, cm_store_text_from_utf8(process->command));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* (job) -> its processes; see sql/77-after.sql. */
Datum
cm_job_processes(PG_FUNCTION_ARGS)
{
	JobContainer container = {0};
	CmAsOwner as_owner;
	Peek peek = {0};
	Probe *probe;

	begin_peek(fcinfo, &container, &as_owner);
	check_container(&container, true);
	probe = peek_into(&container, cm_engine_begin_top, read_top, &peek);
	for (int i = 0; i < peek.n; i++)
		put_process((ReturnSetInfo *) fcinfo->resultinfo, &peek.processes[i]);
	MemoryContextDelete(probe->all->context);
	cm_sqlapi_end_as_owner(&as_owner);
	return (Datum) 0;
}

static void
put_change(ReturnSetInfo *result, const CmChange *change)
{
	Datum values[2];
	bool nulls[2] = {0};

	set_text(values, nulls, 0, cm_store_text_from_utf8(change->path));
	set_text(values, nulls, 1, change->kind);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* (job) -> what is not as in its image; see sql/77-after.sql. */
Datum
cm_job_changes(PG_FUNCTION_ARGS)
{
	JobContainer container = {0};
	CmAsOwner as_owner;
	Peek peek = {0};
	Probe *probe;

	begin_peek(fcinfo, &container, &as_owner);
	check_container(&container, false);
	probe = peek_into(&container, cm_engine_begin_changes, read_changes, &peek);
	for (int i = 0; i < peek.n; i++)
		put_change((ReturnSetInfo *) fcinfo->resultinfo, &peek.changes[i]);
	MemoryContextDelete(probe->all->context);
	cm_sqlapi_end_as_owner(&as_owner);
	return (Datum) 0;
}
