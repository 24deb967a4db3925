/*
 * placeholder.c
 *		{{name}} in the texts of a template, and where it may stand.
 *
 * What is known of a shell's syntax here is for the writer of a template, who is
 * told at once that a placeholder in quotes would not do what it looks like.  That
 * a value is one word does not rest on it, but that a word is not taken for an
 * expression does: some shells run the commands that they find in a subscript there.
 */
#include "placeholder.h"

#include <string.h>

#include "chars.h"

void
cm_placeholder_begin(CmPlaceholderScan *scan, const char *text, bool is_shell)
{
	memset(scan, 0, sizeof(*scan));
	scan->at = text;
	scan->is_shell = is_shell;
	scan->before = '\n';
}

/* Behind it, a word begins. */
static bool
ends_word(char c)
{
	return c != '\0' && strchr(" \t\n;&|()", c) != NULL;
}

/* Brackets in quotes are none for what was opened without, and the other way round. */
static void
count_depth(CmPlaceholderDepth *depth, int n_opens, char c, char closing, bool is_quoted)
{
	if (depth->n == 0)
	{
		depth->n = c == closing ? 0 : n_opens;
		depth->is_quoted = is_quoted;
	}
	else if (depth->is_quoted == is_quoted)
		depth->n += c == closing ? -1 : 1;
}

/*
 * Expressions: $(( )) and (( )), $[ ] and [[ ]] and subscripts, those in a list a=( )
 * as well, ${ }.  In double quotes, only what a $ begins is one.
 */
static void
pass_expression_char(CmPlaceholderScan *scan, char c)
{
	bool is_quoted = scan->quote != 0;
	char before = scan->before;
	bool is_word = scan->lists.n > 0 || before == '[' || before == '_' || cm_chars_is_alnum(before);

	if (c == '(' || c == ')')
	{
		bool is_second = before == '(' && (!is_quoted || scan->before_that == '$');

		count_depth(&scan->parens, is_second ? 2 : 0, c, ')', is_quoted);
		count_depth(&scan->lists, !is_quoted && before == '=', c, ')', is_quoted);
	}
	else if (c == '[' || c == ']')
		count_depth(&scan->brackets, before == '$' || (!is_quoted && is_word), c, ']', is_quoted);
	else if (c == '{' || c == '}')
		count_depth(&scan->braces, before == '$', c, '}', is_quoted);
}

/* One character of a shell's text; quotes in comments open nothing. */
static void
pass_shell_char(CmPlaceholderScan *scan, char c)
{
	if (scan->is_escaped)
		scan->is_escaped = false;
	else if (scan->is_comment)
		scan->is_comment = c != '\n';
	else if (scan->quote != 0)
	{
		scan->is_escaped = c == '\\' && scan->quote == '"';
		if (c == scan->quote)
			scan->quote = 0;
	}
	else if (c == '\\')
		scan->is_escaped = true;
	else if (c == '\'' || c == '"')
		scan->quote = c;
	else if (c == '#')
		scan->is_comment = ends_word(scan->before);
	else if (c == '<')
		scan->is_behind_here |= scan->before == '<';
}

/* A backslash and a newline are nothing to a shell: what is around them is together. */
static bool
joins_lines(const CmPlaceholderScan *scan)
{
	return scan->is_shell && !scan->is_escaped && !scan->is_comment && scan->quote != '\'' &&
		   strncmp(scan->at, "\\\n", 2) == 0;
}

static void
pass_char(CmPlaceholderScan *scan)
{
	char c;

	if (joins_lines(scan))
	{
		scan->at += 2;
		return;
	}
	c = *scan->at++;
	if (scan->is_shell && !scan->is_escaped && !scan->is_comment && scan->quote != '\'')
		pass_expression_char(scan, c);
	if (scan->is_shell)
		pass_shell_char(scan, c);
	scan->before_that = scan->before;
	scan->before = c;
}

bool
cm_placeholder_is_name(const char *name, size_t n_name)
{
	return n_name > 0 && n_name <= CM_MAX_PARAMETER_BYTES &&
		   cm_chars_count_name(name, n_name) == n_name;
}

static CmPlaceholderKind
judge_place(const CmPlaceholderScan *scan)
{
	if (!scan->is_shell)
		return CM_PLACEHOLDER_FOUND;
	if (scan->is_behind_here)
		return CM_PLACEHOLDER_BEHIND_HERE;
	if (scan->quote != 0 || scan->is_escaped || scan->before == '$')
		return CM_PLACEHOLDER_QUOTED;
	if (scan->parens.n + scan->brackets.n + scan->braces.n > 0)
		return CM_PLACEHOLDER_IN_EXPRESSION;
	return CM_PLACEHOLDER_FOUND;
}

/* The text is at "{{". */
static void
take_placeholder(CmPlaceholderScan *scan, CmPlaceholder *found)
{
	const char *text = scan->at + 2;

	text += strspn(text, " \t");
	found->name = text;
	found->n_name = cm_chars_count_name(text, CM_MAX_PARAMETER_BYTES + 1);
	text += found->n_name;
	text += strspn(text, " \t");
	if (!cm_placeholder_is_name(found->name, found->n_name) || strncmp(text, "}}", 2) != 0)
	{
		found->kind = CM_PLACEHOLDER_MALFORMED;
		return;
	}
	found->kind = judge_place(scan);
	scan->at = text + 2;
	scan->before = '}';
}

CmPlaceholder
cm_placeholder_next(CmPlaceholderScan *scan)
{
	CmPlaceholder found = {CM_PLACEHOLDER_END, scan->at, 0, NULL, 0};

	while (*scan->at != '\0' && strncmp(scan->at, "{{", 2) != 0)
		pass_char(scan);
	found.n_literal = (size_t) (scan->at - found.literal);
	if (*scan->at != '\0')
		take_placeholder(scan, &found);
	return found;
}

/* --- scripts among words --- */

/* By the end of a path, as they are called: /bin/sh, bash, su. */
static bool
is_shell(const char *word)
{
	static const char *const shells[] = {"sh",	"ash", "bash", "dash", "ksh",	  "mksh",
										 "zsh", "csh", "tcsh", "su",   "runuser", "fish"};
	const char *slash = strrchr(word, '/');
	const char *name = slash != NULL ? slash + 1 : word;

	for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
	{
		if (strcmp(name, shells[i]) == 0)
			return true;
	}
	return false;
}

/* -c, and what has it among other letters, as -ec. */
static bool
takes_script(const char *word)
{
	size_t n = 1;

	if (strcmp(word, "--command") == 0)
		return true;
	if (word[0] != '-')
		return false;
	while (cm_chars_is_alpha(word[n]))
		n++;
	return word[n] == '\0' && strchr(word, 'c') != NULL;
}

int
cm_placeholder_find_script(const char *const *words, int n_words)
{
	bool is_behind_shell = false;
	bool wants_script = false;

	for (int i = 0; i < n_words; i++)
	{
		if (wants_script && words[i][0] != '-')
			return i;
		if (is_behind_shell && takes_script(words[i]))
			wants_script = true;
		is_behind_shell |= is_shell(words[i]);
	}
	return -1;
}
