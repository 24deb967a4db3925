/*
 * test_placement.c
 *		Choice of a host: load, weight, ties, pins, labels, memory and CPUs,
 *		distributions, and numbers out of range.
 */
#include <limits.h>
#include <stdlib.h>

#include "placement.h"
#include "tap.h"

#define MAX_HOSTS 4
/* clang-format off */
#define HOST(id, can_take, used, slots, weight) {id, can_take, used, slots, weight, 0, 0, 0, 0, 0}
/* clang-format on */

typedef struct Row
{
	const char *name;
	int pinned;
	int wanted; /* index */
	int n;
	CmCandidate hosts[MAX_HOSTS]; /* id, can_take, used, slots, weight */
} Row;

/* clang-format off */
static const Row rows[] = {
	{"no hosts", 0, -1, 0, {{0}}},
	{"one free host", 0, 0, 1, {HOST(1, true, 0, 1, 100)}},
	{"one full host", 0, -1, 1, {HOST(1, true, 1, 1, 100)}},
	{"one host over its slots", 0, -1, 1, {HOST(1, true, 5, 1, 100)}},
	{"one host that takes none", 0, -1, 1, {HOST(1, false, 0, 1, 100)}},
	{"one host without slots", 0, -1, 1, {HOST(1, true, 0, 0, 100)}},
	{"last slot", 0, 0, 1, {HOST(1, true, 9, 10, 100)}},
	{"the less used", 0, 1, 2, {HOST(1, true, 5, 10, 100), HOST(2, true, 4, 10, 100)}},
	{"the one with more slots", 0, 1, 2, {HOST(1, true, 0, 10, 100), HOST(2, true, 0, 11, 100)}},
	{"the heavier", 0, 1, 2, {HOST(1, true, 3, 10, 100), HOST(2, true, 3, 10, 101)}},
	{"twice the weight, under twice the load", 0, 1, 2, {HOST(1, true, 3, 10, 100), HOST(2, true, 6, 10, 200)}},
	{"twice the weight, twice the load: tie", 0, 0, 2, {HOST(1, true, 3, 10, 100), HOST(2, true, 7, 10, 200)}},
	{"twice the weight, over twice the load", 0, 0, 2, {HOST(1, true, 3, 10, 100), HOST(2, true, 8, 10, 200)}},
	{"the job itself counts: 1/2 against 2/10", 0, 1, 2, {HOST(1, true, 0, 2, 100), HOST(2, true, 1, 10, 100)}},
	{"thirds are equal", 0, 0, 2, {HOST(1, true, 0, 3, 100), HOST(2, true, 1, 6, 100)}},
	{"ties go to the lower id", 0, 1, 2, {HOST(7, true, 2, 10, 100), HOST(3, true, 2, 10, 100)}},
	{"ties of three", 0, 2, 3, {HOST(7, true, 2, 10, 100), HOST(3, true, 2, 10, 100), HOST(2, true, 2, 10, 100)}},
	{"ids below 0 are ids", 0, 0, 2, {HOST(-7, true, 2, 10, 100), HOST(3, true, 2, 10, 100)}},
	{"the full are passed over", 0, 1, 2, {HOST(1, true, 2, 2, 1000), HOST(2, true, 9, 10, 1)}},
	{"the drained are passed over", 0, 1, 2, {HOST(1, false, 0, 2, 1000), HOST(2, true, 9, 10, 1)}},
	{"all full", 0, -1, 3, {HOST(1, true, 2, 2, 1), HOST(2, true, 3, 3, 1), HOST(3, true, 4, 4, 1)}},
	{"pinned", 2, 1, 2, {HOST(1, true, 0, 10, 1000), HOST(2, true, 9, 10, 1)}},
	{"pinned to a full host", 2, -1, 2, {HOST(1, true, 0, 10, 100), HOST(2, true, 10, 10, 100)}},
	{"pinned to a drained host", 2, -1, 2, {HOST(1, true, 0, 10, 100), HOST(2, false, 0, 10, 100)}},
	{"pinned to an unknown host", 3, -1, 2, {HOST(1, true, 0, 10, 100), HOST(2, true, 0, 10, 100)}},
	{"used below 0 is none", 0, 0, 2, {HOST(1, true, -5, 10, 100), HOST(2, true, 0, 10, 100)}},
	{"weight of 0 is the least", 0, 1, 2, {HOST(1, true, 0, 10, 0), HOST(2, true, 0, 10, 2)}},
	{"weight below 0 is the least", 0, 1, 2, {HOST(1, true, 0, 10, INT_MIN), HOST(2, true, 0, 10, 2)}},
	{"weights beyond 1000 are 1000", 0, 0, 2, {HOST(1, true, 0, 10, 1000), HOST(2, true, 0, 10, INT_MAX)}},
	{"most of all", 0, 1, 2,
	 {HOST(1, true, INT_MAX - 1, INT_MAX, INT_MAX), HOST(2, true, 0, INT_MAX, INT_MAX)}},
	{"most against least", 0, 0, 2,
	 {HOST(1, true, 0, INT_MAX, INT_MAX), HOST(2, true, 0, 1, 1)}},
	{"least ints", 0, -1, 2,
	 {HOST(INT_MIN, true, INT_MIN, INT_MIN, INT_MIN), HOST(2, true, INT_MAX, INT_MIN, 1)}},
};
/* clang-format on */

static CmFleet
make_fleet(CmCandidate *candidates, int n)
{
	CmFleet fleet = {candidates, n, NULL, 0, 0};

	return fleet;
}

static int
choose_pinned(CmCandidate *candidates, int n, int host_id)
{
	CmFleet fleet = make_fleet(candidates, n);
	CmPlacementAsk ask = {host_id, CM_PLACE_LEAST_LOADED, 0, 0};

	return cm_placement_choose(&fleet, &ask, 0);
}

/* As often as the result says: gives so many jobs out. */
static void
give_out(CmFleet *fleet, const CmPlacementAsk *ask, int n)
{
	for (int i = 0; i < n; i++)
	{
		int chosen = cm_placement_choose(fleet, ask, (i + 0.5) / n);

		if (chosen < 0)
			break;
		cm_placement_take(fleet, chosen, ask);
	}
}

static void
test_choice(void)
{
	for (size_t i = 0; i < lengthof(rows); i++)
	{
		CmCandidate copy[MAX_HOSTS];

		memcpy(copy, rows[i].hosts, sizeof(copy));
		is_int(choose_pinned(copy, rows[i].n, rows[i].pinned), rows[i].wanted, "%s", rows[i].name);
		for (int j = 0; j < rows[i].n; j++)
			ok(copy[j].used == rows[i].hosts[j].used &&
				   copy[j].can_take == rows[i].hosts[j].can_take,
			   "%s: host %d is as it was", rows[i].name, j);
	}
	is_int(choose_pinned(NULL, 0, 0), -1, "no list");
}

static void
test_free_slots(void)
{
	static const struct
	{
		CmCandidate host;
		int wanted;
	} free_rows[] = {
		{HOST(1, true, 0, 10, 1), 10},
		{HOST(1, true, 9, 10, 1), 1},
		{HOST(1, true, 10, 10, 1), 0},
		{HOST(1, true, 11, 10, 1), 0},
		{HOST(1, false, 0, 10, 1), 0},
		{HOST(1, true, -1, 10, 1), 10},
		{HOST(1, true, INT_MIN, INT_MAX, 1), INT_MAX},
		{HOST(1, true, INT_MAX, INT_MIN, 1), 0},
	};

	for (size_t i = 0; i < lengthof(free_rows); i++)
		is_int(cm_placement_free_slots(&free_rows[i].host), free_rows[i].wanted,
			   "free slots: %d of %d used", free_rows[i].host.used, free_rows[i].host.slots);
}

/* Jobs given one by one end up in proportion to slots times weight. */
static void
test_proportion(void)
{
	CmCandidate hosts[] = {HOST(1, true, 0, 100, 100), HOST(2, true, 0, 100, 300),
						   HOST(3, true, 0, 50, 200)};
	CmFleet fleet = make_fleet(hosts, 3);
	CmPlacementAsk ask = {0, CM_PLACE_LEAST_LOADED, 0, 0};

	give_out(&fleet, &ask, 120);
	is_int(hosts[0].used, 24, "a sixth, less what rounding gives to others");
	is_int(hosts[0].used + hosts[1].used + hosts[2].used, 120, "every job has a host");
	ok(hosts[1].used > 2 * hosts[0].used, "the heavier host has its share");
	ok(hosts[2].used <= hosts[2].slots, "no host is over its slots");
}

static void
test_weights_by_load(void)
{
	CmCandidate hosts[] = {HOST(1, true, 0, 40, 100), HOST(2, true, 0, 40, 150),
						   HOST(3, true, 0, 40, 200)};
	CmFleet fleet = make_fleet(hosts, 3);
	CmPlacementAsk ask = {0, CM_PLACE_LEAST_LOADED, 0, 0};

	give_out(&fleet, &ask, 45);
	is_int(hosts[0].used, 10, "weight 100: 10 of 45");
	is_int(hosts[1].used, 15, "weight 150: 15 of 45");
	is_int(hosts[2].used, 20, "weight 200: 20 of 45");
}

/* With numbers that fill [0, 1) evenly the shares are those of the weights. */
static void
test_weighted(void)
{
	CmCandidate hosts[] = {HOST(1, true, 0, 900, 100), HOST(2, true, 0, 900, 150),
						   HOST(3, false, 0, 900, 500), HOST(4, true, 0, 900, 200)};
	CmFleet fleet = make_fleet(hosts, 4);
	CmPlacementAsk ask = {0, CM_PLACE_WEIGHTED, 0, 0};

	give_out(&fleet, &ask, 450);
	is_int(hosts[0].used, 100, "weighted: weight 100");
	is_int(hosts[1].used, 150, "weighted: weight 150");
	is_int(hosts[2].used, 0, "weighted: none for a host that takes none");
	is_int(hosts[3].used, 200, "weighted: weight 200");
	is_int(cm_placement_choose(&fleet, &ask, 0), 0, "the least number");
	is_int(cm_placement_choose(&fleet, &ask, 0.9999999999999999), 3, "the greatest number");
	is_int(cm_placement_choose(&fleet, &ask, 1.5), 3, "a number that is none of these");
	hosts[0].used = hosts[1].used = hosts[3].used = 900;
	is_int(cm_placement_choose(&fleet, &ask, 0.5), -1, "weighted: all full");
	ask.key = 2;
	hosts[1].used = 0;
	is_int(cm_placement_choose(&fleet, &ask, 0.9), 1, "weighted: a pinned job");
}

/* Numbers that are drawn: within six standard deviations. */
static void
test_weighted_by_chance(void)
{
	CmCandidate hosts[] = {HOST(1, true, 0, 90000, 100), HOST(2, true, 0, 90000, 150),
						   HOST(3, true, 0, 90000, 200)};
	CmFleet fleet = make_fleet(hosts, 3);
	CmPlacementAsk ask = {0, CM_PLACE_WEIGHTED, 0, 0};
	uint64_t state = 42;

	for (int i = 0; i < 45000; i++)
	{
		int chosen;

		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		chosen = cm_placement_choose(&fleet, &ask, (double) (state >> 11) / 9007199254740992.0);
		cm_placement_take(&fleet, chosen, &ask);
	}
	ok(abs(hosts[0].used - 10000) < 530, "weight 100 of 450: %d of 45000", hosts[0].used);
	ok(abs(hosts[1].used - 15000) < 600, "weight 150 of 450: %d of 45000", hosts[1].used);
	ok(abs(hosts[2].used - 20000) < 640, "weight 200 of 450: %d of 45000", hosts[2].used);
}

static void
test_round_robin(void)
{
	CmCandidate hosts[] = {HOST(5, true, 3, 10, 1), HOST(2, true, 0, 2, 100),
						   HOST(9, true, 0, 10, 1000)};
	static const int wanted[] = {1, 0, 2, 1, 0, 2, 0, 2, 0};
	CmFleet fleet = make_fleet(hosts, 3);
	CmPlacementAsk ask = {0, CM_PLACE_ROUND_ROBIN, 0, 0};

	for (size_t i = 0; i < lengthof(wanted); i++)
	{
		int chosen = cm_placement_choose(&fleet, &ask, 0);

		is_int(chosen, wanted[i], "round_robin: job %d", (int) i + 1);
		if (chosen >= 0)
			cm_placement_take(&fleet, chosen, &ask);
	}
}

static void
test_pack(void)
{
	CmCandidate hosts[] = {HOST(1, true, 0, 4, 1000), HOST(2, true, 1, 4, 1),
						   HOST(3, true, 0, 8, 1000)};
	static const int wanted[] = {1, 1, 1, 0, 0, 0, 0, 2};
	CmFleet fleet = make_fleet(hosts, 3);
	CmPlacementAsk ask = {0, CM_PLACE_PACK, 0, 0};

	for (size_t i = 0; i < lengthof(wanted); i++)
	{
		int chosen = cm_placement_choose(&fleet, &ask, 0);

		is_int(chosen, wanted[i], "pack: job %d", (int) i + 1);
		if (chosen >= 0)
			cm_placement_take(&fleet, chosen, &ask);
	}
}

#define CPUS(n) ((int64_t) (n) *1000000000)

static void
test_resources(void)
{
	CmCandidate hosts[] = {{1, true, 0, 100, 100, 0, 4096, CPUS(4), 0, 0},
						   {2, true, 0, 100, 100, 0, 8192, CPUS(4), 0, 0}};
	CmFleet fleet = make_fleet(hosts, 2);
	CmPlacementAsk ask = {0, CM_PLACE_RESOURCES, 1024, CPUS(1) / 10};

	give_out(&fleet, &ask, 6);
	is_int(hosts[0].used, 2, "a third of the memory, a third of the jobs");
	is_int(hosts[1].used, 4, "and two thirds for twice as much");
	give_out(&fleet, &ask, 100);
	is_int(hosts[0].used, 4, "no more than there is memory for");
	is_int(hosts[1].used, 8, "there neither");
	is_int(cm_placement_free_slots_for(&fleet, &ask), 0, "nor are there slots for more");
	ask.strategy = CM_PLACE_LEAST_LOADED;
	is_int(cm_placement_free_slots_for(&fleet, &ask), 188, "but for those that do not look at it");
	ask.strategy = CM_PLACE_RESOURCES;
	ask.key = 1;
	is_int(cm_placement_choose(&fleet, &ask, 0), 0, "nor does one for a certain host");
	ask.key = 0;
	ask.memory_mb = 0;
	ask.nano_cpus = CPUS(3);
	is_int(cm_placement_choose(&fleet, &ask, 0), 0, "memory is used up, CPUs are left");
	cm_placement_take(&fleet, 0, &ask);
	is_int(cm_placement_choose(&fleet, &ask, 0), 1, "CPUs of the first are used up");
	cm_placement_take(&fleet, 1, &ask);
	is_int(cm_placement_choose(&fleet, &ask, 0), -1, "and of the second");
	hosts[0].memory_mb = hosts[0].nano_cpus = 0;
	is_int(cm_placement_choose(&fleet, &ask, 0), 0, "not known is without end");
	hosts[0].can_take = false;
	hosts[1].nano_cpus = hosts[1].memory_mb = INT64_MAX;
	ask.memory_mb = ask.nano_cpus = INT64_MAX;
	hosts[1].reserved_mb = hosts[1].reserved_nano_cpus = 0;
	is_int(cm_placement_choose(&fleet, &ask, 0), 1, "the last byte");
	hosts[1].reserved_mb = 1;
	is_int(cm_placement_choose(&fleet, &ask, 0), -1, "one too many");
}

static void
test_labels(void)
{
	static const CmKeyHost pairs[] = {{-9, 2}, {-9, 3}, {-5, 1}, {-2, 1}, {-2, 2}, {-2, 3}};
	CmCandidate hosts[] = {HOST(1, true, 0, 2, 100), HOST(2, true, 1, 2, 100),
						   HOST(3, false, 0, 2, 100)};
	CmFleet fleet = {hosts, 3, pairs, lengthof(pairs), 0};
	static const struct
	{
		int key;
		int chosen;
		int free_slots;
	} label_rows[] = {{0, 0, 3},  {1, 0, 2},  {2, 1, 1},   {3, -1, 0},	{4, -1, 0},		 {-2, 0, 3},
					  {-5, 0, 2}, {-9, 1, 1}, {-1, -1, 0}, {-3, -1, 0}, {INT_MIN, -1, 0}};

	for (size_t i = 0; i < lengthof(label_rows); i++)
	{
		CmPlacementAsk ask = {label_rows[i].key, CM_PLACE_LEAST_LOADED, 0, 0};

		is_int(cm_placement_choose(&fleet, &ask, 0), label_rows[i].chosen, "host of key %d",
			   ask.key);
		is_int(cm_placement_free_slots_for(&fleet, &ask), label_rows[i].free_slots,
			   "free slots for key %d", ask.key);
	}
}

static void
test_words(void)
{
	CmStrategy strategy = CM_PLACE_PACK;

	ok(cm_placement_parse("least_loaded", &strategy) && strategy == CM_PLACE_LEAST_LOADED,
	   "least_loaded");
	ok(cm_placement_parse("round_robin", &strategy) && strategy == CM_PLACE_ROUND_ROBIN,
	   "round_robin");
	ok(cm_placement_parse("weighted", &strategy) && strategy == CM_PLACE_WEIGHTED, "weighted");
	ok(cm_placement_parse("resources", &strategy) && strategy == CM_PLACE_RESOURCES, "resources");
	ok(cm_placement_parse("pack", &strategy) && strategy == CM_PLACE_PACK, "pack");
	ok(!cm_placement_parse("", &strategy) && !cm_placement_parse("Pack", &strategy) &&
		   !cm_placement_parse("packs", &strategy),
	   "and no others");
	is_str(cm_placement_word(CM_PLACE_PACK), "pack", "and back");
}

/* The order of the candidates must not matter. */
static void
test_order(void)
{
	CmCandidate hosts[] = {HOST(1, true, 1, 7, 30), HOST(2, true, 3, 9, 70),
						   HOST(3, true, 0, 1, 1)};
	int id = hosts[choose_pinned(hosts, 3, 0)].host_id;

	for (int turn = 0; turn < 3; turn++)
	{
		CmCandidate first = hosts[0];

		memmove(hosts, hosts + 1, 2 * sizeof(hosts[0]));
		hosts[2] = first;
		is_int(hosts[choose_pinned(hosts, 3, 0)].host_id, id, "same host after turn %d", turn + 1);
	}
}

int
main(void)
{
	test_choice();
	test_free_slots();
	test_proportion();
	test_order();
	test_weights_by_load();
	test_weighted();
	test_weighted_by_chance();
	test_round_robin();
	test_pack();
	test_resources();
	test_labels();
	test_words();
	return tap_done();
}
