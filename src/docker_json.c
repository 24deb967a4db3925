/*
 * docker_json.c
 *		JSON text into a tree, by Postgres' parser, and strings into JSON.
 *
 * The parser is told that its input is UTF-8, yet in a backend it resolves
 * \u escapes into the database's encoding, and throws where that has no such
 * character (always in SQL_ASCII).  So escapes beyond ASCII are replaced by
 * the character itself before it sees them.  The same pass bounds the depth,
 * so that the parser's recursion cannot reach check_stack_depth(), and counts
 * the values, so that the tree takes three allocations however it is shaped.
 *
 * Nor does it let through the variables of a container, which may be secrets: an
 * engine tells them whoever asks, nobody here reads them, and the parser's copies
 * of them would stay in memory.
 */
#include "postgres.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"

#include "compat.h"
#include "docker_json.h"

#define N_ESCAPE_BYTES 6		   /* \uXXXX */
#define ENVIRONMENT_KEY "\"Env\":" /* as engines write it */

/* What the first pass learns. */
typedef struct JsonExtent
{
	size_t n_bytes; /* after replacing escapes */
	int max_values; /* there are at most so many */
} JsonExtent;

/* An array or object whose end was not seen yet. */
typedef struct OpenValue
{
	CmJson *value;
	int first_child; /* in TreeBuilder.children */
} OpenValue;

typedef struct TreeBuilder
{
	CmJson *values; /* all of them, in the order of the text */
	int n_values;
	int max_values;
	CmJson **children; /* stack: children of the open ones */
	int n_children;
	CmJson **items; /* children of the closed ones */
	int n_items;
	OpenValue open[CM_JSON_MAX_DEPTH];
	int n_open;
	char *name; /* of the member whose value comes next */
} TreeBuilder;

/* Four hex digits, or -1. */
static int
read_code_unit(const char *digits, const char *end)
{
	int unit = 0;

	if (end - digits < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char c = digits[i];

		if (c >= '0' && c <= '9')
			unit = unit * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			unit = unit * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			unit = unit * 16 + (c - 'A' + 10);
		else
			return -1;
	}
	return unit;
}

/*
 * The code point of the escape (or surrogate pair of escapes) at from, with
 * its length.  0 for what the parser shall judge itself: ASCII, which is the
 * same in every server encoding, and bad escapes, which it refuses.
 */
static pg_wchar
read_escape(const char *from, const char *end, int *n_bytes)
{
	int first = -1;
	int second = -1;

	*n_bytes = 2;
	if (end - from < 2 || from[1] != 'u')
		return 0;
	first = read_code_unit(from + 2, end);
	if (first < 0x80)
		return 0;
	*n_bytes = N_ESCAPE_BYTES;
	if (!is_utf16_surrogate_first(first))
		return is_utf16_surrogate_second(first) ? 0 : first;
	if (end - from >= 2 * N_ESCAPE_BYTES && from[6] == '\\' && from[7] == 'u')
		second = read_code_unit(from + 8, end);
	if (second < 0 || !is_utf16_surrogate_second(second))
		return 0;
	*n_bytes = 2 * N_ESCAPE_BYTES;
	return surrogate_pair_to_codepoint(first, second);
}

/* Copies the escape at *from to to, as the character itself if beyond ASCII. */
static char *
resolve_escape(char *to, const char **from, const char *end)
{
	int n_bytes;
	pg_wchar c = read_escape(*from, end, &n_bytes);

	n_bytes = Min(n_bytes, end - *from);
	if (c == 0)
	{
		memmove(to, *from, n_bytes);
		to += n_bytes;
	}
	else
	{
		unicode_to_utf8(c, (unsigned char *) to);
		to += pg_utf_mblen((unsigned char *) to);
	}
	*from += n_bytes;
	return to;
}

/* Takes one byte outside of strings; false where a bound is passed. */
static bool
count_structure(char c, int *depth, JsonExtent *extent, const char **error)
{
	if (c == '[' || c == '{')
		(*depth)++;
	else if (c == ']' || c == '}')
		(*depth)--;
	if (*depth > CM_JSON_MAX_DEPTH)
	{
		*error = "JSON is nested too deeply";
		return false;
	}

	/* A value stands at the beginning, after an opening, or after a comma. */
	if (c == '[' || c == '{' || c == ',')
		extent->max_values++;
	if (extent->max_values > CM_JSON_MAX_VALUES)
	{
		*error = "JSON has too many values";
		return false;
	}
	return true;
}

/* Is the array that opens at the end of the text one of variables? */
static bool
is_environment(const char *text, const char *end)
{
	size_t n_key = sizeof(ENVIRONMENT_KEY) - 1;

	return end - text >= n_key && memcmp(end - n_key, ENVIRONMENT_KEY, n_key) == 0;
}

/* Steps over what a string has within its quotes. */
static const char *
skip_string(const char *from, const char *end)
{
	while (from < end && *from != '"')
		from += *from == '\\' ? 2 : 1;
	return Min(from, end);
}

/* The first pass.  The text has room for n_bytes and a zero. */
static bool
prepare_text(const char *from, size_t n_bytes, char *text, JsonExtent *extent, const char **error)
{
	const char *end = from + n_bytes;
	char *to = text;
	int depth = 0;
	int environment_depth = 0; /* of the array that it is in; 0: none */
	bool in_string = false;

	extent->max_values = 1;
	while (from < end)
	{
		if (in_string && environment_depth > 0)
			from = skip_string(from, end);
		if (in_string && from < end && *from == '\\')
		{
			to = resolve_escape(to, &from, end);
			continue;
		}
		if (from == end)
			break;
		if (*from == '"')
			in_string = !in_string;
		else if (!in_string && !count_structure(*from, &depth, extent, error))
			return false;
		if (!in_string && environment_depth == 0 && *from == '[' && is_environment(text, to))
			environment_depth = depth;
		if (depth < environment_depth)
			environment_depth = 0;
		*to++ = *from++;
	}
	*to = '\0';
	extent->n_bytes = to - text;
	return true;
}

static CmJson *
add_value(TreeBuilder *builder, CmJsonKind kind, const char *text)
{
	CmJson *value;

	Assert(builder->n_values < builder->max_values);
	value = &builder->values[builder->n_values++];
	value->kind = kind;
	value->text = text;
	value->name = builder->name;
	builder->name = NULL;
	if (builder->n_open > 0)
		builder->children[builder->n_children++] = value;
	return value;
}

static void
open_value(TreeBuilder *builder, CmJsonKind kind)
{
	OpenValue *open;

	Assert(builder->n_open < CM_JSON_MAX_DEPTH);
	open = &builder->open[builder->n_open];
	open->value = add_value(builder, kind, NULL);
	open->first_child = builder->n_children;
	builder->n_open++;
}

static void
close_value(TreeBuilder *builder)
{
	OpenValue *open = &builder->open[--builder->n_open];
	CmJson *value = open->value;

	value->count = builder->n_children - open->first_child;
	value->items = builder->items + builder->n_items;
	memcpy(value->items, builder->children + open->first_child, value->count * sizeof(CmJson *));
	builder->n_items += value->count;
	builder->n_children = open->first_child;
}

static CM_JSON_ACTION
begin_object(void *state)
{
	open_value(state, CM_JSON_OBJECT);
	CM_JSON_ACTION_DONE;
}

static CM_JSON_ACTION
begin_array(void *state)
{
	open_value(state, CM_JSON_ARRAY);
	CM_JSON_ACTION_DONE;
}

static CM_JSON_ACTION
end_value(void *state)
{
	close_value(state);
	CM_JSON_ACTION_DONE;
}

static CM_JSON_ACTION
begin_member(void *state, char *name, bool is_null)
{
	((TreeBuilder *) state)->name = name;
	CM_JSON_ACTION_DONE;
}

static CM_JSON_ACTION
take_scalar(void *state, char *token, JsonTokenType type)
{
	switch (type)
	{
		case JSON_TOKEN_STRING:
			add_value(state, CM_JSON_STRING, token);
			break;
		case JSON_TOKEN_NUMBER:
			add_value(state, CM_JSON_NUMBER, token);
			break;
		case JSON_TOKEN_TRUE:
			add_value(state, CM_JSON_BOOL, "true");
			break;
		case JSON_TOKEN_FALSE:
			add_value(state, CM_JSON_BOOL, "false");
			break;
		default:
			add_value(state, CM_JSON_NULL, NULL);
			break;
	}
	CM_JSON_ACTION_DONE;
}

static void
prepare_builder(TreeBuilder *builder, int max_values)
{
	memset(builder, 0, sizeof(*builder));
	builder->max_values = max_values;
	builder->values = palloc0(max_values * sizeof(CmJson));
	builder->children = palloc(max_values * sizeof(CmJson *));
	builder->items = palloc(max_values * sizeof(CmJson *));
}

/* The second pass.  The parser's own words would be in the server's language. */
static CmJson *
build_tree(char *text, const JsonExtent *extent, const char **error)
{
	TreeBuilder builder;
	JsonLexContext *lexer = cm_json_lexer_new(text, extent->n_bytes);
	JsonSemAction actions = {
		.semstate = &builder,
		.object_start = begin_object,
		.object_end = end_value,
		.array_start = begin_array,
		.array_end = end_value,
		.object_field_start = begin_member,
		.scalar = take_scalar,
	};
	JsonParseErrorType result;
	size_t at;

	prepare_builder(&builder, extent->max_values);
	result = pg_parse_json(lexer, &actions);
	at = lexer->token_start ? lexer->token_start - text : extent->n_bytes;
	cm_json_lexer_free(lexer);
	pfree(builder.children);

	if (result == JSON_SUCCESS)
		return &builder.values[0];
	pfree(builder.values);
	pfree(builder.items);
	if (result == JSON_UNICODE_CODE_POINT_ZERO)
		*error = psprintf("JSON with a \\u0000 in the text at byte %zu", at);
	else
		*error = psprintf("not valid JSON at byte %zu", at);
	return NULL;
}

CmJson *
cm_json_parse(const char *bytes, size_t n_bytes, const char **error)
{
	char *text;
	JsonExtent extent;
	CmJson *root = NULL;

	*error = NULL;
	if (n_bytes > CM_JSON_MAX_BYTES)
	{
		*error = "JSON is too long";
		return NULL;
	}
	if (!pg_verify_mbstr(PG_UTF8, bytes, (int) n_bytes, true))
	{
		*error = "JSON is not UTF-8";
		return NULL;
	}

	text = palloc(n_bytes + 1);
	if (prepare_text(bytes, n_bytes, text, &extent, error))
		root = build_tree(text, &extent, error);
	pfree(text);
	return root;
}

const CmJson *
cm_json_get(const CmJson *object, const char *name)
{
	if (object == NULL || object->kind != CM_JSON_OBJECT)
		return NULL;
	for (int i = object->count - 1; i >= 0; i--)
	{
		if (strcmp(object->items[i]->name, name) == 0)
			return object->items[i];
	}
	return NULL;
}

const CmJson *
cm_json_path(const CmJson *object, const char *a, const char *b)
{
	return cm_json_get(cm_json_get(object, a), b);
}

const char *
cm_json_string(const CmJson *value, const char *fallback)
{
	if (value == NULL || value->kind != CM_JSON_STRING)
		return fallback;
	return value->text;
}

int64
cm_json_int(const CmJson *value, int64 fallback)
{
	char *end;
	int64 number;

	if (value == NULL || value->kind != CM_JSON_NUMBER)
		return fallback;
	errno = 0;
	number = strtoi64(value->text, &end, 10);
	if (errno != 0 || *end != '\0')
		return fallback;
	return number;
}

bool
cm_json_bool(const CmJson *value, bool fallback)
{
	if (value == NULL || value->kind != CM_JSON_BOOL)
		return fallback;
	return value->text[0] == 't';
}

/* escape_json() looks at single bytes only, so the encoding does not matter. */
void
cm_json_append_string(StringInfo to, const char *utf8)
{
	escape_json(to, utf8);
}

void
cm_json_append_words(StringInfo to, int count, const char *const *words)
{
	appendStringInfoChar(to, '[');
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(to, ',');
		cm_json_append_string(to, words[i]);
	}
	appendStringInfoChar(to, ']');
}
