/*
 * test_backoff.c
 *		Delays: doubling, the cap, the spread, and arguments out of range.
 */
#include <math.h>

#include "backoff.h"
#include "tap.h"

#define ALMOST_ONE 0.99999999999999989 /* the largest double below 1 */

static const struct
{
	const char *name;
	int failures;
	int64_t base_ms;
	int64_t max_ms;
	double unit_random;
	int64_t wanted;
} rows[] = {
	{"no failure, no wait", 0, 1000, 60000, 0.5, 0},
	{"less than no failure", -1, 1000, 60000, 0.5, 0},
	{"least int", INT32_MIN, 1000, 60000, 0.5, 0},
	{"first failure, lower end", 1, 1000, 60000, 0.0, 500},
	{"first failure, near the lower end", 1, 1000, 60000, 0.05, 525},
	{"first failure, middle", 1, 1000, 60000, 0.5, 750},
	{"first failure, upper end", 1, 1000, 60000, ALMOST_ONE, 1000},
	{"second failure doubles", 2, 1000, 60000, ALMOST_ONE, 2000},
	{"third failure doubles", 3, 1000, 60000, ALMOST_ONE, 4000},
	{"sixth is below the cap", 6, 1000, 60000, ALMOST_ONE, 32000},
	{"seventh is capped", 7, 1000, 60000, ALMOST_ONE, 60000},
	{"seventh, lower end", 7, 1000, 60000, 0.0, 30000},
	{"the cap itself is reached", 2, 30000, 60000, ALMOST_ONE, 60000},
	{"just over half of the cap", 2, 30001, 60000, ALMOST_ONE, 60000},
	{"base over the cap", 1, 5000, 1000, ALMOST_ONE, 1000},
	{"many failures", 1000000000, 1000, 60000, ALMOST_ONE, 60000},
	{"most failures", INT32_MAX, 1, INT64_MAX, 0.0, INT64_MAX - INT64_MAX / 2},
	{"most of all", INT32_MAX, INT64_MAX, INT64_MAX, 1.0, INT64_MAX},
	{"63 failures", 63, 1, INT64_MAX, 0.0, INT64_C(1) << 61},
	{"64 failures meet the cap", 64, 1, INT64_MAX, 0.0, INT64_MAX - INT64_MAX / 2},
	{"1 ms stays 1 ms", 1, 1, 10, 0.0, 1},
	{"1 ms stays 1 ms at the other end", 1, 1, 10, ALMOST_ONE, 1},
	{"3 ms: not under half", 1, 3, 10, 0.0, 2},
	{"3 ms: not over", 1, 3, 10, ALMOST_ONE, 3},
	{"cap of 1 ms", 5, 1000, 1, 0.5, 1},
	{"no base", 5, 0, 60000, 0.5, 0},
	{"base below 0", 5, -1000, 60000, 0.5, 0},
	{"no cap", 5, 1000, 0, 0.5, 0},
	{"cap below 0", 5, 1000, INT64_MIN, 0.5, 0},
	{"random below 0", 1, 1000, 60000, -7.0, 500},
	{"random of 1", 1, 1000, 60000, 1.0, 1000},
	{"random above 1", 1, 1000, 60000, 1e300, 1000},
	{"random of infinity", 1, 1000, 60000, INFINITY, 1000},
	{"random of minus infinity", 1, 1000, 60000, -INFINITY, 500},
	{"random that is no number", 1, 1000, 60000, NAN, 500},
};

/* Every delay is in [half, whole], and both ends are met. */
static void
test_spread(void)
{
	bool is_inside = true;
	int64_t least = INT64_MAX;
	int64_t most = 0;

	for (int i = 0; i < 1000; i++)
	{
		int64_t delay_ms = cm_backoff_delay_ms(3, 10, 1000, i / 1000.0);

		is_inside = is_inside && delay_ms >= 20 && delay_ms <= 40;
		least = delay_ms < least ? delay_ms : least;
		most = delay_ms > most ? delay_ms : most;
	}
	ok(is_inside, "spread stays in its bounds");
	is_int(least, 20, "spread meets its lower end");
	is_int(most, 40, "spread meets its upper end");
}

static void
test_growth(void)
{
	int64_t last_ms = 0;

	for (int failures = 1; failures < 70; failures++)
	{
		int64_t delay_ms = cm_backoff_delay_ms(failures, 250, 900000, 0.5);

		ok(delay_ms >= last_ms && delay_ms <= 900000,
		   "failure %d waits no less than the one before", failures);
		last_ms = delay_ms;
	}
}

int
main(void)
{
	for (size_t i = 0; i < lengthof(rows); i++)
		is_int(cm_backoff_delay_ms(rows[i].failures, rows[i].base_ms, rows[i].max_ms,
								   rows[i].unit_random),
			   rows[i].wanted, "%s", rows[i].name);
	test_spread();
	test_growth();
	return tap_done();
}
