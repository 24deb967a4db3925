/*
 * backoff.h
 *		How long to wait before the next try.
 *
 * Floor 0: pure; randomness is an argument.
 */
#ifndef CM_BACKOFF_H
#define CM_BACKOFF_H

#include <stdint.h>

/*
 * Delay in milliseconds before try number failures + 1: base_ms doubled per
 * failure after the first, at most max_ms, then spread evenly over
 * [delay/2, delay] by unit_random in [0, 1) (what is outside is taken for the
 * nearer end).  0 where failures, base_ms or max_ms is not above 0.
 */
extern int64_t cm_backoff_delay_ms(int failures, int64_t base_ms, int64_t max_ms,
								   double unit_random);

#endif /* CM_BACKOFF_H */
