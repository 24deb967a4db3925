/*
 * engine.h
 *		The Docker Engine API's vocabulary: verb, path, body, and what the
 *		answers mean.
 *
 * Floor 3.  No SQL, no policy of retrying.  Every call is a pair: begin_x
 * hands the request over, and when its on_done comes, read_x makes sense of
 * the answer.  read_x allocates in the current memory context, never throws
 * on what an engine sent, and returns false with *fault filled where the call
 * did not succeed.  What it returned does not point into the request, which
 * may be finished at once.  All text is UTF-8.
 *
 * create, start and kill go over connections of their own: libcurl may send a
 * request again when a reused connection dies, and a start sent twice runs a
 * container twice.
 */
#ifndef CM_ENGINE_H
#define CM_ENGINE_H

#include "postgres.h"

#include "endpoint.h"
#include "http.h"
#include "identity.h"
#include "jobspec.h"

#define CM_API_FLOOR 41	  /* 1.41: engine 20.10 */
#define CM_API_CEILING 44 /* 1.44: the newest that is tested */

#define CM_LABEL_PREFIX "container-manager."
#define CM_LABEL_VERSION CM_LABEL_PREFIX "version"
#define CM_LABEL_EPOCH CM_LABEL_PREFIX "epoch"
#define CM_LABEL_INCARNATION CM_LABEL_PREFIX "incarnation"
#define CM_LABEL_KIND CM_LABEL_PREFIX "kind"
#define CM_LABEL_JOB CM_LABEL_PREFIX "job"
#define CM_LABEL_ATTEMPT CM_LABEL_PREFIX "attempt"
#define CM_LABEL_HOME CM_LABEL_PREFIX "home"
#define CM_LABEL_SPEC CM_LABEL_PREFIX "spec"
#define CM_LABEL_NAMESPACE CM_LABEL_PREFIX "namespace"
#define CM_LABEL_VOLUME CM_LABEL_PREFIX "volume"
#define CM_LABEL_OWNER CM_LABEL_PREFIX "owner"
#define CM_LABEL_USER CM_LABEL_PREFIX "label."

#define CM_LABELS_VERSION "1"
#define CM_KIND_JOB "job"
#define CM_KIND_MARKER "marker"
#define CM_KIND_NETWORK "network"
#define CM_KIND_VOLUME "volume"

#define CM_CONTAINER_ID_LEN 64

/* Containers' output is kept in two files of this size at most. */
#define CM_ENGINE_LOG_FILE_BYTES (INT64_C(512) * 1024 * 1024)

/* One engine as its host row describes it. */
typedef struct CmEngine
{
	CmHttp *http;
	CmEndpoint endpoint;
	char pool[32];	/* connections of one host stay apart */
	CmHttpTls *tls; /* NULL: plain; see transport.h */
	bool only_loopback;
	int api_minor;	/* negotiated: 1.<api_minor>; 0: not yet, the
					 * floor is spoken */
	bool is_podman; /* known with api_minor */
} CmEngine;

typedef enum CmFaultKind
{
	CM_FAULT_NONE,
	CM_FAULT_UNREACHABLE, /* the engine cannot have acted on it */
	CM_FAULT_UNSURE,	  /* it may have acted on it */
	CM_FAULT_REFUSED,	  /* it answered with an error: http_status; a
						   * 5xx may come after it acted on it */
	CM_FAULT_GARBLED	  /* it answered what cannot be understood; as
						   * unsure as UNSURE */
} CmFaultKind;

typedef struct CmFault
{
	CmFaultKind kind;
	int http_status;   /* 0: none came */
	char message[512]; /* one line: the engine's own words or the
						* transport's */
} CmFault;

/* Who we are to the engines: what container names and labels are made of. */
typedef struct CmIdentity
{
	char epoch[37]; /* uuid as text */
	int incarnation;
	char home[CM_HOME_SIZE];
	int64 old_jobs_up_to; /* jobs that an earlier incarnation may have started */
} CmIdentity;

/* Writes cm-<namespace>-<job>-<attempt>-<8 hex of the epoch>. */
extern void cm_engine_container_name(const CmIdentity *identity, const CmJobSpec *spec, char *out,
									 size_t out_size);

typedef void (*CmEngineDone)(CmHttpRequest *request, void *arg);

/* --- the engine itself --- */

typedef struct CmVersion
{
	char engine_version[64]; /* podman's has the word before it */
	int api_minor;			 /* newest API it speaks */
	int min_api_minor;		 /* oldest */
	bool is_podman;
} CmVersion;

/*
 * GET /version, unversioned: is it there, what is it.  read_version also sets
 * engine->api_minor and is_podman; an engine whose range does not meet ours is a fault of
 * kind REFUSED that says what it speaks and what is needed.
 */
extern CmHttpRequest *cm_engine_begin_version(CmEngine *engine, int64 timeout_ms,
											  CmEngineDone on_done, void *arg);
extern bool cm_engine_read_version(CmHttpRequest *request, CmEngine *engine, CmVersion *version,
								   CmFault *fault);

/*
 * What an engine tells of itself and its machine.  Plain bytes without holes in
 * meaning: two that are the same compare equal by memcmp.
 */
typedef struct CmEngineFacts
{
	char id[128]; /* "": it has none that lasts (podman) */
	int cpus;
	int64 memory_bytes;
	int containers_running;
	int containers_paused;
	int containers_stopped;
	int images;
	int64 disk_free_bytes; /* of its data; -1: it does not tell */
	char storage_driver[64];
	char security_options[512]; /* a line each: name=seccomp,profile=default */
	char warnings[1024];		/* a line each */
	bool is_live_restore;
	bool is_experimental;
} CmEngineFacts;

/* Are users of containers others than those of the machine? */
extern bool cm_engine_has_userns(const CmEngineFacts *facts);

/* GET /info: the reply's text is for cm_host_info. */
typedef struct CmEngineInfo
{
	CmEngineFacts facts;
	int64 at_us; /* its clock; 0: it does not tell */
	const char *json;
	size_t n_json;
} CmEngineInfo;

extern CmHttpRequest *cm_engine_begin_info(CmEngine *engine, int64 timeout_ms, CmEngineDone on_done,
										   void *arg);
extern bool cm_engine_read_info(CmHttpRequest *request, const CmEngine *engine, CmEngineInfo *info,
								CmFault *fault);

/* --- containers --- */

typedef enum CmRunState
{
	CM_RUN_CREATED, /* exists, was never started, or in vain */
	CM_RUN_RUNNING, /* also paused, restarting */
	CM_RUN_EXITED	/* was started and is over; also while it is
					 * being removed */
} CmRunState;

/* The labels of ours that a container bears; job_id 0: not one of our jobs. */
typedef struct CmContainerLabels
{
	char epoch[37];
	int incarnation;
	int64 job_id;
	int attempt;
	char spec_hash[65];
} CmContainerLabels;

typedef struct CmInspect
{
	char id[CM_CONTAINER_ID_LEN + 1];
	CmRunState state;
	int exit_code;	   /* of EXITED */
	bool is_code_lost; /* it ran, and how it ended is not known; exit_code
						* is then 255 */
	bool oom_killed;
	const char *error;		 /* the engine's State.Error, may be "" */
	const char *started_at;	 /* RFC 3339, or NULL: never */
	const char *finished_at; /* likewise */
	int64 run_ms;			 /* finished_at - started_at, 0 if unknown */
	CmContainerLabels labels;
	const char *record;			/* JSON for cm_job_attempts.inspect */
	const struct CmJson *reply; /* the whole, in the memory of the call that read it */
} CmInspect;

/*
 * Builds the create body for that engine; *spec_hash (65 bytes) gets a SHA-256 in hex, which
 * also stands in the body's labels.  It is taken over the body without that
 * label and without the incarnation: a controller that took over must know
 * the containers of the one before it.  For run_as 'image' it is the same
 * whoever that is; while that is not known, the body is that of a probe: a
 * container with another hash in its label, never to be started.  secrets: the
 * values of spec->secrets; NULL: without them, for the hash, a probe or a
 * comparison.  A body with secrets is to be wiped.
 */
extern char *cm_engine_create_body(const CmEngine *engine, const CmIdentity *identity,
								   const CmJobSpec *spec, int pids_limit,
								   const char *const *secrets, char *spec_hash);

extern CmHttpRequest *cm_engine_begin_create(CmEngine *engine, const char *name, const char *body,
											 bool is_secret, CmEngineDone on_done, void *arg);
/*
 * id has CM_CONTAINER_ID_LEN + 1 bytes.  false with http_status 409: the name
 * is taken (podman: 500); 404: there is no such image, or the name is free but
 * something else that was asked for is missing.
 */
extern bool cm_engine_read_create(CmHttpRequest *request, char *id, CmFault *fault);

extern CmHttpRequest *cm_engine_begin_start(CmEngine *engine, const char *id, CmEngineDone on_done,
											void *arg);
/*
 * true also for 304, "already running".  An engine runs an exited container
 * again when asked: after any doubt, inspect.  404 may as well mean that the
 * network is missing.
 */
extern bool cm_engine_read_start(CmHttpRequest *request, CmFault *fault);

/*
 * By id, or by name where the id is not known.  A name may resolve to another
 * container by its id's prefix: compare the labels.
 */
extern CmHttpRequest *cm_engine_begin_inspect(CmEngine *engine, const char *id_or_name,
											  CmEngineDone on_done, void *arg);
extern bool cm_engine_read_inspect(CmHttpRequest *request, CmInspect *inspect, CmFault *fault);

/* A field of a container that is not as it was asked for; values are one line. */
typedef struct CmDifference
{
	char field[64]; /* HostConfig.Privileged */
	char asked[128];
	char made[128];
} CmDifference;

/*
 * Compares a container that was made from the body, as inspect has just told of
 * it, in what could make it dangerous.  true: it differs.
 */
extern bool cm_engine_find_difference(const CmEngine *engine, const CmInspect *inspect,
									  const char *body, CmDifference *difference);
extern const char *cm_engine_inspect_user(const CmInspect *inspect);
/* 0: it has none. */
extern int64 cm_engine_inspect_pids_limit(const CmInspect *inspect);

extern CmHttpRequest *cm_engine_begin_kill(CmEngine *engine, const char *id,
										   const char *signal_name, CmEngineDone on_done,
										   void *arg);
/* false with http_status 409: it is not running; 404: it is not there. */
extern bool cm_engine_read_kill(CmHttpRequest *request, CmFault *fault);

/* Without force: an engine refuses (409) to remove what runs. */
extern CmHttpRequest *cm_engine_begin_remove(CmEngine *engine, const char *id, bool force,
											 CmEngineDone on_done, void *arg);
/* true also for 404, "not there any more". */
extern bool cm_engine_read_remove(CmHttpRequest *request, CmFault *fault);

/*
 * All containers of jobs that bear our epoch, whatever their state.  The
 * states are hints, which may lag behind inspect; what is no job's, or bears
 * labels of another version, is left out.  The engine chose by epoch: compare
 * labels.epoch before acting on one.
 */
typedef struct CmListed
{
	char id[CM_CONTAINER_ID_LEN + 1];
	CmRunState state;
	CmContainerLabels labels;
} CmListed;

extern CmHttpRequest *cm_engine_begin_list(CmEngine *engine, const CmIdentity *identity,
										   CmEngineDone on_done, void *arg);
extern bool cm_engine_read_list(CmHttpRequest *request, CmListed **listed, int *n, CmFault *fault);

extern bool cm_engine_is_uuid(const char *text);

/*
 * Containers of jobs of whatever epoch, for people.  Texts are one line each.
 */
typedef struct CmShown
{
	CmListed listed; /* epoch: a uuid */
	char name[128];
	char image[256];
	char state[32];		/* the engine's word */
	int64 created_at_s; /* since 1970; 0: not told */
} CmShown;

extern CmHttpRequest *cm_engine_begin_list_all(CmEngine *engine, CmEngineDone on_done, void *arg);
/* Those that make no sense are left out. */
extern bool cm_engine_read_list_all(CmHttpRequest *request, CmShown **shown, int *n,
									CmFault *fault);

/* --- a look into one (engine_peek.c) --- */

/* As the engine tells; texts are one line each. */
typedef struct CmProcess
{
	int64 pid; /* -1: not told */
	int64 parent_pid;
	char user[64];
	char elapsed[32];
	const char *command;
} CmProcess;

extern CmHttpRequest *cm_engine_begin_top(CmEngine *engine, const char *id, CmEngineDone on_done,
										  void *arg);
/* false with http_status 404: there is no such container; 409 (podman: 500): it
 * does not run. */
extern bool cm_engine_read_top(CmHttpRequest *request, CmProcess **processes, int *n,
							   CmFault *fault);

/* Something that is not as it is in the image. */
typedef struct CmChange
{
	const char *path; /* of any length and content */
	const char *kind; /* "added", "changed", "deleted" */
} CmChange;

extern CmHttpRequest *cm_engine_begin_changes(CmEngine *engine, const char *id,
											  CmEngineDone on_done, void *arg);
extern bool cm_engine_read_changes(CmHttpRequest *request, CmChange **changes, int *n,
								   CmFault *fault);

/* --- marks of who is in charge (engine_markers.c) --- */

typedef struct CmMarker
{
	int incarnation;
	char home[CM_HOME_SIZE];
} CmMarker;

/* All marks of our epoch. */
extern CmHttpRequest *cm_engine_begin_list_markers(CmEngine *engine, const CmIdentity *identity,
												   CmEngineDone on_done, void *arg);
extern bool cm_engine_read_markers(CmHttpRequest *request, const CmIdentity *identity,
								   CmMarker **markers, int *n, CmFault *fault);

/*
 * Leaves ours.  true tells only that there is one of our incarnation: list them
 * to see whose.
 */
extern CmHttpRequest *cm_engine_begin_mark(CmEngine *engine, const CmIdentity *identity,
										   CmEngineDone on_done, void *arg);
extern bool cm_engine_read_mark(CmHttpRequest *request, CmFault *fault);

/* Removes that of an incarnation; true also for 404. */
extern CmHttpRequest *cm_engine_begin_unmark(CmEngine *engine, const CmIdentity *identity,
											 int incarnation, CmEngineDone on_done, void *arg);
extern bool cm_engine_read_unmark(CmHttpRequest *request, CmFault *fault);

/* --- networks (engine_networks.c) --- */

/* Is it one that every engine has, and is it no use asking for it? */
extern bool cm_engine_is_built_in_network(const char *name);

/* Texts are one line each; epoch "": no database's of ours. */
typedef struct CmNetworkFacts
{
	char id[CM_CONTAINER_ID_LEN + 1];
	char name[256];
	char driver[64];
	char scope[16];
	char subnets[512]; /* with ", " between */
	char parent[64];   /* the interface of a macvlan or ipvlan; "" otherwise */
	bool is_internal;
	char epoch[37];
} CmNetworkFacts;

/*
 * By name.  An engine also answers to an id, or the beginning of one: compare
 * the name.  false with http_status 404: there is none.
 */
extern CmHttpRequest *cm_engine_begin_network(CmEngine *engine, const char *name,
											  CmEngineDone on_done, void *arg);
extern bool cm_engine_read_network(CmHttpRequest *request, CmNetworkFacts *facts, CmFault *fault);

extern CmHttpRequest *cm_engine_begin_list_networks(CmEngine *engine, CmEngineDone on_done,
													void *arg);
extern bool cm_engine_read_networks(CmHttpRequest *request, CmNetworkFacts **facts, int *n,
									CmFault *fault);

/* What a network is made of; texts may be NULL where nothing is said. */
typedef struct CmNetworkPlan
{
	const char *name;
	const char *driver;
	const char *subnet;
	const char *subnet6;
	const char *parent; /* an interface of the host, of macvlan and ipvlan */
	bool is_internal;
} CmNetworkPlan;

/* false with http_status 409: there is one of that name. */
extern CmHttpRequest *cm_engine_begin_create_network(CmEngine *engine, const CmIdentity *identity,
													 const CmNetworkPlan *plan,
													 CmEngineDone on_done, void *arg);
extern bool cm_engine_read_create_network(CmHttpRequest *request, CmFault *fault);

/* By id.  true also for 404. */
extern CmHttpRequest *cm_engine_begin_remove_network(CmEngine *engine, const char *id,
													 CmEngineDone on_done, void *arg);
extern bool cm_engine_read_remove_network(CmHttpRequest *request, CmFault *fault);

/* A container that was not started; doing it again changes nothing. */
extern CmHttpRequest *cm_engine_begin_connect(CmEngine *engine, const CmNetwork *network,
											  const char *container_id, CmEngineDone on_done,
											  void *arg);
extern bool cm_engine_read_connect(CmHttpRequest *request, CmFault *fault);

/* --- volumes (engine_volumes.c) --- */

#define CM_VOLUME_NAME_SIZE 160
#define CM_OWNER_SIZE 24 /* "uid:gid" */

/*
 * cm-<8 hex of the epoch>-<namespace>.<name>: a name has no dot in it, so that no
 * two volumes of ours have the same, and no tenant can name another's.
 */
extern void cm_engine_volume_name(const CmIdentity *identity, const char *namespace_name,
								  const char *name, char *out, size_t out_size);

typedef struct CmVolumeFacts
{
	char engine_name[CM_VOLUME_NAME_SIZE];
	char namespace_name[64]; /* "": not of a database of ours */
	char name[64];
	char owner[CM_OWNER_SIZE]; /* that was asked for, or "" */
	char created_at[64];
	char epoch[37];
	bool is_plain; /* of the local driver, with no options but a size */
} CmVolumeFacts;

/* By the engine's name; false with http_status 404: there is none. */
extern CmHttpRequest *cm_engine_begin_volume(CmEngine *engine, const char *engine_name,
											 CmEngineDone on_done, void *arg);
extern bool cm_engine_read_volume(CmHttpRequest *request, CmVolumeFacts *facts, CmFault *fault);
/* Did we make it, for that namespace and name, and of nothing but disk space? */
extern bool cm_engine_is_our_volume(const CmVolumeFacts *facts, const CmIdentity *identity,
									const char *namespace_name, const char *name);

/* All that a database of ours has made. */
extern CmHttpRequest *cm_engine_begin_list_volumes(CmEngine *engine, CmEngineDone on_done,
												   void *arg);
extern bool cm_engine_read_volumes(CmHttpRequest *request, CmVolumeFacts **facts, int *n,
								   CmFault *fault);

typedef struct CmVolumePlan
{
	const char *namespace_name;
	const char *name;
	const char *owner; /* "uid:gid", or NULL: whoever first writes to it */
	int64 size_mb;	   /* 0: no limit */
} CmVolumePlan;

/* An engine answers with the one that is there, whoever made it: look before. */
extern CmHttpRequest *cm_engine_begin_create_volume(CmEngine *engine, const CmIdentity *identity,
													const CmVolumePlan *plan, CmEngineDone on_done,
													void *arg);
extern bool cm_engine_read_create_volume(CmHttpRequest *request, CmFault *fault);

/* true also for 404. */
extern CmHttpRequest *cm_engine_begin_remove_volume(CmEngine *engine, const char *engine_name,
													CmEngineDone on_done, void *arg);
extern bool cm_engine_read_remove_volume(CmHttpRequest *request, CmFault *fault);

/*
 * Whose is a directory in a container?  A stream, of which the first bytes say it;
 * CM_OWNED_UNKNOWN: more must come.
 */
typedef enum CmOwned
{
	CM_OWNED_UNKNOWN,
	CM_OWNED_BY_ROOT, /* as an engine makes volumes */
	CM_OWNED
} CmOwned;

extern CmHttpRequest *cm_engine_begin_owner(CmEngine *engine, const char *container_id,
											const char *path, CmEngineDone on_bytes,
											CmEngineDone on_done, void *arg);
extern CmOwned cm_engine_read_owner(CmHttpRequest *request);

/*
 * The helper: a container that is never started, with the volume mounted, so that
 * the volume's root can be given its owner.  It bears the labels of the job, but
 * of no definition, so that it is never taken for it and goes when the job is over.
 */
extern CmHttpRequest *cm_engine_begin_create_helper(CmEngine *engine, const CmIdentity *identity,
													const CmJobSpec *spec, const char *engine_name,
													const char *container_name,
													CmEngineDone on_done, void *arg);
/* Gives the volume that it has mounted to that user and group. */
extern CmHttpRequest *cm_engine_begin_give(CmEngine *engine, const char *helper, int64 uid,
										   int64 gid, CmEngineDone on_done, void *arg);
extern bool cm_engine_read_give(CmHttpRequest *request, CmFault *fault);

/*
 * --- streams ---
 *
 * Bytes of a stream whose cm_http_status() is not 200 are an error message:
 * leave them in the request, cm_engine_read_stream_end() reads them.
 */

typedef enum CmEventKind
{
	CM_EVENT_OTHER,
	CM_EVENT_START,
	CM_EVENT_DIE,
	CM_EVENT_OOM,
	CM_EVENT_KILL,
	CM_EVENT_DESTROY
} CmEventKind;

typedef struct CmEvent
{
	CmEventKind kind;
	char container_id[CM_CONTAINER_ID_LEN + 1];
	char epoch[37];
	int incarnation; /* of whoever made the container */
	int64 job_id;
	int attempt;
	char signal_name[16]; /* of KILL: a number or a name */
} CmEvent;

extern CmHttpRequest *cm_engine_begin_events(CmEngine *engine, const CmIdentity *identity,
											 CmEngineDone on_bytes, CmEngineDone on_done,
											 void *arg);
/*
 * Takes the next whole event out of the stream; false: none is there.  Lines
 * that are no events of containers are skipped, over-long ones too: events are
 * hints, and the next list tells what was missed.
 */
extern bool cm_engine_next_event(CmHttpRequest *request, CmEvent *event);

/*
 * Does the engine remember, since it was last started, that it created the
 * container?  No: it was restarted since, or much has happened meanwhile.
 * NULL on podman, which does not tell whether it, or its machine, was restarted.
 */
extern CmHttpRequest *cm_engine_begin_recall(CmEngine *engine, const char *id, CmEngineDone on_done,
											 void *arg);
extern bool cm_engine_read_recall(CmHttpRequest *request, bool *remembers, CmFault *fault);

/*
 * How far back an engine remembers, by its own clock.  Its latest events are in
 * memory only, so that one that was restarted knows nothing of before.
 */
typedef struct CmEngineMemory
{
	int64 asked_us;	 /* 0: it was not to be had */
	int64 oldest_us; /* the oldest event that it remembers */
	bool is_full;	 /* it may have been forgotten what was before */
} CmEngineMemory;

typedef enum CmEngineLife
{
	CM_LIFE_UNKNOWN,
	CM_LIFE_SAME,	  /* it has not been restarted between */
	CM_LIFE_RESTARTED /* it has */
} CmEngineLife;

/* at_us: its own clock, from info.  Without that, or on podman, whose events are a
 * journal of all times: NULL, and the memory is not to be had. */
extern CmHttpRequest *cm_engine_begin_memory(CmEngine *engine, int64 at_us, CmEngineDone on_done,
											 void *arg);
/* Where it answers what cannot be understood, the memory is not to be had. */
extern bool cm_engine_read_memory(CmHttpRequest *request, int64 at_us, CmEngineMemory *memory,
								  CmFault *fault);
/* Of something that it did at that time: has it been the same engine until it was
 * asked, or one whose restart makes no difference to what ran? */
extern CmEngineLife cm_engine_judge_life(const CmEngine *engine, const CmEngineMemory *memory,
										 int64 did_us);

/* The bytes are for a CmLogStream. */
extern CmHttpRequest *cm_engine_begin_logs(CmEngine *engine, const char *id, bool follow,
										   CmEngineDone on_bytes, CmEngineDone on_done, void *arg);
/* At the end of a stream of any kind: did it end as it should? */
extern bool cm_engine_read_stream_end(CmHttpRequest *request, CmFault *fault);

/*
 * Pulls an image.  What read_pull_progress learns is kept in a CmPull, zeroed
 * at the start: progress is "pulling" or "pulling 43 %", error the in-band
 * error, which arrives after a status of 200.  A pull has succeeded when its
 * stream ended well, error is empty, and the image is there.
 */
#define CM_PULL_MAX_LAYERS 128 /* engines allow no more in one image */

typedef struct CmPull
{
	char progress[32];
	char error[512];
	int n_layers;
	struct
	{
		char id[20];
		int64 current_bytes;
		int64 total_bytes; /* 0: not known yet */
	} layers[CM_PULL_MAX_LAYERS];
} CmPull;

/* auth: for the registry, as X-Registry-Auth wants it; NULL: none. */
extern CmHttpRequest *cm_engine_begin_pull(CmEngine *engine, const char *image, const char *auth,
										   CmEngineDone on_bytes, CmEngineDone on_done, void *arg);
/* Reads and consumes the lines that are there: for on_bytes and on_done. */
extern void cm_engine_read_pull_progress(CmHttpRequest *request, CmPull *pull);

/* GET /images/NAME/json: is it there?  false with http_status 404: it is not. */
extern CmHttpRequest *cm_engine_begin_image(CmEngine *engine, const char *image,
											CmEngineDone on_done, void *arg);
extern bool cm_engine_read_image(CmHttpRequest *request, CmFault *fault);
/* And as which user it runs: "" is root. */
extern bool cm_engine_read_image_user(CmHttpRequest *request, char *user, size_t user_size,
									  CmFault *fault);

/* GET /containers/ID/archive: a file of at most 1 MB, as a tar file. */
extern CmHttpRequest *cm_engine_begin_file(CmEngine *engine, const char *id, const char *path,
										   CmEngineDone on_done, void *arg);
/*
 * Its bytes, which are the request's; none where it is no plain file.  false
 * with http_status 404: it is not there.
 */
extern bool cm_engine_read_file(CmHttpRequest *request, const char **text, size_t *n_bytes,
								CmFault *fault);

/*
 * Runs one request to its end in this backend, interruptibly, serving only
 * what the given CmHttp drives: for functions that look at an engine while
 * somebody waits.  begin_x must have been given cm_engine_note_done and the
 * address of *is_done, a bool that was false.  When it throws, the CmHttp must
 * not be used any more, only freed with its context.
 */
extern void cm_engine_note_done(CmHttpRequest *request, void *is_done);
extern void cm_engine_wait(CmHttp *http, const bool *is_done);

#endif /* CM_ENGINE_H */
