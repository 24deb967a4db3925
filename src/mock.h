/*
 * mock.h
 *		What a job on a host of executor_type mock does: nothing but what the
 *		host's script says.
 *
 * Floor 0: pure.  The fate of an attempt follows from the script, the job and
 * the luck that the caller draws for it, and from nothing else, so that it
 * need not be kept: whoever asks again is told the same.
 *
 * A rule counts for the jobs that all of its patterns match; of several rules
 * the first does.  What a rule leaves unsaid is as the script says for all.
 * All text is UTF-8 and belongs to whoever made the script.
 */
#ifndef CM_MOCK_H
#define CM_MOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jobspec.h"
#include "lifecycle.h"

#define CM_MOCK_SCHEME "mock://"

#define CM_MOCK_MAX_RULES 100
#define CM_MOCK_MAX_CODES 32  /* exit codes of one distribution */
#define CM_MOCK_MAX_LABELS 16 /* of one rule */
#define CM_MOCK_MAX_PATTERN_BYTES 1024
#define CM_MOCK_MAX_TEXT_BYTES 65536 /* stdout, stderr, each */
#define CM_MOCK_MAX_DELAY_MS (INT64_C(24) * 3600 * 1000)
#define CM_MOCK_N_FAILURES 7

/* A time between two bounds; each is as likely as the other. */
typedef struct CmMockSpan
{
	int64_t min_ms;
	int64_t max_ms;
} CmMockSpan;

/* One of several outcomes: an exit code or a CmReason, and how likely it is. */
typedef struct CmMockShare
{
	int outcome;
	double share;
} CmMockShare;

/* on_term of a program that does not end by SIGTERM. */
#define CM_MOCK_IGNORES_TERM (-1)

/* What jobs do.  has_x, or NULL for texts: whether it was said. */
typedef struct CmMockActs
{
	bool has_launch_delay;
	bool has_delay;
	bool has_codes;
	bool has_failures;
	bool has_on_term;
	CmMockSpan launch_delay; /* from the claim to the container */
	CmMockSpan delay;		 /* from its start to its end */
	int n_codes;
	CmMockShare codes[CM_MOCK_MAX_CODES]; /* shares of their sum */
	int n_failures;
	CmMockShare failures[CM_MOCK_N_FAILURES]; /* probabilities; the rest: none */
	int on_term;		   /* exit code after a SIGTERM, or CM_MOCK_IGNORES_TERM */
	const char *output[2]; /* to stdout, to stderr */
} CmMockActs;

/* Patterns are NULL, and attempt is 0, where all jobs match. */
typedef struct CmMockRule
{
	const char *name;
	const char *namespace_name;
	const char *image;
	const char *command;
	int attempt;
	int n_labels;
	CmPair labels[CM_MOCK_MAX_LABELS]; /* the values are patterns */
	CmMockActs acts;
} CmMockRule;

typedef struct CmMockScript
{
	bool is_unreachable; /* as if the host did not answer */
	CmMockActs acts;
	int n_rules;
	const CmMockRule *rules;
} CmMockScript;

/* Numbers from 0 to below 1. */
typedef struct CmMockLuck
{
	double launch_delay;
	double delay;
	double exit_code;
	double failure;
} CmMockLuck;

typedef struct CmMockFate
{
	CmReason failure; /* NONE: it ends with the exit code */
	int exit_code;
	int64_t launch_ms;
	int64_t run_ms;
	int on_term;
	const char *output[2]; /* "": nothing */
} CmMockFate;

/* command: the job's, or its words where it has none; "": the image's own. */
extern void cm_mock_decide(const CmMockScript *script, const CmJobSpec *spec, const char *command,
						   const CmMockLuck *luck, CmMockFate *fate);

/* "*" stands for any text; all other characters for themselves. */
extern bool cm_mock_matches(const char *pattern, const char *text);

/*
 * "1500 ms", "2 s", "5 min", "1 h": digits, at most one space, a unit; "0" needs
 * none.  false: not such a time, or longer than CM_MOCK_MAX_DELAY_MS.
 */
extern bool cm_mock_parse_duration(const char *text, int64_t *ms);

/* Of the failures that can be scripted; false: no such word. */
extern bool cm_mock_parse_failure(const char *word, CmReason *reason);

/*
 * mock://NAME.  The name is what luck is drawn from: *seed points to it within
 * the text.  false: not of that form.
 */
extern bool cm_mock_parse_address(const char *connection_string, const char **seed);

#endif /* CM_MOCK_H */
