/*
 * docker_json.h
 *		JSON in and out: the only file family that knows its syntax.
 *
 * Floor 2.  Reading is done by Postgres' parser into a tree; bytes that are
 * not UTF-8, too long or too deep are refused, never thrown.  Text is UTF-8 on
 * both sides; conversion to the database's encoding is the store's business.
 */
#ifndef CM_DOCKER_JSON_H
#define CM_DOCKER_JSON_H

#include "postgres.h"
#include "lib/stringinfo.h"

/*
 * Bounds against hostile text: a value of two bytes ("0,") takes some 80 bytes
 * of memory, so bytes alone would not bound it.
 */
#define CM_JSON_MAX_DEPTH 32
#define CM_JSON_MAX_BYTES (64 * 1024 * 1024)
#define CM_JSON_MAX_VALUES (4 * 1000 * 1000)

typedef enum CmJsonKind
{
	CM_JSON_NULL,
	CM_JSON_BOOL,
	CM_JSON_NUMBER,
	CM_JSON_STRING,
	CM_JSON_ARRAY,
	CM_JSON_OBJECT
} CmJsonKind;

/*
 * A value.  Members of an object stand in the order of the text; of two
 * members of one name the last counts (cm_json_get), but both are there.
 */
typedef struct CmJson
{
	CmJsonKind kind;
	const char *name; /* as a member of an object, else NULL */
	const char *text; /* STRING: unescaped; NUMBER: as written;
					   * BOOL: "true"/"false" */
	int count;		  /* ARRAY, OBJECT */
	struct CmJson **items;
} CmJson;

/*
 * Parses n_bytes into the current memory context.  NULL with a reason in
 * *error (static text or palloc'ed) where that is not one JSON value within
 * the bounds above, or holds a \u0000.  Throws only on out of memory.  Texts in an
 * array that is a member called Env are empty: they may be secrets.
 */
extern CmJson *cm_json_parse(const char *bytes, size_t n_bytes, const char **error);

/*
 * All accept NULL and values of another kind and then give the fallback (NULL,
 * false).  cm_json_int takes plain integers of 64 bits only, no 1.0 or 1e3.
 */
extern const CmJson *cm_json_get(const CmJson *object, const char *name);
extern const CmJson *cm_json_path(const CmJson *object, const char *a, const char *b);
extern const char *cm_json_string(const CmJson *value, const char *fallback);
extern int64 cm_json_int(const CmJson *value, int64 fallback);
extern bool cm_json_bool(const CmJson *value, bool fallback);

/* Writers: append to a buffer.  Commas are the caller's. */
extern void cm_json_append_string(StringInfo to, const char *utf8);
extern void cm_json_append_words(StringInfo to, int count, const char *const *words);

#endif /* CM_DOCKER_JSON_H */
