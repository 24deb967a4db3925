/*
 * retry.h
 *		Whether an attempt that failed is followed by another, and when.
 *
 * Floor 0: pure; randomness is an argument.
 */
#ifndef CM_RETRY_H
#define CM_RETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lifecycle.h"

#define CM_RETRY_DEFAULT "infrastructure, image_pull"
/* No wait between two attempts is longer, unless the first one is. */
#define CM_RETRY_MAX_DELAY_MS INT64_C(3600000)

/* What is worth another attempt. */
typedef struct CmRetryOn
{
	uint32_t reasons;		/* a bit per CmReason */
	uint8_t exit_codes[32]; /* a bit per exit code */
} CmRetryOn;

/*
 * Reads a list such as "infrastructure, image_pull, 75": failure reasons and
 * exit codes (1 to 255) between commas; "any" stands for all that may be
 * listed, "exit_code" for every exit code.  NULL is the default.  false:
 * *wrong is the first item that cannot be listed, of *n_wrong bytes.
 *
 * Never listed: what nobody wants again (cancelled, expired, policy,
 * image_policy, dependency_failed, abandoned), and host_lost, which the job's
 * on_host_loss decides.
 */
extern bool cm_retry_parse(const char *text, CmRetryOn *on, const char **wrong, size_t *n_wrong);

/* Is an attempt that ended so worth another one?  exit_code: -1 where it has none. */
extern bool cm_retry_is_listed(const CmRetryOn *on, CmReason reason, int exit_code);

/*
 * The wait before the attempt that follows the given one: base_ms, doubled for
 * each attempt after the first, with jitter: see cm_backoff_delay_ms.
 */
extern int64_t cm_retry_delay_ms(int attempt, int64_t base_ms, double unit_random);

#endif /* CM_RETRY_H */
