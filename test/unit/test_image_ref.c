/*
 * test_image_ref.c
 *		Image references: parts, every refusal, and the short form.
 */
#include <stdlib.h>

#include "image_ref.h"
#include "tap.h"

#define HEX_16 "0123456789abcdef"
#define HEX_64 HEX_16 HEX_16 HEX_16 HEX_16
#define SHA256 "sha256:" HEX_64
#define SHA512 "sha512:" HEX_64 HEX_64
#define NAME_250 HEX_64 HEX_64 HEX_64 HEX_16 HEX_16 HEX_16 "0123456789"

static const struct
{
	const char *text;
	const char *registry;
	const char *path;
	const char *name;
	const char *tag;
	const char *digest;
} rows[] = {
	{"a", "", "a", "a", "", ""},
	{"busybox", "", "busybox", "busybox", "", ""},
	{"busybox:1.36", "", "busybox", "busybox", "1.36", ""},
	{"busybox:_A.b-C", "", "busybox", "busybox", "_A.b-C", ""},
	{"busybox:" HEX_64 HEX_64, "", "busybox", "busybox", HEX_64 HEX_64, ""},
	{"busybox@" SHA256, "", "busybox", "busybox", "", SHA256},
	{"busybox@" SHA512, "", "busybox", "busybox", "", SHA512},
	{"busybox:1.36@" SHA256, "", "busybox", "busybox", "1.36", SHA256},
	{"library/busybox", "", "library/busybox", "library/busybox", "", ""},
	{"a/b/c/d:e", "", "a/b/c/d", "a/b/c/d", "e", ""},
	{"docker.io/library/busybox:1", "docker.io", "library/busybox", "docker.io/library/busybox",
	 "1", ""},
	{"localhost/x", "localhost", "x", "localhost/x", "", ""},
	{"localhost", "", "localhost", "localhost", "", ""},
	{"localhost:5000", "", "localhost", "localhost", "5000", ""},
	{"localhost:5000/x:y", "localhost:5000", "x", "localhost:5000/x", "y", ""},
	{"registry:5000/x", "registry:5000", "x", "registry:5000/x", "", ""},
	{"registry:1/x", "registry:1", "x", "registry:1/x", "", ""},
	{"registry:65535/x", "registry:65535", "x", "registry:65535/x", "", ""},
	{"registry/x", "", "registry/x", "registry/x", "", ""},
	{"Reg-1.Example.COM:443/team/app:v1@" SHA256, "Reg-1.Example.COM:443", "team/app",
	 "Reg-1.Example.COM:443/team/app", "v1", SHA256},
	{"192.0.2.1:5000/x", "192.0.2.1:5000", "x", "192.0.2.1:5000/x", "", ""},
	{"[::1]:5000/x:t", "[::1]:5000", "x", "[::1]:5000/x", "t", ""},
	{"[af::AF]/x", "[af::AF]", "x", "[af::AF]/x", "", ""},
	{"[2001:DB8::1]/x", "[2001:DB8::1]", "x", "[2001:DB8::1]/x", "", ""},
	{"x/a.b_c__d-e---f", "", "x/a.b_c__d-e---f", "x/a.b_c__d-e---f", "", ""},
	{"sha256:latest", "", "sha256", "sha256", "latest", ""},
	{"x/sha256:" HEX_64, "", "x/sha256", "x/sha256", HEX_64, ""},
	{"x/" HEX_64, "", "x/" HEX_64, "x/" HEX_64, "", ""},
	{HEX_64 "0", "", HEX_64 "0", HEX_64 "0", "", ""},
	{"a/" NAME_250 "abc", "", "a/" NAME_250 "abc", "a/" NAME_250 "abc", "", ""},
	{"a.b/" NAME_250 "a", "a.b", NAME_250 "a", "a.b/" NAME_250 "a", "", ""},
};

#define LOWER "repository name must be in lower case"
#define EMPTY_PART "repository name has an empty component"
#define SEPARATOR "repository name has a separator at a wrong place"
#define CHARACTERS "repository name may hold only letters, digits, \".\", \"_\", \"-\" and \"/\""
#define TOO_LONG "repository name is longer than 255 bytes"
#define TAG "tag has a character that is not allowed there"
#define DIGEST "digest is not \"sha256:\" with 64 hex digits in lower case"
#define REGISTRY "registry is not a host name or address"
#define PORT "port of the registry is not a number from 1 to 65535"
#define SCHEME "image reference must not have a scheme such as https://"
#define ID "image ids are not supported"

static const struct
{
	const char *text;
	const char *error;
} refused_rows[] = {
	{"", "image reference is empty"},
	{"https://registry.example.com/x", SCHEME},
	{"docker://busybox", SCHEME},
	{"busybox:", "tag is empty"},
	{"busybox:@" SHA256, "tag is empty"},
	{"busybox:" HEX_64 HEX_64 "0", "tag is longer than 128 characters"},
	{"busybox:.x", TAG},
	{"busybox:-x", TAG},
	{"busybox:a:b", TAG},
	{"busybox:a b", TAG},
	{"busybox:a\n", TAG},
	{"busybox:\xc3\xa4", TAG},
	{"busybox@", DIGEST},
	{"busybox@sha256", DIGEST},
	{"busybox@sha256:", DIGEST},
	{"busybox@latest", DIGEST},
	{"busybox@" SHA256 "0", DIGEST},
	{"busybox@sha256:" HEX_16, DIGEST},
	{"busybox@sha256:0123456789ABCDEF" HEX_16 HEX_16 HEX_16, DIGEST},
	{"busybox@sha256:g123456789abcdef" HEX_16 HEX_16 HEX_16, DIGEST},
	{"busybox@SHA256:" HEX_64, DIGEST},
	{"busybox@sha512:" HEX_64, DIGEST},
	{"busybox@sha256:" HEX_64 HEX_64, DIGEST},
	{"busybox@md5:" HEX_16 HEX_16, DIGEST},
	{"busybox@" SHA256 "@" SHA256, DIGEST},
	{"busybox@" SHA256 ":tag", DIGEST},
	{"busybox@a/" SHA256, DIGEST},
	{"Busybox", LOWER},
	{"Team/busybox", LOWER},
	{"team/busyBox", LOWER},
	{"docker.io/Busybox", LOWER},
	{"/busybox", EMPTY_PART},
	{"team//busybox", EMPTY_PART},
	{"busybox/", EMPTY_PART},
	{"docker.io/", EMPTY_PART},
	{"/", EMPTY_PART},
	{":1", EMPTY_PART},
	{"@" SHA256, EMPTY_PART},
	{"team/:1", EMPTY_PART},
	{"-busybox", SEPARATOR},
	{".busybox", SEPARATOR},
	{"_busybox", SEPARATOR},
	{"busybox-", SEPARATOR},
	{"busybox.", SEPARATOR},
	{"busybox_", SEPARATOR},
	{"busy..box", SEPARATOR},
	{"busy___box", SEPARATOR},
	{"busy_-box", SEPARATOR},
	{"busy.-box", SEPARATOR},
	{"team/..", SEPARATOR},
	{"team/../busybox", SEPARATOR},
	{"busy box", CHARACTERS},
	{" busybox", CHARACTERS},
	{"busybox ", CHARACTERS},
	{"busybox\n", CHARACTERS},
	{"busy\\box", CHARACTERS},
	{"busy?box", CHARACTERS},
	{"busy#box", CHARACTERS},
	{"busy%2fbox", CHARACTERS},
	{"busy&fromSrc=x", CHARACTERS},
	{"b\xc3\xbcsybox", CHARACTERS},
	{"[abc]", CHARACTERS},
	{"a/" NAME_250 "abcd", TOO_LONG},
	{"a.b/" NAME_250 "ab", TOO_LONG},
	{"./x", REGISTRY},
	{"../x", REGISTRY},
	{"a..b/x", REGISTRY},
	{".a/x", REGISTRY},
	{"a./x", REGISTRY},
	{"-a.b/x", REGISTRY},
	{"a-.b/x", REGISTRY},
	{"a_b.c/x", REGISTRY},
	{"a b.c/x", REGISTRY},
	{"user@a.b/x", DIGEST},
	{":5000/x", REGISTRY},
	{"[]:5000/x", REGISTRY},
	{"[::g]/x", REGISTRY},
	{"[g::]/x", REGISTRY},
	{"[::G]/x", REGISTRY},
	{"[::@]/x", CHARACTERS},
	{"[::`]/x", REGISTRY},
	{"_a.b/x", REGISTRY},
	{"[::1/x", REGISTRY},
	{"[::1]x/x", REGISTRY},
	{"[::1]5000/x", REGISTRY},
	{"::1/x", REGISTRY},
	{"registry:/x", PORT},
	{"registry:0/x", PORT},
	{"registry:01/x", PORT},
	{"registry:65536/x", PORT},
	{"registry:100000/x", PORT},
	{"registry:99999999999999999999/x", PORT},
	{"registry:http/x", PORT},
	{"registry:-1/x", PORT},
	{"registry:1:2/x", PORT},
	{"[::1]:/x", PORT},
	{"[::1]:0/x", PORT},
	{HEX_64, ID},
	{HEX_64 ":tag", ID},
	{SHA256, ID},
	{SHA256 "@" SHA256, ID},
};

static void
test_parts(void)
{
	CmImageRef ref;
	char error[128];

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		const char *text = rows[i].text;

		ok(cm_image_ref_parse(text, &ref, error, sizeof(error)), "taken: %s", text);
		is_str(ref.registry, rows[i].registry, "registry of %s", text);
		is_str(ref.path, rows[i].path, "path of %s", text);
		is_str(ref.name, rows[i].name, "name of %s", text);
		is_str(ref.tag, rows[i].tag, "tag of %s", text);
		is_str(ref.digest, rows[i].digest, "digest of %s", text);
		is_str(error, "", "no error for %s", text);
	}
}

static void
test_refusals(void)
{
	CmImageRef ref;
	CmImageRef nothing = {0};
	char error[128];

	for (size_t i = 0; i < lengthof(refused_rows); i++)
	{
		ok(!cm_image_ref_parse(refused_rows[i].text, &ref, error, sizeof(error)), "refused: %s",
		   refused_rows[i].text);
		is_str(error, refused_rows[i].error, "error for %s", refused_rows[i].text);
		ok(memcmp(&ref, &nothing, sizeof(ref)) == 0, "nothing is left of %s", refused_rows[i].text);
	}
}

/* No length of any part may write beyond its field; ASan watches. */
static void
test_lengths(void)
{
	static const char *const fronts[] = {
		"", "x/", "x.y/", "x:", "x@", "x@sha256:", "[::1]:", "x:1@sha512:"};
	CmImageRef ref;
	char error[128];
	int n_taken = 0;

	for (size_t i = 0; i < lengthof(fronts); i++)
	{
		for (size_t n = 0; n <= CM_IMAGE_REF_MAX + 2; n++)
		{
			size_t n_front = strlen(fronts[i]);
			char *text = malloc(n_front + n + 1);

			memcpy(text, fronts[i], n_front);
			memset(text + n_front, 'a', n);
			text[n_front + n] = '\0';
			n_taken += cm_image_ref_parse(text, &ref, error, sizeof(error));
			free(text);
		}
	}
	is_int(n_taken, (255 - 1) + 253 + 251 + 128 + 0 + 1 + 0 + 1, "lengths taken, of all lengths");
	ok(!cm_image_ref_parse("x@", &ref, NULL, 0), "no room for the error");
}

static void
test_too_long(void)
{
	static char text[CM_IMAGE_REF_MAX + 2];
	CmImageRef ref;
	char error[128];

	memset(text, 'a', CM_IMAGE_REF_MAX + 1);
	cm_image_ref_parse(text, &ref, error, sizeof(error));
	is_str(error, "image reference is longer than 1024 bytes", "one byte too many");
	text[CM_IMAGE_REF_MAX] = '\0';
	cm_image_ref_parse(text, &ref, error, sizeof(error));
	is_str(error, TOO_LONG, "most bytes, but too many for a name");
}

/* Each byte in the place of one in a name and in a tag. */
static void
test_bytes(void)
{
	CmImageRef ref;
	char error[128];
	int n_names = 0;
	int n_tags = 0;

	for (int c = 1; c < 256; c++)
	{
		char name[] = "x/axb";
		char tag[] = "x:axb";

		name[3] = tag[3] = (char) c;
		n_names += cm_image_ref_parse(name, &ref, error, sizeof(error));
		n_tags += cm_image_ref_parse(tag, &ref, error, sizeof(error));
	}
	is_int(n_names, 26 + 10 + 5,
		   "bytes taken inside a name: lower case, digits, \"._-\", a slash, a colon");
	is_int(n_tags, 26 + 26 + 10 + 3, "bytes taken inside a tag: letters, digits, \"._-\"");
}

static const struct
{
	const char *text;
	size_t size;
	const char *wanted;
} short_rows[] = {
	{"busybox", 32, "busybox"},
	{"busybox:1.36", 32, "busybox:1.36"},
	{"busybox:1", 32, "busybox:1"},
	{"docker.io/library/busybox:1.36", 32, "busybox:1.36"},
	{"localhost:5000/busybox", 32, "busybox"},
	{"a/b/c", 32, "c"},
	{"team/app@" SHA256, 32, "app@0123456789ab"},
	{"team/app:v1@" SHA256, 32, "app:v1"},
	{"team/app@" SHA512, 32, "app@0123456789ab"},
	{"busybox:1.36", 13, "busybox:1.36"},
	{"busybox:1.36", 12, "busybox:1.3"},
	{"busybox:1.36", 1, ""},
	{"", 32, ""},
	{"Not A Reference", 32, "Not A Reference"},
	{"Not A Reference", 6, "Not A"},
	{"b\xc3\xbc", 4, "b\xc3\xbc"},
	{"b\xc3\xbc", 3, "b"},
	{"b\xc3\xbc", 2, "b"},
	{"\xe2\x82\xac\xe2\x82\xac", 6, "\xe2\x82\xac"},
	{"\x80\x80\x80", 3, ""},
};

static void
test_short_form(void)
{
	char untouched = '?';

	for (size_t i = 0; i < lengthof(short_rows); i++)
	{
		char *out = malloc(short_rows[i].size);

		cm_image_ref_shorten(short_rows[i].text, out, short_rows[i].size);
		is_str(out, short_rows[i].wanted, "\"%s\" in %zu bytes", short_rows[i].text,
			   short_rows[i].size);
		free(out);
	}
	cm_image_ref_shorten("busybox", &untouched, 0);
	is_int(untouched, '?', "no room, nothing written");
}

int
main(void)
{
	test_parts();
	test_refusals();
	test_lengths();
	test_too_long();
	test_bytes();
	test_short_form();
	return tap_done();
}
