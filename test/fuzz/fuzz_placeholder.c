/*
 * fuzz_placeholder.c
 *		Texts of templates: what is read lies in the text, one piece behind the
 *		other; a shell's text has the same placeholders, up to one that is refused;
 *		and none is let pass in an expression.
 */
#include "fuzz.h"
#include "placeholder.h"

static void
check_pieces(const char *text, bool is_shell)
{
	CmPlaceholderScan scan;
	CmPlaceholderScan plain_scan;
	CmPlaceholder found;

	cm_placeholder_begin(&scan, text, is_shell);
	cm_placeholder_begin(&plain_scan, text, false);
	do
	{
		const char *began = scan.at;
		CmPlaceholder plain = cm_placeholder_next(&plain_scan);

		found = cm_placeholder_next(&scan);
		REQUIRE(found.literal == began && plain.literal == began);
		REQUIRE(found.n_literal == plain.n_literal);
		REQUIRE((found.kind == CM_PLACEHOLDER_END) == (began[found.n_literal] == '\0'));
		REQUIRE((found.kind == CM_PLACEHOLDER_MALFORMED) ==
				(plain.kind == CM_PLACEHOLDER_MALFORMED));
		if (found.kind == CM_PLACEHOLDER_END || found.kind == CM_PLACEHOLDER_MALFORMED)
			continue;
		REQUIRE(found.name == plain.name && found.n_name == plain.n_name);
		REQUIRE(found.name >= began + found.n_literal + 2 && found.name + found.n_name <= scan.at);
		REQUIRE(cm_placeholder_is_name(found.name, found.n_name));
		REQUIRE(strncmp(scan.at - 2, "}}", 2) == 0);
	} while (found.kind == CM_PLACEHOLDER_FOUND);
}

/* Behind the opening, and before anything that could close it. */
static void
check_expression(const char *opening, const char *text, char closing)
{
	size_t n_opening = strlen(opening);
	char *all;
	CmPlaceholderScan scan;

	if (strchr(text, closing) != NULL)
		return;
	all = malloc(n_opening + strlen(text) + 1);
	REQUIRE(all != NULL);
	strcpy(all, opening);
	strcpy(all + n_opening, text);
	cm_placeholder_begin(&scan, all, true);
	REQUIRE(cm_placeholder_next(&scan).kind != CM_PLACEHOLDER_FOUND);
	free(all);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *text = fuzz_make_string(data, n_bytes);

	check_pieces(text, false);
	check_pieces(text, true);
	check_expression("$((", text, ')');
	check_expression("\"$\\\n((", text, ')');
	check_expression("((", text, ')');
	check_expression("[[ ", text, ']');
	check_expression("x=([", text, ']');
	free(text);
	return 0;
}
