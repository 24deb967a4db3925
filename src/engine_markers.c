/*
 * engine_markers.c
 *		The mark that a server leaves on a host when it has taken over, and a look
 *		at all containers that any server of ours has made there.
 *
 * A mark is an empty volume with labels: it needs no image, outlives the
 * engine, and of two that are made under one name the engine keeps the first.
 * So of two servers that take over at the same time one sees that it is late.
 */
#include "postgres.h"

#include <limits.h>

#include "chars.h"
#include "engine_internal.h"

#define MARKER_TIMEOUT_MS 30000

static CmHttpRequest *
send_small(CmEngine *engine, const char *method, char *path, const char *body, CmEngineDone on_done,
		   void *arg)
{
	CmHttpCall call = {
		.method = method,
		.body = body,
		.n_body = body ? strlen(body) : 0,
		.timeout_ms = MARKER_TIMEOUT_MS,
		.max_body_bytes = CM_ENGINE_SMALL_BYTES,
		.on_done = on_done,
		.arg = arg,
	};

	return cm_engine_send(engine, &call, path);
}

/* ---- marks ---- */

/* Never taken from an engine's answer, for it becomes part of a path. */
static char *
make_marker_name(const char *epoch, int incarnation)
{
	return psprintf("container-manager-%s-%d", epoch, incarnation);
}

CmHttpRequest *
cm_engine_begin_list_markers(CmEngine *engine, const CmIdentity *identity, CmEngineDone on_done,
							 void *arg)
{
	StringInfoData query;
	char *path;

	initStringInfo(&query);
	appendStringInfoString(&query, "/volumes?");
	cm_engine_append_filters(&query, identity, CM_KIND_MARKER, "");
	path = cm_engine_make_path(engine, query.data, "", "");
	pfree(query.data);
	return send_small(engine, "GET", path, NULL, on_done, arg);
}

/* false: not a mark of that epoch.  Engines may choose by less than they were asked. */
static bool
read_marker(const CmJson *labels, const CmIdentity *identity, CmMarker *marker)
{
	const char *home = cm_json_string(cm_json_get(labels, CM_LABEL_HOME), "");

	if (!cm_engine_is_label(labels, CM_LABEL_VERSION, CM_LABELS_VERSION) ||
		!cm_engine_is_label(labels, CM_LABEL_KIND, CM_KIND_MARKER) ||
		!cm_engine_is_label(labels, CM_LABEL_EPOCH, identity->epoch))
		return false;
	marker->incarnation = cm_engine_read_incarnation(labels);
	cm_engine_copy_line(marker->home, sizeof(marker->home), home, strlen(home));
	return marker->incarnation > 0;
}

bool
cm_engine_read_markers(CmHttpRequest *request, const CmIdentity *identity, CmMarker **markers,
					   int *n, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const CmJson *volumes = cm_json_get(reply, "Volumes");

	*n = 0;
	*markers = NULL;
	if (reply == NULL)
		return false;
	/* None: null, or left out. */
	if (reply->kind != CM_JSON_OBJECT ||
		(volumes != NULL && volumes->kind != CM_JSON_ARRAY && volumes->kind != CM_JSON_NULL))
		return cm_engine_set_garbled(fault, "the list of volumes");
	if (volumes == NULL || volumes->kind == CM_JSON_NULL)
		return true;
	*markers = palloc(sizeof(CmMarker) * Max(volumes->count, 1));
	for (int i = 0; i < volumes->count; i++)
		if (read_marker(cm_json_get(volumes->items[i], "Labels"), identity, &(*markers)[*n]))
			(*n)++;
	return true;
}

CmHttpRequest *
cm_engine_begin_mark(CmEngine *engine, const CmIdentity *identity, CmEngineDone on_done, void *arg)
{
	char *name = make_marker_name(identity->epoch, identity->incarnation);
	char *body = psprintf("{\"Name\":\"%s\",\"Labels\":{\"%s\":\"%s\",\"%s\":\"%s\",\"%s\":\"%s\","
						  "\"%s\":\"%d\",\"%s\":\"%s\"}}",
						  name, CM_LABEL_VERSION, CM_LABELS_VERSION, CM_LABEL_KIND, CM_KIND_MARKER,
						  CM_LABEL_EPOCH, identity->epoch, CM_LABEL_INCARNATION,
						  identity->incarnation, CM_LABEL_HOME, identity->home);
	CmHttpRequest *request = send_small(
		engine, "POST", cm_engine_make_path(engine, "/volumes/create", "", ""), body, on_done, arg);

	pfree(body);
	pfree(name);
	return request;
}

bool
cm_engine_read_mark(CmHttpRequest *request, CmFault *fault)
{
	return cm_engine_check_reply(request, fault);
}

CmHttpRequest *
cm_engine_begin_unmark(CmEngine *engine, const CmIdentity *identity, int incarnation,
					   CmEngineDone on_done, void *arg)
{
	char *name = make_marker_name(identity->epoch, incarnation);
	char *path = cm_engine_make_path(engine, "/volumes/", name, "");

	pfree(name);
	return send_small(engine, "DELETE", path, NULL, on_done, arg);
}

bool
cm_engine_read_unmark(CmHttpRequest *request, CmFault *fault)
{
	if (cm_engine_check_reply(request, fault))
		return true;
	return fault->kind == CM_FAULT_REFUSED && fault->http_status == 404;
}
