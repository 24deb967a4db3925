/*
 * placement.c
 *		Which host gets the next job.
 *
 * The host whose load after taking the job would be least, in proportion to
 * its slots and weight.  Fractions are compared by cross-multiplication: with
 * floating point two equal hosts could differ in the last bit, and the choice
 * would hang on the compiler.
 */
#include <stdint.h>

#include "placement.h"

/* With these bounds, the products below stay under 2^62. */
#define MAX_COMPARED_SLOTS (1 << 26)
#define MAX_COMPARED_WEIGHT 1000

static int64_t
clamp_to(int64_t value, int64_t low, int64_t high)
{
	if (value < low)
		return low;
	return value > high ? high : value;
}

static int64_t
capacity_of(const CmCandidate *candidate)
{
	return clamp_to(candidate->slots, 1, MAX_COMPARED_SLOTS) *
		   clamp_to(candidate->weight, 1, MAX_COMPARED_WEIGHT);
}

static int64_t
load_with_job(const CmCandidate *candidate)
{
	return clamp_to((int64_t) candidate->used + 1, 1, MAX_COMPARED_SLOTS);
}

static bool
is_better(const CmCandidate *one, const CmCandidate *other)
{
	int64_t load_one = load_with_job(one) * capacity_of(other);
	int64_t load_other = load_with_job(other) * capacity_of(one);

	if (load_one != load_other)
		return load_one < load_other;
	return one->host_id < other->host_id;
}

int
cm_placement_free_slots(const CmCandidate *candidate)
{
	int64_t used = candidate->used > 0 ? candidate->used : 0;
	int64_t free_slots = candidate->slots - used;

	return candidate->can_take && free_slots > 0 ? (int) free_slots : 0;
}

int
cm_placement_choose(const CmCandidate *candidates, int n, int pinned_host_id)
{
	int best = -1;

	for (int i = 0; i < n; i++)
	{
		if (pinned_host_id != 0 && candidates[i].host_id != pinned_host_id)
			continue;
		if (cm_placement_free_slots(&candidates[i]) == 0)
			continue;
		if (best < 0 || is_better(&candidates[i], &candidates[best]))
			best = i;
	}
	return best;
}
