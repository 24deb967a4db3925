/*
 * mock.c
 *		The fate of a job on a host of executor_type mock.
 */
#include "mock.h"

#include <string.h>

#include "chars.h"
#include "policy.h"

#define EXIT_SIGTERM 143
#define EXIT_SIGKILL 137

/* What an engine or the world can do to a job; what the job does itself is an
 * exit code, and how long it takes is a delay. */
static const CmReason failures[CM_MOCK_N_FAILURES] = {
	CM_REASON_OOM,	 CM_REASON_KILLED,	CM_REASON_IMAGE_PULL,	 CM_REASON_CREATE,
	CM_REASON_START, CM_REASON_NETWORK, CM_REASON_INFRASTRUCTURE};

static const struct
{
	const char *word;
	int64_t ms;
} units[] = {{"ms", 1}, {"s", 1000}, {"min", 60 * 1000}, {"h", 3600 * 1000}};

bool
cm_mock_parse_duration(const char *text, int64_t *ms)
{
	int64_t number = 0;
	size_t n_digits = 0;

	for (; cm_chars_is_digit(text[n_digits]); n_digits++)
	{
		if (number <= CM_MOCK_MAX_DELAY_MS)
			number = number * 10 + (text[n_digits] - '0');
	}
	if (n_digits == 0)
		return false;
	text += n_digits;
	if (*text == ' ')
		text++;
	else if (*text == '\0' && number == 0)
	{
		*ms = 0;
		return true;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (strcmp(text, units[i].word) != 0 || number > CM_MOCK_MAX_DELAY_MS / units[i].ms)
			continue;
		*ms = number * units[i].ms;
		return true;
	}
	return false;
}

bool
cm_mock_parse_failure(const char *word, CmReason *reason)
{
	for (int i = 0; i < CM_MOCK_N_FAILURES; i++)
	{
		if (strcmp(word, cm_lifecycle_reason_word(failures[i])) != 0)
			continue;
		*reason = failures[i];
		return true;
	}
	return false;
}

bool
cm_mock_parse_address(const char *connection_string, const char **seed)
{
	size_t length = strlen(CM_MOCK_SCHEME);

	if (strncmp(connection_string, CM_MOCK_SCHEME, length) != 0 ||
		!cm_policy_is_plain_name(connection_string + length))
		return false;
	*seed = connection_string + length;
	return true;
}

/* --- rules --- */

/*
 * Each piece between two stars is taken at the first place where it stands: a
 * later one would leave less for the rest.  strstr() is linear, so that no text
 * makes this slow.
 */
bool
cm_mock_matches(const char *pattern, const char *text)
{
	size_t length = strcspn(pattern, "*");

	if (strncmp(pattern, text, length) != 0)
		return false;
	pattern += length;
	text += length;
	while (*pattern == '*')
	{
		char piece[CM_MOCK_MAX_PATTERN_BYTES + 1];

		length = strcspn(++pattern, "*");
		if (length >= sizeof(piece))
			return false;
		memcpy(piece, pattern, length);
		piece[length] = '\0';
		pattern += length;
		if (*pattern == '\0')
			return strlen(text) >= length && strcmp(text + strlen(text) - length, piece) == 0;
		text = strstr(text, piece);
		if (text == NULL)
			return false;
		text += length;
	}
	return *text == '\0';
}

static bool
is_match(const char *pattern, const char *text)
{
	return pattern == NULL || cm_mock_matches(pattern, text != NULL ? text : "");
}

static bool
has_label(const CmJobSpec *spec, const CmPair *wanted)
{
	for (int i = 0; i < spec->n_labels; i++)
	{
		if (strcmp(spec->labels[i].name, wanted->name) == 0)
			return cm_mock_matches(wanted->value, spec->labels[i].value);
	}
	return false;
}

static bool
counts_for(const CmMockRule *rule, const CmJobSpec *spec, const char *command)
{
	if (!is_match(rule->name, spec->name) ||
		!is_match(rule->namespace_name, spec->namespace_name) ||
		!is_match(rule->image, spec->image) || !is_match(rule->command, command))
		return false;
	if (rule->attempt != 0 && rule->attempt != spec->attempt)
		return false;
	for (int i = 0; i < rule->n_labels; i++)
	{
		if (!has_label(spec, &rule->labels[i]))
			return false;
	}
	return true;
}

static const CmMockActs *
find_special(const CmMockScript *script, const CmJobSpec *spec, const char *command)
{
	for (int i = 0; i < script->n_rules; i++)
	{
		if (counts_for(&script->rules[i], spec, command))
			return &script->rules[i].acts;
	}
	return &script->acts;
}

/* --- chance --- */

static int64_t
draw_span(const CmMockSpan *span, double luck)
{
	int64_t ms = span->min_ms + (int64_t) (luck * (double) (span->max_ms - span->min_ms + 1));

	return ms < span->max_ms ? ms : span->max_ms;
}

static double
sum_shares(const CmMockShare *shares, int n)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += shares[i].share;
	return sum;
}

/* At that point of all shares, laid end to end; beyond them: the fallback. */
static int
draw_share(const CmMockShare *shares, int n, double point, int fallback)
{
	for (int i = 0; i < n; i++)
	{
		if (point < shares[i].share)
			return shares[i].outcome;
		point -= shares[i].share;
	}
	return fallback;
}

static int
draw_exit_code(const CmMockActs *acts, double luck)
{
	const CmMockShare *codes = acts->codes;
	int last = 0;

	/* Rounding may lead beyond the last one that can come at all. */
	for (int i = 0; i < acts->n_codes; i++)
	{
		if (codes[i].share > 0)
			last = codes[i].outcome;
	}
	return draw_share(codes, acts->n_codes, luck * sum_shares(codes, acts->n_codes), last);
}

void
cm_mock_decide(const CmMockScript *script, const CmJobSpec *spec, const char *command,
			   const CmMockLuck *luck, CmMockFate *fate)
{
	const CmMockActs *all = &script->acts;
	const CmMockActs *own = find_special(script, spec, command);
	const CmMockActs *failing = own->has_failures ? own : all;

	fate->launch_ms = draw_span(own->has_launch_delay ? &own->launch_delay : &all->launch_delay,
								luck->launch_delay);
	fate->run_ms = draw_span(own->has_delay ? &own->delay : &all->delay, luck->delay);
	fate->exit_code = draw_exit_code(own->has_codes ? own : all, luck->exit_code);
	fate->failure = (CmReason) draw_share(failing->failures, failing->n_failures, luck->failure,
										  CM_REASON_NONE);
	if (fate->failure == CM_REASON_OOM || fate->failure == CM_REASON_KILLED)
		fate->exit_code = EXIT_SIGKILL;
	fate->on_term = EXIT_SIGTERM;
	if (own->has_on_term || all->has_on_term)
		fate->on_term = own->has_on_term ? own->on_term : all->on_term;
	for (int i = 0; i < 2; i++)
	{
		const char *text = own->output[i] != NULL ? own->output[i] : all->output[i];

		fate->output[i] = text != NULL ? text : "";
	}
}
