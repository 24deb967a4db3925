/*
 * policy.h
 *		The guard: which job definitions may reach an engine at all.
 *
 * Floor 0: pure.  Called when a job is written (the problem becomes an ERROR)
 * and again when it is started (the problem becomes failure_reason 'policy'),
 * each time with the limits of that moment.
 *
 * Privileged containers, host namespaces, bind mounts, devices and unconfined
 * profiles have no place in CmJobSpec: what cannot be said cannot be had.  In
 * docker_options, where they can be said, only what is listed is let pass.
 */
#ifndef CM_POLICY_H
#define CM_POLICY_H

#include <stddef.h>

#include "jobspec.h"

/* What the administrator allows.  Numbers are inclusive bounds. */
typedef struct CmLimits
{
	int64_t max_memory_mb;
	int64_t max_nano_cpus;
	int64_t max_timeout_seconds;
	int64_t min_uid; /* lowest uid a container may run as */
	int64_t max_pids;
	int64_t max_stop_grace_ms;
	int64_t max_log_kb;
	int64_t max_keep_seconds; /* 0: no container is kept */
	bool allow_image_user;
} CmLimits;

/* Hard bounds that no setting raises: they keep request bodies bounded. */
#define CM_MIN_MEMORY_MB 6				   /* the engine refuses less */
#define CM_MIN_NANO_CPUS INT64_C(10000000) /* 0.01 CPU, likewise */
#define CM_MAX_WORDS 4096				   /* entries in args or entrypoint */
#define CM_MAX_PAIRS 4096				   /* environment variables, labels */
#define CM_MAX_SECRETS 64				   /* variables that are secrets */
#define CM_MAX_TMPFS 32
#define CM_MAX_NETWORKS 16
#define CM_MAX_ALIASES 16 /* on one network */
#define CM_MAX_ALIAS_BYTES 63
#define CM_MAX_VOLUMES 16
#define CM_MAX_VOLUME_NAME_BYTES 63
#define CM_DEFAULT_SHM_MB 64 /* of a job that does not say shm_size */
#define CM_DEFAULT_STOP_SIGNAL "SIGTERM"
#define CM_MAX_TEXT_BYTES                                                             \
	(128 * 1024 - 1)							  /* command; all args; one variable: \
												   * exec takes no longer word */
#define CM_MAX_SPEC_BYTES (4 * CM_MAX_TEXT_BYTES) /* everything together */
#define CM_MAX_NAME_BYTES 255					  /* names of jobs and networks */
#define CM_MAX_PATH_BYTES 4096
#define CM_MAX_ATTEMPTS 1000
#define CM_MAX_OPTIONS 64							 /* members of docker_options */
#define CM_MAX_PAUSE_MS (INT64_C(30) * 86400 * 1000) /* retry_delay, host_loss_grace */
#define CM_MAX_LABEL_KEY_BYTES 63
#define CM_MAX_LABEL_BYTES 4096			/* a label's value */
#define CM_MAX_LABELS_BYTES (64 * 1024) /* all of them: each event of the engine has them */

/*
 * What is wrong, in the form of an error report.  column is the column of
 * cm_jobs, empty where the definition as a whole is too large; message is one
 * line without a final period; detail and hint are sentences or empty.  No
 * values of variables and no commands are in there.  part is what of the column
 * is meant, as HostConfig.Privileged, where that is known; a name, no value.
 * sqlstate is 22023 (bad value), 53400 (over a limit) or 42501 (not allowed);
 * the latter two are violations, which are logged.
 */
typedef struct CmProblem
{
	char sqlstate[6];
	char column[64];
	char part[72];
	char message[512];
	char detail[512];
	char hint[512];
} CmProblem;

/* What run_as says to have the image's own user. */
#define CM_RUN_AS_IMAGE "image"

/*
 * true: the job may run.  false: *problem tells why not.  Unsaid values are
 * filled in before: namespace_name and run_as must be there, and the numbers
 * are taken as they are.
 */
extern bool cm_policy_check(const CmJobSpec *spec, const CmLimits *limits, CmProblem *problem);

/* The parts of the above that other checks need, too. */

/* [A-Za-z_][A-Za-z0-9_]* */
/* Variables whose names begin so tell a job about itself. */
#define CM_RESERVED_PREFIX "CONTAINER_MANAGER_"

extern bool cm_policy_is_env_name(const char *name);

/* [A-Za-z0-9][A-Za-z0-9_.-]{0,254}, but not "host" or "default" in any case. */
extern bool cm_policy_is_network_name(const char *name);

/*
 * [A-Za-z0-9][A-Za-z0-9_-]{0,62}: no dot, which separates it from its namespace
 * in the name that the engine knows it by.
 */
extern bool cm_policy_is_volume_name(const char *name);

/* Names of hosts and namespaces: [A-Za-z0-9][A-Za-z0-9_.-]{0,62} */
extern bool cm_policy_is_plain_name(const char *name);

/*
 * The number of a signal that may ask a job to end, by its name as in
 * "SIGTERM"; 0: there is none of that name.
 */
extern int cm_policy_signal_number(const char *name);

/*
 * Parses "uid" or "uid:gid" (decimal, each 0..2^31-1, no sign, no spaces, no
 * leading zeros).  gid is -1 where it was not given.  false: not of that form.
 */
extern bool cm_policy_parse_run_as(const char *text, int64_t *uid, int64_t *gid);

/* Of a user of an image, whose number is known by now: "uid" or "uid:gid". */
extern bool cm_policy_check_user(const char *user, const CmLimits *limits, CmProblem *problem);

#endif /* CM_POLICY_H */
