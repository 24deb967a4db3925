/*
 * fuzz_policy.c
 *		The guard: a definition made from the bytes that passes keeps to every
 *		limit, as written down here once more; one that does not is told why.
 *
 * The bytes are lines: a letter says of which column, the rest is its value.
 * Options are NAME=, a letter for the kind, and the value.
 * What is left out is as in a plain job, so that one odd value stands alone.
 */
#include "fuzz.h"
#include "image_ref.h"
#include "policy.h"

#define MAX_LINES 64
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static const CmLimits limits = {.max_memory_mb = 2048,
								.max_nano_cpus = INT64_C(2000000000),
								.max_timeout_seconds = 3600,
								.min_uid = 1001,
								.max_pids = 256,
								.max_stop_grace_ms = 60000,
								.max_log_kb = 262144,
								.max_keep_seconds = 60};

/* The arrays that a definition points into. */
typedef struct Arrays
{
	CmPair environment[MAX_LINES];
	CmPair labels[MAX_LINES];
	CmTmpfs tmpfs[MAX_LINES];
	CmNetwork networks[MAX_LINES + 1];
	const char *aliases[MAX_LINES];
	CmVolume volumes[MAX_LINES];
	const char *args[MAX_LINES];
	const char *entrypoint[MAX_LINES];
	CmOption options[MAX_LINES];
	const char *option_words[MAX_LINES];
	CmPair option_pairs[MAX_LINES];
} Arrays;

static CmPair
split_pair(char *text)
{
	CmPair pair = {text, NULL};
	char *equals = strchr(text, '=');

	if (equals != NULL)
	{
		*equals = '\0';
		pair.value = equals + 1;
	}
	return pair;
}

static void
add_word(CmWords *words, const char **array, const char *word)
{
	words->words = array;
	words->is_set = true;
	if (word[0] != '-') /* "-": the list is there */
		array[words->count++] = word;
}

static void
add_option(CmJobSpec *spec, Arrays *arrays, bool in_host_config, char *text)
{
	CmOption *option = &arrays->options[spec->n_options];
	CmPair pair = split_pair(text);
	bool has_value = pair.value != NULL && pair.value[0] != '\0';
	char *value = has_value ? text + strlen(text) + 2 : text + strlen(text);

	option->in_host_config = in_host_config;
	option->name = text;
	option->number = strtoll(value, NULL, 10);
	option->text = value;
	option->words.words = &arrays->option_words[spec->n_options];
	option->words.words[0] = value;
	option->words.count = value[0] != '\0' ? 1 : 0;
	option->pairs = &arrays->option_pairs[spec->n_options];
	switch (has_value ? pair.value[0] : '\0')
	{
		case 'b':
			option->kind = CM_OPTION_BOOL;
			break;
		case 'n':
			option->kind = CM_OPTION_NUMBER;
			break;
		case 't':
			option->kind = CM_OPTION_TEXT;
			break;
		case 'w':
			option->kind = CM_OPTION_WORDS;
			break;
		case 'p':
			option->kind = CM_OPTION_PAIRS;
			arrays->option_pairs[spec->n_options] = split_pair(value);
			option->n_pairs = option->pairs->value != NULL ? 1 : 0;
			break;
		default:
			option->kind = CM_OPTION_OTHER;
			break;
	}
	spec->n_options++;
}

static void
take_line(CmJobSpec *spec, Arrays *arrays, char column, char *value)
{
	switch (column)
	{
		case 's':
			spec->namespace_name = value;
			break;
		case 'n':
			spec->name = value;
			break;
		case 'i':
			spec->image = value;
			break;
		case 'c':
			spec->command = value;
			break;
		case 'a':
			add_word(&spec->args, arrays->args, value);
			break;
		case 'e':
			add_word(&spec->entrypoint, arrays->entrypoint, value);
			break;
		case 'v':
			arrays->environment[spec->n_environment++] = split_pair(value);
			break;
		case 'l':
			arrays->labels[spec->n_labels++] = split_pair(value);
			break;
		case 'w':
			spec->working_directory = value;
			break;
		case 'u':
			spec->run_as = value;
			break;
		case 'k':
			arrays->networks[spec->n_networks++].name = value;
			break;
		case 'K':
			if (spec->n_networks > 0)
				add_word(&arrays->networks[0].aliases, arrays->aliases, value);
			break;
		case 'I':
			if (spec->n_networks > 0)
				arrays->networks[spec->n_networks - 1].ip = value;
			break;
		case 'V':
			arrays->volumes[spec->n_volumes].name = value;
			arrays->volumes[spec->n_volumes].target = strchr(value, '=');
			if (arrays->volumes[spec->n_volumes].target != NULL)
			{
				*strchr(value, '=') = '\0';
				arrays->volumes[spec->n_volumes].target++;
			}
			spec->n_volumes++;
			break;
		case 't':
			arrays->tmpfs[spec->n_tmpfs].size_mb = strtoll(value, &value, 10);
			arrays->tmpfs[spec->n_tmpfs++].target = value;
			break;
		case 'm':
			spec->memory_limit_mb = strtoll(value, NULL, 10);
			break;
		case 'p':
			spec->nano_cpus = strtoll(value, NULL, 10);
			break;
		case 'o':
			spec->timeout_seconds = strtoll(value, NULL, 10);
			break;
		case '0':
			spec->run_as = NULL;
			break;
		case 'd':
			add_option(spec, arrays, false, value);
			break;
		case 'D':
			add_option(spec, arrays, true, value);
			break;
		default:
			break;
	}
}

/* Cuts the text into its lines. */
static void
make_spec(char *text, CmJobSpec *spec, Arrays *arrays)
{
	memset(arrays, 0, sizeof(*arrays));
	*spec = (CmJobSpec){.job_id = 1,
						.attempt = 1,
						.namespace_name = "default",
						.image = "busybox:1.36",
						.run_as = "65534:65534",
						.memory_limit_mb = 512,
						.nano_cpus = INT64_C(1000000000),
						.timeout_seconds = 60,
						.environment = arrays->environment,
						.labels = arrays->labels,
						.networks = arrays->networks,
						.volumes = arrays->volumes,
						.options = arrays->options,
						.max_attempts = 1,
						.tmpfs = arrays->tmpfs};
	for (int i = 0; i < MAX_LINES && text != NULL && *text != '\0'; i++)
	{
		char *line = text;

		text = strchr(text, '\n');
		if (text != NULL)
			*text++ = '\0';
		if (line[0] != '\0')
			take_line(spec, arrays, line[0], line + 1);
	}
}

/* ---- the limits, once more ---- */

static bool
has_only(const char *text, const char *allowed)
{
	return text[strspn(text, allowed)] == '\0';
}

static bool
is_path(const char *path)
{
	size_t n = strlen(path);

	return path[0] == '/' && n <= CM_MAX_PATH_BYTES && fuzz_is_line(path) &&
		   strstr(path, "/../") == NULL && (n < 3 || strcmp(path + n - 3, "/..") != 0);
}

static void
require_pairs(const CmPair *pairs, int n, const char *allowed, size_t *n_bytes)
{
	for (int i = 0; i < n; i++)
	{
		REQUIRE(pairs[i].value != NULL && pairs[i].name[0] != '\0');
		REQUIRE(has_only(pairs[i].name, allowed));
		*n_bytes += strlen(pairs[i].name) + strlen(pairs[i].value);
		for (int j = 0; j < i; j++)
			REQUIRE(strcmp(pairs[i].name, pairs[j].name) != 0);
	}
}

static void
require_identity(const CmJobSpec *spec)
{
	char *end;
	long long uid = strtoll(spec->run_as, &end, 10);

	REQUIRE(uid >= limits.min_uid && uid <= INT32_MAX && has_only(spec->run_as, DIGITS ":"));
	REQUIRE(*end == '\0' || (*end == ':' && strtoll(end + 1, NULL, 10) > 0 &&
							 strtoll(end + 1, NULL, 10) <= INT32_MAX));
}

static void
require_networks(const CmJobSpec *spec)
{
	REQUIRE(spec->n_networks <= CM_MAX_NETWORKS);
	for (int i = 0; i < spec->n_networks; i++)
	{
		const CmNetwork *network = &spec->networks[i];

		REQUIRE(network->name[0] != '\0' && strcasecmp(network->name, "host") != 0 &&
				strcasecmp(network->name, "default") != 0 &&
				has_only(network->name, LETTERS DIGITS "_.-"));
		REQUIRE(network->ip == NULL || has_only(network->ip, DIGITS "."));
		for (int j = 0; j < network->aliases.count; j++)
			REQUIRE(has_only(network->aliases.words[j], LETTERS DIGITS "-"));
		for (int j = 0; j < i; j++)
			REQUIRE(strcmp(spec->networks[j].name, network->name) != 0);
	}
}

static void
require_volumes(const CmJobSpec *spec)
{
	REQUIRE(spec->n_volumes <= CM_MAX_VOLUMES);
	for (int i = 0; i < spec->n_volumes; i++)
	{
		const char *target = spec->volumes[i].target;

		REQUIRE(spec->volumes[i].name[0] != '\0');
		REQUIRE(has_only(spec->volumes[i].name, LETTERS DIGITS "_-"));
		REQUIRE(is_path(target) && strcmp(target, "/") != 0 && strcmp(target, "/tmp") != 0);
		REQUIRE(strcmp(target, "/proc") != 0 && strncmp(target, "/proc/", 6) != 0);
		REQUIRE(strcmp(target, "/sys") != 0 && strncmp(target, "/sys/", 5) != 0);
		REQUIRE(strcmp(target, "/dev") != 0 && strncmp(target, "/dev/", 5) != 0);
	}
}

static void
require_amounts(const CmJobSpec *spec)
{
	REQUIRE(spec->memory_limit_mb >= CM_MIN_MEMORY_MB &&
			spec->memory_limit_mb <= limits.max_memory_mb);
	REQUIRE(spec->nano_cpus >= CM_MIN_NANO_CPUS && spec->nano_cpus <= limits.max_nano_cpus);
	REQUIRE(spec->timeout_seconds >= 1 && spec->timeout_seconds <= limits.max_timeout_seconds);
}

static void
require_tmpfs(const CmJobSpec *spec)
{
	REQUIRE(spec->n_tmpfs <= CM_MAX_TMPFS);
	for (int i = 0; i < spec->n_tmpfs; i++)
	{
		const char *target = spec->tmpfs[i].target;

		REQUIRE(is_path(target) && strlen(target) > 1 && strpbrk(target, ":,") == NULL);
		REQUIRE(strstr(target, "//") == NULL && strstr(target, "/./") == NULL);
		REQUIRE(strncmp(target, "/proc/", 6) != 0 && strcmp(target, "/proc") != 0);
		REQUIRE(strncmp(target, "/sys/", 5) != 0 && strcmp(target, "/sys") != 0);
		REQUIRE(strncmp(target, "/dev/", 5) != 0 && strcmp(target, "/dev") != 0);
		REQUIRE(spec->tmpfs[i].size_mb >= 1 && spec->tmpfs[i].size_mb <= spec->memory_limit_mb);
	}
}

static bool
may_be_option(const CmOption *option)
{
	static const char *const whole[] = {"Hostname",		"Domainname", "AttachStdin", "AttachStdout",
										"AttachStderr", "OpenStdin",  "StopTimeout"};
	static const char *const of_host[] = {"Dns",		"DnsSearch",		 "DnsOptions",
										  "ExtraHosts", "GroupAdd",			 "OomScoreAdj",
										  "CpuShares",	"BlkioWeight",		 "CpusetCpus",
										  "CpusetMems", "MemoryReservation", "MemorySwappiness",
										  "Sysctls"};
	const char *const *names = option->in_host_config ? of_host : whole;
	size_t n = option->in_host_config ? sizeof(of_host) / sizeof(*of_host)
									  : sizeof(whole) / sizeof(*whole);

	for (size_t i = 0; i < n; i++)
		if (strcmp(option->name, names[i]) == 0)
			return true;
	return false;
}

static void
require_options(const CmJobSpec *spec)
{
	for (int i = 0; i < spec->n_options; i++)
	{
		const CmOption *option = &spec->options[i];

		REQUIRE(may_be_option(option) && option->kind != CM_OPTION_OTHER);
		for (int j = 0; j < i; j++)
			REQUIRE(strcmp(option->name, spec->options[j].name) != 0);
		REQUIRE(option->kind != CM_OPTION_NUMBER || option->number >= 0);
		REQUIRE(option->kind != CM_OPTION_TEXT ||
				(option->text[0] != '\0' && has_only(option->text, LETTERS DIGITS "_.-,")));
		for (int j = 0; option->kind == CM_OPTION_WORDS && j < option->words.count; j++)
			REQUIRE(has_only(option->words.words[j], LETTERS DIGITS "_.-:"));
		if (strcmp(option->name, "GroupAdd") == 0 && option->words.count > 0)
			REQUIRE(strtoll(option->words.words[0], NULL, 10) >= limits.min_uid);
		for (int j = 0; option->kind == CM_OPTION_PAIRS && j < option->n_pairs; j++)
			REQUIRE(strncmp(option->pairs[j].name, "net.", 4) == 0 &&
					has_only(option->pairs[j].value, DIGITS " "));
	}
}

static void
require_limits(const CmJobSpec *spec)
{
	CmImageRef ref;
	char error[128];
	size_t n_environment = 0;
	size_t n_labels = 0;

	REQUIRE(cm_image_ref_parse(spec->image, &ref, error, sizeof(error)));
	REQUIRE(strlen(spec->namespace_name) <= 63 && spec->namespace_name[0] != '\0' &&
			has_only(spec->namespace_name, LETTERS DIGITS "_.-"));
	REQUIRE(spec->command == NULL ||
			(!spec->args.is_set && !spec->entrypoint.is_set && spec->command[0] != '\0'));
	REQUIRE(spec->working_directory == NULL || is_path(spec->working_directory));
	require_pairs(spec->environment, spec->n_environment, LETTERS DIGITS "_", &n_environment);
	for (int i = 0; i < spec->n_environment; i++)
		REQUIRE(strncmp(spec->environment[i].name, "CONTAINER_MANAGER_", 18) != 0);
	require_pairs(spec->labels, spec->n_labels, LETTERS DIGITS "_./-", &n_labels);
	REQUIRE(n_environment + n_labels <= CM_MAX_SPEC_BYTES && n_labels <= CM_MAX_LABELS_BYTES);
	require_identity(spec);
	require_networks(spec);
	require_volumes(spec);
	require_amounts(spec);
	require_tmpfs(spec);
	require_options(spec);
}

static void
require_problem(const CmProblem *problem)
{
	REQUIRE(strcmp(problem->sqlstate, "22023") == 0 || strcmp(problem->sqlstate, "53400") == 0 ||
			strcmp(problem->sqlstate, "42501") == 0);
	REQUIRE(fuzz_is_line(problem->message) &&
			problem->message[strlen(problem->message) - 1] != '.');
	REQUIRE(problem->detail[0] == '\0' || fuzz_is_line(problem->detail));
	REQUIRE(problem->hint[0] == '\0' || fuzz_is_line(problem->hint));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *text = fuzz_make_string(data, n_bytes);
	CmJobSpec spec;
	Arrays arrays;
	CmProblem problem;

	make_spec(text, &spec, &arrays);
	if (cm_policy_check(&spec, &limits, &problem))
	{
		REQUIRE(problem.message[0] == '\0');
		require_limits(&spec);
	}
	else
		require_problem(&problem);
	free(text);
	return 0;
}
