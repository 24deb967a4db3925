/*
 * engine_internal.h
 *		What the engine*.c files share and nobody else includes.
 *
 * Floor 3.  engine.c knows how a request is sent and what its outcome means;
 * the others know the calls.
 */
#ifndef CM_ENGINE_INTERNAL_H
#define CM_ENGINE_INTERNAL_H

#include "docker_json.h"
#include "engine.h"

/* Bounds of replies; a bigger one is a fault. */
#define CM_ENGINE_SMALL_BYTES ((size_t) 1024 * 1024)
#define CM_ENGINE_INSPECT_BYTES ((size_t) 4 * 1024 * 1024)
#define CM_ENGINE_LIST_BYTES CM_JSON_MAX_BYTES

/*
 * "/v1.41" and before, name (percent-escaped) and after, in the speech agreed
 * on with the engine.
 */
extern char *cm_engine_make_path(const CmEngine *engine, const char *before, const char *name,
								 const char *after);

/* Fills in where it goes and hands the call over.  Frees path. */
extern CmHttpRequest *cm_engine_send(CmEngine *engine, CmHttpCall *call, char *path);

/* Of calls that look at something, and of those that change it. */
#define CM_ENGINE_LOOK_TIMEOUT_MS 30000
#define CM_ENGINE_CHANGE_TIMEOUT_MS 60000

/*
 * Likewise a call whose reply is short, with a JSON body, or NULL.  One with a body
 * changes something: it gets a connection of its own.  Frees path.
 */
extern CmHttpRequest *cm_engine_send_short(CmEngine *engine, const char *method, char *path,
										   const char *body, CmEngineDone on_done, void *arg);

/* Did it succeed, with a status of 2xx? */
extern bool cm_engine_check_reply(CmHttpRequest *request, CmFault *fault);

/* Likewise, and the body is a JSON value; NULL: it is a fault. */
extern const CmJson *cm_engine_parse_reply(CmHttpRequest *request, CmFault *fault);

/* Makes it a fault of kind GARBLED; what: "the reply to create", for people. */
extern bool cm_engine_set_garbled(CmFault *fault, const char *what);

/*
 * Copies text of n_bytes as one line: cut between characters to what fits and
 * is UTF-8, control characters folded to single spaces.
 */
extern void cm_engine_copy_line(char *out, size_t out_size, const char *text, size_t n_bytes);

/* Likewise a member of an object; "" where it is no text. */
extern void cm_engine_copy_member(char *out, size_t out_size, const CmJson *object,
								  const char *name);

/*
 * Appends docker_options, each with a comma behind it: the members of
 * HostConfig, or the others.
 */
extern void cm_engine_append_options(StringInfo to, const CmJobSpec *spec, bool in_host_config);
extern bool cm_engine_has_option(const CmJobSpec *spec, const char *name);

/* 64 lower-case hex digits? */
extern bool cm_engine_is_id(const char *text);

/* Takes a container's id over where it is one. */
extern bool cm_engine_copy_id(char *out, const char *text);

extern void cm_engine_read_labels(const CmJson *labels, CmContainerLabels *out);

extern bool cm_engine_is_label(const CmJson *labels, const char *name, const char *value);

/* 0: it says none. */
extern int cm_engine_read_incarnation(const CmJson *labels);

/* filters={...}, escaped for a query: what is ours and of that kind, and then
 * what more (JSON members beginning with a comma, or "") is wanted. */
extern void cm_engine_append_filters(StringInfo to, const CmIdentity *identity, const char *kind,
									 const char *more);

/* {"Aliases":[...],"IPAMConfig":{...}}: how a container is on a network. */
extern void cm_engine_append_endpoint(StringInfo to, const CmNetwork *network);

/* "version":"1","kind":...,"epoch":...: what makes a thing ours, without braces. */
extern void cm_engine_append_ours(StringInfo to, const CmIdentity *identity, const char *kind);

/* Those of a volume, in braces; owner NULL: none. */
extern void cm_engine_append_volume_labels(StringInfo to, const CmIdentity *identity,
										   const char *namespace_name, const char *name,
										   const char *owner);

#endif /* CM_ENGINE_INTERNAL_H */
