/*
 * envtext.h
 *		Parses the text of an environment template: a line KEY=VALUE per variable.
 *
 * Floor 0: pure.  Blank lines, and those whose first character is #, do not
 * count; blanks before a key do not either.  The value is the rest of the line
 * as it stands: quotes, blanks and further = are part of it.  Lines end with LF
 * or CR LF.
 */
#ifndef CM_ENVTEXT_H
#define CM_ENVTEXT_H

#include <stdbool.h>
#include <stddef.h>

#define CM_ENVTEXT_MAX_VARIABLES 1024
#define CM_ENVTEXT_MAX_BYTES (128 * 1024)

typedef struct CmEnvVariable
{
	const char *name; /* points into the text, no NUL behind it */
	size_t n_name;
	const char *value; /* likewise */
	size_t n_value;
	int line; /* from 1 */
} CmEnvVariable;

/* Why it cannot be used; message is one line without a final period.  Neither has
 * anything of a value in it. */
typedef struct CmEnvTextProblem
{
	int line; /* 0: it is the whole */
	char message[256];
	char hint[256];
} CmEnvTextProblem;

/*
 * Fills variables, which has room for CM_ENVTEXT_MAX_VARIABLES, and gives their
 * number; -1 with *problem filled where a line is malformed.
 */
extern int cm_envtext_parse(const char *text, CmEnvVariable *variables, CmEnvTextProblem *problem);

#endif /* CM_ENVTEXT_H */
