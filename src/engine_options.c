/*
 * engine_options.c
 *		docker_options in the body of a create request, written anew.
 *
 * The guard let them pass: names are those of its own list, and values are of
 * their kinds.
 */
#include "postgres.h"

#include "engine_internal.h"

static void
append_pairs(StringInfo to, const CmOption *option)
{
	appendStringInfoChar(to, '{');
	for (int i = 0; i < option->n_pairs; i++)
	{
		if (i > 0)
			appendStringInfoChar(to, ',');
		cm_json_append_string(to, option->pairs[i].name);
		appendStringInfoChar(to, ':');
		cm_json_append_string(to, option->pairs[i].value);
	}
	appendStringInfoChar(to, '}');
}

static void
append_value(StringInfo to, const CmOption *option)
{
	switch (option->kind)
	{
		case CM_OPTION_BOOL:
			appendStringInfoString(to, option->number ? "true" : "false");
			return;
		case CM_OPTION_NUMBER:
			appendStringInfo(to, INT64_FORMAT, (int64) option->number);
			return;
		case CM_OPTION_TEXT:
			cm_json_append_string(to, option->text);
			return;
		case CM_OPTION_WORDS:
			cm_json_append_words(to, option->words.count,
								 (const char *const *) option->words.words);
			return;
		case CM_OPTION_PAIRS:
			append_pairs(to, option);
			return;
		case CM_OPTION_OTHER:
			break;
	}
	elog(ERROR, "docker_options \"%s\" was not checked", option->name);
}

void
cm_engine_append_options(StringInfo to, const CmJobSpec *spec, bool in_host_config)
{
	for (int i = 0; i < spec->n_options; i++)
	{
		if (spec->options[i].in_host_config != in_host_config)
			continue;
		cm_json_append_string(to, spec->options[i].name);
		appendStringInfoChar(to, ':');
		append_value(to, &spec->options[i]);
		appendStringInfoChar(to, ',');
	}
}

bool
cm_engine_has_option(const CmJobSpec *spec, const char *name)
{
	for (int i = 0; i < spec->n_options; i++)
		if (strcmp(spec->options[i].name, name) == 0)
			return true;
	return false;
}
