/*
 * test_envtext.c
 *		Texts of environment templates: what is a variable, and every refusal.
 */
#include <stdlib.h>

#include "envtext.h"
#include "tap.h"

static CmEnvVariable variables[CM_ENVTEXT_MAX_VARIABLES];

/* "name=value|name=value|", as they were read. */
static const struct
{
	const char *text;
	const char *read;
} good[] = {
	{"", ""},
	{"\n\n", ""},
	{"# a comment\n  # another\n\t\n \r\n", ""},
	{"A=1", "A=1|"},
	{"A=1\nB=2\n", "A=1|B=2|"},
	{"A=1\r\nB=2\r\n", "A=1|B=2|"},
	{"A=1\r\nB=2\r", "A=1|B=2|"},
	{"  A=1\n\tB=2", "A=1|B=2|"},
	{"A=", "A=|"},
	{"A==", "A==|"},
	{"URL=postgres://u:p@h/d?a=b&c=d", "URL=postgres://u:p@h/d?a=b&c=d|"},
	{"A= b c ", "A= b c |"},
	{"A=\"quoted\"\nB='x'", "A=\"quoted\"|B='x'|"},
	{"A=b # not a comment", "A=b # not a comment|"},
	{"_=1\n_a9=2\nabc=3\nABC=4", "_=1|_a9=2|abc=3|ABC=4|"},
	{"A=$B `c` ${D}", "A=$B `c` ${D}|"},
	{"A=\xc3\xb6", "A=\xc3\xb6|"},
	{"CONTAINER_MANAGE=1\ncontainer_manager_x=2", "CONTAINER_MANAGE=1|container_manager_x=2|"},
};

static const struct
{
	const char *text;
	int line;
	const char *message;
} bad[] = {
	{"A", 1, "line 1 has no ="},
	{"A=1\n\n# c\nB 2\n", 4, "line 4 has no ="},
	{"=1", 1, "line 1 has no key before the ="},
	{"A=1\n =1", 2, "line 2 has no key before the ="},
	{"A =1", 1, "line 1 has a key that is not valid"},
	{"1A=1", 1, "line 1 has a key that is not valid"},
	{"A-B=1", 1, "line 1 has a key that is not valid"},
	{"A\xc3\xb6=1", 1, "line 1 has a key that is not valid"},
	{"A\x01=1", 1, "line 1 has a key that is not valid"},
	{"export A=1", 1, "line 1 begins with \"export\""},
	{"A=1\rB=2", 1, "line 1 has a carriage return within it"},
	{"A=1\r\r\n", 1, "line 1 has a carriage return within it"},
	{"A=1\nB=2\nA=3", 3, "line 3 has key \"A\" again, which line 1 has"},
	{"X=\nCONTAINER_MANAGER_JOB=1", 2, "line 2 has a key that begins with CONTAINER_MANAGER_"},
	{"CONTAINER_MANAGER_=1", 1, "line 1 has a key that begins with CONTAINER_MANAGER_"},
	{"CM_PARAM_x=1", 1, "line 1 has a key that begins with CM_PARAM_"},
};

static void
print_read(int n, char *out)
{
	out[0] = '\0';
	for (int i = 0; i < n; i++)
		sprintf(out + strlen(out), "%.*s=%.*s|", (int) variables[i].n_name, variables[i].name,
				(int) variables[i].n_value, variables[i].value);
}

/* In memory of its own size, so that a look beyond it is seen. */
static char *
copy_exactly(const char *text)
{
	char *copy = malloc(strlen(text) + 1);

	strcpy(copy, text);
	return copy;
}

static void
test_good(void)
{
	for (size_t i = 0; i < lengthof(good); i++)
	{
		CmEnvTextProblem problem;
		char *text = copy_exactly(good[i].text);
		char read[512];

		print_read(cm_envtext_parse(text, variables, &problem), read);
		is_str(read, good[i].read, "read: %s", good[i].text);
		free(text);
	}
}

static void
test_bad(void)
{
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		CmEnvTextProblem problem;
		char *text = copy_exactly(bad[i].text);

		is_int(cm_envtext_parse(text, variables, &problem), -1, "refused: %s", bad[i].text);
		is_str(problem.message, bad[i].message, "message");
		is_int(problem.line, bad[i].line, "line");
		ok(problem.hint[0] != '\0', "hint");
		free(text);
	}
}

static void
test_lines(void)
{
	CmEnvTextProblem problem;

	is_int(cm_envtext_parse("# c\n\nA=1\r\n\nB=2", variables, &problem), 2, "two variables");
	is_int(variables[0].line, 3, "the first one's line");
	is_int(variables[1].line, 5, "the second one's");
}

/* As many as there is room for, and one more. */
static void
test_bounds(void)
{
	CmEnvTextProblem problem;
	char *text = malloc(CM_ENVTEXT_MAX_BYTES + 2);
	size_t n = 0;

	for (int i = 0; i < CM_ENVTEXT_MAX_VARIABLES; i++)
		n += sprintf(text + n, "V%d=\n", i);
	is_int(cm_envtext_parse(text, variables, &problem), CM_ENVTEXT_MAX_VARIABLES, "most");
	strcpy(text + n, "W=");
	is_int(cm_envtext_parse(text, variables, &problem), -1, "one more");
	is_int(problem.line, CM_ENVTEXT_MAX_VARIABLES + 1, "in its line");

	memset(text, 'x', CM_ENVTEXT_MAX_BYTES + 1);
	memcpy(text, "A=", 2);
	text[CM_ENVTEXT_MAX_BYTES] = '\0';
	is_int(cm_envtext_parse(text, variables, &problem), 1, "longest");
	is_int((int) variables[0].n_value, CM_ENVTEXT_MAX_BYTES - 2, "whole");
	text[CM_ENVTEXT_MAX_BYTES] = 'x';
	text[CM_ENVTEXT_MAX_BYTES + 1] = '\0';
	is_int(cm_envtext_parse(text, variables, &problem), -1, "longer");
	is_int(problem.line, 0, "as a whole");
	free(text);
}

int
main(void)
{
	test_good();
	test_bad();
	test_lines();
	test_bounds();
	return tap_done();
}
