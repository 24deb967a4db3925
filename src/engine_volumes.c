/*
 * engine_volumes.c
 *		The calls about volumes: look, list, create, remove, and whose they are.
 *
 * An engine makes a volume for root and has no call to give it to anybody.  But
 * it unpacks an archive into a container that does not run, with the owners that
 * stand there; not for the place itself that it is told to unpack to, but for
 * what is in it.  So a helper has the volume mounted below its root, and is never
 * started.  Its root is writable, as the job's own container's mostly is not.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <time.h>

#include "pgtar.h"

#include "engine_internal.h"


#define HELPER_DIRECTORY "cm-volume"
#define VOLUME_MODE 0755

/* Where a tar header has the number of the owner and of the group, and the kind. */
#define TAR_UID_OFFSET 108
#define TAR_GID_OFFSET 116
#define TAR_NUMBER_BYTES 8
#define TAR_KIND_OFFSET 156
#define TAR_KIND_DIRECTORY '5'

#define MAX_BODY_BYTES ((size_t) 64 * 1024)
#define MAX_LISTED 65536 /* more than an engine can have */

void
cm_engine_volume_name(const CmIdentity *identity, const char *namespace_name, const char *name,
					  char *out, size_t out_size)
{
	snprintf(out, out_size, "cm-%.8s-%s.%s", identity->epoch, namespace_name, name);
}

void
cm_engine_append_ours(StringInfo to, const CmIdentity *identity, const char *kind)
{
	appendStringInfo(to, "\"%s\":\"%s\",\"%s\":\"%s\",\"%s\":", CM_LABEL_VERSION, CM_LABELS_VERSION,
					 CM_LABEL_KIND, kind, CM_LABEL_EPOCH);
	cm_json_append_string(to, identity->epoch);
}

static void
append_label(StringInfo to, const char *name, const char *value)
{
	appendStringInfo(to, ",\"%s\":", name);
	cm_json_append_string(to, value);
}

void
cm_engine_append_volume_labels(StringInfo to, const CmIdentity *identity,
							   const char *namespace_name, const char *name, const char *owner)
{
	appendStringInfoChar(to, '{');
	cm_engine_append_ours(to, identity, CM_KIND_VOLUME);
	append_label(to, CM_LABEL_NAMESPACE, namespace_name);
	append_label(to, CM_LABEL_VOLUME, name);
	if (owner != NULL)
		append_label(to, CM_LABEL_OWNER, owner);
	appendStringInfoChar(to, '}');
}

/* ---- look and list ---- */

/* Options can make a volume of any folder of the host, or of another machine's. */
static bool
is_plain(const CmJson *volume)
{
	const CmJson *options = cm_json_get(volume, "Options");

	if (strcmp(cm_json_string(cm_json_get(volume, "Driver"), ""), "local") != 0)
		return false;
	if (options == NULL || options->kind == CM_JSON_NULL)
		return true;
	for (int i = 0; options->kind == CM_JSON_OBJECT && i < options->count; i++)
		if (strcmp(options->items[i]->name, "size") != 0)
			return false;
	return options->kind == CM_JSON_OBJECT;
}

static void
take_volume(const CmJson *volume, CmVolumeFacts *facts)
{
	const CmJson *labels = cm_json_get(volume, "Labels");

	memset(facts, 0, sizeof(*facts));
	cm_engine_copy_member(facts->engine_name, sizeof(facts->engine_name), volume, "Name");
	cm_engine_copy_member(facts->created_at, sizeof(facts->created_at), volume, "CreatedAt");
	facts->is_plain = is_plain(volume);
	if (!cm_engine_is_label(labels, CM_LABEL_VERSION, CM_LABELS_VERSION) ||
		!cm_engine_is_label(labels, CM_LABEL_KIND, CM_KIND_VOLUME))
		return;
	cm_engine_copy_member(facts->namespace_name, sizeof(facts->namespace_name), labels,
						  CM_LABEL_NAMESPACE);
	cm_engine_copy_member(facts->name, sizeof(facts->name), labels, CM_LABEL_VOLUME);
	cm_engine_copy_member(facts->owner, sizeof(facts->owner), labels, CM_LABEL_OWNER);
	cm_engine_copy_member(facts->epoch, sizeof(facts->epoch), labels, CM_LABEL_EPOCH);
}

bool
cm_engine_is_our_volume(const CmVolumeFacts *facts, const CmIdentity *identity,
						const char *namespace_name, const char *name)
{
	return facts->is_plain && strcmp(facts->epoch, identity->epoch) == 0 &&
		   strcmp(facts->namespace_name, namespace_name) == 0 && strcmp(facts->name, name) == 0;
}

CmHttpRequest *
cm_engine_begin_volume(CmEngine *engine, const char *engine_name, CmEngineDone on_done, void *arg)
{
	return cm_engine_send_short(engine, "GET",
								cm_engine_make_path(engine, "/volumes/", engine_name, ""), NULL,
								on_done, arg);
}

bool
cm_engine_read_volume(CmHttpRequest *request, CmVolumeFacts *facts, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);

	if (reply == NULL)
		return false;
	take_volume(reply, facts);
	return facts->engine_name[0] != '\0' ||
		   cm_engine_set_garbled(fault, "the description of a volume");
}

CmHttpRequest *
cm_engine_begin_list_volumes(CmEngine *engine, CmEngineDone on_done, void *arg)
{
	StringInfoData query;
	char *path;

	initStringInfo(&query);
	appendStringInfoString(&query, "/volumes?filters=");
	cm_http_append_escaped(&query, "{\"label\":[\"" CM_LABEL_KIND "=" CM_KIND_VOLUME "\"]}");
	path = cm_engine_make_path(engine, query.data, "", "");
	pfree(query.data);
	return cm_engine_send_short(engine, "GET", path, NULL, on_done, arg);
}

static bool
take_volumes(const CmJson *list, CmVolumeFacts **facts, int *n)
{
	int n_allocated = 16;

	*facts = palloc(sizeof(CmVolumeFacts) * n_allocated);
	for (int i = 0; i < list->count; i++)
	{
		if (*n == n_allocated)
		{
			if (n_allocated >= MAX_LISTED)
				return false;
			n_allocated *= 2;
			*facts = repalloc(*facts, sizeof(CmVolumeFacts) * n_allocated);
		}
		take_volume(list->items[i], &(*facts)[*n]);
		if ((*facts)[*n].name[0] != '\0')
			(*n)++;
	}
	return true;
}

bool
cm_engine_read_volumes(CmHttpRequest *request, CmVolumeFacts **facts, int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const CmJson *volumes = cm_json_get(reply, "Volumes");

	*n = 0;
	*facts = NULL;
	if (reply == NULL)
		return false;
	/* None: null, or left out. */
	if (volumes == NULL || volumes->kind == CM_JSON_NULL)
		return true;
	if (volumes->kind == CM_JSON_ARRAY && take_volumes(volumes, facts, n))
		return true;
	return cm_engine_set_garbled(fault, "the list of volumes");
}

/* ---- create and remove ---- */

CmHttpRequest *
cm_engine_begin_create_volume(CmEngine *engine, const CmIdentity *identity,
							  const CmVolumePlan *plan, CmEngineDone on_done, void *arg)
{
	char name[CM_VOLUME_NAME_SIZE];
	StringInfoData body;
	CmHttpRequest *request;

	cm_engine_volume_name(identity, plan->namespace_name, plan->name, name, sizeof(name));
	initStringInfo(&body);
	appendStringInfoString(&body, "{\"Name\":");
	cm_json_append_string(&body, name);
	appendStringInfoString(&body, ",\"Driver\":\"local\",\"DriverOpts\":{");
	if (plan->size_mb > 0)
		appendStringInfo(&body, "\"size\":\"" INT64_FORMAT "m\"", plan->size_mb);
	appendStringInfoString(&body, "},\"Labels\":");
	cm_engine_append_volume_labels(&body, identity, plan->namespace_name, plan->name, plan->owner);
	appendStringInfoChar(&body, '}');
	request =
		cm_engine_send_short(engine, "POST", cm_engine_make_path(engine, "/volumes/create", "", ""),
							 body.data, on_done, arg);
	pfree(body.data);
	return request;
}

bool
cm_engine_read_create_volume(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

CmHttpRequest *
cm_engine_begin_remove_volume(CmEngine *engine, const char *engine_name, CmEngineDone on_done,
							  void *arg)
{
	return cm_engine_send_short(engine, "DELETE",
								cm_engine_make_path(engine, "/volumes/", engine_name, ""), NULL,
								on_done, arg);
}

bool
cm_engine_read_remove_volume(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && fault->http_status == 404;
}

/* ---- whose it is ---- */

CmHttpRequest *
cm_engine_begin_owner(CmEngine *engine, const char *container_id, const char *path,
					  CmEngineDone on_bytes, CmEngineDone on_done, void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.is_stream = true,
		.timeout_ms = CM_ENGINE_LOOK_TIMEOUT_MS,
		.max_body_bytes = MAX_BODY_BYTES,
		.on_bytes = on_bytes,
		.on_done = on_done,
		.arg = arg,
	};
	StringInfoData after;
	CmHttpRequest *request;

	initStringInfo(&after);
	appendStringInfoString(&after, "/archive?path=");
	cm_http_append_escaped(&after, path);
	request = cm_engine_send(engine, &call,
							 cm_engine_make_path(engine, "/containers/", container_id, after.data));
	pfree(after.data);
	return request;
}

/* A number of 0, in octal digits. */
static bool
is_zero(const char *number)
{
	for (int i = 0; i < TAR_NUMBER_BYTES; i++)
		if (number[i] != '0' && number[i] != ' ' && number[i] != '\0')
			return false;
	return true;
}

/*
 * The first header is that of the directory, unless its owner is too big a number
 * for one: then something else comes before it.
 */
CmOwned
cm_engine_read_owner(CmHttpRequest *request)
{
	size_t n_bytes;
	const char *header = cm_http_body(request, &n_bytes);

	if (n_bytes < TAR_BLOCK_SIZE)
		return CM_OWNED_UNKNOWN;
	if (header[TAR_KIND_OFFSET] == TAR_KIND_DIRECTORY && is_zero(header + TAR_UID_OFFSET) &&
		is_zero(header + TAR_GID_OFFSET))
		return CM_OWNED_BY_ROOT;
	return CM_OWNED;
}

/* ---- the helper ---- */

static void
append_helper_labels(StringInfo to, const CmIdentity *identity, const CmJobSpec *spec)
{
	appendStringInfoString(to, ",\"Labels\":{");
	cm_engine_append_ours(to, identity, CM_KIND_JOB);
	appendStringInfo(to, ",\"%s\":\"" INT64_FORMAT "\",\"%s\":\"%d\",\"%s\":\"%d\"}", CM_LABEL_JOB,
					 (int64) spec->job_id, CM_LABEL_ATTEMPT, spec->attempt, CM_LABEL_INCARNATION,
					 identity->incarnation);
}

CmHttpRequest *
cm_engine_begin_create_helper(CmEngine *engine, const CmIdentity *identity, const CmJobSpec *spec,
							  const char *engine_name, const char *container_name,
							  CmEngineDone on_done, void *arg)
{
	StringInfoData body;
	CmHttpRequest *request;

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"Image\":");
	cm_json_append_string(&body, spec->image);
	appendStringInfoString(&body, ",\"Entrypoint\":[\"\"],\"Cmd\":[\"/never-started\"],"
								  "\"User\":\"65534:65534\","
								  "\"Healthcheck\":{\"Test\":[\"NONE\"]}");
	append_helper_labels(&body, identity, spec);
	appendStringInfoString(&body, ",\"HostConfig\":{\"NetworkMode\":\"none\",\"CapDrop\":[\"ALL\"],"
								  "\"Privileged\":false,\"RestartPolicy\":{\"Name\":\"no\"},"
								  "\"Mounts\":[{\"Type\":\"volume\",\"Source\":");
	cm_json_append_string(&body, engine_name);
	appendStringInfoString(&body, ",\"Target\":\"/" HELPER_DIRECTORY "\","
								  "\"VolumeOptions\":{\"NoCopy\":true}}]}}");
	request = cm_engine_send_short(
		engine, "POST", cm_engine_make_path(engine, "/containers/create?name=", container_name, ""),
		body.data, on_done, arg);
	pfree(body.data);
	return request;
}

CmHttpRequest *
cm_engine_begin_give(CmEngine *engine, const char *helper, int64 uid, int64 gid,
					 CmEngineDone on_done, void *arg)
{
	/* An archive of one directory, and its end: two empty blocks. */
	char archive[3 * TAR_BLOCK_SIZE] = {0};
	CmHttpCall call = {
		.method = "PUT",
		.body = archive,
		.n_body = sizeof(archive),
		.is_tar = true,
		.fresh = true,
		.timeout_ms = CM_ENGINE_CHANGE_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	(void) tarCreateHeader(archive, HELPER_DIRECTORY, NULL, 0, S_IFDIR | VOLUME_MODE, (uid_t) uid,
						   (gid_t) gid, time(NULL));
	return cm_engine_send(engine, &call,
						  cm_engine_make_path(engine, "/containers/", helper, "/archive?path=%2F"));
}

bool
cm_engine_read_give(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}
