/*
 * engine_body.c
 *		A container's name, and the body of its create request.
 *
 * The body is written member by member from typed values; nothing that a user
 * wrote is copied into it except as the inside of a JSON string.  HostConfig
 * is always there: engines before 27 otherwise take its members from the top
 * level.  Whatever an engine's own configuration could set to something less
 * safe or less exact (log driver, restart policy, ipc mode) is said here.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/resowner.h"

#include "crypto.h"
#include "engine_internal.h"
#include "policy.h"

#define BYTES_PER_MB INT64CONST(1048576)

/*
 * The engine's log is the only copy of what was printed until it is read, so
 * that it must not rotate away what is within a job's limit.  Two files of
 * 512 MB lose nothing before 1 GB was written, and keep 512 MB at least: a
 * line costs some 75 bytes more in the file than it has, so 256 MB of output
 * fit even in lines of 25 bytes on average.  "blocking" is said because an
 * engine fills in options left unsaid from its own configuration, and
 * "non-blocking" drops lines under load.  An engine configured with
 * max-buffer-size, too, then refuses to create: better so than losing output.
 */
/* CM_ENGINE_LOG_FILE_BYTES, as the engine wants it said. */
#define LOG_CONFIG                        \
	"{\"Type\":\"json-file\",\"Config\":" \
	"{\"max-size\":\"512m\",\"max-file\":\"2\",\"mode\":\"blocking\"}}"

#define TMPFS_OPTIONS "rw,exec,nosuid,nodev,mode=1777"
#define TMP_DIRECTORY "/tmp"

/* More than the labels need that are not hashed. */
#define HASH_LABEL_BYTES 1024

/* Left out, the image's own user would be taken, mostly root. */
#define UNSAID_USER "65534:65534"

/* What a body is made from. */
typedef struct BodySource
{
	const CmEngine *engine;
	const CmIdentity *identity;
	const CmJobSpec *spec;
	int pids_limit;
	const char *user;
	const char *const *secrets; /* values; NULL: the body is for the hash, and names them */
} BodySource;

void
cm_engine_container_name(const CmIdentity *identity, const CmJobSpec *spec, char *out,
						 size_t out_size)
{
	snprintf(out, out_size, "cm-%s-" INT64_FORMAT "-%d-%.8s", spec->namespace_name,
			 (int64) spec->job_id, spec->attempt, identity->epoch);
}

static void
append_member(StringInfo to, const char *name, const char *value)
{
	cm_json_append_string(to, name);
	appendStringInfoChar(to, ':');
	cm_json_append_string(to, value);
}

static void
append_words(StringInfo to, const char *name, const CmWords *words)
{
	appendStringInfo(to, ",\"%s\":", name);
	cm_json_append_words(to, words->count, (const char *const *) words->words);
}

/*
 * A key that is left out leaves it to the image.  An entrypoint of [""] is
 * none at all; [] is that for some engines only.  An engine takes an empty Cmd
 * for one that was left out unless there is an Entrypoint, too.
 */
static void
append_command(StringInfo to, const CmJobSpec *spec)
{
	if (spec->command != NULL)
	{
		appendStringInfoString(to, ",\"Entrypoint\":[\"/bin/sh\",\"-c\"],\"Cmd\":");
		cm_json_append_words(to, 1, &spec->command);
		return;
	}
	if (spec->entrypoint.is_set && spec->entrypoint.count == 0)
		appendStringInfoString(to, ",\"Entrypoint\":[\"\"]");
	else if (spec->entrypoint.is_set)
		append_words(to, "Entrypoint", &spec->entrypoint);
	if (spec->args.is_set)
		append_words(to, "Cmd", &spec->args);
}

static bool
has_variable(const CmJobSpec *spec, const char *name)
{
	for (int i = 0; i < spec->n_environment; i++)
	{
		if (strcmp(spec->environment[i].name, name) == 0)
			return true;
	}
	for (int i = 0; i < spec->n_secrets; i++)
	{
		if (strcmp(spec->secrets[i].name, name) == 0)
			return true;
	}
	return false;
}

static void
append_variable(StringInfo to, const char *name, const char *value)
{
	size_t n_bytes = strlen(name) + strlen(value) + 2;
	char *variable = palloc(n_bytes);

	snprintf(variable, n_bytes, "%s=%s", name, value);
	if (to->data[to->len - 1] != '[')
		appendStringInfoChar(to, ',');
	cm_json_append_string(to, variable);
	cm_crypto_wipe(variable, n_bytes); /* it may be a secret */
	pfree(variable);
}

/*
 * The hash stands in a label for all to see, so that it is taken over the names:
 * over values it would tell whoever guesses one that he is right.
 */
static void
append_secret_names(StringInfo to, const CmJobSpec *spec)
{
	appendStringInfoString(to, ",\"Secrets\":[");
	for (int i = 0; i < spec->n_secrets; i++)
		append_variable(to, spec->secrets[i].name, spec->secrets[i].value);
	appendStringInfoChar(to, ']');
}

/* The rest of the file system is read-only, and the user mostly has no home. */
static void
append_environment(StringInfo to, const BodySource *source)
{
	const CmJobSpec *spec = source->spec;
	static const char *const writable[] = {"HOME", "TMPDIR"};

	appendStringInfoString(to, ",\"Env\":[");
	for (int i = 0; i < spec->n_environment; i++)
		append_variable(to, spec->environment[i].name, spec->environment[i].value);
	for (int i = 0; source->secrets != NULL && i < spec->n_secrets; i++)
		append_variable(to, spec->secrets[i].name, source->secrets[i]);
	for (size_t i = 0; i < lengthof(writable); i++)
	{
		if (!has_variable(spec, writable[i]))
			append_variable(to, writable[i], TMP_DIRECTORY);
	}
	appendStringInfoChar(to, ']');
}

static void
append_label_int(StringInfo to, const char *name, int64 value)
{
	appendStringInfo(to, ",\"%s\":\"" INT64_FORMAT "\"", name, value);
}

/*
 * Without a hash: what the hash is taken over.  A probe bears another one, so
 * that it is never taken for the job's container.
 */
static void
append_labels(StringInfo to, const BodySource *source, const char *spec_hash)
{
	const CmIdentity *identity = source->identity;
	const CmJobSpec *spec = source->spec;

	appendStringInfoString(to, ",\"Labels\":{");
	append_member(to, CM_LABEL_VERSION, CM_LABELS_VERSION);
	appendStringInfoChar(to, ',');
	append_member(to, CM_LABEL_KIND, CM_KIND_JOB);
	appendStringInfoChar(to, ',');
	append_member(to, CM_LABEL_EPOCH, identity->epoch);
	append_label_int(to, CM_LABEL_JOB, spec->job_id);
	append_label_int(to, CM_LABEL_ATTEMPT, spec->attempt);
	if (spec_hash != NULL)
	{
		append_label_int(to, CM_LABEL_INCARNATION, identity->incarnation);
		appendStringInfo(to, ",\"%s\":\"%s\"", CM_LABEL_SPEC, spec_hash);
	}
	for (int i = 0; i < spec->n_labels; i++)
	{
		char *name = psprintf("%s%s", CM_LABEL_USER, spec->labels[i].name);

		appendStringInfoChar(to, ',');
		append_member(to, name, spec->labels[i].value);
		pfree(name);
	}
	appendStringInfoChar(to, '}');
}

/*
 * runc before 1.2 gives the mount the mode of the directory that the image has
 * in its place, whatever "mode" says; so the job's user is made its owner.
 * podman refuses to hear of owners.
 */
static void
append_one_tmpfs(StringInfo to, const BodySource *source, const char *target, int64 size_mb)
{
	StringInfoData options;
	int64_t uid;
	int64_t gid;

	initStringInfo(&options);
	appendStringInfo(&options, TMPFS_OPTIONS ",size=" INT64_FORMAT "m", size_mb);
	if (!source->engine->is_podman && cm_policy_parse_run_as(source->user, &uid, &gid))
	{
		appendStringInfo(&options, ",uid=" INT64_FORMAT, (int64) uid);
		appendStringInfo(&options, ",gid=" INT64_FORMAT, (int64) (gid >= 0 ? gid : uid));
	}
	if (to->data[to->len - 1] != '{')
		appendStringInfoChar(to, ',');
	append_member(to, target, options.data);
	pfree(options.data);
}

/* What is written there counts as memory, so that /tmp needs no bound of its own. */
static void
append_tmpfs(StringInfo to, const BodySource *source)
{
	const CmJobSpec *spec = source->spec;
	bool has_tmp = false;

	appendStringInfoString(to, ",\"Tmpfs\":{");
	for (int i = 0; i < spec->n_tmpfs; i++)
	{
		append_one_tmpfs(to, source, spec->tmpfs[i].target, spec->tmpfs[i].size_mb);
		has_tmp |= strcmp(spec->tmpfs[i].target, TMP_DIRECTORY) == 0;
	}
	if (!has_tmp)
		append_one_tmpfs(to, source, TMP_DIRECTORY, spec->memory_limit_mb);
	appendStringInfoChar(to, '}');
}

/* ---- networks and volumes ---- */

/* Engines before API 1.44 take no more than one here; the others are joined after. */
static void
append_first_network(StringInfo to, const CmJobSpec *spec)
{
	const CmNetwork *first = spec->n_networks > 0 ? &spec->networks[0] : NULL;

	if (first == NULL || cm_engine_is_built_in_network(first->name))
		return;
	appendStringInfoString(to, ",\"NetworkingConfig\":{\"EndpointsConfig\":{");
	cm_json_append_string(to, first->name);
	appendStringInfoChar(to, ':');
	cm_engine_append_endpoint(to, first);
	appendStringInfoString(to, "}}");
}

/* For the hash: two that differ in these alone are two definitions. */
static void
append_other_networks(StringInfo to, const CmJobSpec *spec)
{
	for (int i = 1; i < spec->n_networks; i++)
	{
		cm_json_append_string(to, spec->networks[i].name);
		cm_engine_append_endpoint(to, &spec->networks[i]);
	}
}

/*
 * With its labels, in case that it is not there yet: the engine makes it then.
 * NoCopy, or an image could put into it what it likes, and its owner.
 */
static void
append_volume(StringInfo to, const BodySource *source, const CmVolume *volume)
{
	const CmJobSpec *spec = source->spec;
	char name[CM_VOLUME_NAME_SIZE];

	cm_engine_volume_name(source->identity, spec->namespace_name, volume->name, name, sizeof(name));
	appendStringInfoString(to, "{\"Type\":\"volume\",");
	append_member(to, "Source", name);
	appendStringInfoChar(to, ',');
	append_member(to, "Target", volume->target);
	appendStringInfo(to,
					 ",\"ReadOnly\":%s,\"VolumeOptions\":{\"NoCopy\":true,"
					 "\"DriverConfig\":{\"Name\":\"local\"},\"Labels\":",
					 volume->read_only ? "true" : "false");
	cm_engine_append_volume_labels(to, source->identity, spec->namespace_name, volume->name, NULL);
	appendStringInfoString(to, "}}");
}

static void
append_volumes(StringInfo to, const BodySource *source)
{
	if (source->spec->n_volumes == 0)
		return;
	appendStringInfoString(to, ",\"Mounts\":[");
	for (int i = 0; i < source->spec->n_volumes; i++)
	{
		if (i > 0)
			appendStringInfoChar(to, ',');
		append_volume(to, source, &source->spec->volumes[i]);
	}
	appendStringInfoChar(to, ']');
}

static void
append_ulimits(StringInfo to, const CmJobSpec *spec)
{
	appendStringInfoString(to, "\"Ulimits\":[");
	for (int i = 0; i < spec->n_ulimits; i++)
	{
		appendStringInfoString(to, i > 0 ? ",{" : "{");
		append_member(to, "Name", spec->ulimits[i].name);
		appendStringInfo(to, ",\"Soft\":" INT64_FORMAT ",\"Hard\":" INT64_FORMAT "}",
						 (int64) spec->ulimits[i].soft, (int64) spec->ulimits[i].hard);
	}
	appendStringInfoString(to, "],");
}

static void
append_host_config(StringInfo to, const BodySource *source)
{
	const CmJobSpec *spec = source->spec;
	int64 memory_bytes = (int64) spec->memory_limit_mb * BYTES_PER_MB;

	appendStringInfoString(to, ",\"HostConfig\":{");
	cm_engine_append_options(to, spec, true);
	appendStringInfo(to,
					 "\"AutoRemove\":false,\"RestartPolicy\":{\"Name\":\"no\"},"
					 "\"Memory\":" INT64_FORMAT ",\"MemorySwap\":" INT64_FORMAT ","
					 "\"NanoCpus\":" INT64_FORMAT ",\"PidsLimit\":%d,",
					 memory_bytes, memory_bytes, (int64) spec->nano_cpus,
					 spec->pids_limit > 0 ? (int) spec->pids_limit : source->pids_limit);
	appendStringInfo(to, "\"ShmSize\":" INT64_FORMAT ",",
					 (int64) (spec->shm_size_mb > 0 ? spec->shm_size_mb : CM_DEFAULT_SHM_MB) *
						 BYTES_PER_MB);
	if (spec->n_ulimits > 0)
		append_ulimits(to, spec);
	appendStringInfo(to,
					 "\"Init\":true,\"ReadonlyRootfs\":%s,"
					 "\"CapDrop\":[\"ALL\"],\"SecurityOpt\":[\"no-new-privileges\"],"
					 "\"Privileged\":false,\"PublishAllPorts\":false,"
					 "\"OomKillDisable\":false,\"IpcMode\":\"private\","
					 "\"CgroupnsMode\":\"private\","
					 "\"LogConfig\":" LOG_CONFIG ",",
					 spec->read_only ? "true" : "false");
	append_member(to, "NetworkMode", spec->n_networks > 0 ? spec->networks[0].name : "none");
	append_tmpfs(to, source);
	append_volumes(to, source);
	appendStringInfoChar(to, '}');
}

/* Without a group of its own, a bare uid would run in group 0. */
static const char *
make_user(const BodySource *source)
{
	int64_t uid;
	int64_t gid;

	if (!cm_policy_parse_run_as(source->user, &uid, &gid) || gid >= 0)
		return source->user;
	return psprintf(INT64_FORMAT ":" INT64_FORMAT, (int64) uid, (int64) uid);
}

/* Nobody attaches to a job; a stdin that was asked for stays open and empty. */
static void
append_streams(StringInfo to, const CmJobSpec *spec)
{
	static const char *const streams[] = {"OpenStdin", "AttachStdin", "AttachStdout",
										  "AttachStderr"};

	for (size_t i = 0; i < lengthof(streams); i++)
		if (!cm_engine_has_option(spec, streams[i]))
			appendStringInfo(to, ",\"%s\":false", streams[i]);
}

/* Growing would leave what is there behind in memory: there is room for all. */
static size_t
count_secret_bytes(const BodySource *source)
{
	size_t n_bytes = 0;

	for (int i = 0; source->secrets != NULL && i < source->spec->n_secrets; i++)
		n_bytes += 6 * strlen(source->secrets[i]); /* as \u001f */
	return n_bytes;
}

static char *
make_body(const BodySource *source, const char *spec_hash, size_t n_expected)
{
	const CmJobSpec *spec = source->spec;
	StringInfoData body;

	initStringInfo(&body);
	enlargeStringInfo(&body, n_expected);
	appendStringInfoChar(&body, '{');
	cm_engine_append_options(&body, spec, false);
	append_member(&body, "Image", spec->image);
	append_command(&body, spec);
	append_environment(&body, source);
	if (spec->n_secrets > 0 && spec_hash == NULL)
		append_secret_names(&body, spec);
	appendStringInfoChar(&body, ',');
	append_member(&body, "User", make_user(source));
	if (spec->working_directory != NULL)
	{
		appendStringInfoChar(&body, ',');
		append_member(&body, "WorkingDir", spec->working_directory);
	}
	append_streams(&body, spec);
	appendStringInfoString(&body, ",\"Tty\":false,\"StdinOnce\":false,"
								  "\"Healthcheck\":{\"Test\":[\"NONE\"]},");
	append_member(&body, "StopSignal",
				  spec->stop_signal != NULL ? spec->stop_signal : CM_DEFAULT_STOP_SIGNAL);
	/* For whoever else stops it; the executor counts by itself. */
	if (spec->stop_grace_ms >= 0 && !cm_engine_has_option(spec, "StopTimeout"))
		appendStringInfo(&body, ",\"StopTimeout\":%d", (int) ((spec->stop_grace_ms + 999) / 1000));
	append_labels(&body, source, spec_hash);
	append_host_config(&body, source);
	append_first_network(&body, spec);
	appendStringInfoChar(&body, '}');
	if (spec_hash == NULL)
		append_other_networks(&body, spec);
	return body.data;
}

static void
hash_text(const char *text, uint8 *digest)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL || pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) text, strlen(text)) < 0 ||
		pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a SHA-256 hash: %s", pg_cryptohash_error(context));
	pg_cryptohash_free(context);
}

/*
 * Hash contexts are tracked by a resource owner, and between transactions
 * there is none.
 */
static void
hash_spec(const char *text, char *spec_hash)
{
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	ResourceOwner owner = NULL;

	if (CurrentResourceOwner == NULL)
		CurrentResourceOwner = owner = ResourceOwnerCreate(NULL, "container_manager hash");
	hash_text(text, digest);
	if (owner != NULL)
	{
		CurrentResourceOwner = NULL;
		ResourceOwnerDelete(owner);
	}
	for (size_t i = 0; i < PG_SHA256_DIGEST_LENGTH; i++)
		snprintf(spec_hash + 2 * i, 3, "%02x", digest[i]);
}

/* It must not depend on what an image says.  Returns the bytes that were hashed. */
static size_t
hash_definition(const BodySource *source, char *spec_hash)
{
	BodySource defined = *source;
	size_t n_bytes;
	char *text;

	if (source->spec->run_as != NULL)
		defined.user = source->spec->run_as;
	text = make_body(&defined, NULL, 0);
	n_bytes = strlen(text);
	hash_spec(text, spec_hash);
	pfree(text);
	return n_bytes;
}

char *
cm_engine_create_body(const CmEngine *engine, const CmIdentity *identity, const CmJobSpec *spec,
					  int pids_limit, const char *const *secrets, char *spec_hash)
{
	BodySource source = {
		.engine = engine,
		.identity = identity,
		.spec = spec,
		.pids_limit = pids_limit,
		.user = spec->run_as != NULL ? spec->run_as : UNSAID_USER,
	};
	bool is_probe = strcmp(source.user, CM_RUN_AS_IMAGE) == 0 && spec->image_user == NULL;
	char label[2 * PG_SHA256_DIGEST_LENGTH + 1];
	size_t n_bytes;

	Assert(pids_limit > 0); /* engines take 0 for "no limit" */
	if (strcmp(source.user, CM_RUN_AS_IMAGE) == 0)
		source.user = is_probe ? UNSAID_USER : spec->image_user;
	n_bytes = hash_definition(&source, spec_hash);
	strlcpy(label, spec_hash, sizeof(label));
	if (is_probe)
		hash_spec(spec_hash, label);
	source.secrets = secrets;
	return make_body(&source, label, n_bytes + HASH_LABEL_BYTES + count_secret_bytes(&source));
}
