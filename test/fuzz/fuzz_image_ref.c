/*
 * fuzz_image_ref.c
 *		Image references: what is taken, written again from its parts, is the
 *		same text; a short form fits and is cut between characters.
 */
#include "fuzz.h"
#include "image_ref.h"

static void
write_again(const CmImageRef *ref, char *out, size_t out_size)
{
	snprintf(out, out_size, "%s%s%s%s%s%s%s", ref->registry, ref->registry[0] != '\0' ? "/" : "",
			 ref->path, ref->tag[0] != '\0' ? ":" : "", ref->tag, ref->digest[0] != '\0' ? "@" : "",
			 ref->digest);
}

static void
check_parts(const char *text, const CmImageRef *ref)
{
	char written[2 * CM_IMAGE_REF_MAX];
	char error[128];
	CmImageRef again;

	write_again(ref, written, sizeof(written));
	REQUIRE(strcmp(written, text) == 0);
	REQUIRE(strncmp(text, ref->name, strlen(ref->name)) == 0 && strlen(ref->name) <= 255);
	REQUIRE(ref->path[0] != '\0' && strchr(ref->path, ':') == NULL);
	/* Without tag and digest, which is what an engine is asked for, it names the same. */
	REQUIRE(cm_image_ref_parse(ref->name, &again, error, sizeof(error)));
	REQUIRE(strcmp(again.registry, ref->registry) == 0 && strcmp(again.path, ref->path) == 0);
	REQUIRE(again.tag[0] == '\0' && again.digest[0] == '\0');
}

/* Every size, up to where the whole has room. */
static void
check_short_forms(const char *text)
{
	char whole[1024];
	size_t n_whole;

	cm_image_ref_shorten(text, whole, sizeof(whole));
	n_whole = strlen(whole);
	for (size_t size = 1; size <= n_whole + 1 && size <= 160; size++)
	{
		char *shown = malloc(size);

		REQUIRE(shown != NULL);
		cm_image_ref_shorten(text, shown, size);
		REQUIRE(strlen(shown) < size && strncmp(shown, whole, strlen(shown)) == 0);
		REQUIRE(((unsigned char) whole[strlen(shown)] & 0xc0) != 0x80 || strlen(shown) == 0);
		free(shown);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *text = fuzz_make_string(data, n_bytes);
	CmImageRef ref;
	char error[128];

	if (cm_image_ref_parse(text, &ref, error, sizeof(error)))
	{
		REQUIRE(error[0] == '\0');
		check_parts(text, &ref);
	}
	else
		REQUIRE(fuzz_is_line(error) && error[strlen(error) - 1] != '.' && ref.name[0] == '\0');
	check_short_forms(text);
	free(text);
	return 0;
}
