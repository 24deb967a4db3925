/*
 * jobspec.h
 *		The definition of one attempt to run a job, as plain C.
 *
 * Floor 0: no Postgres, no I/O.  All strings are NUL-terminated UTF-8 and
 * belong to whoever filled the struct; nothing here is freed by its readers.
 * A NULL pointer means "unsaid".
 */
#ifndef CM_JOBSPEC_H
#define CM_JOBSPEC_H

#include <stdbool.h>
#include <stdint.h>

/* One NAME=value pair: environment variables and labels. */
typedef struct CmPair
{
	const char *name;
	const char *value;
} CmPair;

/* A tmpfs mount: an absolute path in the container and its size. */
typedef struct CmTmpfs
{
	const char *target;
	int64_t size_mb;
} CmTmpfs;

/* A list of strings; is_set tells an empty list from one that was not given. */
typedef struct CmWords
{
	bool is_set;
	int count;
	const char **words;
} CmWords;

/*
 * A network that it joins.  Aliases are names under which others on it find the
 * container; ip and ip6 are its addresses there, NULL: any.
 */
typedef struct CmNetwork
{
	const char *name; /* "bridge", "none" or a network's name */
	CmWords aliases;
	const char *ip;
	const char *ip6;
} CmNetwork;

/* A named volume and where it is mounted. */
typedef struct CmVolume
{
	const char *name;
	const char *target;
	bool read_only;
} CmVolume;

/* A limit of the kernel on each process: -1 is none. */
typedef struct CmUlimit
{
	const char *name; /* "nofile" */
	int64_t soft;
	int64_t hard;
} CmUlimit;

/* A set of exit codes, a bit each. */
typedef struct CmExitCodes
{
	bool is_set; /* false: unsaid */
	uint8_t bits[32];
} CmExitCodes;

/* What a value of docker_options is. */
typedef enum CmOptionKind
{
	CM_OPTION_OTHER, /* a form that no option takes: null, a fraction, a mixed list */
	CM_OPTION_BOOL,
	CM_OPTION_NUMBER, /* a whole one of 64 bits */
	CM_OPTION_TEXT,
	CM_OPTION_WORDS, /* a list of texts */
	CM_OPTION_PAIRS	 /* an object of texts */
} CmOptionKind;

/* A member of docker_options, which speaks as Docker's create request does. */
typedef struct CmOption
{
	bool in_host_config; /* a member of its HostConfig */
	const char *name;
	CmOptionKind kind;
	int64_t number; /* of a BOOL: 0 or 1 */
	const char *text;
	CmWords words;
	const CmPair *pairs;
	int n_pairs;
} CmOption;

/* What becomes of an attempt whose host does not answer for longer than a grace. */
typedef enum CmHostLoss
{
	CM_HOST_LOSS_WAIT, /* it waits for the host, however long */
	CM_HOST_LOSS_FAIL,
	CM_HOST_LOSS_RETRY /* it fails, and another attempt may follow */
} CmHostLoss;

typedef struct CmJobSpec
{
	/* who */
	int64_t job_id;
	int attempt;
	const char *namespace_name;
	const char *name; /* the user's name for the job, may be NULL */

	/* what */
	const char *image;
	const char *command; /* text for /bin/sh -c, or NULL */
	CmWords args;		 /* replaces the image's CMD */
	CmWords entrypoint;	 /* replaces the image's ENTRYPOINT */
	const CmPair *environment;
	int n_environment;
	const CmPair *secrets; /* variables, and the names of the secrets that they are */
	int n_secrets;
	const CmPair *labels; /* the user's labels */
	int n_labels;
	const char *working_directory;
	const char *run_as;		/* "uid" or "uid:gid", decimal, or "image" */
	const char *image_user; /* likewise, who "image" is; NULL: not known yet */
	const CmNetwork *networks;
	int n_networks; /* 0: none */

	/* how much */
	bool read_only;
	const CmTmpfs *tmpfs;
	int n_tmpfs;
	const CmVolume *volumes;
	int n_volumes;
	const CmOption *options; /* docker_options */
	int n_options;
	int64_t memory_limit_mb;
	int64_t nano_cpus; /* cpu_limit * 10^9 */
	int64_t timeout_seconds;
	const CmUlimit *ulimits;
	int n_ulimits;
	int64_t shm_size_mb; /* 0: unsaid; so are those below */
	int64_t pids_limit;
	int64_t log_limit_mb;
	const char *stop_signal; /* "SIGTERM" */
	int64_t stop_grace_ms;	 /* -1: unsaid */
	CmExitCodes success_exit_codes;

	/* how often */
	int max_attempts;
	const char *retry_on; /* see retry.h */
	int64_t retry_delay_ms;
	CmHostLoss on_host_loss;
	int64_t host_loss_grace_ms;

	/* afterwards */
	int64_t keep_container_ms; /* of one that failed; 0: it is removed at once */
} CmJobSpec;

#endif /* CM_JOBSPEC_H */
