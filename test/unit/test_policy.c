/*
 * test_policy.c
 *		The guard: each rule at its boundary, and each message in full.
 *
 * One definition that may run is changed in one place per row; a row without
 * an sqlstate must still pass.
 */
#include <stddef.h>
#include <stdlib.h>

#include "policy.h"
#include "tap.h"

#define NINE "123456789"
#define LONG_63 NINE NINE NINE NINE NINE NINE NINE
#define LONG_64 LONG_63 "0"

#define BAD "22023"
#define OVER "53400"
#define DENIED "42501"

#define NO_SETTING "No setting raises this bound."

static const CmLimits limits = {.max_memory_mb = 2048,
								.max_nano_cpus = INT64_C(2000000000),
								.max_timeout_seconds = 3600,
								.min_uid = 1001,
								.max_pids = 256,
								.max_stop_grace_ms = 60000,
								.max_log_kb = 262144,
								.max_keep_seconds = 60};

static const CmNetwork bridge = {.name = "bridge"};

/* The least that is whole. */
static CmJobSpec
make_spec(void)
{
	CmJobSpec spec = {0};

	spec.job_id = 42;
	spec.attempt = 1;
	spec.namespace_name = "default";
	spec.image = "busybox:1.36";
	spec.run_as = "65534:65534";
	spec.networks = &bridge;
	spec.n_networks = 1;
	spec.memory_limit_mb = 512;
	spec.nano_cpus = INT64_C(1000000000);
	spec.timeout_seconds = 3600;
	spec.max_attempts = 1;
	return spec;
}

static bool
is_one_line(const char *text)
{
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			return false;
	}
	return true;
}

static bool
ends_sentence(const char *text)
{
	return text[0] == '\0' || text[strlen(text) - 1] == '.';
}

/* sqlstate NULL: passes. */
static void
check(const CmJobSpec *spec, const char *name, const char *sqlstate, const char *column,
	  const char *message, const char *hint)
{
	CmProblem problem;
	bool may_run = cm_policy_check(spec, &limits, &problem);

	is_int(may_run, sqlstate == NULL, "%s: verdict", name);
	is_str(problem.message, message != NULL ? message : "", "%s: message", name);
	is_str(problem.sqlstate, sqlstate != NULL ? sqlstate : "", "%s: sqlstate", name);
	if (sqlstate == NULL)
		return;
	is_str(problem.column, column, "%s: column", name);
	is_str(problem.hint, hint, "%s: hint", name);
	ok(is_one_line(problem.message) && !ends_sentence(problem.message),
	   "%s: message is one line, no sentence", name);
	ok(ends_sentence(problem.hint) && ends_sentence(problem.detail),
	   "%s: detail and hint are sentences", name);
}

typedef struct TextRow
{
	const char *value;
	const char *sqlstate;
	const char *message;
	const char *hint;
} TextRow;

#define NAME_HINT \
	"A name has 1 to 63 letters, digits, \"_\", \".\" and \"-\", and begins with a letter or digit."

static const TextRow namespace_rows[] = {
	{"default", NULL, NULL, NULL},
	{"a", NULL, NULL, NULL},
	{"Team-1_x.y", NULL, NULL, NULL},
	{LONG_63, NULL, NULL, NULL},
	{NULL, BAD, "namespace is missing", ""},
	{"", BAD, "namespace \"\" is not a valid name", NAME_HINT},
	{LONG_64, BAD, "namespace \"" LONG_64 "\" is not a valid name", NAME_HINT},
	{LONG_64 "x", BAD, "namespace \"" LONG_64 "...\" is not a valid name", NAME_HINT},
	{"-a", BAD, "namespace \"-a\" is not a valid name", NAME_HINT},
	{"a b", BAD, "namespace \"a b\" is not a valid name", NAME_HINT},
	{"a/b", BAD, "namespace \"a/b\" is not a valid name", NAME_HINT},
	{"a\nb\x1b[31m\x7f", BAD, "namespace \"a?b?[31m?\" is not a valid name", NAME_HINT},
	{"\xc2\x9bm\xc3\xa4", BAD, "namespace \"?m\xc3\xa4\" is not a valid name", NAME_HINT},
	{LONG_63 "\xc3\xa4", BAD, "namespace \"" LONG_63 "...\" is not a valid name", NAME_HINT},
};

#define NAME_255 LONG_63 LONG_63 LONG_63 LONG_63 "123"

static const TextRow name_rows[] = {
	{NULL, NULL, NULL, NULL},
	{"", NULL, NULL, NULL},
	{"Nightly \"report\" \xc3\xa4/#1", NULL, NULL, NULL},
	{NAME_255, NULL, NULL, NULL},
	{NAME_255 "4", OVER, "name is longer than 255 bytes", NO_SETTING},
	{"a\tb", BAD, "name contains a control character", ""},
	{"a\x7f", BAD, "name contains a control character", ""},
	{"a\xc2\x80", BAD, "name contains a control character", ""},
	{"a\xc2\x9f", BAD, "name contains a control character", ""},
	{"a\xc2\xa0", NULL, NULL, NULL},
};

#define IMAGE_HINT "The form is [registry[:port]/]path[:tag][@sha256:digest]."
#define NAME_AN_IMAGE "Name an image, as in busybox:1.36."

static const TextRow image_rows[] = {
	{"registry.example.com:5000/team/app:v1", NULL, NULL, NULL},
	{NULL, BAD, "image is missing", NAME_AN_IMAGE},
	{"", BAD, "image is missing", NAME_AN_IMAGE},
	{"Busybox", BAD, "image \"Busybox\" is not valid: repository name must be in lower case",
	 IMAGE_HINT},
	{"busybox:\n", BAD,
	 "image \"busybox:?\" is not valid: tag has a character that is not allowed there", IMAGE_HINT},
};

#define LEAVE_IT_OUT "Leave it out to run what the image runs by itself."

static const TextRow command_rows[] = {
	{NULL, NULL, NULL, NULL},
	{"echo hello", NULL, NULL, NULL},
	{" \n:\n", NULL, NULL, NULL},
	{"", BAD, "command is empty", LEAVE_IT_OUT},
	{" \t\n\v\f\r", BAD, "command is empty", LEAVE_IT_OUT},
};

static const TextRow directory_rows[] = {
	{NULL, NULL, NULL, NULL},
	{"/", NULL, NULL, NULL},
	{"/job/a b/..c/d../...", NULL, NULL, NULL},
	{"/proc/self", NULL, NULL, NULL},
	{"/a//b/./c/", NULL, NULL, NULL},
	{"", BAD, "working_directory \"\" is not absolute", ""},
	{"work", BAD, "working_directory \"work\" is not absolute", ""},
	{"C:\\", BAD, "working_directory \"C:\\\" is not absolute", ""},
	{"/..", BAD, "working_directory \"/..\" contains \"..\"", ""},
	{"/a/../b", BAD, "working_directory \"/a/../b\" contains \"..\"", ""},
	{"/a/..", BAD, "working_directory \"/a/..\" contains \"..\"", ""},
	{"/a\nb", BAD, "working_directory \"/a?b\" contains a control character", ""},
};

#define NUMBERS "Names are not looked up; give numbers, as in 65534:65534."
#define HIGHER_UID "Use a higher uid, or have an administrator lower container_manager.min_uid."
#define OTHER_GID "Use another gid, or have an administrator set container_manager.min_uid to 0."

static const TextRow run_as_rows[] = {
	{"1001", NULL, NULL, NULL},
	{"1001:1", NULL, NULL, NULL},
	{"1001:1000", NULL, NULL, NULL},
	{"2147483647:2147483647", NULL, NULL, NULL},
	{NULL, BAD, "run_as is missing", ""},
	{"", BAD, "run_as \"\" is not a uid or uid:gid", NUMBERS},
	{"root", BAD, "run_as \"root\" is not a uid or uid:gid", NUMBERS},
	{"1001:users", BAD, "run_as \"1001:users\" is not a uid or uid:gid", NUMBERS},
	{"2147483648", BAD, "run_as \"2147483648\" is not a uid or uid:gid", NUMBERS},
	{"0", DENIED, "run_as of 0 is below the lowest allowed uid 1001", HIGHER_UID},
	{"0:0", DENIED, "run_as of 0 is below the lowest allowed uid 1001", HIGHER_UID},
	{"1000", DENIED, "run_as of 1000 is below the lowest allowed uid 1001", HIGHER_UID},
	{"1000:1001", DENIED, "run_as of 1000 is below the lowest allowed uid 1001", HIGHER_UID},
	{"1001:0", DENIED, "run_as of 1001:0 has the group of root", OTHER_GID},
};

#define NETWORKS "Use \"bridge\", \"none\" or the name of a network that the host has."

static const TextRow network_rows[] = {
	{NULL, BAD, "name of a network is missing", ""},
	{"bridge", NULL, NULL, NULL},
	{"none", NULL, NULL, NULL},
	{"team_net-1.x", NULL, NULL, NULL},
	{"hostnet", NULL, NULL, NULL},
	{"my-host", NULL, NULL, NULL},
	{"hos", NULL, NULL, NULL},
	{"host", DENIED, "network \"host\" is not allowed", NETWORKS},
	{"HosT", DENIED, "network \"HosT\" is not allowed", NETWORKS},
	{"default", DENIED, "network \"default\" is not allowed", NETWORKS},
	{"Default", DENIED, "network \"Default\" is not allowed", NETWORKS},
	{"container:db", DENIED, "network \"container:db\" is not allowed", NETWORKS},
	{"ns:/proc/1/ns/net", DENIED, "network \"ns:/proc/1/ns/net\" is not allowed", NETWORKS},
	{"slirp4netns:allow_host_loopback=true", DENIED,
	 "network \"slirp4netns:allow_host_loopback=true\" is not allowed", NETWORKS},
	{":", DENIED, "network \":\" is not allowed", NETWORKS},
	{"a/b", DENIED, "network \"a/b\" is not allowed", NETWORKS},
	{"", BAD, "network \"\" is not a valid name", NETWORKS},
	{" host", BAD, "network \" host\" is not a valid name", NETWORKS},
	{"host ", BAD, "network \"host \" is not a valid name", NETWORKS},
	{"host\n", BAD, "network \"host?\" is not a valid name", NETWORKS},
	{"_net", BAD, "network \"_net\" is not a valid name", NETWORKS},
	{"bridge,host", BAD, "network \"bridge,host\" is not a valid name", NETWORKS},
};

static const struct
{
	const char *column;
	size_t offset;
	const TextRow *rows;
	size_t n_rows;
} text_columns[] = {
	{"namespace", offsetof(CmJobSpec, namespace_name), namespace_rows, lengthof(namespace_rows)},
	{"name", offsetof(CmJobSpec, name), name_rows, lengthof(name_rows)},
	{"image", offsetof(CmJobSpec, image), image_rows, lengthof(image_rows)},
	{"command", offsetof(CmJobSpec, command), command_rows, lengthof(command_rows)},
	{"working_directory", offsetof(CmJobSpec, working_directory), directory_rows,
	 lengthof(directory_rows)},
	{"run_as", offsetof(CmJobSpec, run_as), run_as_rows, lengthof(run_as_rows)},
};

static void
test_texts(void)
{
	for (size_t i = 0; i < lengthof(text_columns); i++)
	{
		for (size_t j = 0; j < text_columns[i].n_rows; j++)
		{
			const TextRow *row = &text_columns[i].rows[j];
			CmJobSpec spec = make_spec();
			char name[128];

			memcpy((char *) &spec + text_columns[i].offset, &row->value, sizeof(row->value));
			snprintf(name, sizeof(name), "%s %.80s", text_columns[i].column,
					 row->value != NULL ? row->value : "unsaid");
			check(&spec, name, row->sqlstate, text_columns[i].column, row->message, row->hint);
		}
	}
}

#define ALIAS_HINT \
	"An alias has 1 to 63 letters, digits and \"-\", and neither begins nor ends with \"-\"."
#define OWN_NETWORK "Use a network of your own: cm_create_network(host, name) makes one."
#define PLAIN_4 "Write a plain address, such as \"10.5.0.7\"."
#define PLAIN_6 "Write a plain address, such as \"fd00:5::7\"."
#define ALIASES(...)                                                                   \
	{                                                                                  \
		true, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]) \
		{                                                                              \
			__VA_ARGS__                                                                \
		}                                                                              \
	}

static const struct
{
	const char *name;
	CmNetwork networks[3];
	int n;
	const char *sqlstate;
	const char *message;
	const char *hint;
} attached_rows[] = {
	{"none at all", {{0}}, 0, NULL, NULL, NULL},
	{"two", {{.name = "a"}, {.name = "b"}}, 2, NULL, NULL, NULL},
	{"bridge and another", {{.name = "bridge"}, {.name = "b"}}, 2, NULL, NULL, NULL},
	{"aliases", {{.name = "a", .aliases = ALIASES("api", "Db-1", LONG_63)}}, 1, NULL, NULL, NULL},
	{"addresses", {{.name = "a", .ip = "10.5.0.7", .ip6 = "fd00:5::7"}}, 1, NULL, NULL, NULL},
	{"given twice",
	 {{.name = "a"}, {.name = "b"}, {.name = "a"}},
	 3,
	 BAD,
	 "network \"a\" is given twice",
	 ""},
	{"none first",
	 {{.name = "none"}, {.name = "b"}},
	 2,
	 BAD,
	 "network \"none\" is given with others",
	 "Write [] to have none, or leave \"none\" out."},
	{"none last",
	 {{.name = "b"}, {.name = "none"}},
	 2,
	 BAD,
	 "network \"none\" is given with others",
	 "Write [] to have none, or leave \"none\" out."},
	{"host second",
	 {{.name = "b"}, {.name = "Host"}},
	 2,
	 DENIED,
	 "network \"Host\" is not allowed",
	 NETWORKS},
	{"alias on bridge",
	 {{.name = "bridge", .aliases = ALIASES("x")}},
	 1,
	 BAD,
	 "network \"bridge\" takes no aliases",
	 OWN_NETWORK},
	{"address on bridge",
	 {{.name = "bridge", .ip = "10.5.0.7"}},
	 1,
	 BAD,
	 "network \"bridge\" takes no addresses of one's own",
	 OWN_NETWORK},
	{"alias on none",
	 {{.name = "none", .aliases = ALIASES("x")}},
	 1,
	 BAD,
	 "network \"none\" takes no aliases",
	 OWN_NETWORK},
	{"alias twice",
	 {{.name = "a", .aliases = ALIASES("x", "x")}},
	 1,
	 BAD,
	 "alias \"x\" on network \"a\" is given twice",
	 ""},
	{"alias empty",
	 {{.name = "a", .aliases = ALIASES("")}},
	 1,
	 BAD,
	 "alias \"\" on network \"a\" is not valid",
	 ALIAS_HINT},
	{"alias missing",
	 {{.name = "a", .aliases = ALIASES(NULL)}},
	 1,
	 BAD,
	 "alias \"\" on network \"a\" is not valid",
	 ALIAS_HINT},
	{"alias with a dot",
	 {{.name = "a", .aliases = ALIASES("x.y")}},
	 1,
	 BAD,
	 "alias \"x.y\" on network \"a\" is not valid",
	 ALIAS_HINT},
	{"alias ends with -",
	 {{.name = "a", .aliases = ALIASES("x-")}},
	 1,
	 BAD,
	 "alias \"x-\" on network \"a\" is not valid",
	 ALIAS_HINT},
	{"alias too long",
	 {{.name = "a", .aliases = ALIASES(LONG_64)}},
	 1,
	 BAD,
	 "alias \"" LONG_64 "\" on network \"a\" is not valid",
	 ALIAS_HINT},
	{"no IPv4",
	 {{.name = "a", .ip = "10.5.0"}},
	 1,
	 BAD,
	 "ip \"10.5.0\" on network \"a\" is not an IPv4 address",
	 PLAIN_4},
	{"IPv6 as IPv4",
	 {{.name = "a", .ip = "fd00::1"}},
	 1,
	 BAD,
	 "ip \"fd00::1\" on network \"a\" is not an IPv4 address",
	 PLAIN_4},
	{"no IPv6",
	 {{.name = "a", .ip6 = "10.5.0.7"}},
	 1,
	 BAD,
	 "ip6 \"10.5.0.7\" on network \"a\" is not an IPv6 address",
	 PLAIN_6},
};

static void
test_networks(void)
{
	CmNetwork many[CM_MAX_NETWORKS + 1];
	char names[CM_MAX_NETWORKS + 1][8];
	const char *aliases[CM_MAX_ALIASES + 1];
	CmJobSpec spec = make_spec();
	CmNetwork one = {.name = "a"};

	for (size_t i = 0; i < lengthof(network_rows); i++)
	{
		one.name = network_rows[i].value;
		spec.networks = &one;
		check(&spec, one.name != NULL ? one.name : "no name", network_rows[i].sqlstate, "networks",
			  network_rows[i].message, network_rows[i].hint);
	}
	for (size_t i = 0; i < lengthof(attached_rows); i++)
	{
		spec.networks = attached_rows[i].networks;
		spec.n_networks = attached_rows[i].n;
		check(&spec, attached_rows[i].name, attached_rows[i].sqlstate, "networks",
			  attached_rows[i].message, attached_rows[i].hint);
	}
	for (int i = 0; i <= CM_MAX_NETWORKS; i++)
	{
		snprintf(names[i], sizeof(names[i]), "n%d", i);
		many[i] = (CmNetwork){.name = names[i]};
	}
	spec.networks = many;
	spec.n_networks = CM_MAX_NETWORKS;
	check(&spec, "as many networks as may be", NULL, NULL, NULL, NULL);
	spec.n_networks++;
	check(&spec, "one network more", OVER, "networks", "more than 16 networks are given",
		  NO_SETTING);
	for (int i = 0; i <= CM_MAX_ALIASES; i++)
		aliases[i] = names[i];
	many[0].aliases = (CmWords){true, CM_MAX_ALIASES, aliases};
	spec.n_networks = 1;
	check(&spec, "as many aliases as may be", NULL, NULL, NULL, NULL);
	many[0].aliases.count++;
	check(&spec, "one alias more", OVER, "networks", "network \"n0\" has more than 16 aliases",
		  NO_SETTING);
}

#define VOLUME_HINT \
	"A name has 1 to 63 letters, digits, \"_\" and \"-\", and begins with a letter or digit."
#define SIDE_BY_SIDE "Mount them side by side."

static const struct
{
	const char *name;
	CmVolume volumes[2];
	const char *sqlstate;
	const char *message;
	const char *hint;
} volume_rows[] = {
	{"volume", {{"data", "/data", false}}, NULL, NULL, NULL},
	{"volume read-only", {{"data", "/data", true}}, NULL, NULL, NULL},
	{"longest name", {{LONG_63, "/data", false}}, NULL, NULL, NULL},
	{"two volumes", {{"a", "/data/a", false}, {"b", "/data/b", false}}, NULL, NULL, NULL},
	{"like but not within", {{"a", "/data", false}, {"b", "/database", false}}, NULL, NULL, NULL},
	{"within a tmpfs", {{"a", "/run/x/data", false}}, NULL, NULL, NULL},
	{"within /tmp", {{"a", "/tmp/data", false}}, NULL, NULL, NULL},
	{"no name", {{NULL, "/data", false}}, BAD, "name of a volume is missing", ""},
	{"empty name", {{"", "/data", false}}, BAD, "volume \"\" is not a valid name", VOLUME_HINT},
	{"name too long",
	 {{LONG_64, "/data", false}},
	 BAD,
	 "volume \"" LONG_64 "\" is not a valid name",
	 VOLUME_HINT},
	{"path for a name",
	 {{"/etc", "/data", false}},
	 BAD,
	 "volume \"/etc\" is not a valid name",
	 VOLUME_HINT},
	{"parent for a name",
	 {{"../x", "/data", false}},
	 BAD,
	 "volume \"../x\" is not a valid name",
	 VOLUME_HINT},
	{"dot in a name",
	 {{"a.b", "/data", false}},
	 BAD,
	 "volume \"a.b\" is not a valid name",
	 VOLUME_HINT},
	{"option in a name",
	 {{"a:ro", "/data", false}},
	 BAD,
	 "volume \"a:ro\" is not a valid name",
	 VOLUME_HINT},
	{"no path", {{"data", NULL, false}}, BAD, "path of a volume is missing", ""},
	{"path not absolute",
	 {{"data", "data", false}},
	 BAD,
	 "path \"data\" of a volume is not absolute",
	 ""},
	{"root", {{"data", "/", false}}, BAD, "path \"/\" of a volume is the root directory", ""},
	{"parent",
	 {{"data", "/a/../b", false}},
	 BAD,
	 "path \"/a/../b\" of a volume contains \"..\"",
	 ""},
	{"proc", {{"data", "/proc", false}}, DENIED, "path \"/proc\" of a volume is not allowed", ""},
	{"in sys",
	 {{"data", "/sys/fs", false}},
	 DENIED,
	 "path \"/sys/fs\" of a volume is not allowed",
	 ""},
	{"in dev",
	 {{"data", "/dev/shm", false}},
	 DENIED,
	 "path \"/dev/shm\" of a volume is not allowed",
	 ""},
	{"over /tmp",
	 {{"data", "/tmp", false}},
	 BAD,
	 "path \"/tmp\" of a volume is in the way of \"/tmp\"",
	 SIDE_BY_SIDE},
	{"over a tmpfs",
	 {{"data", "/run/x", false}},
	 BAD,
	 "path \"/run/x\" of a volume is in the way of \"/run/x\"",
	 SIDE_BY_SIDE},
	{"around a tmpfs",
	 {{"data", "/run", false}},
	 BAD,
	 "path \"/run\" of a volume is in the way of \"/run/x\"",
	 SIDE_BY_SIDE},
	{"one place",
	 {{"a", "/data", false}, {"b", "/data", false}},
	 BAD,
	 "path \"/data\" of a volume is in the way of \"/data\"",
	 SIDE_BY_SIDE},
	{"one within the other",
	 {{"a", "/data", false}, {"b", "/data/b", false}},
	 BAD,
	 "path \"/data/b\" of a volume is in the way of \"/data\"",
	 SIDE_BY_SIDE},
	{"one around the other",
	 {{"a", "/data/a", false}, {"b", "/data", false}},
	 BAD,
	 "path \"/data\" of a volume is in the way of \"/data/a\"",
	 SIDE_BY_SIDE},
	{"one volume twice",
	 {{"a", "/a", false}, {"a", "/b", false}},
	 BAD,
	 "volume \"a\" is given twice",
	 ""},
};

static void
test_volumes(void)
{
	static const CmTmpfs tmpfs = {"/run/x", 16};
	CmVolume many[CM_MAX_VOLUMES + 1];
	char texts[CM_MAX_VOLUMES + 1][8];
	CmJobSpec spec = make_spec();

	spec.tmpfs = &tmpfs;
	spec.n_tmpfs = 1;
	for (size_t i = 0; i < lengthof(volume_rows); i++)
	{
		spec.volumes = volume_rows[i].volumes;
		spec.n_volumes = volume_rows[i].volumes[1].name != NULL ? 2 : 1;
		check(&spec, volume_rows[i].name, volume_rows[i].sqlstate, "volumes",
			  volume_rows[i].message, volume_rows[i].hint);
	}
	for (int i = 0; i <= CM_MAX_VOLUMES; i++)
	{
		snprintf(texts[i], sizeof(texts[i]), "/v%d", i);
		many[i] = (CmVolume){texts[i] + 1, texts[i], false};
	}
	spec.volumes = many;
	spec.n_volumes = CM_MAX_VOLUMES;
	check(&spec, "as many volumes as may be", NULL, NULL, NULL, NULL);
	spec.n_volumes++;
	check(&spec, "one volume more", OVER, "volumes", "more than 16 volumes are given", NO_SETTING);
}

#define ASK_LESS(setting) \
	"Ask for less, or have an administrator raise container_manager." setting "."

static const struct
{
	const char *column;
	size_t offset;
	int64_t value;
	const char *sqlstate;
	const char *message;
	const char *hint;
} number_rows[] = {
#define KEEP "keep_container", offsetof(CmJobSpec, keep_container_ms)
	{KEEP, 0, NULL, NULL, NULL},
	{KEEP, 60000, NULL, NULL, NULL},
	{KEEP, 60001, OVER, "keep_container of 61 s is over the limit of 60 s",
	 ASK_LESS("max_keep_container")},
	{KEEP, -1, BAD, "keep_container is out of range", "Give a positive interval, or leave it out."},
#define MEMORY "memory_limit", offsetof(CmJobSpec, memory_limit_mb)
	{MEMORY, 6, NULL, NULL, NULL},
	{MEMORY, 2048, NULL, NULL, NULL},
	{MEMORY, 5, BAD, "memory_limit of 5 MB is below the least of 6 MB", ""},
	{MEMORY, 0, BAD, "memory_limit of 0 MB is below the least of 6 MB", ""},
	{MEMORY, -1, BAD, "memory_limit of -1 MB is below the least of 6 MB", ""},
	{MEMORY, 2049, OVER, "memory_limit of 2049 MB is over the limit of 2048 MB",
	 ASK_LESS("max_memory_limit")},
	{MEMORY, 4096, OVER, "memory_limit of 4096 MB is over the limit of 2048 MB",
	 ASK_LESS("max_memory_limit")},
	{MEMORY, INT64_MAX, OVER, "memory_limit of 9223372036854775807 MB is over the limit of 2048 MB",
	 ASK_LESS("max_memory_limit")},
	{MEMORY, INT64_MIN, BAD, "memory_limit of -9223372036854775808 MB is below the least of 6 MB",
	 ""},
#define CPUS "cpu_limit", offsetof(CmJobSpec, nano_cpus)
	{CPUS, 10000000, NULL, NULL, NULL},
	{CPUS, 2000000000, NULL, NULL, NULL},
	{CPUS, 9999999, BAD, "cpu_limit of 0.009999999 is below the least of 0.01", ""},
	{CPUS, 5000000, BAD, "cpu_limit of 0.005 is below the least of 0.01", ""},
	{CPUS, 0, BAD, "cpu_limit of 0 is below the least of 0.01", ""},
	{CPUS, -500000000, BAD, "cpu_limit of -0.5 is below the least of 0.01", ""},
	{CPUS, 2000000001, OVER, "cpu_limit of 2.000000001 is over the limit of 2",
	 ASK_LESS("max_cpu_limit")},
	{CPUS, 2500000000, OVER, "cpu_limit of 2.5 is over the limit of 2", ASK_LESS("max_cpu_limit")},
	{CPUS, 10000000000, OVER, "cpu_limit of 10 is over the limit of 2", ASK_LESS("max_cpu_limit")},
	{CPUS, INT64_MAX, OVER, "cpu_limit of 9223372036.854775807 is over the limit of 2",
	 ASK_LESS("max_cpu_limit")},
	{CPUS, INT64_MIN, BAD, "cpu_limit of -9223372036.854775808 is below the least of 0.01", ""},
#define TIMEOUT "timeout_seconds", offsetof(CmJobSpec, timeout_seconds)
	{TIMEOUT, 1, NULL, NULL, NULL},
	{TIMEOUT, 3600, NULL, NULL, NULL},
	{TIMEOUT, 0, BAD, "timeout_seconds of 0 is below the least of 1", ""},
	{TIMEOUT, INT64_MIN, BAD, "timeout_seconds of -9223372036854775808 is below the least of 1",
	 ""},
	{TIMEOUT, 3601, OVER, "timeout_seconds of 3601 is over the limit of 3600",
	 ASK_LESS("max_timeout")},
	{TIMEOUT, INT64_MAX, OVER, "timeout_seconds of 9223372036854775807 is over the limit of 3600",
	 ASK_LESS("max_timeout")},
};

static void
test_numbers(void)
{
	for (size_t i = 0; i < lengthof(number_rows); i++)
	{
		CmJobSpec spec = make_spec();
		char name[128];

		memcpy((char *) &spec + number_rows[i].offset, &number_rows[i].value, sizeof(int64_t));
		snprintf(name, sizeof(name), "%s %" PRId64, number_rows[i].column, number_rows[i].value);
		check(&spec, name, number_rows[i].sqlstate, number_rows[i].column, number_rows[i].message,
			  number_rows[i].hint);
	}
}

#define RETRY_HINT "Write it as in 'infrastructure, image_pull, 75'."

static const struct
{
	const char *name;
	int max_attempts;
	const char *retry_on;
	int64_t delay_ms;
	CmHostLoss on_host_loss;
	int64_t grace_ms;
	const char *column; /* NULL: passes */
	const char *message;
	const char *hint;
} retry_rows[] = {
	{"one attempt", 1, NULL, 0, CM_HOST_LOSS_WAIT, 0, NULL, NULL, NULL},
	{"most attempts", 1000, "any", CM_MAX_PAUSE_MS, CM_HOST_LOSS_RETRY, CM_MAX_PAUSE_MS, NULL, NULL,
	 NULL},
	{"no attempt", 0, NULL, 0, CM_HOST_LOSS_WAIT, 0, "max_attempts",
	 "max_attempts of 0 is not in 1 to 1000", ""},
	{"too many", 1001, NULL, 0, CM_HOST_LOSS_WAIT, 0, "max_attempts",
	 "max_attempts of 1001 is not in 1 to 1000", ""},
	{"listed nonsense", 3, "75, nonsense", 0, CM_HOST_LOSS_WAIT, 0, "retry_on",
	 "retry_on cannot have \"nonsense\"", RETRY_HINT},
	{"never retried", 3, "policy", 0, CM_HOST_LOSS_WAIT, 0, "retry_on",
	 "retry_on cannot have \"policy\"", RETRY_HINT},
	{"not by this", 3, "host_lost", 0, CM_HOST_LOSS_WAIT, 0, "retry_on",
	 "retry_on cannot have \"host_lost\"", "For a lost host there is on_host_loss => 'retry'."},
	{"line end shown as ?", 3, "a\nb", 0, CM_HOST_LOSS_WAIT, 0, "retry_on",
	 "retry_on cannot have \"a?b\"", RETRY_HINT},
	{"delay below 0", 3, NULL, -1, CM_HOST_LOSS_WAIT, 0, "retry_delay",
	 "retry_delay is not in 0 to 30 days", ""},
	{"delay too long", 3, NULL, CM_MAX_PAUSE_MS + 1, CM_HOST_LOSS_WAIT, 0, "retry_delay",
	 "retry_delay is not in 0 to 30 days", ""},
	{"grace too long", 3, NULL, 0, CM_HOST_LOSS_FAIL, CM_MAX_PAUSE_MS + 1, "host_loss_grace",
	 "host_loss_grace is not in 0 to 30 days", ""},
	{"no second attempt to retry by", 1, NULL, 0, CM_HOST_LOSS_RETRY, 0, "on_host_loss",
	 "on_host_loss of 'retry' needs more than one attempt",
	 "Give max_attempts of 2 or more, if the job may run twice."},
};

static void
test_retries(void)
{
	for (size_t i = 0; i < lengthof(retry_rows); i++)
	{
		CmJobSpec spec = make_spec();

		spec.max_attempts = retry_rows[i].max_attempts;
		spec.retry_on = retry_rows[i].retry_on;
		spec.retry_delay_ms = retry_rows[i].delay_ms;
		spec.on_host_loss = retry_rows[i].on_host_loss;
		spec.host_loss_grace_ms = retry_rows[i].grace_ms;
		check(&spec, retry_rows[i].name, retry_rows[i].column ? BAD : NULL, retry_rows[i].column,
			  retry_rows[i].message, retry_rows[i].hint);
	}
}

#define ENV_HINT "A name has letters, digits and \"_\", and does not begin with a digit."
#define KEY_HINT                                                         \
	"A key has 1 to 63 letters, digits, \"_\", \".\", \"/\" and \"-\", " \
	"and begins with a letter or digit."
#define RESERVED "Names that begin with CONTAINER_MANAGER_ tell a job about itself; choose another."

typedef struct PairRow
{
	CmPair pairs[3];
	int n;
	const char *sqlstate;
	const char *message;
	const char *hint;
} PairRow;

static const PairRow environment_rows[] = {
	{{{"A", "1"}}, 1, NULL, NULL, NULL},
	{{{"_", ""}}, 1, NULL, NULL, NULL},
	{{{"a_9Z", "x=y\n\"'\x1b\xc3\xa4"}}, 1, NULL, NULL, NULL},
	{{{"A", "1"}, {"a", "1"}, {"AA", "1"}}, 3, NULL, NULL, NULL},
	{{{"CONTAINER_MANAGER", "1"}}, 1, NULL, NULL, NULL},
	{{{"container_manager_x", "1"}}, 1, NULL, NULL, NULL},
	{{{"X_CONTAINER_MANAGER_", "1"}}, 1, NULL, NULL, NULL},
	{{{NULL, "1"}}, 1, BAD, "name \"\" of an environment variable is not valid", ENV_HINT},
	{{{"", "1"}}, 1, BAD, "name \"\" of an environment variable is not valid", ENV_HINT},
	{{{"9A", "1"}}, 1, BAD, "name \"9A\" of an environment variable is not valid", ENV_HINT},
	{{{"A=B", "1"}}, 1, BAD, "name \"A=B\" of an environment variable is not valid", ENV_HINT},
	{{{"A B", "1"}}, 1, BAD, "name \"A B\" of an environment variable is not valid", ENV_HINT},
	{{{"A\n", "1"}}, 1, BAD, "name \"A?\" of an environment variable is not valid", ENV_HINT},
	{{{"A-B", "1"}}, 1, BAD, "name \"A-B\" of an environment variable is not valid", ENV_HINT},
	{{{"\xc3\x84", "1"}},
	 1,
	 BAD,
	 "name \"\xc3\x84\" of an environment variable is not valid",
	 ENV_HINT},
	{{{"A", "1"}, {"9", "1"}},
	 2,
	 BAD,
	 "name \"9\" of an environment variable is not valid",
	 ENV_HINT},
	{{{"CONTAINER_MANAGER_", "1"}},
	 1,
	 DENIED,
	 "environment variable \"CONTAINER_MANAGER_\" is reserved",
	 RESERVED},
	{{{"CONTAINER_MANAGER_JOB_ID", "1"}},
	 1,
	 DENIED,
	 "environment variable \"CONTAINER_MANAGER_JOB_ID\" is reserved",
	 RESERVED},
	{{{"A", NULL}},
	 1,
	 BAD,
	 "environment variable \"A\" has no value",
	 "Give an empty string, or leave the variable out."},
	{{{"A", "1"}, {"B", "1"}, {"A", "2"}}, 3, BAD, "environment variable \"A\" is given twice", ""},
	{{{"A", "1"}, {"A", "1"}}, 2, BAD, "environment variable \"A\" is given twice", ""},
};

static const PairRow label_rows[] = {
	{{{"a", ""}}, 1, NULL, NULL, NULL},
	{{{"0", "1"}}, 1, NULL, NULL, NULL},
	{{{"team.example/Cost-Center_1", "x y\n"}}, 1, NULL, NULL, NULL},
	{{{LONG_63, "1"}}, 1, NULL, NULL, NULL},
	{{{"a", "1"}, {"A", "1"}}, 2, NULL, NULL, NULL},
	{{{NULL, "1"}}, 1, BAD, "label key \"\" is not valid", KEY_HINT},
	{{{"", "1"}}, 1, BAD, "label key \"\" is not valid", KEY_HINT},
	{{{LONG_64, "1"}}, 1, BAD, "label key \"" LONG_64 "\" is not valid", KEY_HINT},
	{{{".a", "1"}}, 1, BAD, "label key \".a\" is not valid", KEY_HINT},
	{{{"/a", "1"}}, 1, BAD, "label key \"/a\" is not valid", KEY_HINT},
	{{{"a b", "1"}}, 1, BAD, "label key \"a b\" is not valid", KEY_HINT},
	{{{"a=b", "1"}}, 1, BAD, "label key \"a=b\" is not valid", KEY_HINT},
	{{{"a:b", "1"}}, 1, BAD, "label key \"a:b\" is not valid", KEY_HINT},
	{{{"a", NULL}},
	 1,
	 BAD,
	 "label \"a\" has no value",
	 "Give an empty string, or leave the label out."},
	{{{"a", "1"}, {"b", "1"}, {"b", "2"}}, 3, BAD, "label \"b\" is given twice", ""},
};

static void
test_pairs(void)
{
	char name[64];

	for (size_t i = 0; i < lengthof(environment_rows); i++)
	{
		const PairRow *row = &environment_rows[i];
		CmJobSpec spec = make_spec();

		spec.environment = row->pairs;
		spec.n_environment = row->n;
		snprintf(name, sizeof(name), "environment %zu", i);
		check(&spec, name, row->sqlstate, "environment", row->message, row->hint);
	}
	for (size_t i = 0; i < lengthof(label_rows); i++)
	{
		const PairRow *row = &label_rows[i];
		CmJobSpec spec = make_spec();

		spec.labels = row->pairs;
		spec.n_labels = row->n;
		snprintf(name, sizeof(name), "labels %zu", i);
		check(&spec, name, row->sqlstate, "labels", row->message, row->hint);
	}
}

#define PLAIN "is not in its plain form, without \".\", doubled slashes and a slash at the end"
#define COUNT_AS_MEMORY \
	"Files in a tmpfs count as memory of the job: raise memory_limit, or make the tmpfs smaller."
#define MIDDLE(target) "tmpfs path \"" target "\" "

static const struct
{
	CmTmpfs mounts[3];
	int n;
	const char *sqlstate;
	const char *message;
	const char *hint;
} tmpfs_rows[] = {
	{{{"/tmp", 1}}, 1, NULL, NULL, NULL},
	{{{"/tmp", 512}}, 1, NULL, NULL, NULL},
	{{{"/tmp", 512}, {"/var/tmp", 512}, {"/tmp/x", 1}}, 3, NULL, NULL, NULL},
	{{{"/procs", 1}, {"/system", 1}, {"/device/proc", 1}}, 3, NULL, NULL, NULL},
	{{{"/a b", 1}, {"/..a", 1}, {"/\xc3\xa4", 1}}, 3, NULL, NULL, NULL},
	{{{NULL, 1}}, 1, BAD, "path of a tmpfs is missing", ""},
	{{{"", 1}}, 1, BAD, MIDDLE("") "is not absolute", ""},
	{{{"tmp", 1}}, 1, BAD, MIDDLE("tmp") "is not absolute", ""},
	{{{"/", 1}}, 1, BAD, MIDDLE("/") "is the root directory", ""},
	{{{"//", 1}}, 1, BAD, MIDDLE("//") PLAIN, ""},
	{{{"/tmp/", 1}}, 1, BAD, MIDDLE("/tmp/") PLAIN, ""},
	{{{"//proc", 1}}, 1, BAD, MIDDLE("//proc") PLAIN, ""},
	{{{"/./proc", 1}}, 1, BAD, MIDDLE("/./proc") PLAIN, ""},
	{{{"/tmp/.", 1}}, 1, BAD, MIDDLE("/tmp/.") PLAIN, ""},
	{{{"/tmp/../proc", 1}}, 1, BAD, MIDDLE("/tmp/../proc") "contains \"..\"", ""},
	{{{"/tmp:exec", 1}}, 1, BAD, MIDDLE("/tmp:exec") "contains \":\" or \",\"", ""},
	{{{"/tmp,suid", 1}}, 1, BAD, MIDDLE("/tmp,suid") "contains \":\" or \",\"", ""},
	{{{"/tmp\t", 1}}, 1, BAD, MIDDLE("/tmp?") "contains a control character", ""},
	{{{"/proc", 1}}, 1, DENIED, MIDDLE("/proc") "is not allowed", ""},
	{{{"/proc/self", 1}}, 1, DENIED, MIDDLE("/proc/self") "is not allowed", ""},
	{{{"/sys", 1}}, 1, DENIED, MIDDLE("/sys") "is not allowed", ""},
	{{{"/sys/fs/cgroup", 1}}, 1, DENIED, MIDDLE("/sys/fs/cgroup") "is not allowed", ""},
	{{{"/dev", 1}}, 1, DENIED, MIDDLE("/dev") "is not allowed", ""},
	{{{"/dev/shm", 1}}, 1, DENIED, MIDDLE("/dev/shm") "is not allowed", ""},
	{{{"/a", 1}, {"/b", 1}, {"/a", 2}}, 3, BAD, MIDDLE("/a") "is given twice", ""},
	{{{"/a", 0}}, 1, BAD, "tmpfs \"/a\" of 0 MB is below the least of 1 MB", ""},
	{{{"/a", INT64_MIN}},
	 1,
	 BAD,
	 "tmpfs \"/a\" of -9223372036854775808 MB is below the least of 1 MB",
	 ""},
	{{{"/a", 513}},
	 1,
	 BAD,
	 "tmpfs \"/a\" of 513 MB is over the memory_limit of 512 MB",
	 COUNT_AS_MEMORY},
	{{{"/a", INT64_MAX}},
	 1,
	 BAD,
	 "tmpfs \"/a\" of 9223372036854775807 MB is over the memory_limit of 512 MB",
	 COUNT_AS_MEMORY},
};

static void
test_tmpfs(void)
{
	static CmTmpfs many[CM_MAX_TMPFS + 1];
	static char targets[CM_MAX_TMPFS + 1][8];
	CmJobSpec spec;
	char name[64];

	for (size_t i = 0; i < lengthof(tmpfs_rows); i++)
	{
		spec = make_spec();
		spec.tmpfs = tmpfs_rows[i].mounts;
		spec.n_tmpfs = tmpfs_rows[i].n;
		snprintf(name, sizeof(name), "tmpfs %zu", i);
		check(&spec, name, tmpfs_rows[i].sqlstate, "tmpfs", tmpfs_rows[i].message,
			  tmpfs_rows[i].hint);
	}

	for (int i = 0; i <= CM_MAX_TMPFS; i++)
	{
		snprintf(targets[i], sizeof(targets[i]), "/t%d", i);
		many[i] = (CmTmpfs){targets[i], 1};
	}
	spec = make_spec();
	spec.tmpfs = many;
	spec.n_tmpfs = CM_MAX_TMPFS;
	check(&spec, "most tmpfs mounts", NULL, NULL, NULL, NULL);
	spec.n_tmpfs++;
	check(&spec, "one tmpfs mount more", OVER, "tmpfs", "more than 32 tmpfs mounts are given",
		  NO_SETTING);
	spec.n_tmpfs = -1;
	check(&spec, "tmpfs count below 0", OVER, "tmpfs", "more than 32 tmpfs mounts are given",
		  NO_SETTING);
}

#define BOTH_ARGS                                                    \
	"command is run by a shell in place of the image's entrypoint; " \
	"args are given to the entrypoint."
#define BOTH_ENTRYPOINT "command is run by a shell in place of the entrypoint; give args instead."
#define GIVE_EMPTY "Give an empty string, or leave the entry out."
#define NOTHING_TO_RUN "entrypoint is empty and there are no args: nothing would be run"
#define PROGRAM_AS_ARGS "Give the program and its arguments as args."

static void
test_words(void)
{
	static const char *words[] = {"sh", "", " \n", NULL};
	CmWords none = {true, 0, NULL};
	CmWords three = {true, 3, words};
	CmWords four = {true, 4, words};
	CmJobSpec spec = make_spec();

	spec.args = none;
	check(&spec, "empty args", BAD, "args", "args are empty and there is no entrypoint",
		  "Leave args out to run what the image runs by itself, or give entrypoint, too.");
	spec.entrypoint = none;
	check(&spec, "empty lists", BAD, "entrypoint", NOTHING_TO_RUN, PROGRAM_AS_ARGS);
	spec.args.is_set = false;
	check(&spec, "empty entrypoint", BAD, "entrypoint", NOTHING_TO_RUN, PROGRAM_AS_ARGS);
	spec.args = three;
	check(&spec, "empty entrypoint, and args", NULL, NULL, NULL, NULL);
	spec.args = none;
	spec.entrypoint = three;
	check(&spec, "empty args, and entrypoint", NULL, NULL, NULL, NULL);
	spec.entrypoint.words++;
	spec.entrypoint.count--;
	check(&spec, "entrypoint that begins with nothing", BAD, "entrypoint",
		  "entry 1 of entrypoint is empty",
		  "It is the program to run; give '{}' to have no entrypoint.");
	spec.args = spec.entrypoint = three;
	check(&spec, "lists with an empty word", NULL, NULL, NULL, NULL);
	spec.args = four;
	check(&spec, "null in args", BAD, "args", "entry 4 of args is null", GIVE_EMPTY);
	spec.args.is_set = false;
	check(&spec, "null in args that are not given", NULL, NULL, NULL, NULL);
	spec.entrypoint = four;
	check(&spec, "null in entrypoint", BAD, "entrypoint", "entry 4 of entrypoint is null",
		  GIVE_EMPTY);

	spec = make_spec();
	spec.command = "true";
	spec.args = none;
	check(&spec, "command and args", BAD, "args", "command and args cannot both be given",
		  BOTH_ARGS);
	spec.args.is_set = false;
	spec.entrypoint = three;
	check(&spec, "command and entrypoint", BAD, "entrypoint",
		  "command and entrypoint cannot both be given", BOTH_ENTRYPOINT);
}

/* A text of n bytes, to be freed. */
static char *
make_text(size_t n, char fill)
{
	char *text = malloc(n + 1);

	memset(text, fill, n);
	text[n] = '\0';
	return text;
}

static void
test_text_sizes(void)
{
	CmJobSpec spec = make_spec();
	char *text = make_text(CM_MAX_TEXT_BYTES + 1, 'x');
	CmPair pair = {"AB", text + 3};

	spec.command = text;
	check(&spec, "command too long", OVER, "command", "command is longer than 131071 bytes",
		  NO_SETTING);
	spec.command = text + 1;
	check(&spec, "longest command", NULL, NULL, NULL, NULL);

	spec = make_spec();
	spec.environment = &pair;
	spec.n_environment = 1;
	check(&spec, "longest variable", NULL, NULL, NULL, NULL);
	pair.value = text + 2;
	check(&spec, "variable too long", OVER, "environment",
		  "environment variable \"AB\" is longer than 131071 bytes", NO_SETTING);

	spec = make_spec();
	spec.labels = &pair;
	spec.n_labels = 1;
	pair.value = text + CM_MAX_TEXT_BYTES + 1 - CM_MAX_LABEL_BYTES;
	check(&spec, "longest label", NULL, NULL, NULL, NULL);
	pair.value--;
	check(&spec, "label too long", OVER, "labels", "label \"AB\" is longer than 4096 bytes",
		  NO_SETTING);
	free(text);
}

static void
test_word_sizes(void)
{
	char *text = make_text(CM_MAX_TEXT_BYTES, 'x');
	const char **words = calloc(CM_MAX_WORDS + 1, sizeof(char *));
	CmJobSpec spec = make_spec();

	words[0] = text;
	for (int i = 1; i <= CM_MAX_WORDS; i++)
		words[i] = "";
	spec.args = (CmWords){true, CM_MAX_WORDS, words};
	spec.entrypoint = spec.args;
	check(&spec, "most words, most bytes", NULL, NULL, NULL, NULL);
	words[CM_MAX_WORDS - 1] = "x";
	check(&spec, "args too long", OVER, "args", "args take more than 131071 bytes together",
		  NO_SETTING);
	spec.args.is_set = false;
	check(&spec, "entrypoint too long", OVER, "entrypoint",
		  "words of entrypoint take more than 131071 bytes together", NO_SETTING);
	spec.entrypoint.count++;
	check(&spec, "entrypoint of too many", OVER, "entrypoint",
		  "entrypoint has more than 4096 entries", NO_SETTING);
	spec.args = (CmWords){true, -1, words};
	check(&spec, "args of less than none", OVER, "args", "args has more than 4096 entries",
		  NO_SETTING);
	free(words);
	free(text);
}

static void
test_path_sizes(void)
{
	char *path = make_text(CM_MAX_PATH_BYTES + 1, 'x');
	CmTmpfs mount = {path, 1};
	CmJobSpec spec = make_spec();
	char message[256];

	path[0] = path[1] = '/';
	spec.working_directory = path + 1;
	check(&spec, "longest working_directory", NULL, NULL, NULL, NULL);
	spec.working_directory = path;
	snprintf(message, sizeof(message), "working_directory \"%.64s...\" is longer than 4096 bytes",
			 path);
	check(&spec, "working_directory too long", BAD, "working_directory", message, "");

	spec = make_spec();
	spec.tmpfs = &mount;
	spec.n_tmpfs = 1;
	mount.target = path + 1;
	check(&spec, "longest tmpfs path", NULL, NULL, NULL, NULL);
	mount.target = path;
	snprintf(message, sizeof(message), "tmpfs path \"%.64s...\" is longer than 4096 bytes", path);
	check(&spec, "tmpfs path too long", BAD, "tmpfs", message, "");
	free(path);
}

/* Every event of an engine carries all labels. */
static void
test_labels_together(void)
{
	CmPair pairs[17];
	char names[17][8];
	char *value = make_text(CM_MAX_LABEL_BYTES, 'x');
	CmJobSpec spec = make_spec();

	for (int i = 0; i < 17; i++)
	{
		snprintf(names[i], sizeof(names[i]), "L%02d", i);
		pairs[i] = (CmPair){names[i], value};
	}
	/* 16 values of 4096 bytes, less what the 16 names and the last name take */
	pairs[0].value = value + 17 * 3;
	pairs[16].value = "";
	spec.labels = pairs;
	spec.n_labels = 17;
	check(&spec, "most of labels", NULL, NULL, NULL, NULL);
	pairs[0].value--;
	check(&spec, "one byte more of labels", OVER, "labels",
		  "labels take more than 65536 bytes together", NO_SETTING);
	free(value);
}

/* The most pairs, and names that differ in their last bytes only. */
static void
test_pair_counts(void)
{
	static CmPair pairs[CM_MAX_PAIRS + 1];
	static char names[CM_MAX_PAIRS + 1][16];
	CmJobSpec spec = make_spec();

	for (int i = 0; i <= CM_MAX_PAIRS; i++)
	{
		snprintf(names[i], sizeof(names[i]), "N%d", i);
		pairs[i] = (CmPair){names[i], "v"};
	}
	spec.environment = spec.labels = pairs;
	spec.n_environment = spec.n_labels = CM_MAX_PAIRS;
	check(&spec, "most pairs", NULL, NULL, NULL, NULL);
	spec.n_labels++;
	check(&spec, "one label more", OVER, "labels", "more than 4096 labels are given", NO_SETTING);
	test_labels_together();
	spec.n_environment++;
	check(&spec, "one variable more", OVER, "environment",
		  "environment has more than 4096 variables", NO_SETTING);
	spec.n_environment = -1;
	check(&spec, "variables below 0", OVER, "environment",
		  "environment has more than 4096 variables", NO_SETTING);
	spec.n_environment = 0;
	spec.n_labels = -1;
	check(&spec, "labels below 0", OVER, "labels", "more than 4096 labels are given", NO_SETTING);

	spec.n_environment = CM_MAX_PAIRS;
	pairs[CM_MAX_PAIRS - 1].name = "N0";
	check(&spec, "first and last are the same", BAD, "environment",
		  "environment variable \"N0\" is given twice", "");
}

/* Four variables of 1 MiB fit but for what the rest takes. */
static void
test_sum(void)
{
	static const char *const names[] = {"A", "B", "C", "D"};
	CmJobSpec spec = make_spec();
	CmPair pairs[4];
	char *texts[4];
	size_t n_rest = strlen("default"
						   "busybox:1.36"
						   "65534:65534"
						   "bridge"
						   "ABCD");

	for (int i = 0; i < 4; i++)
	{
		texts[i] = make_text(CM_MAX_TEXT_BYTES - 1, 'x');
		pairs[i] = (CmPair){names[i], texts[i]};
	}
	spec.environment = pairs;
	spec.n_environment = 4;
	pairs[3].value = texts[3] + n_rest - 4;
	check(&spec, "most of all", NULL, NULL, NULL, NULL);
	pairs[3].value--;
	check(&spec, "one byte more", OVER, "",
		  "job definition takes 524285 bytes, over the bound of 524284", NO_SETTING);
	for (int i = 0; i < 4; i++)
		free(texts[i]);
}

/* Every text and list counts in the sum. */
static void
test_sum_of_all(void)
{
	char *mega = make_text(CM_MAX_TEXT_BYTES - 1, 'x');
	const char *word[] = {"12345"};
	CmPair pairs[] = {{"A", mega}, {"B", mega}, {"C", mega}, {"D", mega}};
	CmPair label = {"key", "value"};
	CmTmpfs mount = {"/t", 1};
	CmJobSpec spec = make_spec();
	size_t n_rest = strlen("default"
						   "busybox:1.36"
						   "65534:65534"
						   "bridge"
						   "ABCD"
						   "job"
						   "12345"
						   "12345"
						   "key"
						   "value"
						   "/w"
						   "/t");

	spec.name = "job";
	spec.args = spec.entrypoint = (CmWords){true, 1, word};
	spec.labels = &label;
	spec.n_labels = 1;
	spec.working_directory = "/w";
	spec.tmpfs = &mount;
	spec.n_tmpfs = 1;
	spec.environment = pairs;
	spec.n_environment = 4;
	pairs[3].value = mega + n_rest - 4;
	check(&spec, "most of all, of everything", NULL, NULL, NULL, NULL);
	pairs[3].value--;
	check(&spec, "one byte more of everything", OVER, "",
		  "job definition takes 524285 bytes, over the bound of 524284", NO_SETTING);
	free(mega);
}

/* What an administrator may open with min_uid, and what nobody may. */
static void
test_root_allowed(void)
{
	CmLimits open = limits;
	CmJobSpec spec = make_spec();
	CmProblem problem;

	open.min_uid = 0;
	spec.run_as = "0:0";
	ok(cm_policy_check(&spec, &open, &problem), "root where min_uid is 0");
	open.min_uid = 1;
	ok(!cm_policy_check(&spec, &open, &problem), "not where it is 1");
	spec.run_as = "1:0";
	ok(!cm_policy_check(&spec, &open, &problem), "nor the group of root");
	spec.run_as = "1:1";
	ok(cm_policy_check(&spec, &open, &problem), "the lowest allowed");

	open.min_uid = 0;
	spec.networks = &(const CmNetwork){.name = "host"};
	ok(!cm_policy_check(&spec, &open, &problem), "the host's network is nobody's");
	is_str(problem.detail,
		   "Namespaces of the host and of other containers can never be had, whoever asks.",
		   "and the detail says so");
}

/* Secrets may stand in values and commands. */
static void
test_secrets_stay(void)
{
	CmPair pairs[] = {{"A", "hunter2"}, {"A", "hunter2"}};
	const char *words[] = {"hunter2", NULL};
	CmJobSpec spec = make_spec();
	CmProblem problem;

	spec.environment = pairs;
	spec.n_environment = 2;
	cm_policy_check(&spec, &limits, &problem);
	ok(strstr(problem.message, "hunter2") == NULL, "no value of a variable in a message");

	spec = make_spec();
	spec.command = "hunter2";
	spec.args = (CmWords){true, 2, words};
	cm_policy_check(&spec, &limits, &problem);
	ok(strstr(problem.message, "hunter2") == NULL, "no command in a message");
	spec.command = NULL;
	cm_policy_check(&spec, &limits, &problem);
	ok(strstr(problem.message, "hunter2") == NULL, "no word in a message");
}

/* The setting lets 'image' pass; who that is is judged as a number, as any other. */
static void
test_image_user(void)
{
	CmJobSpec spec = make_spec();
	CmLimits lenient = limits;
	CmProblem problem;

	spec.run_as = "image";
	check(&spec, "run_as 'image', off", DENIED, "run_as", "run_as of 'image' is not allowed",
		  "Give numbers, as in 65534:65534, or have an administrator turn "
		  "container_manager.allow_image_user on.");
	lenient.allow_image_user = true;
	ok(cm_policy_check(&spec, &lenient, &problem), "run_as 'image', on");
	spec.run_as = "Image";
	ok(!cm_policy_check(&spec, &lenient, &problem), "run_as 'Image'");
	ok(cm_policy_check_user("1001", &lenient, &problem), "a user of an image");
	ok(cm_policy_check_user("1001:50", &lenient, &problem), "with a group");
	ok(!cm_policy_check_user("0", &lenient, &problem), "root");
	is_str(problem.sqlstate, DENIED, "root is not allowed");
	ok(!cm_policy_check_user("1001:0", &lenient, &problem), "the group of root");
	ok(!cm_policy_check_user("image", &lenient, &problem), "nobody knows who");
	ok(!cm_policy_check_user("", &lenient, &problem), "nobody");
	lenient.min_uid = 0;
	ok(cm_policy_check_user("0:0", &lenient, &problem), "root, where it is allowed");
}

static void
test_run_as_form(void)
{
	static const struct
	{
		const char *text;
		int64_t uid; /* -1: not of that form */
		int64_t gid;
	} rows[] = {
		{"0", 0, -1},
		{"0:0", 0, 0},
		{"1", 1, -1},
		{"65534:65534", 65534, 65534},
		{"2147483647", 2147483647, -1},
		{"7:2147483647", 7, 2147483647},
		{"", -1, 0},
		{":", -1, 0},
		{":1", -1, 0},
		{"1:", -1, 0},
		{"1:2:3", -1, 0},
		{"1:2:", -1, 0},
		{"-1", -1, 0},
		{"+1", -1, 0},
		{" 1", -1, 0},
		{"1 ", -1, 0},
		{"1 :2", -1, 0},
		{"1: 2", -1, 0},
		{"1:-1", -1, 0},
		{"1\n", -1, 0},
		{"0x1", -1, 0},
		{"1e3", -1, 0},
		{"1.0", -1, 0},
		{"00", -1, 0},
		{"01", -1, 0},
		{"1:00", -1, 0},
		{"1:01", -1, 0},
		{"2147483648", -1, 0},
		{"1:2147483648", -1, 0},
		{"4294967296", -1, 0},
		{"18446744073709551616", -1, 0},
		{LONG_63 LONG_63, -1, 0},
		{"root", -1, 0},
		{"\xd9\xa1", -1, 0},
	};

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		int64_t uid = -2;
		int64_t gid = -2;

		if (!ok(cm_policy_parse_run_as(rows[i].text, &uid, &gid) == (rows[i].uid >= 0),
				"form of \"%s\"", rows[i].text))
			continue;
		if (rows[i].uid < 0)
			continue;
		is_int(uid, rows[i].uid, "uid of \"%s\"", rows[i].text);
		is_int(gid, rows[i].gid, "gid of \"%s\"", rows[i].text);
	}
}

typedef bool (*NameTest)(const char *name);

/* Which bytes each kind of name takes first, and which after that. */
static void
test_name_bytes(void)
{
	static const struct
	{
		const char *name;
		NameTest test;
		int n_first;
		int n_later;
	} rows[] = {
		{"names of variables", cm_policy_is_env_name, 53, 63},
		{"names of networks", cm_policy_is_network_name, 62, 65},
		{"plain names", cm_policy_is_plain_name, 62, 65},
	};

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		int n_first = 0;
		int n_later = 0;

		for (int c = 1; c < 256; c++)
		{
			char first[] = {(char) c, '\0'};
			char later[] = {'x', (char) c, 'y', '\0'};

			n_first += rows[i].test(first);
			n_later += rows[i].test(later);
		}
		is_int(n_first, rows[i].n_first, "%s: first bytes", rows[i].name);
		is_int(n_later, rows[i].n_later, "%s: later bytes", rows[i].name);
		ok(!rows[i].test(""), "%s: not empty", rows[i].name);
	}
	ok(cm_policy_is_network_name(NAME_255), "longest name of a network");
	ok(!cm_policy_is_network_name(NAME_255 "4"), "name of a network too long");
	ok(!cm_policy_is_network_name("HOST"), "host's network");
	ok(!cm_policy_is_network_name("container:x"), "container's network");
}

#define ULIMIT_HINT "Those that can are core, cpu, data, fsize, memlock, nofile, nproc and stack."
#define RAISE(setting) "Ask for less, or have an administrator raise container_manager." setting "."
#define MB INT64_C(1048576)

/* Of a job with 512 MB. */
static const struct
{
	CmUlimit ulimit;
	const char *sqlstate;
	const char *message;
	const char *hint;
} ulimit_rows[] = {
	{{"nofile", 1024, 1024}, NULL, NULL, NULL},
	{{"nofile", 0, 1048576}, NULL, NULL, NULL},
	{{"nofile", 0, 1048577},
	 OVER,
	 "ulimit \"nofile\" of 1048577 is over the bound of 1048576",
	 NO_SETTING},
	{{"nofile", -1, 5},
	 BAD,
	 "ulimit \"nofile\" is below 0",
	 "Leave it out to have what the engine gives by itself."},
	{{"nofile", 5, -1},
	 BAD,
	 "ulimit \"nofile\" is below 0",
	 "Leave it out to have what the engine gives by itself."},
	{{"nofile", 6, 5}, BAD, "soft ulimit \"nofile\" of 6 is over the hard one of 5", ""},
	{{"cpu", 1, 31622400}, NULL, NULL, NULL},
	{{"nproc", 1, 4194305},
	 OVER,
	 "ulimit \"nproc\" of 4194305 is over the bound of 4194304",
	 NO_SETTING},
	{{"core", 0, 0}, NULL, NULL, NULL},
	{{"core", 0, 512 * MB}, NULL, NULL, NULL},
	{{"memlock", 0, 512 * MB + 1},
	 OVER,
	 "ulimit \"memlock\" of 536870913 is over the bound of 536870912",
	 "The bound is the job's memory_limit."},
	{{"stack", 0, 512 * MB}, NULL, NULL, NULL},
	{{"data", 0, 512 * MB}, NULL, NULL, NULL},
	{{"fsize", 1, INT64_C(1) << 50}, NULL, NULL, NULL},
	{{"nice", 20, 20}, BAD, "ulimit \"nice\" cannot be set", ULIMIT_HINT},
	{{"rtprio", 1, 1}, BAD, "ulimit \"rtprio\" cannot be set", ULIMIT_HINT},
	{{"NOFILE", 1, 1}, BAD, "ulimit \"NOFILE\" cannot be set", ULIMIT_HINT},
	{{"a\n", 1, 1}, BAD, "ulimit \"a?\" cannot be set", ULIMIT_HINT},
	{{NULL, 1, 1}, BAD, "ulimit \"\" cannot be set", ULIMIT_HINT},
};

static void
test_ulimits(void)
{
	CmUlimit twice[] = {{"nofile", 1, 1}, {"core", 0, 0}, {"nofile", 2, 2}};
	CmJobSpec spec = make_spec();

	for (size_t i = 0; i < lengthof(ulimit_rows); i++)
	{
		char name[32];

		snprintf(name, sizeof(name), "ulimit row %zu", i);
		spec.ulimits = &ulimit_rows[i].ulimit;
		spec.n_ulimits = 1;
		check(&spec, name, ulimit_rows[i].sqlstate, "ulimits", ulimit_rows[i].message,
			  ulimit_rows[i].hint);
	}
	spec.ulimits = twice;
	spec.n_ulimits = 2;
	check(&spec, "two ulimits", NULL, NULL, NULL, NULL);
	spec.n_ulimits = 3;
	check(&spec, "a ulimit twice", BAD, "ulimits", "ulimit \"nofile\" is given twice", "");
}

static const struct
{
	const char *column;
	size_t offset;
	int64_t value;
	const char *sqlstate;
	const char *message;
	const char *hint;
} process_rows[] = {
	{"shm_size", offsetof(CmJobSpec, shm_size_mb), 512, NULL, NULL, NULL},
	{"shm_size", offsetof(CmJobSpec, shm_size_mb), 513, BAD,
	 "shm_size of 513 MB is over the memory_limit of 512 MB",
	 "What is in /dev/shm counts as memory of the job: raise memory_limit, or make it smaller."},
	{"shm_size", offsetof(CmJobSpec, shm_size_mb), -1, BAD,
	 "shm_size of -1 MB is below the least of 1 MB", ""},
	{"pids_limit", offsetof(CmJobSpec, pids_limit), 2, NULL, NULL, NULL},
	{"pids_limit", offsetof(CmJobSpec, pids_limit), 256, NULL, NULL, NULL},
	{"pids_limit", offsetof(CmJobSpec, pids_limit), 257, OVER,
	 "pids_limit of 257 is over the limit of 256", RAISE("pids_limit")},
	{"pids_limit", offsetof(CmJobSpec, pids_limit), 1, BAD,
	 "pids_limit of 1 is below the least of 2", ""},
	{"pids_limit", offsetof(CmJobSpec, pids_limit), -1, BAD,
	 "pids_limit of -1 is below the least of 2", ""},
	{"log_limit", offsetof(CmJobSpec, log_limit_mb), 256, NULL, NULL, NULL},
	{"log_limit", offsetof(CmJobSpec, log_limit_mb), 257, OVER,
	 "log_limit of 257 MB is over the limit of 262144 kB", RAISE("max_log_size")},
	{"log_limit", offsetof(CmJobSpec, log_limit_mb), -1, BAD,
	 "log_limit of -1 MB is below the least of 1 MB", ""},
	{"stop_grace", offsetof(CmJobSpec, stop_grace_ms), -1, NULL, NULL, NULL},
	{"stop_grace", offsetof(CmJobSpec, stop_grace_ms), 60000, NULL, NULL, NULL},
	{"stop_grace", offsetof(CmJobSpec, stop_grace_ms), 60001, OVER,
	 "stop_grace of 60001 ms is over the limit of 60000 ms", RAISE("max_stop_grace")},
	{"stop_grace", offsetof(CmJobSpec, stop_grace_ms), -2, BAD,
	 "stop_grace is negative, or absurdly long", ""},
};

static void
test_process_numbers(void)
{
	for (size_t i = 0; i < lengthof(process_rows); i++)
	{
		CmJobSpec spec = make_spec();
		char name[64];

		snprintf(name, sizeof(name), "%s of %lld", process_rows[i].column,
				 (long long) process_rows[i].value);
		memcpy((char *) &spec + process_rows[i].offset, &process_rows[i].value, sizeof(int64_t));
		check(&spec, name, process_rows[i].sqlstate, process_rows[i].column,
			  process_rows[i].message, process_rows[i].hint);
	}
}

static void
test_stopping(void)
{
	static const struct
	{
		const char *name;
		int number;
	} rows[] = {{"SIGTERM", 15}, {"SIGINT", 2},	   {"SIGQUIT", 3}, {"SIGHUP", 1},  {"SIGUSR1", 10},
				{"SIGUSR2", 12}, {"SIGWINCH", 28}, {"SIGKILL", 0}, {"SIGSTOP", 0}, {"TERM", 0},
				{"sigterm", 0},	 {"15", 0},		   {"", 0},		   {"SIGTERM ", 0}};
	CmJobSpec spec = make_spec();

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		char message[64];

		snprintf(message, sizeof(message), "stop_signal of \"%s\" is not known", rows[i].name);
		is_int(cm_policy_signal_number(rows[i].name), rows[i].number, "number of %s", rows[i].name);
		spec.stop_signal = rows[i].name;
		check(&spec, rows[i].name, rows[i].number ? NULL : BAD, "stop_signal",
			  rows[i].number ? NULL : message,
			  "Write SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGWINCH; "
			  "SIGKILL follows after stop_grace.");
	}
}

static void
test_exit_codes(void)
{
	CmJobSpec spec = make_spec();

	spec.success_exit_codes.is_set = true;
	check(&spec, "no exit code is good", BAD, "success_exit_codes", "success_exit_codes is empty",
		  "Name the exit codes that mean success, or leave it out for 0.");
	spec.success_exit_codes.bits[31] = 0x80;
	check(&spec, "255 is good", NULL, NULL, NULL, NULL);
}

int
main(void)
{
	CmJobSpec spec = make_spec();

	check(&spec, "least definition", NULL, NULL, NULL, NULL);
	test_texts();
	test_networks();
	test_volumes();
	test_numbers();
	test_retries();
	test_ulimits();
	test_process_numbers();
	test_stopping();
	test_exit_codes();
	test_pairs();
	test_tmpfs();
	test_words();
	test_text_sizes();
	test_word_sizes();
	test_path_sizes();
	test_pair_counts();
	test_sum();
	test_sum_of_all();
	test_root_allowed();
	test_secrets_stay();
	test_run_as_form();
	test_image_user();
	test_name_bytes();
	return tap_done();
}
