/*
 * fuzz_envtext.c
 *		Texts of environment templates: what is read lies in the text, and
 *		written again as lines is read the same; a refusal names a line of it.
 */
#include "envtext.h"
#include "fuzz.h"

static CmEnvVariable first[CM_ENVTEXT_MAX_VARIABLES];
static CmEnvVariable second[CM_ENVTEXT_MAX_VARIABLES];

static int
count_lines(const char *text)
{
	int n = 1;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void
check_variables(const char *text, int n)
{
	const char *end = text + strlen(text);
	char *again = malloc(strlen(text) + 2);
	CmEnvTextProblem problem;
	size_t n_again = 0;

	REQUIRE(again != NULL);
	for (int i = 0; i < n; i++)
	{
		const CmEnvVariable *variable = &first[i];

		REQUIRE(variable->name >= text && variable->n_name > 0);
		REQUIRE(variable->value == variable->name + variable->n_name + 1);
		REQUIRE(variable->value + variable->n_value <= end);
		REQUIRE(memchr(variable->value, '\n', variable->n_value) == NULL);
		memcpy(again + n_again, variable->name, variable->n_name + 1 + variable->n_value);
		n_again += variable->n_name + 1 + variable->n_value;
		again[n_again++] = '\n';
	}
	again[n_again] = '\0';
	if (n_again <= CM_ENVTEXT_MAX_BYTES)
	{
		REQUIRE(cm_envtext_parse(again, second, &problem) == n);
		for (int i = 0; i < n; i++)
			REQUIRE(second[i].n_name == first[i].n_name && second[i].n_value == first[i].n_value &&
					memcmp(second[i].name, first[i].name, first[i].n_name + 1 + first[i].n_value) ==
						0);
	}
	free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *text = fuzz_make_string(data, n_bytes);
	CmEnvTextProblem problem;
	int n = cm_envtext_parse(text, first, &problem);

	if (n >= 0)
		check_variables(text, n);
	else
		REQUIRE(fuzz_is_line(problem.message) && fuzz_is_line(problem.hint) && problem.line >= 0 &&
				problem.line <= count_lines(text));
	free(text);
	return 0;
}
