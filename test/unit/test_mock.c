/*
 * test_mock.c
 *		What a script makes of jobs: patterns, times, rules and chance.
 */
#include "mock.h"
#include "tap.h"

static const struct
{
	const char *pattern;
	const char *text;
	bool matches;
} match_rows[] = {
	{"", "", true},
	{"", "a", false},
	{"a", "a", true},
	{"a", "ab", false},
	{"ab", "a", false},
	{"*", "", true},
	{"*", "anything\nat all", true},
	{"**", "", true},
	{"*fail*", "please fail now", true},
	{"*fail*", "fail", true},
	{"*fail*", "fai l", false},
	{"fail*", "fail now", true},
	{"fail*", "do not fail", false},
	{"*fail", "do not fail", true},
	{"*fail", "failed", false},
	{"*fail", "fail fail", true},
	{"a*b*c", "abc", true},
	{"a*b*c", "aXbYc", true},
	{"a*b*c", "acb", false},
	{"a*a", "a", false},
	{"a*a", "aa", true},
	{"*ab*ab", "ab", false},
	{"*ab*ab", "abab", true},
	{"*aab", "aaab", true},
	{"a?c", "abc", false},
	{"a.c", "abc", false},
	{"[a]", "a", false},
	{"%", "abc", false},
};

static void
test_matches(void)
{
	for (size_t i = 0; i < lengthof(match_rows); i++)
		is_int(cm_mock_matches(match_rows[i].pattern, match_rows[i].text), match_rows[i].matches,
			   "\"%s\" and \"%s\"", match_rows[i].pattern, match_rows[i].text);
}

static const struct
{
	const char *text;
	int64_t ms; /* -1: refused */
} duration_rows[] = {
	{"0", 0},
	{"00", 0},
	{"0 ms", 0},
	{"1 ms", 1},
	{"100ms", 100},
	{"2 s", 2000},
	{"5 min", 300000},
	{"24 h", CM_MOCK_MAX_DELAY_MS},
	{"1440min", CM_MOCK_MAX_DELAY_MS},
	{"25 h", -1},
	{"86400001 ms", -1},
	{"99999999999999999999999 ms", -1},
	{"", -1},
	{" ", -1},
	{"ms", -1},
	{"1", -1},
	{"1  s", -1},
	{"1 s ", -1},
	{" 1 s", -1},
	{"-1 s", -1},
	{"1.5 s", -1},
	{"1 S", -1},
	{"1 day", -1},
	{"0 ", -1},
};

static void
test_durations(void)
{
	for (size_t i = 0; i < lengthof(duration_rows); i++)
	{
		int64_t ms = -1;
		bool is_good = cm_mock_parse_duration(duration_rows[i].text, &ms);

		is_int(is_good ? ms : -1, duration_rows[i].ms, "\"%s\"", duration_rows[i].text);
	}
}

static void
test_failures(void)
{
	CmReason reason = CM_REASON_NONE;

	ok(cm_mock_parse_failure("image_pull", &reason), "image_pull can be scripted");
	is_int(reason, CM_REASON_IMAGE_PULL, "and is what it says");
	ok(cm_mock_parse_failure("infrastructure", &reason), "infrastructure can be scripted");
	ok(!cm_mock_parse_failure("exit_code", &reason), "exit_code is no failure of this kind");
	ok(!cm_mock_parse_failure("timeout", &reason), "nor is timeout");
	ok(!cm_mock_parse_failure("oo", &reason), "nor is part of a word");
	ok(!cm_mock_parse_failure("", &reason), "nor is nothing");
}

static void
test_addresses(void)
{
	const char *seed = NULL;

	ok(cm_mock_parse_address("mock://one", &seed), "mock://one");
	is_str(seed, "one", "its seed");
	ok(!cm_mock_parse_address("mock://", &seed), "no name");
	ok(!cm_mock_parse_address("mock:one", &seed), "no slashes");
	ok(!cm_mock_parse_address("mock://a/b", &seed), "a path");
	ok(!cm_mock_parse_address("MOCK://a", &seed), "upper case");
	ok(!cm_mock_parse_address("unix:///a", &seed), "another scheme");
}

static const CmMockLuck no_luck = {0, 0, 0, 0};

static CmMockFate
decide(const CmMockScript *script, const CmJobSpec *spec, const char *command, double luck)
{
	CmMockLuck all = {luck, luck, luck, luck};
	CmMockFate fate;

	cm_mock_decide(script, spec, command, &all, &fate);
	return fate;
}

static void
test_unsaid(void)
{
	CmMockScript script = {0};
	CmJobSpec spec = {.image = "a", .attempt = 1};
	CmMockFate fate;

	cm_mock_decide(&script, &spec, NULL, &no_luck, &fate);
	is_int(fate.failure, CM_REASON_NONE, "an empty script: no failure");
	is_int(fate.exit_code, 0, "exit code 0");
	is_int(fate.launch_ms, 0, "at once");
	is_int(fate.run_ms, 0, "and over at once");
	is_int(fate.on_term, 143, "it ends by SIGTERM");
	is_str(fate.output[0], "", "no stdout");
	is_str(fate.output[1], "", "no stderr");
}

static void
test_chance(void)
{
	CmMockScript script = {
		.acts = {.has_delay = true,
				 .delay = {10, 19},
				 .has_codes = true,
				 .n_codes = 4,
				 .codes = {{0, 6}, {1, 1}, {2, 1}, {9, 0}},
				 .has_failures = true,
				 .n_failures = 2,
				 .failures = {{CM_REASON_OOM, 0.125}, {CM_REASON_CREATE, 0.25}}}};
	CmJobSpec spec = {.image = "a", .attempt = 1};
	int n[3] = {0};
	int n_oom = 0;
	int n_create = 0;
	int64_t least = 1000;
	int64_t most = 0;

	for (int i = 0; i < 1024; i++)
	{
		CmMockLuck luck = {0, i / 1024.0, i / 1024.0, i / 1024.0};
		CmMockFate fate;

		cm_mock_decide(&script, &spec, NULL, &luck, &fate);
		least = fate.run_ms < least ? fate.run_ms : least;
		most = fate.run_ms > most ? fate.run_ms : most;
		n_oom += fate.failure == CM_REASON_OOM;
		n_create += fate.failure == CM_REASON_CREATE;
		if (fate.failure != CM_REASON_OOM && fate.exit_code < 3)
			n[fate.exit_code]++;
	}
	is_int(least, 10, "the shortest delay");
	is_int(most, 19, "the longest delay");
	is_int(n_oom, 128, "an eighth for want of memory");
	is_int(n_create, 256, "a quarter is not created");
	is_int(n[0], 640, "exit codes by their shares: 0");
	is_int(n[1], 128, "1");
	is_int(n[2], 128, "2, and never the one without a share");
	is_int(decide(&script, &spec, NULL, 0.05).exit_code, 137, "a kill gives 137");
	is_int(decide(&script, &spec, NULL, 0.9999999999999999).exit_code, 2,
		   "most luck: the last code");
	is_int(decide(&script, &spec, NULL, 0.9999999999999999).run_ms, 19, "and the last millisecond");
}

static void
test_rules(void)
{
	CmPair labels[] = {{"team", "blue"}, {"tier", "gold"}};
	CmMockRule rules[] = {
		{.command = "*fail*",
		 .acts = {.has_codes = true, .n_codes = 1, .codes = {{3, 1}}, .output = {"boom", NULL}}},
		{.command = "*fail*", .acts = {.has_codes = true, .n_codes = 1, .codes = {{4, 1}}}},
		{.attempt = 2, .acts = {.has_failures = true}},
		{.n_labels = 2,
		 .labels = {{"tier", "g*"}, {"team", "blue"}},
		 .acts = {.has_on_term = true, .on_term = CM_MOCK_IGNORES_TERM}},
		{.name = "n*",
		 .namespace_name = "ns",
		 .image = "i:*",
		 .acts = {.has_launch_delay = true, .launch_delay = {7, 7}}},
	};
	CmMockScript script = {.acts = {.has_failures = true,
									.n_failures = 1,
									.failures = {{CM_REASON_START, 1}},
									.has_on_term = true,
									.on_term = 5,
									.output = {NULL, "all"}},
						   .n_rules = lengthof(rules),
						   .rules = rules};
	CmJobSpec spec = {.image = "a", .attempt = 1};
	CmMockFate fate = decide(&script, &spec, "will fail", 0.5);

	is_int(fate.exit_code, 3, "the first rule that matches counts");
	is_str(fate.output[0], "boom", "with all that it says");
	is_str(fate.output[1], "all", "what it leaves unsaid is as for all");
	is_int(fate.failure, CM_REASON_START, "failures, too");
	is_int(fate.on_term, 5, "and SIGTERM");
	is_int(decide(&script, &spec, "", 0.5).exit_code, 0, "an empty command matches none");
	is_int(decide(&script, &spec, NULL, 0.5).exit_code, 0, "no command matches none");
	spec.attempt = 2;
	is_int(decide(&script, &spec, "x", 0.5).failure, CM_REASON_NONE,
		   "by attempt; none instead of all");
	spec.attempt = 1;
	spec.labels = labels;
	spec.n_labels = 1;
	is_int(decide(&script, &spec, "x", 0.5).on_term, 5, "one label of two is too few");
	spec.n_labels = 2;
	is_int(decide(&script, &spec, "x", 0.5).on_term, CM_MOCK_IGNORES_TERM, "by labels");
	spec.n_labels = 0;
	spec.name = "name";
	spec.namespace_name = "ns";
	is_int(decide(&script, &spec, "x", 0.5).launch_ms, 0, "all patterns must match");
	spec.image = "i:1";
	is_int(decide(&script, &spec, "x", 0.5).launch_ms, 7, "by name, namespace and image");
	spec.name = NULL;
	is_int(decide(&script, &spec, "x", 0.5).launch_ms, 0, "no name matches no name");
}

int
main(void)
{
	test_matches();
	test_durations();
	test_failures();
	test_addresses();
	test_unsaid();
	test_chance();
	test_rules();
	return tap_done();
}
