/*
 * fuzz_engine.c
 *		What an engine answers: each reader takes anything, and what it then says
 *		is of the form that the rest relies upon.
 *
 * The first byte chooses the reader, the rest is the reply:
 *		V version, I info, C create, N inspect, L list, T top, H changes, E events,
 *		P pull, W networks, w a network, U volumes, u a volume, O the begin of an
 *		archive, R refusal (its status is the next byte's).
 */
#include "postgres.h"

#include "chars.h"
#include "engine_internal.h"
#include "fuzz.h"
#include "mb/pg_wchar.h"
#include "server.h"

#define MAX_EVENTS 256

static bool
is_plain_line(const char *text)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, (int) strlen(text)) == (int) strlen(text) &&
		   !cm_chars_has_control(text);
}

static void
check_fault(bool is_good, const CmFault *fault)
{
	REQUIRE(is_good == (fault->kind == CM_FAULT_NONE));
	REQUIRE(is_plain_line(fault->message) && is_good == (fault->message[0] == '\0'));
}

static void
check_id(const char *id)
{
	REQUIRE(strlen(id) == CM_CONTAINER_ID_LEN && cm_engine_is_id(id));
}

static void
check_labels(const CmContainerLabels *labels)
{
	REQUIRE(labels->job_id >= 0 && labels->attempt >= 0 && labels->incarnation >= 0);
	REQUIRE((labels->job_id == 0) == (labels->attempt == 0));
	REQUIRE(strnlen(labels->epoch, sizeof(labels->epoch)) < sizeof(labels->epoch));
	REQUIRE(labels->spec_hash[0] == '\0' || cm_engine_is_id(labels->spec_hash));
}

/* ---- the readers of whole replies ---- */

static void
check_version(CmHttpRequest *request)
{
	CmEngine engine = {0};
	CmVersion version;
	CmFault fault;
	bool is_good = cm_engine_read_version(request, &engine, &version, &fault);

	check_fault(is_good, &fault);
	REQUIRE(is_plain_line(version.engine_version));
	REQUIRE(is_good == (engine.api_minor != 0));
	REQUIRE(!is_good || (engine.api_minor >= CM_API_FLOOR && engine.api_minor <= CM_API_CEILING));
}

/* UTF-8, within its room, and without empty lines. */
static void
check_lines(const char *lines, size_t size)
{
	size_t length = strlen(lines);

	REQUIRE(length < size && pg_encoding_verifymbstr(PG_UTF8, lines, (int) length) == (int) length);
	REQUIRE(lines[0] != '\n' && (length == 0 || lines[length - 1] != '\n'));
	REQUIRE(strstr(lines, "\n\n") == NULL);
}

static void
check_info(CmHttpRequest *request)
{
	CmEngine engine = {0};
	CmEngineInfo info;
	CmFault fault;
	bool is_good = cm_engine_read_info(request, &engine, &info, &fault);
	const CmEngineFacts *facts = &info.facts;

	check_fault(is_good, &fault);
	REQUIRE(facts->cpus >= 0 && facts->memory_bytes >= 0 && is_good == (info.json != NULL));
	REQUIRE(!is_good || strlen(info.json) == info.n_json);
	REQUIRE(facts->containers_running >= 0 && facts->containers_paused >= 0 &&
			facts->containers_stopped >= 0 && facts->images >= 0 && facts->disk_free_bytes >= -1);
	REQUIRE(strlen(facts->id) < sizeof(facts->id) && strchr(facts->id, '\n') == NULL);
	REQUIRE(strlen(facts->storage_driver) < sizeof(facts->storage_driver));
	check_lines(facts->security_options, sizeof(facts->security_options));
	check_lines(facts->warnings, sizeof(facts->warnings));
	(void) cm_engine_has_userns(facts);
}

static void
check_create(CmHttpRequest *request)
{
	char id[CM_CONTAINER_ID_LEN + 1];
	CmFault fault;
	bool is_good = cm_engine_read_create(request, id, &fault);

	check_fault(is_good, &fault);
	if (is_good)
		check_id(id);
}

static void
check_inspect(CmHttpRequest *request)
{
	CmInspect inspect;
	CmFault fault;
	const char *error;
	const CmJson *record;
	bool is_good = cm_engine_read_inspect(request, &inspect, &fault);

	check_fault(is_good, &fault);
	if (!is_good)
		return;
	check_id(inspect.id);
	check_labels(&inspect.labels);
	REQUIRE(is_plain_line(inspect.error) && inspect.run_ms >= 0);
	REQUIRE(inspect.state != CM_RUN_EXITED || inspect.started_at != NULL);
	record = cm_json_parse(inspect.record, strlen(inspect.record), &error);
	REQUIRE(record != NULL && record->kind == CM_JSON_OBJECT);
	REQUIRE(strlen(inspect.record) < 64 * 1024);
	REQUIRE(cm_json_path(record, "Config", "Env") == NULL);
}

static void
check_list(CmHttpRequest *request)
{
	CmListed *listed;
	CmFault fault;
	int n;
	bool is_good = cm_engine_read_list(request, &listed, &n, &fault);

	check_fault(is_good, &fault);
	for (int i = 0; i < n; i++)
	{
		check_id(listed[i].id);
		check_labels(&listed[i].labels);
		REQUIRE(listed[i].labels.job_id > 0);
	}
}

/* ---- networks and volumes ---- */

static void
check_network(const CmNetworkFacts *facts)
{
	REQUIRE(is_plain_line(facts->name) && facts->name[0] != '\0');
	REQUIRE(is_plain_line(facts->id) && facts->id[0] != '\0');
	REQUIRE(is_plain_line(facts->driver) && is_plain_line(facts->scope));
	REQUIRE(is_plain_line(facts->subnets) && is_plain_line(facts->epoch));
}

static void
check_networks(CmHttpRequest *request, bool is_list)
{
	CmNetworkFacts one;
	CmNetworkFacts *facts = &one;
	CmFault fault;
	int n = 1;
	bool is_good = is_list ? cm_engine_read_networks(request, &facts, &n, &fault)
						   : cm_engine_read_network(request, &one, &fault);

	check_fault(is_good, &fault);
	for (int i = 0; is_good && i < n; i++)
		check_network(&facts[i]);
}

static void
check_volumes(CmHttpRequest *request, bool is_list)
{
	static const CmIdentity identity = {.epoch = "11111111-2222-3333-4444-555555555555"};
	CmVolumeFacts one;
	CmVolumeFacts *facts = &one;
	CmFault fault;
	int n = 1;
	bool is_good = is_list ? cm_engine_read_volumes(request, &facts, &n, &fault)
						   : cm_engine_read_volume(request, &one, &fault);

	check_fault(is_good, &fault);
	for (int i = 0; is_good && i < n; i++)
	{
		REQUIRE(is_plain_line(facts[i].engine_name) && is_plain_line(facts[i].owner));
		REQUIRE(is_plain_line(facts[i].namespace_name) && is_plain_line(facts[i].name));
		REQUIRE(!cm_engine_is_our_volume(&facts[i], &identity, "default", "data") ||
				(facts[i].is_plain && strcmp(facts[i].name, "data") == 0));
	}
}

static void
check_top(CmHttpRequest *request)
{
	CmProcess *processes;
	CmFault fault;
	int n;
	bool is_good = cm_engine_read_top(request, &processes, &n, &fault);

	check_fault(is_good, &fault);
	for (int i = 0; i < n; i++)
	{
		REQUIRE(processes[i].pid >= -1 && processes[i].parent_pid >= -1);
		REQUIRE(is_plain_line(processes[i].user) && is_plain_line(processes[i].elapsed));
		REQUIRE(is_plain_line(processes[i].command));
	}
}

static void
check_changes(CmHttpRequest *request)
{
	CmChange *changes;
	CmFault fault;
	int n;
	bool is_good = cm_engine_read_changes(request, &changes, &n, &fault);

	check_fault(is_good, &fault);
	for (int i = 0; i < n; i++)
		REQUIRE(changes[i].path != NULL && changes[i].kind != NULL);
}

static void
check_refusal(const char *bytes, size_t n_bytes)
{
	int status = n_bytes > 0 ? 300 + (unsigned char) bytes[0] : 500;
	CmHttpRequest *request = fuzz_reply_new(status, bytes + (n_bytes > 0), n_bytes - (n_bytes > 0));
	CmFault fault;

	REQUIRE(!cm_engine_check_reply(request, &fault));
	check_fault(false, &fault);
	REQUIRE(fault.kind == CM_FAULT_REFUSED && fault.http_status == status);
	fuzz_reply_free(request);
}

/* ---- streams ---- */

static int
take_events(CmHttpRequest *request, CmEvent *events, int n)
{
	CmEvent event;

	while (cm_engine_next_event(request, &event))
	{
		check_id(event.container_id);
		REQUIRE(event.job_id >= 0 && event.attempt >= 0 && is_plain_line(event.signal_name));
		if (n < MAX_EVENTS)
			events[n++] = event;
	}
	return n;
}

/* In one piece, and in two. */
static void
check_events(const char *bytes, size_t n_bytes)
{
	static CmEvent events[2][MAX_EVENTS];
	size_t n_first = n_bytes > 0 ? (unsigned char) bytes[n_bytes - 1] * n_bytes / 256 : 0;
	CmHttpRequest *request = fuzz_reply_new(200, bytes, n_bytes);
	int n_whole = take_events(request, events[0], 0);
	size_t n_left;
	const char *left = cm_http_body(request, &n_left);
	int n;

	REQUIRE(memchr(left, '\n', n_left) == NULL);
	fuzz_reply_free(request);
	request = fuzz_reply_new(200, bytes, n_first);
	n = take_events(request, events[1], 0);
	fuzz_reply_feed(request, bytes + n_first, n_bytes - n_first);
	n = take_events(request, events[1], n);
	fuzz_reply_free(request);
	REQUIRE(n == n_whole);
	for (int i = 0; i < n; i++)
	{
		const CmEvent *a = &events[0][i];
		const CmEvent *b = &events[1][i];

		REQUIRE(a->kind == b->kind && a->job_id == b->job_id && a->attempt == b->attempt);
		REQUIRE(strcmp(a->container_id, b->container_id) == 0);
		REQUIRE(strcmp(a->signal_name, b->signal_name) == 0);
	}
}

static void
check_pull(const char *bytes, size_t n_bytes)
{
	static CmPull pull;
	CmHttpRequest *request = fuzz_reply_new(200, bytes, n_bytes);

	memset(&pull, 0, sizeof(pull));
	cm_engine_read_pull_progress(request, &pull);
	REQUIRE(is_plain_line(pull.error) && is_plain_line(pull.progress) && pull.progress[0] != '\0');
	REQUIRE(pull.n_layers >= 0 && pull.n_layers <= CM_PULL_MAX_LAYERS);
	for (int i = 0; i < pull.n_layers; i++)
		REQUIRE(pull.layers[i].current_bytes >= 0 &&
				pull.layers[i].current_bytes <= pull.layers[i].total_bytes);
	fuzz_reply_free(request);
}

static void
check_whole(char reader, const char *bytes, size_t n_bytes)
{
	CmHttpRequest *request = fuzz_reply_new(200, bytes, n_bytes);

	if (reader == 'V')
		check_version(request);
	else if (reader == 'I')
		check_info(request);
	else if (reader == 'C')
		check_create(request);
	else if (reader == 'N')
		check_inspect(request);
	else if (reader == 'L')
		check_list(request);
	else if (reader == 'W' || reader == 'w')
		check_networks(request, reader == 'W');
	else if (reader == 'U' || reader == 'u')
		check_volumes(request, reader == 'U');
	else if (reader == 'O')
		REQUIRE((cm_engine_read_owner(request) == CM_OWNED_UNKNOWN) == (n_bytes < 512));
	else if (reader == 'T')
		check_top(request);
	else if (reader == 'H')
		check_changes(request);
	fuzz_reply_free(request);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	const char *bytes = (const char *) data;

	fuzz_reset_memory();
	if (n_bytes == 0)
		return 0;
	if (bytes[0] == 'R')
		check_refusal(bytes + 1, n_bytes - 1);
	else if (bytes[0] == 'E')
		check_events(bytes + 1, n_bytes - 1);
	else if (bytes[0] == 'P')
		check_pull(bytes + 1, n_bytes - 1);
	else
		check_whole(bytes[0], bytes + 1, n_bytes - 1);
	return 0;
}
