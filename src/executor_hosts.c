/*
 * executor_hosts.c
 *		The executor's connection to each host.
 *
 * A host is asked for its version and size, and whether another server has
 * taken over; then an event stream is opened, then everything that bears our
 * epoch is listed: in this order, so that nothing can happen unseen between the
 * list and the events.  Only then may jobs be claimed for it.  The question and
 * the list are repeated as a heartbeat, since event streams lose events silently.  Any failure
 *closes all of it and begins anew, with growing pauses; the tasks there wait meanwhile.
 *
 * Events are hints, lists are hints with everybody on them; what counts for a
 * single container is inspect.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backoff.h"
#include "diagnosis.h"
#include "executor_internal.h"
#include "guc.h"
#include "transport.h"

#define ASK_TIMEOUT_MS 10000
#define RETRY_BASE_MS 250
#define RETRY_MAX_MS 15000
/* One that was ready for so long is tried at once when it is lost; one that
 * comes and goes is tried less and less often. */
#define STEADY_MS 5000
/* The second list follows soon: the event stream may have begun a bit late. */
#define SECOND_LIST_MS 1000
#define BYTES_PER_MB (INT64CONST(1) << 20)
#define NANO_PER_CPU INT64CONST(1000000000)
#define MAX_UNMARKINGS 16 /* old marks being removed from one host */
/* What an engine tells of itself takes it some work, and matters little. */
#define HEARTBEATS_PER_INFO 3
/* An engine that leaves it open so often in a row how far back it remembers cannot tell. */
#define MAX_MEMORY_FAILURES 5

static void begin_connecting(CmExecHost *host);
static void begin_list(CmExecHost *host);
static void begin_list_markers(CmExecHost *host);

/* --- rows --- */

CmExecHost *
cm_hosts_find(int id)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (host->id == id)
			return host;
	}
	return NULL;
}

static void tell_tasks_host_lost(CmExecHost *host);

/* A host lives as long as the executor, and is renamed by whoever may. */
static void
replace_text(CmExecHost *host, char **text, const char *with)
{
	char *before = *text;

	*text = with != NULL ? MemoryContextStrdup(host->context, with) : NULL;
	if (before != NULL)
		pfree(before);
}

static const CmExecutorType *
find_type(const char *word)
{
	return strcmp(word, cm_executor_mock.word) == 0 ? &cm_executor_mock : &cm_executor_docker;
}

static void
set_type(CmExecHost *host, const CmExecutorType *type)
{
	if (host->type_context != NULL)
		MemoryContextDelete(host->type_context);
	host->type_context = NULL;
	host->of_type = NULL;
	host->type = type;
}

static char *
copy_bytes(const char *bytes, size_t n_bytes)
{
	return bytes != NULL ? memcpy(palloc(n_bytes), bytes, n_bytes) : NULL;
}

static char *
copy_text(const char *text)
{
	return text != NULL ? pstrdup(text) : NULL;
}

static void
keep_address(CmExecHost *host, const CmHostAddress *address)
{
	MemoryContext caller;

	MemoryContextReset(host->address_context);
	caller = MemoryContextSwitchTo(host->address_context);
	host->address = *address;
	host->address.connection_string = pstrdup(address->connection_string);
	host->address.tls_cert_path = copy_text(address->tls_cert_path);
	host->address.ca = copy_text(address->ca);
	host->address.cert = copy_text(address->cert);
	host->address.key_sealed = copy_bytes(address->key_sealed, address->n_key_sealed);
	MemoryContextSwitchTo(caller);
}

static bool
is_same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
is_same_tls(const CmHostAddress *a, const CmHostAddress *b)
{
	return a->tls_enabled == b->tls_enabled && a->tls_verify == b->tls_verify &&
		   is_same_text(a->tls_cert_path, b->tls_cert_path) &&
		   a->has_stored_tls == b->has_stored_tls && is_same_text(a->ca, b->ca) &&
		   is_same_text(a->cert, b->cert) && a->n_key_sealed == b->n_key_sealed &&
		   (a->n_key_sealed == 0 || memcmp(a->key_sealed, b->key_sealed, a->n_key_sealed) == 0);
}

static void
set_engine(CmExecHost *host, const CmHostRow *row)
{
	set_type(host, find_type(row->executor_type));
	cm_transport_close(&host->engine);
	memset(&host->engine, 0, sizeof(host->engine));
	host->engine.http = cm_ex.http;
	/* A pool of its own each time: old connections are not for a new address. */
	snprintf(host->engine.pool, sizeof(host->engine.pool), "h%d-%d", host->id, host->connection);
	keep_address(host, &row->address);
	replace_text(host, &host->presented, NULL);
}

static CmExecHost *
add_host(const CmHostRow *row)
{
	MemoryContext context =
		AllocSetContextCreate(cm_ex.context, "container_manager host", ALLOCSET_SMALL_SIZES);
	CmExecHost *host = MemoryContextAllocZero(context, sizeof(CmExecHost));

	host->context = context;
	host->id = row->id;
	host->name = MemoryContextStrdup(context, row->name);
	host->registries_context =
		AllocSetContextCreate(context, "container_manager registries", ALLOCSET_SMALL_SIZES);
	host->address_context =
		AllocSetContextCreate(context, "container_manager address", ALLOCSET_SMALL_SIZES);
	/* From then on the executor knows better. */
	if (row->engine_id != NULL)
		strlcpy(host->engine_id, row->engine_id, sizeof(host->engine_id));
	dlist_init(&host->pulls);
	set_engine(host, row);
	host->next_ms = cm_ex.now_ms;
	dlist_push_tail(&cm_ex.hosts, &host->node);
	return host;
}

void
cm_host_drop_requests(CmExecHost *host)
{
	if (host->request != NULL)
		cm_http_cancel(host->request);
	if (host->events != NULL)
		cm_http_cancel(host->events);
	host->request = host->events = NULL;
}

/*
 * TLS may be changed while jobs run: what is under way goes on as it began, and
 * new requests use what is new, the next list first.
 */
static void
apply_tls(CmExecHost *host, const CmHostAddress *address)
{
	CmDiagnosis problem;

	keep_address(host, address);
	if (host->phase == CM_HOST_AWAY || host->phase == CM_HOST_READY)
		host->next_ms = cm_ex.now_ms;
	if (host->phase == CM_HOST_AWAY)
		host->failures = 0;
	else if (!cm_transport_apply(&host->engine, &host->address, &problem))
		cm_host_lose(host, problem.error, problem.hint);
	else
		host->state_changed = cm_ex.db_wanted = true; /* other certificates are in use */
}

/* Is tried at once; but what is under way is not disturbed. */
static void
apply_administrators_word(CmExecHost *host, const CmHostRow *row)
{
	const char *accepted = row->accepted_engine_id != NULL ? row->accepted_engine_id : "";

	if (strcmp(host->accepted_engine_id, accepted) != 0)
	{
		strlcpy(host->accepted_engine_id, accepted, sizeof(host->accepted_engine_id));
		if (host->phase == CM_HOST_AWAY)
			host->next_ms = cm_ex.now_ms;
	}
	replace_text(host, &host->removed_by, row->removed_by);
}

static void
apply_row(CmExecHost *host, const CmHostRow *row)
{
	host->is_configured = true;
	if (row->is_active && !host->is_active)
		host->enabled_since_ms = cm_ex.now_ms;
	host->is_active = row->is_active;
	host->slots = row->slots;
	host->weight = row->weight;
	host->auto_pull_images = row->auto_pull_images;
	host->require_userns = row->require_userns;
	if (strcmp(host->name, row->name) != 0)
		replace_text(host, &host->name, row->name);
	apply_administrators_word(host, row);
	if (host->type == find_type(row->executor_type) &&
		strcmp(host->address.connection_string, row->address.connection_string) == 0)
	{
		if (!is_same_tls(&host->address, &row->address) && host->type == &cm_executor_docker)
			apply_tls(host, &row->address);
		return;
	}
	cm_host_drop_requests(host);
	host->connection++;
	set_engine(host, row);
	host->phase = CM_HOST_AWAY;
	host->is_marked = host->was_listed = false;
	host->failures = host->n_memory_failures = 0;
	host->next_ms = cm_ex.now_ms;
	if (host->away_since == 0)
	{
		host->away_since = GetCurrentTimestamp();
		host->away_since_ms = cm_ex.now_ms;
	}
	tell_tasks_host_lost(host);
}

void
cm_hosts_free_all(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		free(host->strays);
		cm_transport_close(&host->engine);
	}
}

bool
cm_host_has_tasks(const CmExecHost *host)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
		if (dlist_container(CmTask, node, iter.cur)->host == host)
			return true;
	return false;
}

static void
drop_host(CmExecHost *host)
{
	cm_host_drop_requests(host);
	cm_shmem_forget_pulse(host->id);
	dlist_delete(&host->node);
	free(host->strays);
	cm_transport_close(&host->engine);
	MemoryContextDelete(host->context);
}

/* Its row is gone, and so is all that was under way. */
static bool
may_be_dropped(CmExecHost *host)
{
	return !host->is_configured && !cm_host_has_tasks(host) && dlist_is_empty(&host->pulls);
}

void
cm_hosts_apply_rows(const CmHostRow *rows, int n)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.hosts)
		dlist_container(CmExecHost, node, iter.cur)->is_configured = false;
	for (int i = 0; i < n; i++)
	{
		CmExecHost *host = cm_hosts_find(rows[i].id);

		if (host == NULL)
			host = add_host(&rows[i]);
		apply_row(host, &rows[i]);
		cm_secrets_keep_registries(host, &rows[i]);
		if (host->type->configure != NULL)
			host->type->configure(host, rows[i].executor_config);
	}
	dlist_foreach_modify (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (may_be_dropped(host))
			drop_host(host);
	}
	cm_ex.slots_changed = true;
}

CmCandidate *
cm_hosts_candidates(int *n)
{
	CmCandidate *candidates;
	dlist_iter iter;
	int size = 0;

	dlist_foreach (iter, &cm_ex.hosts)
		size++;
	candidates = palloc0(sizeof(CmCandidate) * Max(size, 1));
	*n = 0;
	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);
		CmCandidate *candidate = &candidates[(*n)++];
		dlist_iter task_iter;

		candidate->host_id = host->id;
		candidate->can_take = host->is_configured && host->is_active &&
							  host->phase == CM_HOST_READY && cm_health_objection(host) == NULL;
		candidate->slots = host->slots;
		candidate->weight = host->weight;
		candidate->last_chosen = host->last_chosen;
		candidate->memory_mb = host->facts.memory_bytes / BYTES_PER_MB;
		candidate->nano_cpus = host->facts.cpus * NANO_PER_CPU;
		dlist_foreach (task_iter, &cm_ex.tasks)
		{
			CmTask *task = dlist_container(CmTask, node, task_iter.cur);

			if (task->host != host || task->is_recorded)
				continue;
			candidate->used++;
			candidate->reserved_mb += task->spec.memory_limit_mb;
			candidate->reserved_nano_cpus += task->spec.nano_cpus;
		}
	}
	return candidates;
}

int64
cm_hosts_unsure_jobs_up_to(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (host->is_configured &&
			(!host->was_listed || (host->strays_are_new && host->n_strays > 0)))
			return cm_ex.identity.old_jobs_up_to;
	}
	return 0;
}

/* --- losing and finding it --- */

static void
note_state(CmExecHost *host, const char *error, const char *hint)
{
	if (strcmp(host->error, error) == 0 && strcmp(host->hint, hint) == 0 &&
		(error[0] != '\0') == (host->away_since != 0))
		return;
	strlcpy(host->error, error, sizeof(host->error));
	strlcpy(host->hint, hint, sizeof(host->hint));
	host->state_changed = true;
	cm_ex.db_wanted = true;
}

static void
tell_tasks_host_lost(CmExecHost *host)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host)
			cm_task_note_host_lost(task);
	}
}

static bool
was_steady(const CmExecHost *host)
{
	return host->phase == CM_HOST_READY && cm_ex.now_ms - host->ready_since_ms >= STEADY_MS;
}

/* Closes everything; the next try is made after a pause. */
void
cm_host_lose(CmExecHost *host, const char *error, const char *hint)
{
	if (was_steady(host))
		host->failures = 0;
	cm_host_drop_requests(host);
	note_state(host, error, hint);
	if (host->away_since == 0)
	{
		host->away_since = GetCurrentTimestamp();
		host->away_since_ms = cm_ex.now_ms;
		host->connection++;
		ereport(LOG,
				(errmsg("container_manager: host \"%s\" does not answer: %s", host->name, error)));
	}
	host->phase = CM_HOST_AWAY;
	host->is_marked = false;
	host->next_ms =
		cm_ex.now_ms + cm_backoff_delay_ms(++host->failures, RETRY_BASE_MS, RETRY_MAX_MS,
										   pg_prng_double(&pg_global_prng_state));
	cm_health_note_silence(host);
	tell_tasks_host_lost(host);
}

/* A call of the host's own failed. */
static void
lose_host_by_fault(CmExecHost *host, CmHttpRequest *request, const CmFault *fault)
{
	CmDiagnosis diagnosis;

	cm_diagnosis_make(&host->engine, request, fault, &diagnosis);
	cm_http_finish(request);
	cm_host_lose(host, diagnosis.error, diagnosis.hint);
}

void
cm_host_become_ready(CmExecHost *host)
{
	bool was_away = host->away_since != 0;

	host->phase = CM_HOST_READY;
	host->ready_since_ms = cm_ex.now_ms;
	note_state(host, "", "");
	if (was_away)
		ereport(LOG, (errmsg("container_manager: host \"%s\" answers again", host->name)));
	host->away_since = 0;
	host->state_changed = true;
	host->next_ms = cm_ex.now_ms + SECOND_LIST_MS;
	cm_ex.db_wanted = true;
	cm_ex.slots_changed = true;
}

/* --- who is in charge --- */

/*
 * Nothing is done on any host any more; the loop ends with this turn, and with
 * it what is under way.
 */
static void
step_down(const CmExecHost *witness, int incarnation)
{
	dlist_iter iter;

	if (cm_ex.superseded_by == 0)
		ereport(
			WARNING,
			(errmsg("container_manager: another server has taken over the jobs of this database"),
			 errdetail("On host \"%s\" is a mark of incarnation %d; this server is incarnation %d.",
					   witness->name, incarnation, cm_ex.identity.incarnation),
			 errhint("See cm_status.")));
	cm_ex.superseded_by = Max(cm_ex.superseded_by, incarnation);
	strlcpy(cm_ex.superseded_on, witness->name, sizeof(cm_ex.superseded_on));
	dlist_foreach (iter, &cm_ex.hosts)
		dlist_container(CmExecHost, node, iter.cur)->phase = CM_HOST_AWAY;
}

/* seen_home NULL: not told.  true: we are not in charge. */
static bool
check_incarnation(const CmExecHost *host, int seen_incarnation, const char *seen_home)
{
	if (cm_identity_is_superseded(cm_ex.identity.incarnation, cm_ex.identity.home, seen_incarnation,
								  seen_home))
		step_down(host, seen_incarnation);
	return cm_ex.superseded_by != 0;
}

/* --- events --- */

static void
take_events(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmEvent event;

	if (cm_http_status(request) != 200)
		return; /* an error message; its end comes soon */
	if (host->phase == CM_HOST_SUBSCRIBING)
		begin_list(host);
	while (cm_ex.superseded_by == 0 && cm_engine_next_event(request, &event))
	{
		CmTask *task = cm_task_find(event.job_id, event.attempt);

		/* podman sends what bears any of the labels that are asked for. */
		if (strcmp(event.epoch, cm_ex.identity.epoch) != 0)
			continue;
		if (check_incarnation(host, event.incarnation, NULL))
			return;
		if (task != NULL && task->host == host)
			cm_task_note_event(task, &event);
	}
}

static void
note_events_ended(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmFault fault;
	bool is_steady = was_steady(host);

	host->events = NULL;
	if (cm_engine_read_stream_end(request, &fault))
		strlcpy(fault.message, "the engine closed the event stream", sizeof(fault.message));
	cm_http_finish(request);
	cm_host_lose(host, fault.message, "");
	if (is_steady)
		host->next_ms = cm_ex.now_ms;
}

static void
begin_events(CmExecHost *host)
{
	if (cm_ex.superseded_by != 0)
		return;
	host->phase = CM_HOST_SUBSCRIBING;
	host->events = cm_engine_begin_events(&host->engine, &cm_ex.identity, take_events,
										  note_events_ended, host);
	/* It must answer in good time, though the stream itself never ends. */
	host->next_ms = cm_ex.now_ms + ASK_TIMEOUT_MS;
}

/* --- connecting --- */

/*
 * Not every engine can tell; then what it lost meanwhile is not known.  But a bad
 * line is no answer, nor is what stands between and finds no engine: output that is
 * whole would be doubted for it.  It is asked again, not for ever: one that fails at
 * this alone is of use all the same.
 */
static bool
must_ask_again(CmExecHost *host, const CmFault *fault)
{
	if (fault->kind == CM_FAULT_REFUSED && fault->http_status < 500)
		return false;
	if (host->n_memory_failures < MAX_MEMORY_FAILURES)
		host->n_memory_failures++;
	return host->n_memory_failures < MAX_MEMORY_FAILURES;
}

static void
note_memory(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmFault fault;

	host->request = NULL;
	if (cm_engine_read_memory(request, host->engine_at_us, &host->memory, &fault))
		host->n_memory_failures = 0;
	else if (must_ask_again(host, &fault))
	{
		lose_host_by_fault(host, request, &fault);
		return;
	}
	cm_http_finish(request);
	begin_list_markers(host);
}

static void
begin_remembering(CmExecHost *host)
{
	memset(&host->memory, 0, sizeof(host->memory));
	host->request = cm_engine_begin_memory(&host->engine, host->engine_at_us, note_memory, host);
	if (host->request == NULL)
		begin_list_markers(host);
	else
		cm_ex.counters.http_requests++;
}

static void
begin_pacing(CmExecHost *host)
{
	if (host->pacer.limit == 0)
		cm_pacer_init(&host->pacer,
					  Max(CM_MIN_FIRST_STARTS, Min(CM_MAX_FIRST_STARTS, 2 * host->facts.cpus)));
	cm_pacer_void_round(&host->pacer);
}

static void
note_info(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmEngineInfo info;
	CmFault fault;
	char error[sizeof(host->error)];
	char hint[sizeof(host->hint)];

	host->request = NULL;
	if (!cm_engine_read_info(request, &host->engine, &info, &fault))
	{
		lose_host_by_fault(host, request, &fault);
		return;
	}
	cm_http_finish(request);
	if (!cm_health_take_facts(host, &info.facts, error, sizeof(error), hint, sizeof(hint)))
	{
		cm_host_lose(host, error, hint);
		return;
	}
	host->info_ms = cm_ex.now_ms + HEARTBEATS_PER_INFO * cm_guc_heartbeat_interval_ms;
	if (host->phase == CM_HOST_READY)
	{
		begin_list_markers(host);
		return;
	}
	begin_pacing(host);
	host->engine_at_us = info.at_us;
	begin_remembering(host);
}

static void
begin_info(CmExecHost *host)
{
	if (cm_ex.superseded_by != 0)
		return;
	host->request = cm_engine_begin_info(&host->engine, ASK_TIMEOUT_MS, note_info, host);
	cm_ex.counters.http_requests++;
}

static void
note_version(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmVersion version;
	CmFault fault;

	host->request = NULL;
	if (!cm_engine_read_version(request, &host->engine, &version, &fault))
	{
		lose_host_by_fault(host, request, &fault);
		return;
	}
	strlcpy(host->engine_version, version.engine_version, sizeof(host->engine_version));
	if (cm_http_peer_certificate(request) != NULL)
		replace_text(host, &host->presented, cm_http_peer_certificate(request));
	cm_http_finish(request);
	cm_health_note_answer(host);
	begin_info(host);
}

static void
begin_connecting(CmExecHost *host)
{
	CmDiagnosis problem;

	if (!cm_transport_apply(&host->engine, &host->address, &problem))
	{
		cm_host_lose(host, problem.error, problem.hint);
		return;
	}
	host->tls_problem[0] = '\0';
	host->phase = CM_HOST_ASKING;
	cm_health_begin_look(host);
	host->request = cm_engine_begin_version(&host->engine, ASK_TIMEOUT_MS, note_version, host);
	cm_ex.counters.http_requests++;
}

/* --- marks --- */

/* That it cannot keep or tell them is said in so many words: it is what bars the host. */
static void
lose_host_for_marks(CmExecHost *host, CmHttpRequest *request, const CmFault *fault)
{
	char error[512];

	if (fault->kind == CM_FAULT_UNREACHABLE || fault->kind == CM_FAULT_UNSURE)
	{
		lose_host_by_fault(host, request, fault);
		return;
	}
	snprintf(error, sizeof(error),
			 "could not be asked by its volumes whether another server has taken over: %s",
			 fault->message);
	cm_http_finish(request);
	cm_host_lose(host, error, "The engine must allow to list and to make volumes.");
}

static void
note_mark(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmFault fault;

	host->request = NULL;
	if (!cm_engine_read_mark(request, &fault))
	{
		lose_host_for_marks(host, request, &fault);
		return;
	}
	cm_http_finish(request);
	host->is_marked = true;
	begin_list_markers(host);
}

static void
begin_mark(CmExecHost *host)
{
	host->request = cm_engine_begin_mark(&host->engine, &cm_ex.identity, note_mark, host);
	cm_ex.counters.http_requests++;
}

static void
note_unmarked(CmHttpRequest *request, void *arg)
{
	/* The host may have been dropped meanwhile. */
	CmExecHost *host = cm_hosts_find(DatumGetInt32(PointerGetDatum(arg)));
	CmFault fault;

	if (!cm_engine_read_unmark(request, &fault))
		ereport(LOG,
				(errmsg("container_manager: could not remove an old mark: %s", fault.message)));
	cm_http_finish(request);
	if (host != NULL)
		host->n_unmarking--;
}

/* What is more than these is removed after a later look. */
void
cm_host_remove_mark(CmExecHost *host, int incarnation)
{
	if (host->n_unmarking >= MAX_UNMARKINGS)
		return;
	host->n_unmarking++;
	cm_engine_begin_unmark(&host->engine, &cm_ex.identity, incarnation, note_unmarked,
						   DatumGetPointer(Int32GetDatum(host->id)));
	cm_ex.counters.http_requests++;
}

/* Those of our earlier incarnations, which ours makes needless. */
static void
remove_old_marks(CmExecHost *host, const CmMarker *markers, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (markers[i].incarnation < cm_ex.identity.incarnation)
			cm_host_remove_mark(host, markers[i].incarnation);
	}
}

/* false: we are not in charge, and have stepped down. */
static bool
judge_markers(CmExecHost *host, const CmMarker *markers, int n, bool *has_ours)
{
	*has_ours = false;
	for (int i = 0; i < n; i++)
	{
		if (check_incarnation(host, markers[i].incarnation, markers[i].home))
			return false;
		*has_ours = *has_ours || markers[i].incarnation == cm_ex.identity.incarnation;
	}
	return cm_ex.superseded_by == 0;
}

static void
note_markers(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmMarker *markers;
	CmFault fault;
	bool has_ours;
	int n;

	host->request = NULL;
	if (!cm_engine_read_markers(request, &cm_ex.identity, &markers, &n, &fault))
	{
		lose_host_for_marks(host, request, &fault);
		return;
	}
	cm_http_finish(request);
	if (host->phase == CM_HOST_READY)
		cm_health_note_answer(host);
	if (!judge_markers(host, markers, n, &has_ours))
		return;
	/* The first of all needs none: nobody was before him. */
	if (!has_ours && cm_ex.identity.incarnation > 1)
	{
		if (host->is_marked)
			cm_host_lose(host, "the engine does not keep the volume that says who is in charge",
						 "");
		else
			begin_mark(host);
		return;
	}
	host->is_marked = false;
	remove_old_marks(host, markers, n);
	if (host->phase == CM_HOST_READY)
		begin_list(host);
	else
		begin_events(host);
}

static void
begin_list_markers(CmExecHost *host)
{
	if (cm_ex.superseded_by != 0)
		return;
	if (host->phase == CM_HOST_READY)
		cm_health_begin_look(host);
	host->request =
		cm_engine_begin_list_markers(&host->engine, &cm_ex.identity, note_markers, host);
	cm_ex.counters.http_requests++;
}

/* --- lists --- */

static int
compare_listed(const void *a, const void *b)
{
	const CmContainerLabels *left = &((const CmListed *) a)->labels;
	const CmContainerLabels *right = &((const CmListed *) b)->labels;

	if (left->job_id != right->job_id)
		return left->job_id < right->job_id ? -1 : 1;
	return left->attempt < right->attempt ? -1 : left->attempt > right->attempt;
}

/*
 * Leaves out what does not bear our epoch and brings the rest into an order in
 * which it can be searched: a list may be long, and its length is the engine's
 * choice.
 */
static int
sort_listed(CmListed *listed, int n)
{
	int n_ours = 0;

	for (int i = 0; i < n; i++)
		if (strcmp(listed[i].labels.epoch, cm_ex.identity.epoch) == 0)
			listed[n_ours++] = listed[i];
	qsort(listed, n_ours, sizeof(CmListed), compare_listed);
	return n_ours;
}

/* Of the task's job and attempt: the first of *count, or NULL. */
CmListed *
cm_hosts_find_listed(CmListed *listed, int n, const CmTask *task, int *count)
{
	CmListed wanted = {.labels = {.job_id = task->spec.job_id, .attempt = task->spec.attempt}};
	int low = 0;
	int high = n;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare_listed(&listed[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*count = 0;
	while (low + *count < n && compare_listed(&listed[low + *count], &wanted) == 0)
		(*count)++;
	return *count > 0 ? &listed[low] : NULL;
}

/* The one that the task knows, if it is among them. */
static const CmListed *
choose_listed(CmListed *listed, int n, const CmTask *task)
{
	int count;
	const CmListed *first = cm_hosts_find_listed(listed, n, task, &count);

	for (int i = 0; i < count; i++)
		if (strcmp(first[i].id, task->container_id) == 0)
			return &first[i];
	return first;
}

/* Up to a tenth less, so that hosts that came together are not asked together. */
static int64
jitter(int64 interval_ms)
{
	return interval_ms - (int64) (interval_ms / 10 * pg_prng_double(&pg_global_prng_state));
}

static void
note_list(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmListed *listed;
	CmFault fault;
	int n;
	dlist_mutable_iter iter;

	host->request = NULL;
	if (!cm_engine_read_list(request, &listed, &n, &fault))
	{
		lose_host_by_fault(host, request, &fault);
		return;
	}
	cm_http_finish(request);
	for (int i = 0; i < n; i++)
		if (strcmp(listed[i].labels.epoch, cm_ex.identity.epoch) == 0 &&
			check_incarnation(host, listed[i].labels.incarnation, NULL))
			return;
	if (cm_ex.superseded_by != 0)
		return;
	host->was_listed = true;
	host->next_ms = cm_ex.now_ms + jitter(cm_guc_heartbeat_interval_ms);
	if (host->phase != CM_HOST_READY)
		cm_host_become_ready(host);
	n = sort_listed(listed, n);
	cm_host_keep_strays(host, listed, n);
	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host)
			cm_task_note_listed(task, choose_listed(listed, n, task));
	}
}

static void
begin_list(CmExecHost *host)
{
	if (cm_ex.superseded_by != 0)
		return;
	if (host->phase != CM_HOST_READY)
		host->phase = CM_HOST_LISTING;
	host->list_begun_ms = cm_ex.now_ms;
	host->request = cm_engine_begin_list(&host->engine, &cm_ex.identity, note_list, host);
	cm_ex.counters.http_requests++;
}

void
cm_host_suspect(CmExecHost *host)
{
	if (host->phase == CM_HOST_READY && host->request == NULL)
		begin_list(host);
}

/* --- the clock --- */

/*
 * Certificates in files are replaced one by one, so that what is in the
 * directory may be of no use for a moment: what was read before serves on.
 */
static void
renew_tls(CmExecHost *host)
{
	CmDiagnosis problem;
	const CmHttpTls *before = host->engine.tls;

	if (cm_transport_apply(&host->engine, &host->address, &problem))
	{
		host->tls_problem[0] = '\0';
		host->state_changed = host->state_changed || host->engine.tls != before;
	}
	else if (strcmp(host->tls_problem, problem.error) != 0)
	{
		strlcpy(host->tls_problem, problem.error, sizeof(host->tls_problem));
		ereport(WARNING, (errmsg("certificates of host \"%s\" could not be read again: %s",
								 host->name, problem.error),
						  problem.hint[0] != '\0' ? errhint("%s", problem.hint) : 0));
	}
}

static void
begin_heartbeat(CmExecHost *host)
{
	renew_tls(host);
	if (cm_ex.now_ms >= host->info_ms)
		begin_info(host);
	else
		begin_list_markers(host);
}

static void
tick_host(CmExecHost *host)
{
	cm_host_end_stalled_pulls(host);
	if (cm_ex.now_ms < host->next_ms)
		return;
	switch (host->phase)
	{
		case CM_HOST_AWAY:
			host->next_ms = cm_ex.now_ms + RETRY_MAX_MS;
			if (host->is_configured || cm_host_has_tasks(host))
				host->type->connect(host);
			break;
		case CM_HOST_ASKING:
		case CM_HOST_LISTING:
			/* The requests have time limits of their own. */
			host->next_ms = cm_ex.now_ms + RETRY_MAX_MS;
			break;
		case CM_HOST_SUBSCRIBING:
			cm_host_lose(host, "the engine does not open its event stream", "");
			break;
		case CM_HOST_READY:
			host->next_ms = cm_ex.now_ms + cm_guc_heartbeat_interval_ms;
			if (host->request == NULL)
				host->type->refresh(host);
			break;
	}
}

int64
cm_hosts_tick(void)
{
	int64 next_ms = 0;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);
		int64 health_ms;

		if (may_be_dropped(host))
		{
			drop_host(host);
			continue;
		}
		tick_host(host);
		health_ms = cm_health_tick(host);
		if (next_ms == 0 || host->next_ms < next_ms)
			next_ms = host->next_ms;
		if (health_ms != 0 && health_ms < next_ms)
			next_ms = health_ms;
	}
	return next_ms;
}

const CmExecutorType cm_executor_docker = {
	.word = "docker",
	.is_paced = true,
	.is_lasting = true,
	.connect = begin_connecting,
	.refresh = begin_heartbeat,
	.inspect = cm_call_inspect,
	.create = cm_call_create,
	.start = cm_call_start,
	.discard = cm_call_discard,
	.term = cm_call_term,
	.kill = cm_call_kill,
	.remove = cm_call_remove,
	.follow = cm_logs_follow,
	.collect = cm_logs_collect,
};
