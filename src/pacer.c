/*
 * pacer.c
 *		How many starts one engine is given at a time.
 *
 * Rates, not latencies, are compared: a container that takes long to start since
 * others use the CPU is no reason to start fewer at once, if fewer a second
 * would be started for it.
 *
 * Two rounds at limits low < high give a gain: by how much the rate grew, of what
 * it would have grown by if the engine did all at once.  1 is an engine that does not
 * feel what it is given, 0 one that is busy, less than 0 one that is overrun.
 */
#include "pacer.h"

/* More at once pays above the first, fewer do as well below the second; between
 * them lies what the noise of a round may bring about. */
#define GAIN_WORTH_MORE 0.25
#define GAIN_WORTH_LESS 0.05
#define HELD_ROUNDS 8 /* before another limit is tried */
#define MIN_STARTS_PER_ROUND 12
/* A round that takes so many times what it took at the limit before is over at once. */
#define HOPELESS 2

static int
clamp_limit(const CmPacer *pacer, int limit)
{
	if (limit > pacer->cap)
		limit = pacer->cap;
	return limit < 1 ? 1 : limit;
}

/* Up by half, and down by as much again. */
static int
step_from(const CmPacer *pacer)
{
	int step = pacer->goes_up ? pacer->limit / 2 : -(pacer->limit / 3);

	if (step == 0)
		step = pacer->goes_up ? 1 : -1;
	return clamp_limit(pacer, pacer->limit + step);
}

void
cm_pacer_void_round(CmPacer *pacer)
{
	pacer->begun_ms = 0;
	pacer->n_counted = 0;
	pacer->n_warm = pacer->limit;
}

void
cm_pacer_init(CmPacer *pacer, int first)
{
	*pacer = (CmPacer){.cap = CM_PACER_MAX, .goes_up = true};
	pacer->limit = clamp_limit(pacer, first);
	cm_pacer_void_round(pacer);
}

void
cm_pacer_set_cap(CmPacer *pacer, int cap)
{
	pacer->cap = cap <= 0 || cap > CM_PACER_MAX ? CM_PACER_MAX : cap;
	if (pacer->limit <= pacer->cap)
		return;
	pacer->limit = pacer->cap;
	pacer->other_rate = 0;
	cm_pacer_void_round(pacer);
}

/* Stays for a while; then the other direction is tried. */
static void
hold_at(CmPacer *pacer, int limit)
{
	pacer->limit = limit;
	pacer->other_rate = 0;
	pacer->goes_up = !pacer->goes_up;
	pacer->n_rounds_held = HELD_ROUNDS;
}

/* The rate at this limit is known: one step on. */
static void
move_on(CmPacer *pacer, double rate)
{
	int limit = step_from(pacer);

	if (limit == pacer->limit)
	{
		/* At an end of the range: the other direction, unless it came from there. */
		if (pacer->other_rate > 0)
		{
			hold_at(pacer, limit);
			return;
		}
		pacer->goes_up = !pacer->goes_up;
		limit = step_from(pacer);
	}
	pacer->other_limit = pacer->limit;
	pacer->other_rate = rate;
	pacer->limit = limit;
}

static double
gain_between(const CmPacer *pacer, double rate)
{
	double rates = rate / pacer->other_rate;
	double limits = (double) pacer->limit / pacer->other_limit;

	return pacer->goes_up ? (rates - 1) / (limits - 1) : (1 / rates - 1) / (1 / limits - 1);
}

static void
judge_round(CmPacer *pacer, double rate)
{
	double gain;

	if (pacer->n_rounds_held > 0 && --pacer->n_rounds_held > 0)
		return;
	if (pacer->other_rate <= 0)
	{
		move_on(pacer, rate);
		return;
	}
	gain = gain_between(pacer, rate);
	if (pacer->goes_up ? gain > GAIN_WORTH_MORE : gain < GAIN_WORTH_LESS)
		move_on(pacer, rate);
	else if (pacer->goes_up ? gain < GAIN_WORTH_LESS : gain > GAIN_WORTH_MORE)
		hold_at(pacer, clamp_limit(pacer, pacer->other_limit));
	else
		hold_at(pacer, pacer->limit);
}

static void
begin_round(CmPacer *pacer, int64_t now_ms)
{
	pacer->begun_ms = now_ms;
	pacer->n_counted = 0;
}

static void
end_round(CmPacer *pacer, int64_t now_ms)
{
	int64_t took_ms = now_ms > pacer->begun_ms ? now_ms - pacer->begun_ms : 1;
	int before = pacer->limit;

	judge_round(pacer, (double) pacer->n_counted / (double) took_ms);
	if (pacer->limit != before)
		cm_pacer_void_round(pacer);
	else
		begin_round(pacer, now_ms);
}

static bool
is_over(const CmPacer *pacer, int64_t now_ms)
{
	int n_enough = 2 * pacer->limit;

	if (n_enough < MIN_STARTS_PER_ROUND)
		n_enough = MIN_STARTS_PER_ROUND;
	return pacer->n_counted >= n_enough ||
		   (double) (now_ms - pacer->begun_ms) * pacer->other_rate > HOPELESS * n_enough;
}

void
cm_pacer_note_end(CmPacer *pacer, int n_in_flight, bool is_good, bool is_wanted, int64_t now_ms)
{
	if (n_in_flight < pacer->limit || !is_wanted)
	{
		cm_pacer_void_round(pacer);
		return;
	}
	if (pacer->n_warm > 0)
	{
		if (--pacer->n_warm == 0)
			begin_round(pacer, now_ms);
		return;
	}
	if (is_good)
		pacer->n_counted++;
	if (is_over(pacer, now_ms))
		end_round(pacer, now_ms);
}
