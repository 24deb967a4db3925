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
extern bool cm_policy_hint_at_limit(CmProblem *problem, const char *setting);

/* Copies the beginning of text without its control characters. */
extern const char *cm_policy_show_text(const char *text, char shown[SHOWN_SIZE]);

/* Is it a path that something can be mounted at?  NULL: it is, or why not. */
extern const char *cm_policy_find_target_fault(const char *target);

/* In /proc, /sys or /dev? */
extern bool cm_policy_is_kernel_place(const char *target);

/* Within the family they have short names. */
#define refuse cm_policy_refuse
#define add_detail cm_policy_add_detail
#define add_hint cm_policy_add_hint
#define hint_at_limit cm_policy_hint_at_limit
#define show_text cm_policy_show_text
#define find_target_fault cm_policy_find_target_fault
#define is_kernel_place cm_policy_is_kernel_place

/* A letter or digit, then those and the punctuation; at most max bytes. */
extern bool cm_policy_is_name_with(const char *name, const char *punctuation, size_t max);
#define is_name_with cm_policy_is_name_with

/* --- policy_attach.c --- */

extern bool cm_policy_check_networks(const CmJobSpec *spec, CmProblem *problem);
/* After the tmpfs mounts were found good. */
extern bool cm_policy_check_volumes(const CmJobSpec *spec, CmProblem *problem);
/* What they take of the bytes of a definition. */
extern size_t cm_policy_count_attachments(const CmJobSpec *spec);

/* --- policy_limits.c: limits on processes, and how they are stopped --- */

extern bool cm_policy_check_process_limits(const CmJobSpec *spec, const CmLimits *limits,
										   CmProblem *problem);

/* --- policy_options.c --- */

/* After memory_limit was found good. */
extern bool cm_policy_check_options(const CmJobSpec *spec, const CmLimits *limits,
									CmProblem *problem);

#endif /* CM_POLICY_INTERNAL_H */
