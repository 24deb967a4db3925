/*
 * store_options.c
 *		docker_options, taken apart for the guard.
 */
#include "postgres.h"

#include "store_options.h"

static bool
are_strings(const CmJson *json)
{
	for (int i = 0; i < json->count; i++)
		if (json->items[i]->kind != CM_JSON_STRING)
			return false;
	return true;
}

static void
read_words(const CmJson *json, CmOption *option)
{
	option->kind = CM_OPTION_WORDS;
	option->words.is_set = true;
	option->words.count = json->count;
	option->words.words = palloc(sizeof(char *) * Max(json->count, 1));
	for (int i = 0; i < json->count; i++)
		option->words.words[i] = json->items[i]->text;
}

static void
read_pairs(const CmJson *json, CmOption *option)
{
	CmPair *pairs = palloc(sizeof(CmPair) * Max(json->count, 1));

	option->kind = CM_OPTION_PAIRS;
	option->n_pairs = json->count;
	option->pairs = pairs;
	for (int i = 0; i < json->count; i++)
	{
		pairs[i].name = json->items[i]->name;
		pairs[i].value = json->items[i]->text;
	}
}

/* Two fallbacks tell a number that is no whole one of 64 bits. */
static void
read_number(const CmJson *json, CmOption *option)
{
	option->number = cm_json_int(json, 0);
	if (option->number != 0 || cm_json_int(json, 1) == 0)
		option->kind = CM_OPTION_NUMBER;
}

static void
read_option(const CmJson *json, bool in_host_config, CmOption *option)
{
	memset(option, 0, sizeof(*option));
	option->in_host_config = in_host_config;
	option->name = json->name;
	option->kind = CM_OPTION_OTHER;
	if (json->kind == CM_JSON_BOOL)
	{
		option->kind = CM_OPTION_BOOL;
		option->number = cm_json_bool(json, false) ? 1 : 0;
	}
	else if (json->kind == CM_JSON_NUMBER)
		read_number(json, option);
	else if (json->kind == CM_JSON_STRING)
	{
		option->kind = CM_OPTION_TEXT;
		option->text = json->text;
	}
	else if (json->kind == CM_JSON_ARRAY && are_strings(json))
		read_words(json, option);
	else if (json->kind == CM_JSON_OBJECT && are_strings(json))
		read_pairs(json, option);
}

static bool
is_host_config(const CmJson *json)
{
	return json->kind == CM_JSON_OBJECT && strcmp(json->name, "HostConfig") == 0;
}

static int
count_options(const CmJson *json)
{
	int n = json->count;

	for (int i = 0; i < json->count; i++)
		n += is_host_config(json->items[i]) ? json->items[i]->count : 0;
	return n;
}

void
cm_store_read_options(const CmJson *json, CmJobSpec *spec)
{
	CmOption *options = palloc(sizeof(CmOption) * Max(count_options(json), 1));
	int n = 0;

	for (int i = 0; i < json->count; i++)
	{
		const CmJson *member = json->items[i];

		if (!is_host_config(member))
		{
			read_option(member, false, &options[n++]);
			continue;
		}
		for (int j = 0; j < member->count; j++)
			read_option(member->items[j], true, &options[n++]);
	}
	spec->options = options;
	spec->n_options = n;
}
