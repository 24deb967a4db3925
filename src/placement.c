/*
 * placement.c
 *		Which host gets the next job.
 *
 * Fractions are compared by cross-multiplication, or as whole millionths: with
 * floating point two equal hosts could differ in the last bit, and the choice
 * would hang on the compiler.
 */
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "placement.h"

/* With these bounds, the products below stay under 2^63. */
#define MAX_COMPARED_SLOTS (1 << 26)
#define MAX_COMPARED_WEIGHT 1000
#define MAX_COMPARED_AMOUNT (INT64_C(1) << 40)
#define MILLION 1000000
#define NANO_PER_MILLI_CPU 1000000

static const char *const words[] = {"least_loaded", "round_robin", "weighted", "resources", "pack"};

const char *
cm_placement_word(CmStrategy strategy)
{
	return words[strategy];
}

bool
cm_placement_parse(const char *word, CmStrategy *strategy)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
	{
		if (strcmp(word, words[i]) == 0)
		{
			*strategy = (CmStrategy) i;
			return true;
		}
	}
	return false;
}

static int64_t
clamp_to(int64_t value, int64_t low, int64_t high)
{
	if (value < low)
		return low;
	return value > high ? high : value;
}

static int64_t
weight_of(const CmCandidate *candidate)
{
	return clamp_to(candidate->weight, 1, MAX_COMPARED_WEIGHT);
}

static int64_t
slots_of(const CmCandidate *candidate)
{
	return clamp_to(candidate->slots, 1, MAX_COMPARED_SLOTS);
}

static int64_t
load_with_job(const CmCandidate *candidate)
{
	return clamp_to((int64_t) candidate->used + 1, 1, MAX_COMPARED_SLOTS);
}

/* --- who can take it --- */

static bool
has_left(int64_t total, int64_t reserved, int64_t asked)
{
	return total <= 0 || (asked <= total && reserved <= total - asked);
}

static bool
has_room(const CmCandidate *candidate, const CmPlacementAsk *ask)
{
	return has_left(candidate->memory_mb, candidate->reserved_mb, ask->memory_mb) &&
		   has_left(candidate->nano_cpus, candidate->reserved_nano_cpus, ask->nano_cpus);
}

static bool
is_before(const CmKeyHost *pair, int key, int host_id)
{
	return pair->key < key || (pair->key == key && pair->host_id < host_id);
}

static bool
has_labels(const CmFleet *fleet, int key, int host_id)
{
	int low = 0;
	int high = fleet->n_key_hosts;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (is_before(&fleet->key_hosts[middle], key, host_id))
			low = middle + 1;
		else
			high = middle;
	}
	return low < fleet->n_key_hosts && fleet->key_hosts[low].key == key &&
		   fleet->key_hosts[low].host_id == host_id;
}

static bool
can_take(const CmFleet *fleet, const CmCandidate *candidate, const CmPlacementAsk *ask)
{
	if (cm_placement_free_slots(candidate) == 0)
		return false;
	if (ask->key > 0)
		return ask->key == candidate->host_id;
	if (ask->key < 0 && !has_labels(fleet, ask->key, candidate->host_id))
		return false;
	return ask->strategy != CM_PLACE_RESOURCES || has_room(candidate, ask);
}

int
cm_placement_free_slots(const CmCandidate *candidate)
{
	int64_t used = candidate->used > 0 ? candidate->used : 0;
	int64_t free_slots = candidate->slots - used;

	return candidate->can_take && free_slots > 0 ? (int) free_slots : 0;
}

int
cm_placement_free_slots_for(const CmFleet *fleet, const CmPlacementAsk *ask)
{
	int64_t sum = 0;

	for (int i = 0; i < fleet->n; i++)
		if (can_take(fleet, &fleet->candidates[i], ask))
			sum += cm_placement_free_slots(&fleet->candidates[i]);
	return (int) clamp_to(sum, 0, INT_MAX);
}

/* --- which of them --- */

/* Below 0: one is the better host; 0: they are equal. */
static int
compare(int64_t one, int64_t other)
{
	return (one > other) - (one < other);
}

static int
compare_load(const CmCandidate *one, const CmCandidate *other)
{
	return compare(load_with_job(one) * slots_of(other) * weight_of(other),
				   load_with_job(other) * slots_of(one) * weight_of(one));
}

static int
compare_packing(const CmCandidate *one, const CmCandidate *other)
{
	return compare(load_with_job(other) * slots_of(one), load_with_job(one) * slots_of(other));
}

/* Millionths of what there is that are reserved when the job has its part. */
static int64_t
share_reserved(int64_t reserved, int64_t asked, int64_t total)
{
	if (total <= 0)
		return 0;
	return (clamp_to(reserved, 0, MAX_COMPARED_AMOUNT) + clamp_to(asked, 0, MAX_COMPARED_AMOUNT)) *
		   MILLION / clamp_to(total, 1, MAX_COMPARED_AMOUNT);
}

static int64_t
scarcest_share(const CmCandidate *candidate, const CmPlacementAsk *ask)
{
	int64_t memory = share_reserved(candidate->reserved_mb, ask->memory_mb, candidate->memory_mb);
	int64_t cpus = share_reserved(candidate->reserved_nano_cpus / NANO_PER_MILLI_CPU,
								  ask->nano_cpus / NANO_PER_MILLI_CPU,
								  candidate->nano_cpus / NANO_PER_MILLI_CPU);

	return memory > cpus ? memory : cpus;
}

static bool
is_better(const CmCandidate *one, const CmCandidate *other, const CmPlacementAsk *ask)
{
	int difference = 0;

	switch (ask->strategy)
	{
		case CM_PLACE_WEIGHTED: /* is drawn */
			break;
		case CM_PLACE_LEAST_LOADED:
			difference = compare_load(one, other);
			break;
		case CM_PLACE_ROUND_ROBIN:
			difference = compare(one->last_chosen, other->last_chosen);
			break;
		case CM_PLACE_RESOURCES:
			difference = compare(scarcest_share(one, ask), scarcest_share(other, ask));
			break;
		case CM_PLACE_PACK:
			difference = compare_packing(one, other);
			break;
	}
	return difference != 0 ? difference < 0 : one->host_id < other->host_id;
}

static int
draw(const CmFleet *fleet, const CmPlacementAsk *ask, double unit_random)
{
	int64_t sum = 0;
	double point;
	int last = -1;

	for (int i = 0; i < fleet->n; i++)
		if (can_take(fleet, &fleet->candidates[i], ask))
			sum += weight_of(&fleet->candidates[i]);
	point = unit_random * (double) sum;
	for (int i = 0; i < fleet->n; i++)
	{
		if (!can_take(fleet, &fleet->candidates[i], ask))
			continue;
		last = i;
		point -= (double) weight_of(&fleet->candidates[i]);
		if (point < 0)
			break;
	}
	return last;
}

int
cm_placement_choose(const CmFleet *fleet, const CmPlacementAsk *ask, double unit_random)
{
	int best = -1;

	if (ask->strategy == CM_PLACE_WEIGHTED)
		return draw(fleet, ask, unit_random);
	for (int i = 0; i < fleet->n; i++)
	{
		const CmCandidate *candidate = &fleet->candidates[i];

		if (can_take(fleet, candidate, ask) &&
			(best < 0 || is_better(candidate, &fleet->candidates[best], ask)))
			best = i;
	}
	return best;
}

void
cm_placement_take(CmFleet *fleet, int chosen, const CmPlacementAsk *ask)
{
	CmCandidate *candidate = &fleet->candidates[chosen];

	candidate->used++;
	candidate->reserved_mb += ask->memory_mb;
	candidate->reserved_nano_cpus += ask->nano_cpus;
	candidate->last_chosen = ++fleet->n_chosen;
}
