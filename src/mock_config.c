/*
 * mock_config.c
 *		Reads what a superuser wrote into executor_config.
 *
 * Whatever is there means something or is refused: a misspelt key that were
 * passed over would make a test of somebody's application test nothing.
 */
#include "postgres.h"

#include <math.h>

#include "chars.h"
#include "docker_json.h"
#include "mock_config.h"

#define MAX_SHOWN_BYTES 60
#define MAX_SHARE 1e9

typedef struct Reader
{
	const char *host;
	CmProblem *problem;
	char where[32]; /* "" or "rules[1]." */
} Reader;

typedef bool (*ReadActs)(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts);
typedef bool (*ReadMatch)(Reader *reader, const char *key, const CmJson *value, CmMockRule *rule);

/* Keys are shown as they were written, but for what is no text. */
static bool
refuse(Reader *reader, const char *key, const char *what, const char *detail, const char *hint)
{
	CmProblem *problem = reader->problem;
	char *shown = pnstrdup(key, cm_chars_cut(key, MAX_SHOWN_BYTES));

	for (char *c = shown; *c != '\0'; c++)
		memset(c, '?', cm_chars_control_length(c));
	strlcpy(problem->sqlstate, "22023", sizeof(problem->sqlstate));
	strlcpy(problem->column, "executor_config", sizeof(problem->column));
	snprintf(problem->message, sizeof(problem->message),
			 "executor_config of host \"%s\": \"%s%s\" %s", reader->host, reader->where, shown,
			 what);
	strlcpy(problem->detail, detail, sizeof(problem->detail));
	strlcpy(problem->hint, hint, sizeof(problem->hint));
	pfree(shown);
	return false;
}

/* --- what jobs do --- */

static bool
refuse_span(Reader *reader, const char *key)
{
	return refuse(reader, key, "is not a time",
				  "A time is written as \"100 ms\", \"2 s\", \"5 min\" or \"1 h\", up to 24 h.",
				  "Write one time, or an array of the shortest and the longest.");
}

static bool
read_time(const CmJson *value, int64_t *ms)
{
	const char *text = cm_json_string(value, NULL);

	return text != NULL && cm_mock_parse_duration(text, ms);
}

static bool
read_span(Reader *reader, const char *key, const CmJson *value, CmMockSpan *span)
{
	if (value->kind != CM_JSON_ARRAY)
	{
		if (!read_time(value, &span->min_ms))
			return refuse_span(reader, key);
		span->max_ms = span->min_ms;
		return true;
	}
	if (value->count != 2 || !read_time(value->items[0], &span->min_ms) ||
		!read_time(value->items[1], &span->max_ms) || span->min_ms > span->max_ms)
		return refuse_span(reader, key);
	return true;
}

static bool
read_launch_delay(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	acts->has_launch_delay = true;
	return read_span(reader, key, value, &acts->launch_delay);
}

static bool
read_delay(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	acts->has_delay = true;
	return read_span(reader, key, value, &acts->delay);
}

static bool
refuse_twice(Reader *reader, const char *key, const char *other)
{
	return refuse(reader, key, psprintf("stands beside \"%s\"", other), "Both say the same thing.",
				  "Leave one of them out.");
}

static bool
refuse_exit_code(Reader *reader, const char *key)
{
	return refuse(reader, key, "is not an exit code", "Exit codes are numbers from 0 to 255.",
				  "Write \"exit_code\": 1, or \"exit_codes\": {\"0\": 0.9, \"1\": 0.1}.");
}

static bool
read_exit_code(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	int64 code = cm_json_int(value, -1);

	if (acts->has_codes)
		return refuse_twice(reader, key, "exit_codes");
	if (code < 0 || code > 255)
		return refuse_exit_code(reader, key);
	acts->has_codes = true;
	acts->n_codes = 1;
	acts->codes[0].outcome = (int) code;
	acts->codes[0].share = 1;
	return true;
}

/* -1: it is none. */
static int
parse_exit_code(const char *text)
{
	int code = 0;

	if (*text == '\0' || strlen(text) > 3 || (text[0] == '0' && text[1] != '\0'))
		return -1;
	for (; *text != '\0'; text++)
	{
		if (!cm_chars_is_digit(*text))
			return -1;
		code = code * 10 + (*text - '0');
	}
	return code <= 255 ? code : -1;
}

/* false: not a number from 0 to max. */
static bool
read_share(const CmJson *value, double max, double *share)
{
	if (value->kind != CM_JSON_NUMBER)
		return false;
	*share = strtod(value->text, NULL);
	return isfinite(*share) && *share >= 0 && *share <= max;
}

static bool
read_exit_codes(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	static const char *const hint = "Write {\"0\": 0.9, \"1\": 0.1}, for instance.";
	double sum = 0;

	if (acts->has_codes)
		return refuse_twice(reader, key, "exit_code");
	if (value->kind != CM_JSON_OBJECT || value->count > CM_MOCK_MAX_CODES)
		return refuse(reader, key, "is not an object of exit codes and their shares",
					  "It has at most 32 of them.", hint);
	for (int i = 0; i < value->count; i++)
	{
		CmMockShare *share = &acts->codes[i];

		share->outcome = parse_exit_code(value->items[i]->name);
		if (share->outcome < 0)
			return refuse_exit_code(reader, psprintf("%s.%s", key, value->items[i]->name));
		if (!read_share(value->items[i], MAX_SHARE, &share->share))
			return refuse(reader, psprintf("%s.%d", key, share->outcome), "is not a share",
						  "Shares are numbers from 0 to 1000000000; they need not add up to 1.",
						  hint);
		sum += share->share;
	}
	if (sum <= 0)
		return refuse(reader, key, "leaves no exit code", "All shares are 0, or there is none.",
					  hint);
	acts->has_codes = true;
	acts->n_codes = value->count;
	return true;
}

static bool
refuse_failure(Reader *reader, const char *key)
{
	return refuse(
		reader, key, "is not a failure that can be scripted",
		"Those are oom, killed, image_pull, create, start, network and infrastructure.",
		"An exit code of the program's own goes into exit_code, a timeout follows from a long delay.");
}

static bool
read_failure(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	CmReason reason;

	if (acts->has_failures)
		return refuse_twice(reader, key, "failures");
	if (!cm_mock_parse_failure(cm_json_string(value, ""), &reason))
		return refuse_failure(reader, key);
	acts->has_failures = true;
	acts->n_failures = 1;
	acts->failures[0].outcome = reason;
	acts->failures[0].share = 1;
	return true;
}

static bool
read_failures(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	static const char *const hint = "Write {\"image_pull\": 0.05}, for instance, or {} for none.";
	double sum = 0;

	if (acts->has_failures)
		return refuse_twice(reader, key, "failure");
	if (value->kind != CM_JSON_OBJECT || value->count > CM_MOCK_N_FAILURES)
		return refuse(reader, key, "is not an object of failures and their probabilities",
					  "What is left up to 1 is the probability that there is none.", hint);
	for (int i = 0; i < value->count; i++)
	{
		const char *word = value->items[i]->name;
		CmReason reason;

		if (!cm_mock_parse_failure(word, &reason))
			return refuse_failure(reader, psprintf("%s.%s", key, word));
		acts->failures[i].outcome = reason;
		if (!read_share(value->items[i], 1, &acts->failures[i].share))
			return refuse(reader, psprintf("%s.%s", key, word), "is not a probability",
						  "Probabilities are numbers from 0 to 1.", hint);
		sum += acts->failures[i].share;
	}
	if (sum > 1 + 1e-9)
		return refuse(reader, key, "has probabilities that add up to more than 1",
					  "What is left up to 1 is the probability that there is none.", hint);
	acts->has_failures = true;
	acts->n_failures = value->count;
	return true;
}

static bool
read_on_term(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	int64 code = cm_json_int(value, -1);

	acts->has_on_term = true;
	acts->on_term = CM_MOCK_IGNORES_TERM;
	if (strcmp(cm_json_string(value, ""), "ignore") == 0)
		return true;
	acts->on_term = (int) code;
	if (code < 0 || code > 255)
		return refuse(
			reader, key, "is neither an exit code nor \"ignore\"",
			"It says how the program ends by SIGTERM: when it is cancelled, or its time is over.",
			"Write 143, for instance; \"ignore\" has it run on until SIGKILL.");
	return true;
}

static bool
read_output(Reader *reader, const char *key, const CmJson *value, CmMockActs *acts)
{
	const char *text = cm_json_string(value, NULL);

	if (text == NULL || strlen(text) > CM_MOCK_MAX_TEXT_BYTES)
		return refuse(
			reader, key, "is not a text of at most 65536 bytes",
			"It is what the job prints, all of it when it starts.",
			"Where {{job_id}}, {{attempt}}, {{name}}, {{image}} or {{command}} stands, the job's is printed.");
	acts->output[strcmp(key, "stderr") == 0 ? 1 : 0] = text;
	return true;
}

static const struct
{
	const char *key;
	ReadActs read;
} act_keys[] = {
	{"launch_delay", read_launch_delay}, {"delay", read_delay},		{"exit_code", read_exit_code},
	{"exit_codes", read_exit_codes},	 {"failure", read_failure}, {"failures", read_failures},
	{"on_term", read_on_term},			 {"stdout", read_output},	{"stderr", read_output},
};

static ReadActs
find_act_key(const char *key)
{
	for (int i = 0; i < lengthof(act_keys); i++)
	{
		if (strcmp(act_keys[i].key, key) == 0)
			return act_keys[i].read;
	}
	return NULL;
}

/* --- rules --- */

static const char *
read_pattern(const CmJson *value)
{
	const char *text = cm_json_string(value, NULL);

	return text != NULL && strlen(text) <= CM_MOCK_MAX_PATTERN_BYTES ? text : NULL;
}

static bool
refuse_pattern(Reader *reader, const char *key)
{
	return refuse(reader, key, "is not a pattern",
				  "A pattern is a text of at most 1024 bytes, in which * stands for any text.",
				  "Write *fail*, for instance.");
}

static bool
read_text_match(Reader *reader, const char *key, const CmJson *value, CmMockRule *rule)
{
	const char *pattern = read_pattern(value);

	if (pattern == NULL)
		return refuse_pattern(reader, key);
	if (strcmp(key, "name") == 0)
		rule->name = pattern;
	else if (strcmp(key, "namespace") == 0)
		rule->namespace_name = pattern;
	else if (strcmp(key, "image") == 0)
		rule->image = pattern;
	else
		rule->command = pattern;
	return true;
}

static bool
read_attempt_match(Reader *reader, const char *key, const CmJson *value, CmMockRule *rule)
{
	int64 attempt = cm_json_int(value, 0);

	if (attempt < 1 || attempt > CM_MAX_ATTEMPTS)
		return refuse(reader, key, "is not the number of an attempt",
					  "Attempts are counted from 1 to 1000.", "Write 1 for the first one.");
	rule->attempt = (int) attempt;
	return true;
}

static bool
read_label_match(Reader *reader, const char *key, const CmJson *value, CmMockRule *rule)
{
	if (value->kind != CM_JSON_OBJECT || value->count > CM_MOCK_MAX_LABELS)
		return refuse(reader, key, "is not an object of labels and patterns",
					  "It has at most 16 of them.", "Write {\"team\": \"blue\"}, for instance.");
	for (int i = 0; i < value->count; i++)
	{
		rule->labels[i].name = value->items[i]->name;
		rule->labels[i].value = read_pattern(value->items[i]);
		if (rule->labels[i].value == NULL)
			return refuse_pattern(reader, psprintf("%s.%s", key, value->items[i]->name));
	}
	rule->n_labels = value->count;
	return true;
}

static const struct
{
	const char *key;
	ReadMatch read;
} match_keys[] = {
	{"name", read_text_match},	  {"namespace", read_text_match},  {"image", read_text_match},
	{"command", read_text_match}, {"attempt", read_attempt_match}, {"labels", read_label_match},
};

static ReadMatch
find_match_key(const char *key)
{
	for (int i = 0; i < lengthof(match_keys); i++)
	{
		if (strcmp(match_keys[i].key, key) == 0)
			return match_keys[i].read;
	}
	return NULL;
}

#define ACT_WORDS \
	"launch_delay, delay, exit_code, exit_codes, failure, failures, on_term, stdout and stderr"

static bool
is_for_all(const CmMockRule *rule)
{
	return rule->name == NULL && rule->namespace_name == NULL && rule->image == NULL &&
		   rule->command == NULL && rule->attempt == 0 && rule->n_labels == 0;
}

static bool
read_rule(Reader *reader, const CmJson *json, CmMockRule *rule)
{
	for (int i = 0; i < json->count; i++)
	{
		const CmJson *value = json->items[i];
		ReadMatch read_match = find_match_key(value->name);
		ReadActs read_acts = find_act_key(value->name);

		if (read_match != NULL && !read_match(reader, value->name, value, rule))
			return false;
		if (read_acts != NULL && !read_acts(reader, value->name, value, &rule->acts))
			return false;
		if (read_match == NULL && read_acts == NULL)
			return refuse(
				reader, value->name, "is not known",
				"A rule says for which jobs it counts by name, namespace, image, command, "
				"attempt and labels, and what they do by " ACT_WORDS ".",
				"Correct its name, or leave it out.");
	}
	if (is_for_all(rule))
	{
		reader->where[strlen(reader->where) - 1] = '\0';
		return refuse(
			reader, "", "is a rule for all jobs",
			"A rule has at least one of name, namespace, image, command, attempt and labels.",
			"What all jobs do stands beside the rules.");
	}
	return true;
}

static bool
read_rules(Reader *reader, const CmJson *value, CmMockScript *script)
{
	CmMockRule *rules;

	if (value->kind != CM_JSON_ARRAY || value->count > CM_MOCK_MAX_RULES)
		return refuse(reader, "rules", "is not an array of rules", "It has at most 100 of them.",
					  "Write [{\"command\": \"*fail*\", \"exit_code\": 1}], for instance.");
	rules = palloc0(sizeof(CmMockRule) * Max(value->count, 1));
	for (int i = 0; i < value->count; i++)
	{
		snprintf(reader->where, sizeof(reader->where), "rules[%d]", i);
		if (value->items[i]->kind != CM_JSON_OBJECT)
			return refuse(reader, "", "is not a rule", "It is no object.",
						  "Write {\"command\": \"*fail*\", \"exit_code\": 1}, for instance.");
		strlcat(reader->where, ".", sizeof(reader->where));
		if (!read_rule(reader, value->items[i], &rules[i]))
			return false;
	}
	reader->where[0] = '\0';
	script->rules = rules;
	script->n_rules = value->count;
	return true;
}

/* --- the whole --- */

static bool
read_key(Reader *reader, const CmJson *value, CmMockScript *script)
{
	ReadActs read_acts = find_act_key(value->name);

	if (read_acts != NULL)
		return read_acts(reader, value->name, value, &script->acts);
	if (strcmp(value->name, "rules") == 0)
		return read_rules(reader, value, script);
	if (strcmp(value->name, "unreachable") != 0)
		return refuse(
			reader, value->name, "is not known",
			"The keys are " ACT_WORDS "; rules and unreachable.",
			"Correct its name, or leave it out. What concerns some jobs only goes into a rule.");
	if (value->kind != CM_JSON_BOOL)
		return refuse(reader, value->name, "is not true or false",
					  "While it is true, the host is as if it did not answer.",
					  "Write true, or leave it out.");
	script->is_unreachable = cm_json_bool(value, false);
	return true;
}

static bool
refuse_whole(Reader *reader, const char *what, const char *detail, const char *hint)
{
	CmProblem *problem = reader->problem;

	strlcpy(problem->sqlstate, "22023", sizeof(problem->sqlstate));
	strlcpy(problem->column, "executor_config", sizeof(problem->column));
	snprintf(problem->message, sizeof(problem->message), "executor_config of host \"%s\" %s",
			 reader->host, what);
	strlcpy(problem->detail, detail, sizeof(problem->detail));
	strlcpy(problem->hint, hint, sizeof(problem->hint));
	return false;
}

bool
cm_mock_config_read(const char *host, const char *json, CmMockScript *script, CmProblem *problem)
{
	Reader reader = {host, problem, ""};
	const char *error;
	CmJson *config;

	memset(script, 0, sizeof(*script));
	if (strlen(json) > CM_MOCK_MAX_CONFIG_BYTES)
		return refuse_whole(&reader, "is longer than 1 MB",
							"It is read again whenever a host changes.",
							"Give fewer rules, or shorter texts.");
	config = cm_json_parse(json, strlen(json), &error);
	if (config == NULL)
		return refuse_whole(&reader, psprintf("cannot be read: %s", error), "", "");
	if (config->kind != CM_JSON_OBJECT)
		return refuse_whole(&reader, "is not a JSON object", "",
							"Write {} for a script that says nothing.");
	for (int i = 0; i < config->count; i++)
	{
		if (!read_key(&reader, config->items[i], script))
			return false;
	}
	return true;
}
