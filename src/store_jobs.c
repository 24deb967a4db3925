/*
 * store_jobs.c
 *		Taking jobs off the queue: claims, recovery, expiry, requests.
 *
 * A claim is made durable before anything of it reaches an engine, so that
 * whoever comes after a crash knows where to look.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "logstream.h"
#include "store.h"
#include "store_sql.h"

/* Rows at the head of the queue that somebody locked are stepped over. */
#define MAX_CLAIM_ROUNDS 64
/* Having put aside so many, for pauses or keys, a claim goes on in another transaction. */
#define MAX_ASIDE_PER_CLAIM 2000

/* --- a row becomes a struct --- */

static CmProblem *
guard(HeapTuple tuple, TupleDesc desc, CmTaken *taken, const CmLimits *limits)
{
	CmProblem problem;
	CmProblem *copy;
	bool is_null;
	Datum owner = heap_getattr(tuple, SPI_fnumber(desc, "owner"), desc, &is_null);
	bool is_good;

	memset(&problem, 0, sizeof(problem));
	is_good = cm_store_read_spec(tuple, desc, &taken->spec, &problem);
	if (is_good && limits != NULL)
		is_good = cm_policy_check(&taken->spec, limits, &problem);
	if (is_good && !OidIsValid(get_role_oid(NameStr(*DatumGetName(owner)), true)))
	{
		is_good = false;
		strlcpy(problem.column, "owner", sizeof(problem.column));
		snprintf(problem.message, sizeof(problem.message),
				 "role \"%s\", which submitted the job, does not exist any more",
				 NameStr(*DatumGetName(owner)));
		strlcpy(problem.hint, "Submit the job anew as a role that exists.", sizeof(problem.hint));
	}
	if (is_good)
		return NULL;
	cm_store_log_violation(&problem, NameStr(*DatumGetName(owner)), taken->spec.job_id);
	copy = palloc(sizeof(problem));
	memcpy(copy, &problem, sizeof(problem));
	return copy;
}

static void
read_job(uint64 row, CmTaken *taken, const CmLimits *limits)
{
	/* What is read may point into the row, so it is kept in this context. */
	HeapTuple tuple = heap_copytuple(SPI_tuptable->vals[row]);
	TupleDesc desc = CreateTupleDescCopy(SPI_tuptable->tupdesc);

	taken->problem = guard(tuple, desc, taken, limits);
}

/* --- what the last executor left behind --- */

static void
read_taken_queue_row(uint64 row, CmTaken *taken)
{
	char *id = cm_sql_text(row, 4);
	bool is_null;
	Datum at;

	taken->spec.job_id = cm_sql_int64(row, 1, 0);
	cm_lifecycle_parse_state(cm_sql_text(row, 2), &taken->state);
	taken->host_id = cm_sql_int32(row, 3, 0);
	if (id != NULL)
		strlcpy(taken->container_id, id, sizeof(taken->container_id));
	at = cm_sql_datum(row, 5, &is_null);
	taken->started_at = is_null ? 0 : DatumGetTimestampTz(at);
	at = cm_sql_datum(row, 6, &is_null);
	taken->expires_at = is_null ? DT_NOEND : DatumGetTimestampTz(at);
	taken->cancel_requested = cm_sql_bool(row, 7);
	taken->log_records = cm_sql_int64(row, 8, 0);
	taken->log_hash = cm_sql_int64(row, 9, 0);
	taken->log_bytes = cm_sql_int64(row, 10, 0);
	taken->logs_incomplete = cm_sql_bool(row, 11);
	taken->log_seq[0] = cm_sql_int32(row, 12, -1) + 1;
	taken->log_seq[1] = cm_sql_int32(row, 13, -1) + 1;
	at = cm_sql_datum(row, 14, &is_null);
	taken->claimed_at = is_null ? 0 : DatumGetTimestampTz(at);
}

static void
read_taken_job(CmTaken *taken, const CmLimits *limits)
{
	static CmSql load = {
		"SELECT j.* FROM @extschema@.cm_jobs j WHERE j.id = $1", 1, {INT8OID}, NULL, 0};
	Datum id = Int64GetDatum(taken->spec.job_id);

	if (cm_sql_run(&load, &id, NULL) == 1)
		read_job(0, taken, limits);
}

CmTaken *
cm_store_load_taken(const CmLimits *limits, int *n)
{
	static CmSql load = {
		"SELECT q.job_id, q.status, q.host_id, q.container_id, q.started_at, q.expires_at,"
		" q.cancel_requested_by IS NOT NULL, q.log_records, q.log_hash, q.log_bytes,"
		" q.logs_incomplete,"
		" (SELECT max(c.seq) FROM cm_internal.log_chunks c WHERE c.job_id = q.job_id"
		"  AND c.attempt = q.attempt AND c.stream = 1),"
		" (SELECT max(c.seq) FROM cm_internal.log_chunks c WHERE c.job_id = q.job_id"
		"  AND c.attempt = q.attempt AND c.stream = 2),"
		" (SELECT min(e.at) FROM @extschema@.cm_job_events e WHERE e.job_id = q.job_id"
		"  AND e.attempt = q.attempt AND e.status = 'launching')"
		" FROM cm_internal.queue q JOIN @extschema@.cm_jobs j ON j.id = q.job_id"
		" WHERE q.status <> 'pending' ORDER BY q.job_id",
		0,
		{0},
		NULL,
		0};
	CmTaken *taken;

	*n = (int) cm_sql_run(&load, NULL, NULL);
	taken = palloc0(sizeof(CmTaken) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		read_taken_queue_row(i, &taken[i]);
	for (int i = 0; i < *n; i++)
		read_taken_job(&taken[i], taken[i].state == CM_LAUNCHING ? limits : NULL);
	cm_store_load_secrets(taken, *n);
	return taken;
}

/* What is being chosen for one claim. */
typedef struct Choice
{
	CmFleet *fleet;
	CmPlacementAsk *asks; /* what the jobs of each key ask for */
	int n_asks;
	int max;
	int n;
	int64 *job_ids;
	int *host_ids;
	CmColumn skipped;	/* jobs whose row somebody has locked */
	int64 unsure_up_to; /* jobs that may run somewhere already */
	int n_paused;		/* put aside so far */
	int n_held;			/* likewise, for others have their key */
	bool is_blocked;	/* the row of a job that was next is locked */
} Choice;

/* memory_mb 0: its jobs do not look at what is left. */
static void
add_ask(Choice *choice, int key, int64 memory_mb, int64 nano_cpus)
{
	CmPlacementAsk *ask = &choice->asks[choice->n_asks++];

	ask->key = key;
	ask->strategy = memory_mb > 0 ? CM_PLACE_RESOURCES : CM_PLACE_LEAST_LOADED;
	ask->memory_mb = memory_mb;
	ask->nano_cpus = nano_cpus;
}

void
cm_store_promote_due(void)
{
	static CmSql promote = {
		"UPDATE cm_internal.queue SET is_due = true WHERE job_id IN"
		" (SELECT job_id FROM cm_internal.queue WHERE NOT is_due AND run_at <= now()"
		" ORDER BY run_at LIMIT 10000 FOR UPDATE SKIP LOCKED)",
		0,
		{0},
		NULL,
		0};

	cm_sql_run(&promote, NULL, NULL);
}

/* --- placement keys --- */

/*
 * Keys below 0 that jobs wait for now, and the hosts among the candidates that
 * have their labels.  Keys that no such host has are not seen at all, so that
 * it does not matter how many wait for them.  A subquery with LIMIT costs one
 * look at the index per key; EXISTS could become a join with the whole queue.
 */
static void
load_keys(Choice *choice)
{
	static CmSql load = {
		"WITH h AS MATERIALIZED (SELECT id, cm_internal.labels_as_text(labels) AS labels"
		" FROM @extschema@.cm_hosts WHERE id = ANY ($1)),"
		" p AS MATERIALIZED (SELECT id, host_labels, memory_limit, cpu_limit FROM cm_internal.placements p"
		" WHERE (SELECT true FROM cm_internal.queue q"
		"  WHERE q.placement = p.id AND q.status = 'pending' AND q.is_ready LIMIT 1))"
		" SELECT p.id, h.id, p.memory_limit, (greatest(least(p.cpu_limit, 1000000), 0) * 1000000000)::int8"
		" FROM p JOIN h ON h.labels @> p.host_labels ORDER BY p.id, h.id",
		1,
		{INT4ARRAYOID},
		NULL,
		0};
	CmFleet *fleet = choice->fleet;
	CmKeyHost *pairs;
	CmColumn hosts;
	Datum value;

	cm_column_init(&hosts, INT4OID, fleet->n);
	for (int i = 0; i < fleet->n; i++)
		if (cm_placement_free_slots(&fleet->candidates[i]) > 0)
			cm_column_add_int32(&hosts, fleet->candidates[i].host_id);
	value = cm_column_array(&hosts);
	fleet->n_key_hosts = (int) cm_sql_run(&load, &value, NULL);
	pairs = palloc(sizeof(CmKeyHost) * Max(fleet->n_key_hosts, 1));
	choice->asks = palloc0(sizeof(CmPlacementAsk) * (fleet->n_key_hosts + fleet->n + 1));
	for (int i = 0; i < fleet->n_key_hosts; i++)
	{
		pairs[i].key = cm_sql_int32(i, 1, 0);
		pairs[i].host_id = cm_sql_int32(i, 2, 0);
		if (i > 0 && pairs[i].key == pairs[i - 1].key)
			continue;
		add_ask(choice, pairs[i].key, cm_sql_int32(i, 3, 0), cm_sql_int64(i, 4, 0));
	}
	fleet->key_hosts = pairs;
	for (int i = 0; i < fleet->n; i++)
		add_ask(choice, fleet->candidates[i].host_id, 0, 0);
	add_ask(choice, 0, 0, 0);
}

bool
cm_store_drop_unused_placements(void)
{
	/* Whoever is about to use one has it locked. */
	static CmSql lock = {
		"SELECT p.id FROM cm_internal.placements p WHERE (SELECT true FROM cm_internal.queue q"
		" WHERE q.placement = p.id AND q.placement < -1 LIMIT 1) IS NULL FOR UPDATE SKIP LOCKED",
		0,
		{0},
		NULL,
		0};
	/* Whoever had, has now committed what this sees. */
	static CmSql drop = {
		"DELETE FROM cm_internal.placements p WHERE p.id = ANY ($1) AND (SELECT true"
		" FROM cm_internal.queue q WHERE q.placement = p.id AND q.placement < -1 LIMIT 1) IS NULL",
		1,
		{INT4ARRAYOID},
		NULL,
		0};
	static CmSql look = {"SELECT FROM cm_internal.placements LIMIT 1", 0, {0}, NULL, 0};
	uint64 n = cm_sql_run(&lock, NULL, NULL);
	CmColumn ids;
	Datum value;

	if (n == 0)
		return cm_sql_run(&look, NULL, NULL) > 0;
	cm_column_init(&ids, INT4OID, n);
	for (uint64 i = 0; i < n; i++)
		cm_column_add_int32(&ids, cm_sql_int32(i, 1, 0));
	value = cm_column_array(&ids);
	cm_sql_run(&drop, &value, NULL);
	return true;
}

/* --- claims --- */

static int
sum_free_slots(const CmFleet *fleet)
{
	int sum = 0;

	for (int i = 0; i < fleet->n; i++)
		sum += cm_placement_free_slots(&fleet->candidates[i]);
	return sum;
}

/*
 * The heads of the queue: of each key as many jobs as there are slots for it,
 * merged in the order of the queue.  Keys that no free host serves are not
 * looked at, however many wait for them.  Within a key all jobs ask for the
 * same, so that none that cannot be taken stands before one that can.
 */
static uint64
select_heads(const Choice *choice)
{
	static CmSql heads = {
		"SELECT q.job_id, p.placement, q.has_key"
		" FROM unnest($1, $2) AS p (placement, n) CROSS JOIN LATERAL"
		" (SELECT q.job_id, q.priority, q.run_at, q.concurrency_key IS NOT NULL AS has_key"
		"  FROM cm_internal.queue q"
		"  WHERE q.placement = p.placement AND q.status = 'pending' AND q.is_ready"
		"  AND (q.expires_at IS NULL OR q.expires_at > now()) AND q.job_id <> ALL ($3)"
		"  AND (q.job_id > $4 OR q.placement > 0)"
		"  ORDER BY q.priority DESC, q.run_at, q.job_id LIMIT p.n FOR UPDATE SKIP LOCKED) q"
		" ORDER BY q.priority DESC, q.run_at, q.job_id",
		4,
		{INT4ARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8OID},
		NULL,
		0};
	CmColumn placements;
	CmColumn limits;
	Datum values[4];

	cm_column_init(&placements, INT4OID, choice->n_asks);
	cm_column_init(&limits, INT4OID, choice->n_asks);
	for (int i = 0; i < choice->n_asks; i++)
	{
		int free_slots = cm_placement_free_slots_for(choice->fleet, &choice->asks[i]);

		if (free_slots == 0)
			continue;
		cm_column_add_int32(&placements, choice->asks[i].key);
		cm_column_add_int32(&limits, Min(free_slots, choice->max));
	}
	values[0] = cm_column_array(&placements);
	values[1] = cm_column_array(&limits);
	values[2] = cm_column_array(&choice->skipped);
	values[3] = Int64GetDatum(choice->unsure_up_to);
	return cm_sql_run(&heads, values, NULL);
}

static int
find_id(const int64 *ids, uint64 n, int64 id)
{
	for (uint64 i = 0; i < n; i++)
		if (ids[i] == id)
			return (int) i;
	return -1;
}

/* Locks the jobs' rows; those that somebody else has locked are left out. */
static uint64
lock_jobs(const int64 *ids, uint64 n, CmPlacementAsk *asks, int64 *locked, bool *paused)
{
	static CmSql lock = {
		"SELECT id, placement_strategy, memory_limit, (greatest(least(cpu_limit, 1000000), 0) * 1000000000)::int8,"
		" EXISTS (SELECT FROM cm_internal.pauses p WHERE (p.namespace IS NULL OR p.namespace = j.namespace)"
		" AND (p.template IS NULL OR p.template = j.template))"
		" FROM @extschema@.cm_jobs j WHERE id = ANY ($1) FOR NO KEY UPDATE OF j SKIP LOCKED",
		1,
		{INT8ARRAYOID},
		NULL,
		0};
	CmColumn column;
	Datum value;
	uint64 n_locked;

	cm_column_init(&column, INT8OID, n);
	for (uint64 i = 0; i < n; i++)
		cm_column_add_int64(&column, ids[i]);
	value = cm_column_array(&column);
	n_locked = cm_sql_run(&lock, &value, NULL);
	for (uint64 i = 0; i < n_locked; i++)
	{
		locked[i] = cm_sql_int64(i, 1, 0);
		asks[i].key = 0;
		asks[i].strategy = CM_PLACE_LEAST_LOADED;
		(void) cm_placement_parse(cm_sql_text(i, 2), &asks[i].strategy);
		asks[i].memory_mb = cm_sql_int32(i, 3, 0);
		asks[i].nano_cpus = cm_sql_int64(i, 4, 0);
		paused[i] = cm_sql_bool(i, 5);
	}
	return n_locked;
}

/*
 * What stands now counts: a change of slots that was committed before a job was
 * submitted is seen here where the job was seen.  Whoever removes a host waits
 * for this claim, or is not waited for.
 */
static void
lock_hosts(CmFleet *fleet)
{
	static CmSql lock = {
		"SELECT h.id, h.max_concurrent_jobs FROM @extschema@.cm_hosts h WHERE h.is_active AND NOT EXISTS"
		" (SELECT FROM cm_internal.host_drains d WHERE d.host_name = h.name)"
		" FOR KEY SHARE OF h SKIP LOCKED",
		0,
		{0},
		NULL,
		0};
	uint64 n_locked = cm_sql_run(&lock, NULL, NULL);

	for (int i = 0; i < fleet->n; i++)
	{
		CmCandidate *candidate = &fleet->candidates[i];
		bool is_locked = false;

		for (uint64 j = 0; j < n_locked; j++)
		{
			if (cm_sql_int32(j, 1, 0) != candidate->host_id)
				continue;
			is_locked = true;
			candidate->slots = cm_sql_int32(j, 2, 0);
		}
		candidate->can_take = candidate->can_take && is_locked;
	}
}

static bool
choose_host(Choice *choice, int64 job_id, const CmPlacementAsk *ask)
{
	int chosen = cm_placement_choose(choice->fleet, ask, pg_prng_double(&pg_global_prng_state));

	if (chosen < 0)
		return false;
	cm_placement_take(choice->fleet, chosen, ask);
	choice->job_ids[choice->n] = job_id;
	choice->host_ids[choice->n] = choice->fleet->candidates[chosen].host_id;
	choice->n++;
	cm_column_add_int64(&choice->skipped, job_id);
	return true;
}

/* What one look at the heads of the queue came upon. */
typedef struct Round
{
	CmGate *gates; /* of the jobs that have a concurrency_key */
	int n_gates;
	int64 *held; /* whose key enough others have */
	int n_held;
	int64 *paused;
	int n_paused;
	int64 *locked; /* that somebody else has locked, and with a key */
	int n_locked;
	bool stepped_over; /* any job, for whatever reason */
} Round;

static CmGate *
find_gate(const Round *round, int64 job_id)
{
	for (int i = 0; i < round->n_gates; i++)
		if (round->gates[i].job_id == job_id)
			return &round->gates[i];
	return NULL;
}

static void
pass_gate(const Round *round, const CmGate *gate)
{
	for (int i = 0; i < round->n_gates; i++)
		if (round->gates[i].key == gate->key)
			round->gates[i].n_taken++;
}

static void
step_over(Choice *choice, Round *round, int64 job_id)
{
	cm_column_add_int64(&choice->skipped, job_id);
	round->stepped_over = true;
}

static void
consider(Choice *choice, Round *round, int64 job_id, const CmPlacementAsk *ask, bool is_paused)
{
	CmGate *gate = find_gate(round, job_id);

	if (is_paused)
	{
		round->paused[round->n_paused++] = job_id;
		step_over(choice, round, job_id);
	}
	else if (gate != NULL && gate->n_taken >= gate->limit)
	{
		round->held[round->n_held++] = job_id;
		step_over(choice, round, job_id);
	}
	else if (choose_host(choice, job_id, ask) && gate != NULL)
		pass_gate(round, gate);
}

/* What may not be started now is taken out of the claims' way. */
static void
put_aside(Choice *choice, const Round *round)
{
	CmMoved moved = {0};

	if (round->n_held > 0)
		choice->n_held += cm_store_hold(round->held, round->n_held, choice->job_ids, choice->n);
	if (round->n_paused > 0)
		choice->n_paused += cm_store_put_paused_aside(round->paused, round->n_paused, &moved);
	/* It stands before those that are held for it: others may go meanwhile. */
	if (round->n_locked > 0)
		cm_store_release_keys(round->locked, round->n_locked, &moved);
}

/*
 * One look at the heads of the queue.  False: nothing more to be had, since
 * there were no heads or none had to be stepped over.
 */
static bool
choose_round(Choice *choice)
{
	uint64 n = select_heads(choice);
	int64 *ids = palloc(sizeof(int64) * Max(n, 1));
	int *placements = palloc(sizeof(int) * Max(n, 1));
	int64 *locked = palloc(sizeof(int64) * Max(n, 1));
	bool *paused = palloc(sizeof(bool) * Max(n, 1));
	CmPlacementAsk *asks = palloc(sizeof(CmPlacementAsk) * Max(n, 1));
	Round round = {0};
	uint64 n_locked;
	bool have_keys = false;

	for (uint64 i = 0; i < n; i++)
	{
		ids[i] = cm_sql_int64(i, 1, 0);
		placements[i] = cm_sql_int32(i, 2, 0);
		have_keys = have_keys || cm_sql_bool(i, 3);
	}
	if (n == 0)
		return false;
	round.held = palloc(sizeof(int64) * n);
	round.paused = palloc(sizeof(int64) * n);
	round.locked = palloc(sizeof(int64) * n);
	n_locked = lock_jobs(ids, n, asks, locked, paused);
	choice->is_blocked |= n_locked < n;
	lock_hosts(choice->fleet);
	if (have_keys)
		round.gates = cm_store_load_gates(ids, (int) n, choice->job_ids, choice->n, &round.n_gates);
	for (uint64 i = 0; i < n && choice->n < choice->max; i++)
	{
		int at = find_id(locked, n_locked, ids[i]);

		if (at < 0)
		{
			if (find_gate(&round, ids[i]) != NULL)
				round.locked[round.n_locked++] = ids[i];
			step_over(choice, &round, ids[i]);
			continue;
		}
		asks[at].key = placements[i];
		consider(choice, &round, ids[i], &asks[at], paused[at]);
	}
	put_aside(choice, &round);
	return round.stepped_over;
}

/* Makes the chosen jobs launching; their rows are in SPI_tuptable then. */
static uint64
mark_claimed(const Choice *choice)
{
	static CmSql mark_queue = {
		"UPDATE cm_internal.queue q SET status = 'launching', attempt = q.attempt + 1,"
		" host_id = c.host_id, container_id = NULL, started_at = NULL,"
		" log_records = 0, log_hash = 0, log_bytes = 0, logs_incomplete = false"
		" FROM unnest($1, $2) AS c (job_id, host_id) WHERE q.job_id = c.job_id AND q.job_id = ANY ($1)",
		2,
		{INT8ARRAYOID, INT4ARRAYOID},
		NULL,
		0};
	static CmSql mark_jobs = {
		"WITH claimed AS (UPDATE @extschema@.cm_jobs j SET status = 'launching',"
		" attempt = j.attempt + 1, host = h.name, detail = NULL, logs_incomplete = false, updated_at = clock_timestamp()"
		" FROM unnest($1, $2) AS c (job_id, host_id) JOIN @extschema@.cm_hosts h ON h.id = c.host_id"
		" WHERE j.id = c.job_id AND j.id = ANY ($1) RETURNING j.*),"
		" told AS (INSERT INTO @extschema@.cm_job_events (job_id, attempt, status, host)"
		" SELECT j.id, j.attempt, j.status, j.host"
		" FROM unnest($1) WITH ORDINALITY AS c (job_id, n) JOIN claimed j ON j.id = c.job_id ORDER BY c.n)"
		" SELECT j.* FROM unnest($1) WITH ORDINALITY AS c (job_id, n)"
		" JOIN claimed j ON j.id = c.job_id ORDER BY c.n",
		2,
		{INT8ARRAYOID, INT4ARRAYOID},
		NULL,
		0};
	CmColumn jobs;
	CmColumn hosts;
	Datum values[2];

	cm_column_init(&jobs, INT8OID, choice->n);
	cm_column_init(&hosts, INT4OID, choice->n);
	for (int i = 0; i < choice->n; i++)
	{
		cm_column_add_int64(&jobs, choice->job_ids[i]);
		cm_column_add_int32(&hosts, choice->host_ids[i]);
	}
	values[0] = cm_column_array(&jobs);
	values[1] = cm_column_array(&hosts);
	cm_sql_run(&mark_queue, values, NULL);
	return cm_sql_run(&mark_jobs, values, NULL);
}

static int
find_host_of(const Choice *choice, int64 job_id)
{
	for (int i = 0; i < choice->n; i++)
		if (choice->job_ids[i] == job_id)
			return choice->host_ids[i];
	return 0;
}

static void
read_claimed(uint64 row, const Choice *choice, CmTaken *taken, const CmLimits *limits)
{
	bool is_null;
	TupleDesc desc = SPI_tuptable->tupdesc;
	Datum max_wait = cm_sql_datum(row, SPI_fnumber(desc, "max_wait"), &is_null);
	Datum run_at;

	taken->expires_at = DT_NOEND;
	if (!is_null)
	{
		bool no_run_at;

		run_at = cm_sql_datum(row, SPI_fnumber(desc, "run_at"), &no_run_at);
		taken->expires_at =
			DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, run_at, max_wait));
	}
	taken->state = CM_LAUNCHING;
	taken->claimed_at = GetCurrentTimestamp();
	read_job(row, taken, limits);
	taken->host_id = find_host_of(choice, taken->spec.job_id);
}

CmTaken *
cm_store_claim(CmFleet *fleet, int64 unsure_up_to, const CmLimits *limits, int max_claims, int *n,
			   CmClaimLeft *left)
{
	Choice choice = {0};
	CmTaken *taken;
	bool has_more = true;

	choice.fleet = fleet;
	choice.max = max_claims;
	choice.job_ids = palloc(sizeof(int64) * max_claims);
	choice.host_ids = palloc(sizeof(int) * max_claims);
	cm_column_init(&choice.skipped, INT8OID, 16);
	choice.unsure_up_to = unsure_up_to;
	*n = 0;
	memset(left, 0, sizeof(*left));
	if (sum_free_slots(fleet) == 0)
		return NULL;
	load_keys(&choice);
	for (int round = 0; has_more && round < MAX_CLAIM_ROUNDS; round++)
	{
		if (choice.n_paused + choice.n_held >= MAX_ASIDE_PER_CLAIM)
			break;
		has_more = choice.n < max_claims && sum_free_slots(fleet) > 0 && choose_round(&choice);
	}
	left->is_cut_off = has_more && choice.n_paused + choice.n_held > 0;
	left->met_pauses = choice.n_paused > 0;
	left->is_blocked = choice.is_blocked;
	if (choice.n == 0)
		return NULL;
	*n = (int) mark_claimed(&choice);
	taken = palloc0(sizeof(CmTaken) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		read_claimed(i, &choice, &taken[i], limits);
	cm_store_load_secrets(taken, *n);
	return taken;
}

/* --- containers that are ahead of their jobs' rows --- */

/* Locks the queue rows of those that are to be taken, and gives their ids. */
static uint64
select_found(int host_id, const CmFound *found, int n_found, int64 up_to, int64 **ids)
{
	static CmSql select = {
		"WITH h AS MATERIALIZED (SELECT FROM @extschema@.cm_hosts"
		"  WHERE id = $4 FOR KEY SHARE SKIP LOCKED)"
		" SELECT q.job_id FROM cm_internal.queue q"
		" WHERE q.status = 'pending' AND q.job_id = ANY ($1) AND q.job_id <= $3 AND EXISTS"
		" (SELECT FROM unnest($1, $2) AS f (job_id, attempt)"
		"  WHERE f.job_id = q.job_id AND f.attempt = q.attempt + 1)"
		" AND (q.placement IN (0, $4) OR q.placement < -1) AND EXISTS (SELECT FROM h)"
		" ORDER BY q.job_id FOR UPDATE SKIP LOCKED",
		4,
		{INT8ARRAYOID, INT4ARRAYOID, INT8OID, INT4OID},
		NULL,
		0};
	CmColumn jobs;
	CmColumn attempts;
	Datum values[4];
	uint64 n;

	cm_column_init(&jobs, INT8OID, n_found);
	cm_column_init(&attempts, INT4OID, n_found);
	for (int i = 0; i < n_found; i++)
	{
		cm_column_add_int64(&jobs, found[i].job_id);
		cm_column_add_int32(&attempts, found[i].attempt);
	}
	values[0] = cm_column_array(&jobs);
	values[1] = cm_column_array(&attempts);
	values[2] = Int64GetDatum(up_to);
	values[3] = Int32GetDatum(host_id);
	n = cm_sql_run(&select, values, NULL);
	*ids = palloc(sizeof(int64) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		(*ids)[i] = cm_sql_int64(i, 1, 0);
	return n;
}

static const char *
find_container_of(const CmFound *found, int n_found, const CmJobSpec *spec)
{
	for (int i = 0; i < n_found; i++)
		if (found[i].job_id == spec->job_id && found[i].attempt == spec->attempt)
			return found[i].container_id;
	return "";
}

static void
save_found_id(int64 job_id, const char *container_id)
{
	static CmSql save = {
		"WITH q AS (UPDATE cm_internal.queue SET container_id = $2 WHERE job_id = $1)"
		" UPDATE @extschema@.cm_jobs SET container_id = $2 WHERE id = $1",
		2,
		{INT8OID, TEXTOID},
		NULL,
		0};
	Datum values[2];

	values[0] = Int64GetDatum(job_id);
	values[1] = CStringGetTextDatum(container_id);
	cm_sql_run(&save, values, NULL);
}

CmTaken *
cm_store_take_found(int host_id, const CmFound *found, int n_found, int64 up_to,
					const CmLimits *limits, int *n)
{
	Choice choice = {0};
	CmTaken *taken;
	int64 *ids;
	uint64 n_ids = select_found(host_id, found, n_found, up_to, &ids);

	*n = 0;
	choice.job_ids = palloc(sizeof(int64) * Max(n_ids, 1));
	choice.host_ids = palloc(sizeof(int) * Max(n_ids, 1));
	if (n_ids > 0)
		choice.n = (int) lock_jobs(ids, n_ids, palloc(sizeof(CmPlacementAsk) * n_ids),
								   choice.job_ids, palloc(sizeof(bool) * n_ids));
	for (int i = 0; i < choice.n; i++)
		choice.host_ids[i] = host_id;
	if (choice.n == 0)
		return NULL;
	cm_store_forget_dependencies(choice.job_ids, choice.n);
	*n = (int) mark_claimed(&choice);
	taken = palloc0(sizeof(CmTaken) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		read_claimed(i, &choice, &taken[i], limits);
	for (int i = 0; i < *n; i++)
	{
		const char *id = find_container_of(found, n_found, &taken[i].spec);

		strlcpy(taken[i].container_id, id, sizeof(taken[i].container_id));
		save_found_id(taken[i].spec.job_id, id);
	}
	cm_store_load_secrets(taken, *n);
	return taken;
}

/* --- ends before a start, and what users ask for --- */

static CmUnstarted *
read_unstarted(uint64 n_rows, int *n)
{
	CmUnstarted *jobs = palloc(sizeof(CmUnstarted) * Max(n_rows, 1));

	for (uint64 i = 0; i < n_rows; i++)
	{
		jobs[i].job_id = cm_sql_int64(i, 1, 0);
		jobs[i].attempt = cm_sql_int32(i, 2, 0);
		jobs[i].is_pending = cm_sql_bool(i, 3);
	}
	*n = (int) n_rows;
	return jobs;
}

CmUnstarted *
cm_store_load_expired(int max, int64 unsure_up_to, int *n)
{
	static CmSql load = {"SELECT job_id, attempt, true FROM cm_internal.queue"
						 " WHERE status = 'pending' AND expires_at <= now() AND job_id > $2"
						 " ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED",
						 2,
						 {INT4OID, INT8OID},
						 NULL,
						 0};
	Datum values[2];

	values[0] = Int32GetDatum(max);
	values[1] = Int64GetDatum(unsure_up_to);
	return read_unstarted(cm_sql_run(&load, values, NULL), n);
}

/*
 * Jobs of this database that are over, and unfinished ones of another one that
 * are to be run here: both go to the end of their history and wait again.  What
 * was under way elsewhere becomes an attempt that nobody here knows the end of.
 * A host that is not there any more is no reason to run it on another.
 */
static int
requeue_jobs(int max)
{
	static CmSql requeue = {
		"WITH taken AS (DELETE FROM cm_internal.requests r WHERE r.id IN"
		" (SELECT r.id FROM cm_internal.requests r JOIN @extschema@.cm_jobs j ON j.id = r.job_id"
		"  WHERE r.action IN ('retry', 'adopt') ORDER BY r.id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)"
		" RETURNING r.job_id, r.action, r.epoch),"
		" wanted AS (SELECT DISTINCT j.id, t.action, j.status, j.attempt, j.host, j.container_id,"
		" j.started_at, i.epoch FROM taken t JOIN @extschema@.cm_jobs j ON j.id = t.job_id"
		" CROSS JOIN cm_internal.identity i"
		" WHERE j.attempt < 1000000 AND CASE t.action WHEN 'retry' THEN j.completed_at IS NOT NULL AND j.epoch = i.epoch"
		"  ELSE j.completed_at IS NULL AND j.epoch <> i.epoch AND t.epoch = i.epoch END),"
		" let_go AS (UPDATE cm_internal.kept_containers k SET keep_until = now() WHERE k.job_id IN"
		"  (SELECT o.job_id FROM cm_internal.kept_containers o WHERE o.job_id IN (SELECT w.id FROM wanted w)"
		"   FOR NO KEY UPDATE SKIP LOCKED)),"
		" given_up AS (INSERT INTO @extschema@.cm_job_attempts (job_id, attempt, status, failure_reason,"
		" error, host, container_id, logs_incomplete, started_at, completed_at)"
		" SELECT w.id, w.attempt, 'failed', 'abandoned', 'it was under way in the database that this one is a copy of',"
		" w.host, w.container_id, true, w.started_at, clock_timestamp()"
		" FROM wanted w WHERE w.action = 'adopt' AND w.status <> 'pending' AND w.attempt > 0"
		" ON CONFLICT DO NOTHING),"
		" again AS (UPDATE @extschema@.cm_jobs j SET status = 'pending', failure_reason = NULL,"
		" detail = NULL, error = NULL, hint = NULL, host = j.requested_host, container_id = NULL,"
		" exit_code = NULL, oom_killed = false, logs_incomplete = false, run_at ="
		" CASE w.action WHEN 'retry' THEN clock_timestamp()"
		"  ELSE least(greatest(j.run_at, clock_timestamp()), clock_timestamp() + interval '100 years') END,"
		" started_at = NULL, completed_at = NULL, updated_at = clock_timestamp(), epoch = w.epoch,"
		" max_attempts = greatest(j.max_attempts, j.attempt + 1)"
		" FROM wanted w WHERE j.id = w.id RETURNING j.*),"
		/* What has run once has had its dependencies. */
		" waits AS MATERIALIZED (SELECT DISTINCT a.id, d.id AS depends_on, coalesce(a.depends_on_any_end, false) AS any_end"
		" FROM again a CROSS JOIN LATERAL unnest(a.depends_on) d (id) WHERE a.attempt = 0 AND d.id < a.id),"
		" dependencies AS (INSERT INTO cm_internal.dependencies (job_id, depends_on, any_end)"
		" SELECT w.id, w.depends_on, w.any_end FROM waits w ON CONFLICT DO NOTHING),"
		" queued AS (INSERT INTO cm_internal.queue (job_id, placement, priority, run_at, is_due,"
		" expires_at, attempt, waits_for, is_settled, concurrency_key, concurrency_limit)"
		" SELECT a.id, CASE WHEN a.requested_host IS NULL"
		" THEN cm_internal.placement_key(a.host_labels, a.placement_strategy, a.memory_limit, a.cpu_limit, NULL)"
		" ELSE coalesce(h.id, -1) END, a.priority, a.run_at, a.run_at <= clock_timestamp(),"
		" CASE WHEN a.max_wait <= interval '100 years' THEN a.run_at + a.max_wait END, a.attempt,"
		" coalesce(w.n, 0), w.n IS NULL, CASE WHEN a.concurrency_key IS NOT NULL"
		" THEN ARRAY[a.namespace, a.concurrency_key] END, coalesce(a.concurrency_limit, 1)"
		" FROM again a LEFT JOIN (SELECT w.id, count(*)::int4 AS n FROM waits w GROUP BY w.id) w ON w.id = a.id"
		" LEFT JOIN @extschema@.cm_hosts h ON h.name = a.requested_host)"
		" INSERT INTO @extschema@.cm_job_events (job_id, attempt, status)"
		" SELECT a.id, a.attempt, 'pending' FROM again a ORDER BY a.id",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max);

	return (int) cm_sql_run(&requeue, &value, NULL);
}

/* How many? */
static uint64
set_priorities(int max)
{
	static CmSql set_priority = {
		"WITH taken AS (DELETE FROM cm_internal.requests r WHERE r.id IN"
		" (SELECT r.id FROM cm_internal.requests r JOIN cm_internal.queue q ON q.job_id = r.job_id"
		"  JOIN @extschema@.cm_jobs j ON j.id = r.job_id"
		"  WHERE r.action = 'set_priority' ORDER BY r.id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)"
		" RETURNING r.id, r.job_id, r.priority),"
		" last AS (SELECT DISTINCT ON (job_id) job_id, priority FROM taken ORDER BY job_id, id DESC),"
		" queued AS (UPDATE cm_internal.queue q SET priority = l.priority FROM last l WHERE q.job_id = l.job_id)"
		" UPDATE @extschema@.cm_jobs j SET priority = l.priority, updated_at = clock_timestamp()"
		" FROM last l WHERE j.id = l.job_id",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max);

	return cm_sql_run(&set_priority, &value, NULL);
}

/*
 * Requests whose job has moved on meanwhile, so that there is nothing to do: an
 * attempt is abandoned only while its host is silent, whatever was the case when
 * that was asked for.  What is to run again may be cancelled before.
 */
static void
forget_requests(void)
{
	static CmSql forget = {
		"DELETE FROM cm_internal.requests r WHERE CASE"
		" WHEN r.action IN ('retry', 'adopt')"
		"  THEN NOT EXISTS (SELECT FROM @extschema@.cm_jobs j WHERE j.id = r.job_id)"
		" WHEN r.action = 'abandon'"
		"  THEN NOT EXISTS (SELECT FROM cm_internal.queue q LEFT JOIN cm_internal.host_states s ON s.host_id = q.host_id"
		"   WHERE q.job_id = r.job_id AND q.attempt = r.attempt AND q.status <> 'pending' AND s.state IS DISTINCT FROM 'healthy')"
		" ELSE NOT EXISTS (SELECT FROM cm_internal.queue q WHERE q.job_id = r.job_id)"
		"  AND NOT EXISTS (SELECT FROM cm_internal.requests a WHERE a.job_id = r.job_id AND a.action IN ('retry', 'adopt')) END",
		0,
		{0},
		NULL,
		0};

	cm_sql_run(&forget, NULL, NULL);
}

/*
 * A cancellation is noted in the queue row, where it outlives a crash; jobs
 * that are over by now are not in the queue, and their requests just go.
 * Requests whose rows somebody has locked wait.
 */
CmUnstarted *
cm_store_take_requests(int max, int *n, int *n_queued, bool *has_more)
{
	static CmSql cancel = {
		"WITH taken AS (DELETE FROM cm_internal.requests r WHERE r.id IN"
		" (SELECT r.id FROM cm_internal.requests r JOIN cm_internal.queue q ON q.job_id = r.job_id"
		"  JOIN @extschema@.cm_jobs j ON j.id = r.job_id"
		"  WHERE r.action = 'cancel' ORDER BY r.id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)"
		" RETURNING r.job_id, r.requested_by),"
		" first AS (SELECT DISTINCT ON (job_id) job_id, requested_by FROM taken ORDER BY job_id)"
		" UPDATE cm_internal.queue q SET cancel_requested_by = f.requested_by"
		" FROM first f WHERE q.job_id = f.job_id"
		" RETURNING q.job_id, q.attempt, q.status = 'pending'",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max);
	CmUnstarted *jobs;

	*has_more = set_priorities(max) >= max;
	forget_requests();
	*n_queued = requeue_jobs(max);
	jobs = read_unstarted(cm_sql_run(&cancel, &value, NULL), n);
	*has_more = *has_more || *n_queued >= max || *n >= max;
	return jobs;
}

CmAbandoned *
cm_store_load_abandoned(int max, int *n)
{
	static CmSql load = {
		"SELECT DISTINCT ON (r.job_id) r.job_id, q.attempt, r.requested_by::text, r.reason"
		" FROM cm_internal.requests r JOIN cm_internal.queue q ON q.job_id = r.job_id"
		" AND q.attempt = r.attempt WHERE r.action = 'abandon' AND q.status <> 'pending' ORDER BY r.job_id, r.id LIMIT $1",
		1,
		{INT4OID},
		NULL,
		0};
	Datum value = Int32GetDatum(max);
	CmAbandoned *jobs;

	*n = (int) cm_sql_run(&load, &value, NULL);
	jobs = palloc(sizeof(CmAbandoned) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		jobs[i].job_id = cm_sql_int64(i, 1, 0);
		jobs[i].attempt = cm_sql_int32(i, 2, 0);
		jobs[i].by = cm_sql_text(i, 3);
		jobs[i].reason = cm_sql_text(i, 4);
	}
	return jobs;
}

void
cm_store_look_up_jobs(const CmFound *found, int n, int *attempts)
{
	static CmSql look_up = {
		"SELECT CASE WHEN k.container_id = w.container_id THEN -2 WHEN q.status = 'pending' THEN q.attempt + 1 WHEN q.job_id IS NOT NULL THEN q.attempt"
		" WHEN j.id IS NOT NULL THEN 0 ELSE -1 END"
		" FROM unnest($1, $2) WITH ORDINALITY AS w (id, container_id, n)"
		" LEFT JOIN @extschema@.cm_jobs j ON j.id = w.id"
		" LEFT JOIN cm_internal.queue q ON q.job_id = w.id"
		" LEFT JOIN cm_internal.kept_containers k ON k.job_id = w.id ORDER BY w.n",
		2,
		{INT8ARRAYOID, TEXTARRAYOID},
		NULL,
		0};
	CmColumn ids;
	CmColumn containers;
	Datum values[2];

	cm_column_init(&ids, INT8OID, n);
	cm_column_init(&containers, TEXTOID, n);
	for (int i = 0; i < n; i++)
	{
		cm_column_add_int64(&ids, found[i].job_id);
		cm_column_add_text(&containers, found[i].container_id);
	}
	values[0] = cm_column_array(&ids);
	values[1] = cm_column_array(&containers);
	cm_sql_run(&look_up, values, NULL);
	for (int i = 0; i < n; i++)
		attempts[i] = cm_sql_int32(i, 1, -1);
}
