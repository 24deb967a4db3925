/*
 * retry.c
 *		Whether an attempt that failed is followed by another, and when.
 */
#include "retry.h"

#include <string.h>

#include "backoff.h"

#define MAX_EXIT_CODE 255

/* What "any" stands for. */
static const CmReason listable[] = {
	CM_REASON_EXIT_CODE, CM_REASON_OOM,		   CM_REASON_KILLED,
	CM_REASON_TIMEOUT,	 CM_REASON_IMAGE_PULL, CM_REASON_CREATE,
	CM_REASON_START,	 CM_REASON_NETWORK,	   CM_REASON_INFRASTRUCTURE};
#define N_LISTABLE (sizeof(listable) / sizeof(listable[0]))

static void
add_reason(CmRetryOn *on, CmReason reason)
{
	on->reasons |= UINT32_C(1) << reason;
}

static bool
has_reason(const CmRetryOn *on, CmReason reason)
{
	return (on->reasons >> reason & 1) != 0;
}

static bool
is_word(const char *item, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(item, word, n) == 0;
}

static bool
add_any(CmRetryOn *on, const char *item, size_t n)
{
	if (!is_word(item, n, "any"))
		return false;
	for (size_t i = 0; i < N_LISTABLE; i++)
		add_reason(on, listable[i]);
	return true;
}

static bool
add_listable(CmRetryOn *on, const char *item, size_t n)
{
	for (size_t i = 0; i < N_LISTABLE; i++)
	{
		if (!is_word(item, n, cm_lifecycle_reason_word(listable[i])))
			continue;
		add_reason(on, listable[i]);
		return true;
	}
	return false;
}

static bool
add_exit_code(CmRetryOn *on, const char *item, size_t n)
{
	int code = 0;

	if (n == 0 || n > 3)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		if (item[i] < '0' || item[i] > '9')
			return false;
		code = code * 10 + (item[i] - '0');
	}
	if (code < 1 || code > MAX_EXIT_CODE)
		return false;
	on->exit_codes[code / 8] |= (uint8_t) (1 << code % 8);
	return true;
}

static const char *
skip_blanks(const char *text)
{
	while (*text == ' ' || *text == '\t' || *text == '\n')
		text++;
	return text;
}

static size_t
measure_item(const char *text)
{
	size_t n = strcspn(text, ",");

	while (n > 0 && strchr(" \t\n", text[n - 1]) != NULL)
		n--;
	return n;
}

bool
cm_retry_parse(const char *text, CmRetryOn *on, const char **wrong, size_t *n_wrong)
{
	const char *rest = text ? text : CM_RETRY_DEFAULT;

	memset(on, 0, sizeof(*on));
	for (;;)
	{
		const char *item = skip_blanks(rest);
		size_t n = measure_item(item);

		if (!add_any(on, item, n) && !add_listable(on, item, n) && !add_exit_code(on, item, n))
		{
			*wrong = item;
			*n_wrong = n;
			return false;
		}
		rest = item + strcspn(item, ",");
		if (*rest == '\0')
			return true;
		rest++;
	}
}

bool
cm_retry_is_listed(const CmRetryOn *on, CmReason reason, int exit_code)
{
	if (has_reason(on, reason))
		return true;
	if (reason != CM_REASON_EXIT_CODE || exit_code < 1 || exit_code > MAX_EXIT_CODE)
		return false;
	return (on->exit_codes[exit_code / 8] >> exit_code % 8 & 1) != 0;
}

int64_t
cm_retry_delay_ms(int attempt, int64_t base_ms, double unit_random)
{
	int64_t max_ms = base_ms > CM_RETRY_MAX_DELAY_MS ? base_ms : CM_RETRY_MAX_DELAY_MS;

	return cm_backoff_delay_ms(attempt, base_ms, max_ms, unit_random);
}
