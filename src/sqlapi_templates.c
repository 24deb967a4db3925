/*
 * sqlapi_templates.c
 *		Templates: checked when they are written, and filled into the jobs that
 *		name them.
 *
 * A template's columns are those of cm_jobs of the same name, so that a column
 * which both have needs no word here.
 *
 * Placeholders are looked for in the template's texts alone: what a job brings
 * itself may come from anywhere and is taken as it is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/jsonfuncs.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "placeholder.h"
#include "policy.h"
#include "sqlapi_environment.h"
#include "sqlapi_templates.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"

#define MAX_PARAMETERS 256
/* For a template that leaves the image to its jobs. */
#define ANY_IMAGE "busybox"

/* --- rows --- */

typedef struct Row
{
	TupleDesc desc;
	Datum *values;
	bool *nulls;
} Row;

static Row
read_row(HeapTuple tuple, TupleDesc desc)
{
	Row row = {desc, palloc0(sizeof(Datum) * desc->natts), palloc0(sizeof(bool) * desc->natts)};

	memset(row.nulls, true, desc->natts);
	if (tuple != NULL)
		heap_deform_tuple(tuple, desc, row.values, row.nulls);
	return row;
}

static int
find_column(const Row *row, const char *column)
{
	int number = SPI_fnumber(row->desc, column);

	if (number <= 0)
		elog(ERROR, "there is no column \"%s\"", column);
	return number - 1;
}

static bool
has_value(const Row *row, const char *column)
{
	return !row->nulls[find_column(row, column)];
}

/* Of a column that has one. */
static Datum
get_value(const Row *row, const char *column)
{
	return row->values[find_column(row, column)];
}

static void
set_value(Row *row, const char *column, Datum value)
{
	int i = find_column(row, column);

	row->values[i] = value;
	row->nulls[i] = false;
}

static Jsonb *
get_jsonb(const Row *row, const char *column)
{
	return has_value(row, column) ? DatumGetJsonbP(get_value(row, column)) : NULL;
}

/* --- a job being filled --- */

typedef struct Filling
{
	Row job;
	Row template;
	const char *name; /* the template's */
	Jsonb *given;	  /* parameters that the job gives; NULL: none */
	Jsonb *defaults;  /* those of the template */
	int n_known;	  /* names of parameters */
	char **known;
	bool is_looking; /* for names of parameters only */
	bool is_trial;	 /* of a template that is written: names stand for values */
	const char *column;
	List *passed; /* names of those that go by the environment */
} Filling;

static void
throw_of_column(const char *column, const char *message, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
					errhint("%s", hint), err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

static void
throw_too_much(const char *column, const char *message)
{
	ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("%s", message),
					errhint("No setting raises this bound."),
					err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

/* The beginning of what a user wrote, for a message. */
static char *
show_text(const char *text, int n_text)
{
	int n_shown = pg_mbcliplen(text, n_text, CM_MAX_PARAMETER_BYTES);

	return psprintf("%.*s%s", n_shown, text, n_shown < n_text ? "..." : "");
}

/* --- parameters --- */

static bool
is_known(const Filling *f, const char *name, int n_name)
{
	for (int i = 0; i < f->n_known; i++)
		if (strlen(f->known[i]) == n_name && strncmp(f->known[i], name, n_name) == 0)
			return true;
	return false;
}

static void
note_known(Filling *f, const char *name, int n_name)
{
	if (is_known(f, name, n_name))
		return;
	if (f->n_known == MAX_PARAMETERS)
		throw_too_much(f->column, psprintf("template has more than %d parameters", MAX_PARAMETERS));
	f->known[f->n_known++] = pnstrdup(name, n_name);
}

/* NULL: there is none of that name, or it is null. */
static char *
find_value(Jsonb *parameters, const char *name, int n_name)
{
	JsonbValue found;

	if (parameters == NULL ||
		getKeyJsonValueFromContainer(&parameters->root, name, n_name, &found) == NULL)
		return NULL;
	switch (found.type)
	{
		case jbvString:
			return pnstrdup(found.val.string.val, found.val.string.len);
		case jbvNumeric:
			return DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(found.val.numeric)));
		case jbvBool:
			return pstrdup(found.val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

static const char *
take_value(const Filling *f, const char *name, int n_name)
{
	const char *value = find_value(f->given, name, n_name);

	if (f->is_looking)
		return "";
	if (value == NULL)
		value = find_value(f->defaults, name, n_name);
	if (value == NULL && f->is_trial)
		value = pnstrdup(name, n_name);
	if (value == NULL)
		throw_of_column(
			"parameters",
			psprintf("parameter \"%.*s\" of template \"%s\" is missing", n_name, name, f->name),
			psprintf("Give it as in parameters => '{\"%.*s\": \"value\"}'.", n_name, name));
	return value;
}

/* Objects of scalars, of a bounded size; whose names is asked of each. */
static void
check_parameters(Filling *f, Jsonb *parameters, void (*check_key)(Filling *, const char *, int))
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue key;
	JsonbValue value;

	if (parameters == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(parameters))
		throw_of_column("parameters", "parameters is not a JSON object",
						"Write it as {\"name\": \"value\"}.");
	if (VARSIZE(parameters) > CM_MAX_SPEC_BYTES)
		throw_too_much("parameters",
					   psprintf("parameters take more than %d bytes", CM_MAX_SPEC_BYTES));
	iterator = JsonbIteratorInit(&parameters->root);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		check_key(f, key.val.string.val, key.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (value.type == jbvBinary)
			throw_of_column("parameters",
							psprintf("parameter \"%s\" is not a text, a number or a boolean",
									 show_text(key.val.string.val, key.val.string.len)),
							"Write the value as a string.");
	}
}

static void
check_default(Filling *f, const char *name, int n_name)
{
	if (!cm_placeholder_is_name(pnstrdup(name, n_name), n_name))
		throw_of_column(
			"parameters",
			psprintf("name \"%s\" of a parameter is not valid", show_text(name, n_name)),
			"A name has 1 to 63 letters, digits and \"_\", and does not begin with a digit.");
	note_known(f, name, n_name);
}

static void
check_given(Filling *f, const char *name, int n_name)
{
	const char *nearest;

	if (is_known(f, name, n_name))
		return;
	nearest = cm_sqlapi_find_nearest(name, n_name, f->n_known, f->known);
	throw_of_column(
		"parameters",
		psprintf("template \"%s\" has no parameter \"%s\"", f->name, show_text(name, n_name)),
		nearest ? psprintf("Perhaps you meant \"%s\".", nearest)
				: "Its parameters are the {{names}} in cm_templates.");
}

/* --- texts --- */

static void
throw_bad_placeholder(const Filling *f, const CmPlaceholder *found)
{
	const char *shown = psprintf("{{%.*s}}", (int) found->n_name, found->name);

	switch (found->kind)
	{
		case CM_PLACEHOLDER_QUOTED:
			throw_of_column(
				f->column,
				psprintf("placeholder %s in command stands in quotes, or behind \"\\\" or \"$\"",
						 shown),
				psprintf(
					"A value is always one word: write %s alone. In quotes, use a variable of the template's environment: '{\"NAME\": \"%s\"}' and \"$NAME\".",
					shown, shown));
			break;
		case CM_PLACEHOLDER_BEHIND_HERE:
			throw_of_column(
				f->column,
				psprintf("placeholder %s in command may stand in a here-document", shown),
				psprintf(
					"Use a variable of the template's environment there: '{\"NAME\": \"%s\"}' and $NAME.",
					shown));
			break;
		case CM_PLACEHOLDER_IN_EXPRESSION:
			throw_of_column(
				f->column,
				psprintf("placeholder %s in command stands in an expression of the shell", shown),
				psprintf(
					"Some shells run commands that a value has there. Check it first: case %s in ''|*[!0-9]*) exit 2;; esac; n=%s; echo $((n + 1)).",
					shown, shown));
			break;
		default:
			throw_of_column(
				f->column, psprintf("\"{{\" in %s does not begin a placeholder", f->column),
				"A placeholder is written {{name}}. For \"{{\" itself, make it the default of a parameter.");
	}
}

/* What a shell reads is a variable's name, never the value. */
static void
put_value(Filling *f, const CmPlaceholder *found, StringInfo to)
{
	char *name = pnstrdup(found->name, found->n_name);
	const char *value = take_value(f, name, found->n_name);

	if (f->is_looking)
		note_known(f, name, found->n_name);
	if (strcmp(f->column, "command") != 0)
	{
		appendStringInfoString(to, value);
		return;
	}
	appendStringInfo(to, "\"$" CM_PARAMETER_PREFIX "%s\"", name);
	if (!f->is_looking)
		f->passed = list_append_unique(f->passed, makeString(name));
}

/* Ends early what the guard would find too long. */
static char *
fill_text(Filling *f, const char *text)
{
	StringInfoData to;
	CmPlaceholderScan scan;
	CmPlaceholder found;

	initStringInfo(&to);
	cm_placeholder_begin(&scan, text, strcmp(f->column, "command") == 0);
	do
	{
		found = cm_placeholder_next(&scan);
		appendBinaryStringInfo(&to, found.literal, found.n_literal);
		if (found.kind == CM_PLACEHOLDER_FOUND)
			put_value(f, &found, &to);
		else if (found.kind != CM_PLACEHOLDER_END)
			throw_bad_placeholder(f, &found);
		if (to.len > CM_MAX_SPEC_BYTES)
			throw_too_much(f->column,
						   psprintf("%s is longer than %d bytes", f->column, CM_MAX_SPEC_BYTES));
	} while (found.kind == CM_PLACEHOLDER_FOUND);
	return to.data;
}

static Datum
fill_command(Filling *f, Datum value)
{
	f->column = "command";
	return CStringGetTextDatum(fill_text(f, TextDatumGetCString(value)));
}

/* The words of a list; NULLs in it are empty here. */
static int
read_words(Datum value, const char ***words, bool **nulls)
{
	Datum *items;
	int n;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &items, nulls,
					  &n);
	*words = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*words)[i] = (*nulls)[i] ? "" : TextDatumGetCString(items[i]);
	return n;
}

/* Is one of the words a script for a shell?  Then a value in it would be parsed. */
static void
check_no_script(const Filling *f, const char *const *texts, const char *const *all, int n_before,
				int n)
{
	int script = cm_placeholder_find_script(all, n_before + n);

	if (script < n_before || strstr(texts[script - n_before], "{{") == NULL)
		return;
	throw_of_column(
		f->column, psprintf("placeholder in %s stands in a script for a shell", f->column),
		"Use command, or pass it behind the script: '{sh,-c,\"echo \\\"$1\\\"\",sh,{{name}}}'.");
}

/* before: the words that the program is given before these. */
static Datum
fill_words(Filling *f, const char *column, Datum value, const char *const *before, int n_before)
{
	const char **words;
	bool *nulls;
	int n = read_words(value, &words, &nulls);
	const char **all = palloc(sizeof(char *) * (n_before + n + 1));
	Datum *items = palloc(sizeof(Datum) * Max(n, 1));
	int lower = 1;

	/* The guard refuses it. */
	if (ARR_NDIM(DatumGetArrayTypeP(value)) > 1)
		return value;
	f->column = column;
	memcpy(all, before, sizeof(char *) * n_before);
	for (int i = 0; i < n; i++)
	{
		all[n_before + i] = fill_text(f, words[i]);
		items[i] = CStringGetTextDatum(all[n_before + i]);
	}
	check_no_script(f, words, all, n_before, n);
	return PointerGetDatum(
		construct_md_array(items, nulls, 1, &n, &lower, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Behind the words of the entrypoint that the job has in the end. */
static Datum
fill_args(Filling *f, const Row *with_entrypoint, Datum value)
{
	const char **before = NULL;
	bool *nulls;
	int n_before = 0;

	if (has_value(with_entrypoint, "entrypoint"))
		n_before = read_words(get_value(with_entrypoint, "entrypoint"), &before, &nulls);
	return fill_words(f, "args", value, before, n_before);
}

static text *
fill_variable(void *state, char *value, int n_value)
{
	return cstring_to_text(fill_text(state, pnstrdup(value, n_value)));
}

static Datum
fill_environment(Filling *f, Datum value)
{
	f->column = "environment";
	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(value)))
		return value;
	return JsonbPGetDatum(transform_jsonb_string_values(DatumGetJsonbP(value), f, fill_variable));
}

/* Finds the names of parameters, and what is wrong with a placeholder anywhere. */
static void
look_for_parameters(Filling *f)
{
	const Row *template = &f->template;

	f->is_looking = true;
	f->known = palloc(sizeof(char *) * MAX_PARAMETERS);
	f->column = "parameters";
	check_parameters(f, f->defaults, check_default);
	if (has_value(template, "command"))
		(void) fill_command(f, get_value(template, "command"));
	if (has_value(template, "entrypoint"))
		(void) fill_words(f, "entrypoint", get_value(template, "entrypoint"), NULL, 0);
	if (has_value(template, "args"))
		(void) fill_args(f, template, get_value(template, "args"));
	if (has_value(template, "environment"))
		(void) fill_environment(f, get_value(template, "environment"));
	f->is_looking = false;
}

/* --- what is taken from a template --- */

/* Of a template itself. */
static bool
is_own_column(const char *column)
{
	static const char *const own[] = {"name",		"description", "is_active", "is_built_in",
									  "parameters", "created_at",  "updated_at"};

	for (int i = 0; i < lengthof(own); i++)
		if (strcmp(own[i], column) == 0)
			return true;
	return false;
}

/* Does the job say it, or what stands in its place? */
static bool
is_overridden(const Row *job, const char *column)
{
	static const char *const rivals[][2] = {{"command", "args"},	 {"command", "entrypoint"},
											{"args", "command"},	 {"entrypoint", "command"},
											{"host", "host_labels"}, {"host_labels", "host"}};

	if (has_value(job, column))
		return true;
	for (int i = 0; i < lengthof(rivals); i++)
		if (strcmp(rivals[i][0], column) == 0 && has_value(job, rivals[i][1]))
			return true;
	return false;
}

Datum
cm_sqlapi_merge_objects(int n, const Datum *layers, const bool *nulls, bool *is_null)
{
	Datum merged = (Datum) 0;

	*is_null = true;
	for (int i = 0; i < n; i++)
	{
		bool is_object = !nulls[i] && JB_ROOT_IS_OBJECT(DatumGetJsonbP(layers[i]));

		if (nulls[i])
			continue;
		if (!*is_null && is_object && JB_ROOT_IS_OBJECT(DatumGetJsonbP(merged)))
			merged = DirectFunctionCall2(jsonb_concat, merged, layers[i]);
		else
			merged = layers[i];
		*is_null = false;
	}
	return merged;
}

/* The template's below the job's own. */
static void
merge_column(Row *job, const char *column, Datum of_template)
{
	int i = find_column(job, column);
	Datum layers[] = {of_template, job->values[i]};
	bool nulls[] = {false, job->nulls[i]};

	job->values[i] = cm_sqlapi_merge_objects(2, layers, nulls, &job->nulls[i]);
}

static void
append_pair(JsonbParseState **state, char *name, char *value)
{
	JsonbValue text = {.type = jbvString};

	text.val.string.val = name;
	text.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &text);
	text.val.string.val = value;
	text.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_VALUE, &text);
}

/* A job's own variable of that name would take its place unseen. */
static void
check_is_free(Jsonb *environment, const char *variable, const char *parameter)
{
	JsonbValue taken;

	if (environment != NULL &&
		getKeyJsonValueFromContainer(&environment->root, variable, strlen(variable), &taken))
		throw_of_column("environment",
						psprintf("environment variable \"%s\" is that of a parameter", variable),
						psprintf("Give its value as parameter \"%s\".", parameter));
}

/* Variables for what the shell is to read. */
static void
pass_parameters(Filling *f)
{
	JsonbParseState *state = NULL;
	Jsonb *environment = get_jsonb(&f->job, "environment");
	ListCell *cell;

	/* The guard refuses an environment that is no object. */
	if (f->passed == NIL || (environment != NULL && !JB_ROOT_IS_OBJECT(environment)))
		return;
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	foreach (cell, f->passed)
	{
		char *name = strVal(lfirst(cell));
		char *variable = psprintf(CM_PARAMETER_PREFIX "%s", name);

		check_is_free(environment, variable, name);
		append_pair(&state, variable, unconstify(char *, take_value(f, name, strlen(name))));
	}
	merge_column(&f->job, "environment",
				 JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL))));
}

static Datum
take_column(Filling *f, const char *column, Datum value)
{
	if (strcmp(column, "command") == 0)
		return fill_command(f, value);
	if (strcmp(column, "entrypoint") == 0)
		return fill_words(f, "entrypoint", value, NULL, 0);
	return value;
}

/* All columns but those that need others to be there. */
static void
take_columns(Filling *f)
{
	Row said = read_row(NULL, f->job.desc);

	memcpy(said.nulls, f->job.nulls, sizeof(bool) * f->job.desc->natts);
	for (int i = 0; i < f->template.desc->natts; i++)
	{
		const char *column = NameStr(TupleDescAttr(f->template.desc, i)->attname);

		if (TupleDescAttr(f->template.desc, i)->attisdropped || is_own_column(column) ||
			f->template.nulls[i] || is_overridden(&said, column) || strcmp(column, "args") == 0 ||
			strcmp(column, "environment_template") == 0)
			continue;
		set_value(&f->job, column, take_column(f, column, f->template.values[i]));
	}
	if (has_value(&f->template, "args") && !is_overridden(&said, "args"))
		set_value(&f->job, "args", fill_args(f, &f->job, get_value(&f->template, "args")));
}

/* The job keeps what it was given, and what it took for the rest. */
static void
keep_parameters(Filling *f)
{
	bool nulls[] = {f->defaults == NULL, f->given == NULL};
	Datum layers[2] = {0};
	int i = find_column(&f->job, "parameters");

	if (f->defaults != NULL)
		layers[0] = JsonbPGetDatum(f->defaults);
	/* null was taken for unsaid. */
	if (f->given != NULL)
		layers[1] = DirectFunctionCall1(jsonb_strip_nulls, JsonbPGetDatum(f->given));
	f->job.values[i] = cm_sqlapi_merge_objects(2, layers, nulls, &f->job.nulls[i]);
}

/* Without the variables that the job has itself: those need no parameters. */
static Datum
leave_out_own(Datum environment, Jsonb *own)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue key;
	Datum *names;
	int n = 0;

	if (own == NULL || !JB_ROOT_IS_OBJECT(own) || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(environment)))
		return environment;
	names = palloc(sizeof(Datum) * Max(JB_ROOT_COUNT(own), 1));
	iterator = JsonbIteratorInit(&own->root);
	while ((token = JsonbIteratorNext(&iterator, &key, true)) != WJB_DONE)
		if (token == WJB_KEY)
			names[n++] =
				PointerGetDatum(cstring_to_text_with_len(key.val.string.val, key.val.string.len));
	return DirectFunctionCall2(
		jsonb_delete_array, environment,
		PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT)));
}

static void
fill_variables(Filling *f)
{
	Datum variables;

	if (!has_value(&f->template, "environment"))
		return;
	variables =
		leave_out_own(get_value(&f->template, "environment"), get_jsonb(&f->job, "environment"));
	variables = leave_out_own(variables, get_jsonb(&f->job, "secret_environment"));
	merge_column(&f->job, "environment", fill_environment(f, variables));
}

static void
fill_job(Filling *f)
{
	look_for_parameters(f);
	check_parameters(f, f->given, check_given);
	fill_variables(f);
	if (has_value(&f->template, "secret_environment"))
		merge_column(&f->job, "secret_environment", get_value(&f->template, "secret_environment"));
	if (has_value(&f->template, "labels"))
		merge_column(&f->job, "labels", get_value(&f->template, "labels"));
	take_columns(f);
	pass_parameters(f);
	keep_parameters(f);
}

/* --- submitting --- */

static Row
find_template(Relation jobs, Datum name)
{
	static CmTriggerSql find = {
		"SELECT * FROM %s.cm_templates WHERE name = $1", 1, {TEXTOID}, InvalidOid, NULL};
	CmAsOwner as_owner;
	uint64 n;

	cm_sqlapi_begin_as(jobs->rd_rel->relowner, &as_owner);
	n = cm_sqlapi_run_in_trigger(&find, jobs, &name);
	cm_sqlapi_end_as_owner(&as_owner);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("template \"%s\" does not exist", TextDatumGetCString(name)),
				 errhint("The templates are in cm_templates; cm_create_template() makes one."),
				 err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
				 err_generic_string(PG_DIAG_COLUMN_NAME, "template")));
	return read_row(SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
}

static void
check_is_active(const Filling *f)
{
	if (DatumGetBool(get_value(&f->template, "is_active")))
		return;
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("template \"%s\" is disabled", f->name),
					errhint("Use another one, or SELECT cm_enable_template(%s).",
							quote_literal_cstr(f->name)),
					err_generic_string(PG_DIAG_TABLE_NAME, "cm_jobs"),
					err_generic_string(PG_DIAG_COLUMN_NAME, "template")));
}

static HeapTuple
form_job(const Row *job, HeapTuple like)
{
	bool *replaced = palloc(sizeof(bool) * job->desc->natts);

	memset(replaced, true, job->desc->natts);
	return heap_modify_tuple(like, job->desc, job->values, job->nulls, replaced);
}

static char *
get_environment_template(const Row *template)
{
	if (!has_value(template, "environment_template"))
		return NULL;
	return TextDatumGetCString(get_value(template, "environment_template"));
}

HeapTuple
cm_sqlapi_fill_from_template(Relation jobs, HeapTuple job, char **environment_template)
{
	Filling f = {0};

	f.job = read_row(job, RelationGetDescr(jobs));
	f.given = get_jsonb(&f.job, "parameters");
	if (!has_value(&f.job, "template"))
	{
		if (f.given != NULL)
			throw_of_column("parameters", "parameters are given without a template",
							"Name the template, or leave them out.");
		return job;
	}
	f.name = TextDatumGetCString(get_value(&f.job, "template"));
	f.template = find_template(jobs, get_value(&f.job, "template"));
	f.defaults = get_jsonb(&f.template, "parameters");
	check_is_active(&f);
	fill_job(&f);
	*environment_template = get_environment_template(&f.template);
	return form_job(&f.job, job);
}

/* --- writing --- */

static void
check_name(const Row *template)
{
	char *name =
		has_value(template, "name") ? TextDatumGetCString(get_value(template, "name")) : "";

	if (!cm_policy_is_plain_name(name))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("template name \"%s\" is not valid", show_text(name, strlen(name))),
			 errhint(
				 "A name has 1 to 63 letters, digits, \"_\", \".\" and \"-\", and begins with a letter or digit."),
			 err_generic_string(PG_DIAG_TABLE_NAME, "cm_templates"),
			 err_generic_string(PG_DIAG_COLUMN_NAME, "name")));
}

/* As a job that says nothing itself, and nothing of a template any more. */
static void
check_as_job(Relation jobs, Row *template)
{
	Filling f = {.template = *template, .is_trial = true};
	Row nothing = read_row(NULL, RelationGetDescr(jobs));
	HeapTuple filled;

	f.name = TextDatumGetCString(get_value(template, "name"));
	f.job = read_row(NULL, RelationGetDescr(jobs));
	f.defaults = get_jsonb(template, "parameters");
	fill_job(&f);
	if (!has_value(&f.job, "image"))
		set_value(&f.job, "image", CStringGetTextDatum(ANY_IMAGE));
	f.job.nulls[find_column(&f.job, "parameters")] = true;
	set_value(&f.job, "template", get_value(template, "name"));
	filled = heap_form_tuple(f.job.desc, f.job.values, f.job.nulls);
	filled = cm_sqlapi_merge_environment(
		jobs, heap_form_tuple(nothing.desc, nothing.values, nothing.nulls), filled,
		get_environment_template(template));
	cm_sqlapi_check_unsubmitted(jobs, filled);
}

/* The guard speaks of cm_jobs. */
static void
throw_of_template(MemoryContext context)
{
	ErrorData *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->table_name != NULL && strcmp(error->table_name, "cm_jobs") == 0)
		error->table_name = "cm_templates";
	ReThrowError(error);
}

static void
check_template(Relation templates, Row *template)
{
	MemoryContext context = CurrentMemoryContext;
	Oid jobs_id = get_relname_relid("cm_jobs", RelationGetNamespace(templates));
	Relation jobs;

	check_name(template);
	jobs = table_open(jobs_id, AccessShareLock);
	PG_TRY();
	{
		check_as_job(jobs, template);
	}
	PG_CATCH();
	{
		throw_of_template(context);
	}
	PG_END_TRY();
	table_close(jobs, NoLock);
}

/*
 * Renamed, described, enabled or disabled it can be though a limit was lowered
 * since; the jobs that name it are checked anyway.
 */
static bool
is_definition_changed(const Row *old, const Row *new)
{
	for (int i = 0; i < new->desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(new->desc, i);

		if (column->attisdropped || (is_own_column(NameStr(column->attname)) &&
									 strcmp(NameStr(column->attname), "parameters") != 0))
			continue;
		if (old->nulls[i] != new->nulls[i] ||
			(!old->nulls[i] &&
			 !datumIsEqual(old->values[i], new->values[i], column->attbyval, column->attlen)))
			return true;
	}
	return false;
}

/* A row that comes with its times comes out of a dump. */
static bool
is_restored(TriggerData *trigger, const Row *template)
{
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || !has_value(template, "created_at"))
		return false;
	if (!superuser() && !cm_class_ownercheck(RelationGetRelid(trigger->tg_relation), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("created_at of a template cannot be given"),
				 errdetail("Only a superuser or the owner of cm_templates may restore templates."),
				 errhint("Leave the column out."),
				 err_generic_string(PG_DIAG_TABLE_NAME, "cm_templates"),
				 err_generic_string(PG_DIAG_COLUMN_NAME, "created_at")));
	return true;
}

/* Those that CREATE EXTENSION has just made give way to what is in the dump. */
static void
make_way(Relation templates)
{
	static CmTriggerSql forget = {
		"DELETE FROM %s.cm_templates WHERE is_built_in", 0, {0}, InvalidOid, NULL};

	cm_sqlapi_run_in_trigger(&forget, templates, NULL);
}

static void
complete_template(TriggerData *trigger, Row *template)
{
	Datum now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		check_template(trigger->tg_relation, template);
		set_value(template, "created_at", now);
	}
	else
	{
		Row old = read_row(trigger->tg_trigtuple, template->desc);

		if (is_definition_changed(&old, template))
			check_template(trigger->tg_relation, template);
		else
			check_name(template);
		set_value(template, "created_at", get_value(&old, "created_at"));
	}
	set_value(template, "updated_at", now);
}

PG_FUNCTION_INFO_V1(cm_check_template);

Datum
cm_check_template(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	MemoryContext caller = CurrentMemoryContext;
	HeapTuple tuple =
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? trigger->tg_trigtuple : trigger->tg_newtuple;
	Row template;
	HeapTuple result;

	SPI_connect();
	template = read_row(tuple, RelationGetDescr(trigger->tg_relation));
	if (is_restored(trigger, &template))
		make_way(trigger->tg_relation);
	else
		complete_template(trigger, &template);
	set_value(&template, "is_built_in", BoolGetDatum(false));
	MemoryContextSwitchTo(caller);
	result = form_job(&template, tuple);
	SPI_finish();
	return PointerGetDatum(result);
}
