/*
 * placeholder.h
 *		{{name}} in the texts of a template, and where it may stand.
 *
 * Floor 0: pure.  A name is [A-Za-z_][A-Za-z0-9_]*, of 63 bytes at most, and may
 * have blanks around it.  What is put in a placeholder's place is not looked at
 * again: "{{" in a value is just that.
 *
 * In a text for a shell the value is never put at all, but "$CM_PARAM_name", with
 * its quotes: a variable that has the value.  A shell does not parse what a
 * variable expands to, so that no value can become anything but one word; and it
 * may not stand where a word is evaluated.
 */
#ifndef CM_PLACEHOLDER_H
#define CM_PLACEHOLDER_H

#include <stdbool.h>
#include <stddef.h>

#define CM_PARAMETER_PREFIX "CM_PARAM_"
#define CM_MAX_PARAMETER_BYTES 63

typedef enum CmPlaceholderKind
{
	CM_PLACEHOLDER_END, /* there is none any more; literal is the rest */
	CM_PLACEHOLDER_FOUND,
	CM_PLACEHOLDER_MALFORMED,	 /* "{{" without a name and "}}" */
	CM_PLACEHOLDER_QUOTED,		 /* for a shell: in quotes, or behind "\" or "$" */
	CM_PLACEHOLDER_BEHIND_HERE,	 /* for a shell: behind "<<", perhaps in a here-document */
	CM_PLACEHOLDER_IN_EXPRESSION /* for a shell: as in $(( )), [[ ]], a[ ], ${ } */
} CmPlaceholderKind;

typedef struct CmPlaceholder
{
	CmPlaceholderKind kind;
	const char *literal; /* what stands before it */
	size_t n_literal;
	const char *name; /* unless MALFORMED or END: not terminated */
	size_t n_name;
} CmPlaceholder;

/* How deep it is in brackets of a kind. */
typedef struct CmPlaceholderDepth
{
	int n;			/* 0: outside */
	bool is_quoted; /* the first was opened in double quotes */
} CmPlaceholderDepth;

/* How far a text is read. */
typedef struct CmPlaceholderScan
{
	const char *at;
	bool is_shell;
	char quote;		 /* ' or ", 0: outside */
	bool is_escaped; /* a backslash takes the next character */
	bool is_comment;
	bool is_behind_here;
	CmPlaceholderDepth parens;	 /* (( )) */
	CmPlaceholderDepth lists;	 /* a=( ) */
	CmPlaceholderDepth brackets; /* [ ] that have an expression */
	CmPlaceholderDepth braces;	 /* ${ } */
	char before;				 /* the character before */
	char before_that;			 /* and the one before that */
} CmPlaceholderScan;

extern void cm_placeholder_begin(CmPlaceholderScan *scan, const char *text, bool is_shell);

/* Reads up to the next placeholder; after one that is not FOUND, read no further. */
extern CmPlaceholder cm_placeholder_next(CmPlaceholderScan *scan);

extern bool cm_placeholder_is_name(const char *name, size_t n_name);

/*
 * Which of the words is a script for a shell, as behind sh -c?  -1: none.  No
 * placeholder may be in it.
 */
extern int cm_placeholder_find_script(const char *const *words, int n_words);

#endif /* CM_PLACEHOLDER_H */
