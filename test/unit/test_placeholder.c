/*
 * test_placeholder.c
 *		{{name}}: what is one, where it may stand in a shell's text, and which
 *		words are scripts.
 */
#include "placeholder.h"
#include "tap.h"

#define NINE "n23456789"
#define NAME_63 NINE NINE NINE NINE NINE NINE NINE

/* Rebuilt with <name> for each placeholder, and what ended it. */
static const char *
rebuild(const char *text, bool is_shell, char *out, size_t out_size)
{
	static const char *const ends[] = {"", "", " !malformed", " !quoted", " !here", " !expression"};
	CmPlaceholderScan scan;
	CmPlaceholder found;

	out[0] = '\0';
	cm_placeholder_begin(&scan, text, is_shell);
	do
	{
		size_t n = strlen(out);

		found = cm_placeholder_next(&scan);
		n += (size_t) snprintf(out + n, out_size - n, "%.*s", (int) found.n_literal, found.literal);
		if (found.kind == CM_PLACEHOLDER_FOUND)
			snprintf(out + n, out_size - n, "<%.*s>", (int) found.n_name, found.name);
		else
			snprintf(out + n, out_size - n, "%s", ends[found.kind]);
	} while (found.kind == CM_PLACEHOLDER_FOUND);
	return out;
}

typedef struct Row
{
	const char *text;
	const char *plain; /* what is made of it as a word */
	const char *shell; /* as a shell's text; NULL: the same */
} Row;

/* clang-format off */
static const Row rows[] = {
	{"", "", NULL},
	{"no placeholder", "no placeholder", NULL},
	{"{{a}}", "<a>", NULL},
	{"{{a}}{{b}}", "<a><b>", NULL},
	{"x{{a_1}}y {{ B }} {{\t_c }}", "x<a_1>y <B> <_c>", NULL},
	{"{{" NAME_63 "}}", "<" NAME_63 ">", NULL},
	{"{{" NAME_63 "x}}", " !malformed", NULL},
	{"{a} }} {{a}}}", "{a} }} <a>}", NULL},
	{"{{}}", " !malformed", NULL},
	{"{{1a}}", " !malformed", NULL},
	{"{{a-b}}", " !malformed", NULL},
	{"{{a b}}", " !malformed", NULL},
	{"{{a}", " !malformed", NULL},
	{"{{a", " !malformed", NULL},
	{"{{", " !malformed", NULL},
	{"{{{a}}}", " !malformed", NULL},
	{"{{.State}}", " !malformed", NULL},
	{"{{\na}}", " !malformed", NULL},
	{"{{\xc3\xa4}}", " !malformed", NULL},
	/* in quotes */
	{"'{{a}}'", "'<a>'", "' !quoted"},
	{"\"{{a}}\"", "\"<a>\"", "\" !quoted"},
	{"\"x\"{{a}}'y'", "\"x\"<a>'y'", NULL},
	{"'\\'{{a}}", "'\\'<a>", NULL},
	{"\"\\\"\"{{a}}", "\"\\\"\"<a>", NULL},
	{"\"\\\"{{a}}", "\"\\\"<a>", "\"\\\" !quoted"},
	{"'\"'{{a}}", "'\"'<a>", NULL},
	{"\"'\"{{a}}", "\"'\"<a>", NULL},
	{"it\\'s {{a}}", "it\\'s <a>", NULL},
	{"it's {{a}}", "it's <a>", "it's  !quoted"},
	{"\\{{a}}", "\\<a>", "\\ !quoted"},
	{"\\\\{{a}}", "\\\\<a>", NULL},
	{"${{a}}", "$<a>", "$ !quoted"},
	{"sh -c \"echo {{a}}\"", "sh -c \"echo <a>\"", "sh -c \"echo  !quoted"},
	/* in the rest of its syntax */
	{"`x {{a}}` $(y {{b}}) ${z:-c} {{c}}", "`x <a>` $(y <b>) ${z:-c} <c>", NULL},
	{"a={{a}}; [ {{b}} = 1 ]", "a=<a>; [ <b> = 1 ]", NULL},
	{"# it's\n{{a}}", "# it's\n<a>", NULL},
	{"x # it's\n{{a}}", "x # it's\n<a>", NULL},
	{";#'\n{{a}}", ";#'\n<a>", NULL},
	{"(#'\n{{a}})", "(#'\n<a>)", NULL},
	{"${x#'}'}{{a}}", "${x#'}'}<a>", NULL},
	{"x#'{{a}}", "x#'<a>", "x#' !quoted"},
	/* expressions */
	{"$(({{a}}+1))", "$((<a>+1))", "$(( !expression"},
	{"$(( (1) + (2*{{a}}) ))", "$(( (1) + (2*<a>) ))", "$(( (1) + (2* !expression"},
	{"$((((1+2))+{{a}}))", "$((((1+2))+<a>))", "$((((1+2))+ !expression"},
	{"$((1+2)) {{a}} $((3)) {{b}}", "$((1+2)) <a> $((3)) <b>", NULL},
	{"((i+={{a}}))", "((i+=<a>))", "((i+= !expression"},
	{"$(( $(x {{a}}) ))", "$(( $(x <a>) ))", "$(( $(x  !expression"},
	{"\"$(( \"{{a}}\" ))\"", "\"$(( \"<a>\" ))\"", "\"$(( \" !expression"},
	{"$(( $(x \")))\") {{a}} ))", "$(( $(x \")))\") <a> ))", "$(( $(x \")))\")  !expression"},
	{"\"$((1+2))\" \"${x}\" {{a}}", "\"$((1+2))\" \"${x}\" <a>", NULL},
	{"'$((' {{a}}", "'$((' <a>", NULL},
	{"\"((\" {{a}}", "\"((\" <a>", NULL},
	{"# ((\n{{a}}", "# ((\n<a>", NULL},
	{"(x; (y)); {{a}}", "(x; (y)); <a>", NULL},
	{"()) {{a}}", "()) <a>", NULL},
	{"$[{{a}}+1]", "$[<a>+1]", "$[ !expression"},
	{"[[ {{a}} -eq 1 ]]", "[[ <a> -eq 1 ]]", "[[  !expression"},
	{"[[ x ]] {{a}}", "[[ x ]] <a>", NULL},
	{"x[{{a}}]=1", "x[<a>]=1", "x[ !expression"},
	{"x[y[1]+{{a}}]=1", "x[y[1]+<a>]=1", "x[y[1]+ !expression"},
	{"ls *[0-9] x[ab] {{a}}", "ls *[0-9] x[ab] <a>", NULL},
	{"x=([{{a}}]=1)", "x=([<a>]=1)", "x=([ !expression"},
	{"x+=(y [1]=z\n[{{a}}]=1)", "x+=(y [1]=z\n[<a>]=1)", "x+=(y [1]=z\n[ !expression"},
	{"x=({{a}} $(y) {{b}}); [ {{c}} ]", "x=(<a> $(y) <b>); [ <c> ]", NULL},
	{"x=$(y [{{a}}]); ([ {{b}} ])", "x=$(y [<a>]); ([ <b> ])", NULL},
	{"$(\\\n({{a}}))", "$(\\\n(<a>))", "$(\\\n( !expression"},
	{"\"$(\\\n(\"{{a}}", "\"$(\\\n(\"<a>", "\"$(\\\n(\" !expression"},
	{"'(\\\n((' {{a}}", "'(\\\n((' <a>", NULL},
	{"(\\\\\n(x)); {{a}}", "(\\\\\n(x)); <a>", NULL},
	{"x \\\n{{a}} \\\n# '\n{{b}}", "x \\\n<a> \\\n# '\n<b>", NULL},
	{"${x:{{a}}}", "${x:<a>}", "${x: !expression"},
	{"\"${x}\" ${y} {{a}}", "\"${x}\" ${y} <a>", NULL},
	{"f() { x; }; {{a}}", "f() { x; }; <a>", NULL},
	/* here-documents */
	{"{{a}} <<E\n{{b}}\nE", "<a> <<E\n<b>\nE", "<a> <<E\n !here"},
	{"x <<{{a}}", "x <<<a>", "x << !here"},
	{"x <\\\n<{{a}}", "x <\\\n<<a>", "x <\\\n< !here"},
	{"x '<<' {{a}}", "x '<<' <a>", NULL},
	{"x < {{a}} < {{b}}", "x < <a> < <b>", NULL},
	{"x <{{a}}<{{b}}", "x <<a><<b>", NULL},
};
/* clang-format on */

static void
check_rows(void)
{
	char out[512];

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		const Row *row = &rows[i];

		is_str(rebuild(row->text, false, out, sizeof(out)), row->plain, "a word: %s", row->text);
		is_str(rebuild(row->text, true, out, sizeof(out)), row->shell ? row->shell : row->plain,
			   "a command: %s", row->text);
	}
}

typedef struct ScriptRow
{
	const char *words[7];
	int script;
} ScriptRow;

static const ScriptRow script_rows[] = {
	{{NULL}, -1},
	{{"sh", NULL}, -1},
	{{"-c", "x", NULL}, -1},
	{{"sh", "-c", NULL}, -1},
	{{"sh", "-c", "x", NULL}, 2},
	{{"/bin/bash", "-euxc", "x", NULL}, 2},
	{{"bash", "-l", "-c", "x", NULL}, 3},
	{{"bash", "-c", "-e", "x", NULL}, 3},
	{{"busybox", "sh", "-c", "x", NULL}, 3},
	{{"env", "A=1", "dash", "-ec", "x", NULL}, 4},
	{{"su", "nobody", "-c", "x", NULL}, 3},
	{{"su", "--command", "x", NULL}, 2},
	{{"sh", "-c", "echo $1", "sh", "-c", "y", NULL}, 2},
	{{"sh", "-e", "x", NULL}, -1},
	{{"grep", "-c", "x", NULL}, -1},
	{{"tar", "-xc", "x", NULL}, -1},
	{{"/sh/tar", "-c", "x", NULL}, -1},
	{{"python", "-c", "x", NULL}, -1},
	{{"sh", "script", "--context", "x", NULL}, -1},
};

static void
check_script_rows(void)
{
	for (size_t i = 0; i < lengthof(script_rows); i++)
	{
		const char *const *words = script_rows[i].words;
		int n = 0;

		while (words[n] != NULL)
			n++;
		is_int(cm_placeholder_find_script(words, n), script_rows[i].script, "row %zu of words", i);
	}
}

static void
check_names(void)
{
	ok(cm_placeholder_is_name("a", 1) && cm_placeholder_is_name("_9Z", 3), "names");
	ok(cm_placeholder_is_name("ab-", 2), "what is behind the name does not count");
	ok(!cm_placeholder_is_name("", 0) && !cm_placeholder_is_name("a-b", 3) &&
		   !cm_placeholder_is_name("9", 1) && !cm_placeholder_is_name(NAME_63 "x", 64),
	   "no names");
}

int
main(void)
{
	check_rows();
	check_script_rows();
	check_names();
	return tap_done();
}
