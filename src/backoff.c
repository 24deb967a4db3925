/*
 * backoff.c
 *		How long to wait before the next try.
 *
 * The wait doubles, so that a host that is down is not asked in vain for ever,
 * and is spread, so that the jobs that failed together do not come back
 * together.  The spread goes down from the delay, never up: max_ms is a bound
 * that a reader of the settings may rely on.
 */
#include "backoff.h"

/* base_ms * 2^(failures - 1), or max_ms where that is less. */
static int64_t
double_per_failure(int failures, int64_t base_ms, int64_t max_ms)
{
	int64_t delay_ms = base_ms < max_ms ? base_ms : max_ms;

	/* at most 63 turns: then max_ms is reached, whatever failures is */
	for (int i = 1; i < failures && delay_ms < max_ms; i++)
		delay_ms = delay_ms > max_ms / 2 ? max_ms : delay_ms * 2;
	return delay_ms;
}

int64_t
cm_backoff_delay_ms(int failures, int64_t base_ms, int64_t max_ms, double unit_random)
{
	int64_t delay_ms;
	int64_t spread_ms;
	int64_t added_ms;

	if (failures <= 0 || base_ms <= 0 || max_ms <= 0)
		return 0;

	delay_ms = double_per_failure(failures, base_ms, max_ms);
	spread_ms = delay_ms / 2;

	/* written so that NaN, too, is the least wait */
	if (!(unit_random > 0.0))
		added_ms = 0;
	else if (unit_random >= 1.0)
		added_ms = spread_ms;
	else
		added_ms = (int64_t) (unit_random * (double) (spread_ms + 1));

	/* a double may round up to spread_ms + 1 */
	if (added_ms > spread_ms)
		added_ms = spread_ms;
	return delay_ms - spread_ms + added_ms;
}
