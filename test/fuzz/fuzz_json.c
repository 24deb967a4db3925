/*
 * fuzz_json.c
 *		JSON: a tree, written as text again, gives the same tree; bounds hold; what
 *		is refused is told in a line; any text becomes a string and comes back.
 */
#include "docker_json.h"

#include "fuzz.h"
#include "mb/pg_wchar.h"
#include "server.h"

static void
write_value(StringInfo to, const CmJson *value)
{
	bool is_object = value->kind == CM_JSON_OBJECT;

	switch (value->kind)
	{
		case CM_JSON_NULL:
			appendStringInfoString(to, "null");
			return;
		case CM_JSON_BOOL:
		case CM_JSON_NUMBER:
			appendStringInfoString(to, value->text);
			return;
		case CM_JSON_STRING:
			cm_json_append_string(to, value->text);
			return;
		case CM_JSON_ARRAY:
		case CM_JSON_OBJECT:
			break;
	}
	appendStringInfoChar(to, is_object ? '{' : '[');
	for (int i = 0; i < value->count; i++)
	{
		if (i > 0)
			appendStringInfoChar(to, ',');
		if (is_object)
		{
			cm_json_append_string(to, value->items[i]->name);
			appendStringInfoChar(to, ':');
		}
		write_value(to, value->items[i]);
	}
	appendStringInfoChar(to, is_object ? '}' : ']');
}

/* Counts the values; depth is that of its surroundings. */
static int
check_value(const CmJson *value, bool is_member, int depth)
{
	int n = 1;

	REQUIRE((value->name != NULL) == is_member);
	REQUIRE((value->text != NULL) ==
			(value->kind == CM_JSON_STRING || value->kind == CM_JSON_NUMBER ||
			 value->kind == CM_JSON_BOOL));
	if (value->text != NULL)
		REQUIRE(pg_encoding_verifymbstr(PG_UTF8, value->text, (int) strlen(value->text)) ==
				(int) strlen(value->text));
	if (value->kind == CM_JSON_ARRAY || value->kind == CM_JSON_OBJECT)
		REQUIRE(++depth <= CM_JSON_MAX_DEPTH);
	else
		REQUIRE(value->count == 0);
	for (int i = 0; i < value->count; i++)
	{
		n += check_value(value->items[i], value->kind == CM_JSON_OBJECT, depth);
		if (value->kind == CM_JSON_OBJECT)
			REQUIRE(cm_json_get(value, value->items[i]->name) != NULL);
	}
	/* The readers of scalars take whatever it is. */
	REQUIRE(cm_json_string(value, NULL) == NULL || value->kind == CM_JSON_STRING);
	REQUIRE(cm_json_int(value, 7) == 7 || value->kind == CM_JSON_NUMBER);
	REQUIRE(!cm_json_bool(value, false) || value->kind == CM_JSON_BOOL);
	return n;
}

static bool
is_same(const CmJson *a, const CmJson *b)
{
	if (a->kind != b->kind || a->count != b->count || (a->text == NULL) != (b->text == NULL) ||
		(a->text != NULL && strcmp(a->text, b->text) != 0) ||
		(a->name == NULL) != (b->name == NULL) ||
		(a->name != NULL && strcmp(a->name, b->name) != 0))
		return false;
	for (int i = 0; i < a->count; i++)
	{
		if (!is_same(a->items[i], b->items[i]))
			return false;
	}
	return true;
}

static void
check_writing(const CmJson *root)
{
	StringInfoData text;
	const char *error;
	const CmJson *again;

	initStringInfo(&text);
	write_value(&text, root);
	again = cm_json_parse(text.data, text.len, &error);
	REQUIRE(again != NULL && is_same(root, again));
}

/* The bytes, up to a NUL, as one string. */
static void
check_string(const char *bytes, size_t n_bytes)
{
	char *text = pnstrdup(bytes, n_bytes);
	StringInfoData written;
	const char *error;
	const CmJson *again;
	bool is_utf8 = pg_encoding_verifymbstr(PG_UTF8, text, (int) strlen(text)) == (int) strlen(text);

	initStringInfo(&written);
	cm_json_append_string(&written, text);
	again = cm_json_parse(written.data, written.len, &error);
	REQUIRE((again != NULL) == is_utf8);
	if (again != NULL)
		REQUIRE(again->kind == CM_JSON_STRING && strcmp(again->text, text) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *bytes;
	const char *error;
	const CmJson *root;

	fuzz_reset_memory();
	bytes = malloc(n_bytes); /* without a NUL behind it */
	REQUIRE(bytes != NULL || n_bytes == 0);
	if (n_bytes > 0)
		memcpy(bytes, data, n_bytes);
	root = cm_json_parse(bytes, n_bytes, &error);
	REQUIRE((root == NULL) == (error != NULL));
	if (root == NULL)
		REQUIRE(fuzz_is_line(error));
	else
	{
		REQUIRE(check_value(root, false, 0) <= CM_JSON_MAX_VALUES);
		check_writing(root);
	}
	check_string(bytes, n_bytes);
	free(bytes);
	return 0;
}
