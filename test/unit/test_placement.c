/*
 * test_placement.c
 *		Choice of a host: load, weight, ties, pins, and numbers out of range.
 */
#include <limits.h>

#include "placement.h"
#include "tap.h"

#define MAX_HOSTS 4

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
	{"one free host", 0, 0, 1, {{1, true, 0, 1, 100}}},
	{"one full host", 0, -1, 1, {{1, true, 1, 1, 100}}},
	{"one host over its slots", 0, -1, 1, {{1, true, 5, 1, 100}}},
	{"one host that takes none", 0, -1, 1, {{1, false, 0, 1, 100}}},
	{"one host without slots", 0, -1, 1, {{1, true, 0, 0, 100}}},
	{"last slot", 0, 0, 1, {{1, true, 9, 10, 100}}},
	{"the less used", 0, 1, 2, {{1, true, 5, 10, 100}, {2, true, 4, 10, 100}}},
	{"the one with more slots", 0, 1, 2, {{1, true, 0, 10, 100}, {2, true, 0, 11, 100}}},
	{"the heavier", 0, 1, 2, {{1, true, 3, 10, 100}, {2, true, 3, 10, 101}}},
	{"twice the weight, under twice the load", 0, 1, 2, {{1, true, 3, 10, 100}, {2, true, 6, 10, 200}}},
	{"twice the weight, twice the load: tie", 0, 0, 2, {{1, true, 3, 10, 100}, {2, true, 7, 10, 200}}},
	{"twice the weight, over twice the load", 0, 0, 2, {{1, true, 3, 10, 100}, {2, true, 8, 10, 200}}},
	{"the job itself counts: 1/2 against 2/10", 0, 1, 2, {{1, true, 0, 2, 100}, {2, true, 1, 10, 100}}},
	{"thirds are equal", 0, 0, 2, {{1, true, 0, 3, 100}, {2, true, 1, 6, 100}}},
	{"ties go to the lower id", 0, 1, 2, {{7, true, 2, 10, 100}, {3, true, 2, 10, 100}}},
	{"ties of three", 0, 2, 3, {{7, true, 2, 10, 100}, {3, true, 2, 10, 100}, {2, true, 2, 10, 100}}},
	{"ids below 0 are ids", 0, 0, 2, {{-7, true, 2, 10, 100}, {3, true, 2, 10, 100}}},
	{"the full are passed over", 0, 1, 2, {{1, true, 2, 2, 1000}, {2, true, 9, 10, 1}}},
	{"the drained are passed over", 0, 1, 2, {{1, false, 0, 2, 1000}, {2, true, 9, 10, 1}}},
	{"all full", 0, -1, 3, {{1, true, 2, 2, 1}, {2, true, 3, 3, 1}, {3, true, 4, 4, 1}}},
	{"pinned", 2, 1, 2, {{1, true, 0, 10, 1000}, {2, true, 9, 10, 1}}},
	{"pinned to a full host", 2, -1, 2, {{1, true, 0, 10, 100}, {2, true, 10, 10, 100}}},
	{"pinned to a drained host", 2, -1, 2, {{1, true, 0, 10, 100}, {2, false, 0, 10, 100}}},
	{"pinned to an unknown host", 3, -1, 2, {{1, true, 0, 10, 100}, {2, true, 0, 10, 100}}},
	{"used below 0 is none", 0, 0, 2, {{1, true, -5, 10, 100}, {2, true, 0, 10, 100}}},
	{"weight of 0 is the least", 0, 1, 2, {{1, true, 0, 10, 0}, {2, true, 0, 10, 2}}},
	{"weight below 0 is the least", 0, 1, 2, {{1, true, 0, 10, INT_MIN}, {2, true, 0, 10, 2}}},
	{"weights beyond 1000 are 1000", 0, 0, 2, {{1, true, 0, 10, 1000}, {2, true, 0, 10, INT_MAX}}},
	{"most of all", 0, 1, 2,
	 {{1, true, INT_MAX - 1, INT_MAX, INT_MAX}, {2, true, 0, INT_MAX, INT_MAX}}},
	{"most against least", 0, 0, 2,
	 {{1, true, 0, INT_MAX, INT_MAX}, {2, true, 0, 1, 1}}},
	{"least ints", 0, -1, 2,
	 {{INT_MIN, true, INT_MIN, INT_MIN, INT_MIN}, {2, true, INT_MAX, INT_MIN, 1}}},
};
/* clang-format on */

static void
test_choice(void)
{
	for (size_t i = 0; i < lengthof(rows); i++)
	{
		CmCandidate copy[MAX_HOSTS];

		memcpy(copy, rows[i].hosts, sizeof(copy));
		is_int(cm_placement_choose(copy, rows[i].n, rows[i].pinned), rows[i].wanted, "%s",
			   rows[i].name);
		for (int j = 0; j < rows[i].n; j++)
			ok(copy[j].used == rows[i].hosts[j].used &&
				   copy[j].can_take == rows[i].hosts[j].can_take,
			   "%s: host %d is as it was", rows[i].name, j);
	}
	is_int(cm_placement_choose(NULL, 0, 0), -1, "no list");
}

static void
test_free_slots(void)
{
	static const struct
	{
		CmCandidate host;
		int wanted;
	} free_rows[] = {
		{{1, true, 0, 10, 1}, 10},
		{{1, true, 9, 10, 1}, 1},
		{{1, true, 10, 10, 1}, 0},
		{{1, true, 11, 10, 1}, 0},
		{{1, false, 0, 10, 1}, 0},
		{{1, true, -1, 10, 1}, 10},
		{{1, true, INT_MIN, INT_MAX, 1}, INT_MAX},
		{{1, true, INT_MAX, INT_MIN, 1}, 0},
	};

	for (size_t i = 0; i < lengthof(free_rows); i++)
		is_int(cm_placement_free_slots(&free_rows[i].host), free_rows[i].wanted,
			   "free slots: %d of %d used", free_rows[i].host.used, free_rows[i].host.slots);
}

/* Jobs given one by one end up in proportion to slots times weight. */
static void
test_proportion(void)
{
	CmCandidate hosts[] = {{1, true, 0, 100, 100}, {2, true, 0, 100, 300}, {3, true, 0, 50, 200}};

	for (int i = 0; i < 120; i++)
	{
		int chosen = cm_placement_choose(hosts, 3, 0);

		if (chosen < 0)
			break;
		hosts[chosen].used++;
	}
	is_int(hosts[0].used, 24, "a sixth, less what rounding gives to others");
	is_int(hosts[0].used + hosts[1].used + hosts[2].used, 120, "every job has a host");
	ok(hosts[1].used > 2 * hosts[0].used, "the heavier host has its share");
	ok(hosts[2].used <= hosts[2].slots, "no host is over its slots");
}

/* The order of the candidates must not matter. */
static void
test_order(void)
{
	CmCandidate hosts[] = {{1, true, 1, 7, 30}, {2, true, 3, 9, 70}, {3, true, 0, 1, 1}};
	int id = hosts[cm_placement_choose(hosts, 3, 0)].host_id;

	for (int turn = 0; turn < 3; turn++)
	{
		CmCandidate first = hosts[0];

		memmove(hosts, hosts + 1, 2 * sizeof(hosts[0]));
		hosts[2] = first;
		is_int(hosts[cm_placement_choose(hosts, 3, 0)].host_id, id, "same host after turn %d",
			   turn + 1);
	}
}

int
main(void)
{
	test_choice();
	test_free_slots();
	test_proportion();
	test_order();
	return tap_done();
}
