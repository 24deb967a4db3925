/*
 * test_pacer.c
 *		The limit of starts, sought on engines whose rates are known.
 */
#include <math.h>

#include "pacer.h"
#include "tap.h"

/* Starts per second with n at once. */
typedef double (*Rate)(int n);

/* Measured on two CPUs: 7.6 at 4, 5.7 at 16. */
static double
peaks_at_4(int n)
{
	static const double rates[] = {0, 3.2, 6.0, 7.2, 7.6, 7.5, 7.3, 7.1, 6.9};

	return n <= 8 ? rates[n] : fmax(3, 6.9 - 0.15 * (n - 8));
}

static double
peaks_at_20(int n)
{
	return n <= 20 ? 2.0 * n : fmax(4, 40 - 1.0 * (n - 20));
}

static double
feels_nothing(int n)
{
	return 4.0 * n;
}

static double
one_after_another(int n)
{
	(void) n;
	return 5;
}

static double
overrun_by_two(int n)
{
	return n == 1 ? 5 : 2.0 / n;
}

/* What is used of an engine's rate over a run. */
typedef struct Run
{
	CmPacer pacer;
	double now_ms;
	unsigned noise; /* state of a small generator */
	double noise_share;
	double n_done;
	int low;
	int high;
} Run;

static double
draw(Run *run)
{
	run->noise = run->noise * 1103515245u + 12345u;
	return (double) ((run->noise >> 8) & 0xffff) / 0xffff;
}

static void
begin_run(Run *run, int first, double noise_share)
{
	memset(run, 0, sizeof(*run));
	cm_pacer_init(&run->pacer, first);
	run->noise = 7;
	run->noise_share = noise_share;
	run->now_ms = 1000;
}

/* So many ends, always with others waiting; returns starts per second. */
static double
play(Run *run, Rate rate, int n_ends)
{
	double begun_ms = run->now_ms;

	run->low = CM_PACER_MAX;
	run->high = 0;
	for (int i = 0; i < n_ends; i++)
	{
		double between_ms = 1000 / rate(run->pacer.limit);

		run->now_ms += between_ms * (1 + run->noise_share * (2 * draw(run) - 1));
		cm_pacer_note_end(&run->pacer, run->pacer.limit, true, true, (int64_t) run->now_ms);
		run->low = run->pacer.limit < run->low ? run->pacer.limit : run->low;
		run->high = run->pacer.limit > run->high ? run->pacer.limit : run->high;
	}
	return 1000 * n_ends / (run->now_ms - begun_ms);
}

static const struct
{
	const char *name;
	Rate rate;
	double best;
	int first;
	double share; /* of the best that is reached, probes and all */
} engines[] = {
	{"peak at 4, from 4", peaks_at_4, 7.6, 4, 0.85},
	{"peak at 4, from 16", peaks_at_4, 7.6, 16, 0.85},
	{"peak at 4, from 1", peaks_at_4, 7.6, 1, 0.85},
	{"peak at 4, from 64", peaks_at_4, 7.6, 64, 0.85},
	{"peak at 20, from 4", peaks_at_20, 40, 4, 0.85},
	{"peak at 20, from 64", peaks_at_20, 40, 64, 0.85},
	{"no peak, from 4", feels_nothing, 256, 4, 0.85},
	{"one after another, from 8", one_after_another, 5, 8, 0.85},
	{"overrun by two, from 8", overrun_by_two, 5, 8, 0.75},
};

static void
test_convergence(void)
{
	static const double noises[] = {0, 0.3, 0.9};

	for (size_t i = 0; i < lengthof(engines); i++)
	{
		for (size_t j = 0; j < lengthof(noises); j++)
		{
			Run run;
			double reached;

			begin_run(&run, engines[i].first, noises[j]);
			play(&run, engines[i].rate, 1000);
			reached = play(&run, engines[i].rate, 4000);
			ok(reached >= engines[i].share * engines[i].best,
			   "%s, noise %.1f: %.2f of %.2f a second (%d to %d)", engines[i].name, noises[j],
			   reached, engines[i].best, run.low, run.high);
		}
	}
}

/* An engine that does one after another is not given many for nothing. */
static void
test_no_more_than_needed(void)
{
	Run run;

	begin_run(&run, 32, 0);
	play(&run, one_after_another, 1000);
	play(&run, one_after_another, 1000);
	ok(run.high <= 3, "one after another: at most %d at once", run.high);
}

static void
test_change(void)
{
	Run run;
	double reached;

	begin_run(&run, 4, 0.3);
	play(&run, peaks_at_4, 3000);
	play(&run, peaks_at_20, 3000);
	reached = play(&run, peaks_at_20, 3000);
	ok(reached >= 0.85 * 40, "an engine that got faster: %.1f of 40 a second", reached);
	play(&run, peaks_at_4, 3000);
	reached = play(&run, peaks_at_4, 3000);
	ok(reached >= 0.85 * 7.6, "and slower again: %.1f of 7.6", reached);
}

static void
test_no_evidence(void)
{
	CmPacer pacer;
	int64_t now_ms = 1;

	cm_pacer_init(&pacer, 4);
	for (int i = 0; i < 1000; i++)
		cm_pacer_note_end(&pacer, 3, true, true, now_ms += 10);
	ok(pacer.limit == 4, "below the limit nothing is learnt");
	for (int i = 0; i < 1000; i++)
		cm_pacer_note_end(&pacer, 4, true, false, now_ms += 10);
	ok(pacer.limit == 4, "nor where nobody waits");
	for (int i = 0; i < 1000; i++)
		cm_pacer_note_end(&pacer, 4, false, true, now_ms += 10);
	ok(pacer.limit == 4, "nor from starts that fail");
	for (int i = 0; i < 1000; i++)
	{
		cm_pacer_note_end(&pacer, 4, true, true, now_ms += 10);
		if (i % 10 == 0)
			cm_pacer_void_round(&pacer);
	}
	ok(pacer.limit == 4, "nor from rounds in which the engine was lost");
}

static void
test_bounds(void)
{
	CmPacer pacer;
	Run run;

	cm_pacer_init(&pacer, 0);
	ok(pacer.limit == 1, "at least one");
	cm_pacer_init(&pacer, 1000);
	ok(pacer.limit == CM_PACER_MAX, "at most %d", CM_PACER_MAX);
	cm_pacer_set_cap(&pacer, 5);
	ok(pacer.limit == 5, "no more than the cap");
	begin_run(&run, 4, 0);
	cm_pacer_set_cap(&run.pacer, 6);
	play(&run, feels_nothing, 3000);
	ok(run.high == 6, "the cap is kept to (%d)", run.high);
	cm_pacer_set_cap(&run.pacer, 0);
	play(&run, feels_nothing, 5000);
	ok(run.high == CM_PACER_MAX, "and lifted (%d)", run.high);
	cm_pacer_set_cap(&run.pacer, 1);
	play(&run, feels_nothing, 500);
	ok(run.low == 1 && run.high == 1, "one at a time");
	begin_run(&run, 4, 0);
	for (int i = 0; i < 1000; i++)
		cm_pacer_note_end(&run.pacer, run.pacer.limit, true, true, 1);
	ok(run.pacer.limit >= 1 && run.pacer.limit <= CM_PACER_MAX, "a clock that stands still");
	for (int i = 0; i < 1000; i++)
		cm_pacer_note_end(&run.pacer, run.pacer.limit, true, true, 10000 - i);
	ok(run.pacer.limit >= 1 && run.pacer.limit <= CM_PACER_MAX, "or goes back");
}

int
main(void)
{
	test_convergence();
	test_no_more_than_needed();
	test_change();
	test_no_evidence();
	test_bounds();
	return tap_done();
}
