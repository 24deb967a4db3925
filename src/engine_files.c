/*
 * engine_files.c
 *		A file out of a container that was made and not started, and the user
 *		that an image names.
 */
#include "postgres.h"

#include "pgtar.h"

#include "engine_internal.h"

#define FILE_TIMEOUT_MS 30000
#define MAX_FILE_BYTES ((size_t) 1024 * 1024)

/* Where a header of a tar file has them. */
#define TAR_SIZE_AT 124
#define TAR_SIZE_BYTES 12
#define TAR_TYPE_AT 156

bool
cm_engine_read_image_user(CmHttpRequest *request, char *user, size_t user_size, CmFault *fault)
{
	const CmJson *reply = cm_engine_parse_reply(request, fault);
	const char *text;

	if (reply == NULL)
		return false;
	text = cm_json_string(cm_json_path(reply, "Config", "User"), "");
	if (reply->kind != CM_JSON_OBJECT)
		return cm_engine_set_garbled(fault, "the reply about an image");
	/* One that is cut would be another user. */
	if (strlcpy(user, text, user_size) >= user_size)
		return cm_engine_set_garbled(fault, "the user of an image");
	return true;
}

CmHttpRequest *
cm_engine_begin_file(CmEngine *engine, const char *id, const char *path, CmEngineDone on_done,
					 void *arg)
{
	CmHttpCall call = {
		.method = "GET",
		.timeout_ms = FILE_TIMEOUT_MS,
		.max_body_bytes = MAX_FILE_BYTES,
		.on_done = on_done,
		.arg = arg,
	};
	StringInfoData query;
	CmHttpRequest *request;

	initStringInfo(&query);
	appendStringInfoString(&query, "/archive?path=");
	cm_http_append_escaped(&query, path);
	request =
		cm_engine_send(engine, &call, cm_engine_make_path(engine, "/containers/", id, query.data));
	pfree(query.data);
	return request;
}

bool
cm_engine_read_file(CmHttpRequest *request, const char **text, size_t *n_bytes, CmFault *fault)
{
	const char *body;
	size_t n_body;
	uint64 size;

	if (!cm_engine_check_reply(request, fault))
		return false;
	body = cm_http_body(request, &n_body);
	*text = "";
	*n_bytes = 0;
	if (n_body < TAR_BLOCK_SIZE)
		return cm_engine_set_garbled(fault, "a file of a container");
	size = read_tar_number(body + TAR_SIZE_AT, TAR_SIZE_BYTES);
	if (size > n_body - TAR_BLOCK_SIZE)
		return cm_engine_set_garbled(fault, "a file of a container");
	/* A link, or a folder, has no text. */
	if (body[TAR_TYPE_AT] != '0' && body[TAR_TYPE_AT] != '\0')
		return true;
	*text = body + TAR_BLOCK_SIZE;
	*n_bytes = size;
	return true;
}
