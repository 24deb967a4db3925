/*
 * envtext.c
 *		Parses the text of an environment template.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "envtext.h"
#include "placeholder.h"
#include "policy.h"

#define MAX_SHOWN_BYTES 64

static int refuse(CmEnvTextProblem *problem, int line, const char *hint, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* Always -1. */
static int
refuse(CmEnvTextProblem *problem, int line, const char *hint, const char *format, ...)
{
	va_list args;

	problem->line = line;
	va_start(args, format);
	vsnprintf(problem->message, sizeof(problem->message), format, args);
	va_end(args);
	snprintf(problem->hint, sizeof(problem->hint), "%s", hint);
	return -1;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The beginning of names that the key has, or NULL. */
static const char *
find_reserved_prefix(const CmEnvVariable *variable)
{
	static const char *const prefixes[] = {CM_RESERVED_PREFIX, CM_PARAMETER_PREFIX};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
	{
		size_t n_prefix = strlen(prefixes[i]);

		if (variable->n_name >= n_prefix && memcmp(variable->name, prefixes[i], n_prefix) == 0)
			return prefixes[i];
	}
	return NULL;
}

static int
refuse_key(const char *line, size_t n_line, int number, CmEnvTextProblem *problem)
{
	static const char *const form = "Write KEY=VALUE, or # before a comment.";
	static const char *const key_form =
		"A key has letters, digits and \"_\", and does not begin with a digit; there is no blank "
		"before the =.";

	if (memchr(line, '=', n_line) == NULL)
		return refuse(problem, number, form, "line %d has no =", number);
	if (line[0] == '=')
		return refuse(problem, number, form, "line %d has no key before the =", number);
	if (n_line > 7 && memcmp(line, "export", 6) == 0 && is_blank(line[6]))
		return refuse(problem, number, "The text is not read by a shell: leave \"export\" out.",
					  "line %d begins with \"export\"", number);
	return refuse(problem, number, key_form, "line %d has a key that is not valid", number);
}

/* A line without its end, which is neither blank nor a comment. */
static int
read_variable(const char *line, size_t n_line, int number, CmEnvVariable *variable,
			  CmEnvTextProblem *problem)
{
	const char *equals = memchr(line, '=', n_line);
	const char *reserved;

	if (equals == NULL || equals == line ||
		cm_chars_count_name(line, equals - line) < (size_t) (equals - line))
		return refuse_key(line, n_line, number, problem);
	variable->name = line;
	variable->n_name = equals - line;
	variable->value = equals + 1;
	variable->n_value = n_line - variable->n_name - 1;
	variable->line = number;
	if (memchr(variable->value, '\r', variable->n_value) != NULL)
		return refuse(problem, number, "Lines end with a line feed, or both.",
					  "line %d has a carriage return within it", number);
	reserved = find_reserved_prefix(variable);
	if (reserved != NULL)
		return refuse(problem, number,
					  "Such names tell a job about itself or its parameters; choose another.",
					  "line %d has a key that begins with %s", number, reserved);
	return 1;
}

static const CmEnvVariable *
find_earlier(const CmEnvVariable *variables, int n, const CmEnvVariable *variable)
{
	for (int i = 0; i < n; i++)
	{
		if (variables[i].n_name == variable->n_name &&
			memcmp(variables[i].name, variable->name, variable->n_name) == 0)
			return &variables[i];
	}
	return NULL;
}

static int
refuse_twice(const CmEnvVariable *variable, const CmEnvVariable *earlier, CmEnvTextProblem *problem)
{
	int n_shown = variable->n_name > MAX_SHOWN_BYTES ? MAX_SHOWN_BYTES : (int) variable->n_name;

	return refuse(problem, variable->line, "Keep one of the lines.",
				  "line %d has key \"%.*s\" again, which line %d has", variable->line, n_shown,
				  variable->name, earlier->line);
}

int
cm_envtext_parse(const char *text, CmEnvVariable *variables, CmEnvTextProblem *problem)
{
	int n = 0;

	if (strnlen(text, CM_ENVTEXT_MAX_BYTES + 1) > CM_ENVTEXT_MAX_BYTES)
		return refuse(problem, 0, "Use several templates.", "it is longer than %d bytes",
					  CM_ENVTEXT_MAX_BYTES);
	for (int number = 1; *text != '\0'; number++)
	{
		size_t n_line = strcspn(text, "\n");
		const char *next = text + n_line + (text[n_line] == '\n' ? 1 : 0);
		const CmEnvVariable *earlier;

		if (n_line > 0 && text[n_line - 1] == '\r')
			n_line--;
		while (n_line > 0 && is_blank(*text))
		{
			text++;
			n_line--;
		}
		if (n_line > 0 && *text != '#')
		{
			CmEnvVariable variable;

			if (read_variable(text, n_line, number, &variable, problem) < 0)
				return -1;
			if ((earlier = find_earlier(variables, n, &variable)) != NULL)
				return refuse_twice(&variable, earlier, problem);
			if (n == CM_ENVTEXT_MAX_VARIABLES)
				return refuse(problem, number, "Use several templates.",
							  "line %d has variable number %d, more than the %d allowed", number,
							  n + 1, CM_ENVTEXT_MAX_VARIABLES);
			variables[n++] = variable;
		}
		text = next;
	}
	return n;
}
