/*
 * policy_internal.h
 *		What the guard's files share and nobody else includes.
 *
 * Floor 0: pure.
 */
#ifndef CM_POLICY_INTERNAL_H
#define CM_POLICY_INTERNAL_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "policy.h"

#define BAD_VALUE "22023"
#define OVER_LIMIT "53400"
#define NOT_ALLOWED "42501"

#define NO_SETTING "No setting raises this bound."

#define MAX_SHOWN_BYTES 64
#define SHOWN_SIZE (MAX_SHOWN_BYTES + 4)

/* Fills all but detail and hint; always false, so that callers can return it. */
extern bool cm_policy_refuse(CmProblem *problem, const char *sqlstate, const char *column,
							 const char *format, ...) __attribute__((format(printf, 4, 5)));
extern bool cm_policy_add_detail(CmProblem *problem, const char *detail);
extern bool cm_policy_add_hint(CmProblem *problem, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Copies the beginning of text without its control characters. */
extern const char *cm_policy_show_text(const char *text, char shown[SHOWN_SIZE]);

/* --- policy_options.c --- */

/* After memory_limit was found good. */
extern bool cm_policy_check_options(const CmJobSpec *spec, const CmLimits *limits,
									CmProblem *problem);

#endif /* CM_POLICY_INTERNAL_H */
