/*
 * policy_options.c
 *		The guard's part for docker_options: what of Docker's own create request
 *		a job may say.
 *
 * Names count as they are spelled.  Go's decoder takes "pRiViLeGeD" for the
 * name that is meant, likewise "Bind" with a long s (U+017F) at its end, and of
 * two of them the last; so what differs from a known name in case alone is
 * refused, and nothing that was read here is passed on: the body is written
 * anew from the typed values.
 *
 * An option is let pass if it takes something away from the job alone, or
 * concerns nobody but the job.  A new field of an engine is unknown here, and
 * so is refused.
 */
#include <arpa/inet.h>

#include "policy_internal.h"

#define COLUMN "docker_options"
#define MAX_LIST 32
#define MAX_NAME_BYTES 64

typedef enum Verdict
{
	MAY_BE_SAID,
	HAS_COLUMN, /* text: the column, or more of them */
	IS_FIXED,	/* text: a sentence that says how it always is */
	NEVER		/* text: a sentence that says why */
} Verdict;

typedef struct Rule
{
	bool in_host_config;
	const char *name;
	Verdict verdict;
	const char *text; /* MAY_BE_SAID: a sentence on the form of its values */
	CmOptionKind kind;
	int64_t least; /* NUMBER */
	int64_t most;  /* NUMBER; WORDS and PAIRS: so many */
	bool (*is_good)(const char *text);
} Rule;

/* ---- forms of texts ---- */

/* Parts of letters, digits and "-" (and "_"), joined by dots. */
static bool
is_dotted_name(const char *text, size_t max)
{
	size_t length = strnlen(text, max + 1);
	size_t n_part = 0;

	if (length == 0 || length > max)
		return false;
	for (size_t i = 0; i < length; i++)
	{
		char c = text[i];

		if (c == '.')
		{
			if (n_part == 0 || text[i - 1] == '-')
				return false;
			n_part = 0;
		}
		else if ((!cm_chars_is_alnum(c) && (c != '-' || n_part == 0) && c != '_') || ++n_part > 63)
			return false;
	}
	return n_part > 0 && text[length - 1] != '-';
}

static bool
is_host_name(const char *text)
{
	return is_dotted_name(text, 63) && strchr(text, '_') == NULL;
}

static bool
is_domain_name(const char *text)
{
	return is_dotted_name(text, 253);
}

/* "." is how an engine is told to search nowhere. */
static bool
is_search_domain(const char *text)
{
	return strcmp(text, ".") == 0 || is_domain_name(text);
}

static bool
is_address(const char *text)
{
	struct in6_addr address;

	return strlen(text) < INET6_ADDRSTRLEN &&
		   (inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1);
}

/* name:address; the engine knows its host by the word host-gateway. */
static bool
is_extra_host(const char *text)
{
	char name[254];
	size_t length = strcspn(text, ":");

	if (length >= sizeof(name) || text[length] == '\0')
		return false;
	memcpy(name, text, length);
	name[length] = '\0';
	text += length + 1;
	return is_domain_name(name) && (strcmp(text, "host-gateway") == 0 || is_address(text));
}

/* word, or word:number of two digits, as in ndots:2 */
static bool
is_resolver_option(const char *text)
{
	size_t n_word = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
	size_t n_digits;

	if (n_word == 0 || n_word > 32 || !cm_chars_is_lower(text[0]))
		return false;
	if (text[n_word] == '\0')
		return true;
	n_digits = strspn(text + n_word + 1, "0123456789");
	return text[n_word] == ':' && n_digits > 0 && n_digits <= 2 &&
		   text[n_word + 1 + n_digits] == '\0';
}

/* A number of at most max at *text, which is moved behind it. */
static bool
take_number(const char **text, long max, long *number)
{
	const char *from = *text;

	*number = 0;
	for (; cm_chars_is_digit(**text) && *text - from < 10; (*text)++)
		*number = *number * 10 + (**text - '0');
	return *text > from && !cm_chars_is_digit(**text) && *number <= max;
}

/* 0-3,5 */
static bool
is_cpu_list(const char *text)
{
	if (strnlen(text, 257) > 256)
		return false;
	for (;; text++)
	{
		long first;
		long last;

		if (!take_number(&text, 8191, &first))
			return false;
		last = first;
		if (*text == '-' && (text++, !take_number(&text, 8191, &last)))
			return false;
		if (last < first || (*text != ',' && *text != '\0'))
			return false;
		if (*text == '\0')
			return true;
	}
}

/* ---- the fields of a create request ---- */

#define WHOLE false
#define HOST true

#define ALLOWED(section, name, kind, least, most, is_good, form)                 \
	{                                                                            \
		section, name, MAY_BE_SAID, form, CM_OPTION_##kind, least, most, is_good \
	}
#define OTHERWISE(section, name, verdict, text)                   \
	{                                                             \
		section, name, verdict, text, CM_OPTION_OTHER, 0, 0, NULL \
	}

#define A_BOOLEAN "It is true or false."
#define HOST_NAME_FORM "It has 1 to 63 letters, digits, \"-\" and \".\"."
#define DOMAIN_FORM "It has 1 to 253 letters, digits, \"-\", \"_\" and \".\"."
#define CPUS_FORM "It is a list of numbers and ranges, as in 0-2,5."

#define FOR_WINDOWS "Only engines on Windows have it."
#define OUTSIDE_LIMITS "The limits of the job would not hold for it."
#define DATA_OF_OTHERS "It reaches files of the host or of other containers."
#define NAMESPACE_OF_OTHERS "It is a namespace of the host or of other containers."
#define RAW_DEVICES "It concerns devices of the host."
#define PORTS "Ports of the host are open to its whole network."
#define PROFILES "It is what keeps a container from its host."

static const Rule rules[] = {
	ALLOWED(WHOLE, "Hostname", TEXT, 0, 0, is_host_name, HOST_NAME_FORM),
	ALLOWED(WHOLE, "Domainname", TEXT, 0, 0, is_domain_name, DOMAIN_FORM),
	ALLOWED(WHOLE, "AttachStdin", BOOL, 0, 1, NULL, A_BOOLEAN),
	ALLOWED(WHOLE, "AttachStdout", BOOL, 0, 1, NULL, A_BOOLEAN),
	ALLOWED(WHOLE, "AttachStderr", BOOL, 0, 1, NULL, A_BOOLEAN),
	ALLOWED(WHOLE, "OpenStdin", BOOL, 0, 1, NULL, A_BOOLEAN),
	ALLOWED(WHOLE, "StopTimeout", NUMBER, 0, 600, NULL, "It is 0 to 600 seconds."),
	ALLOWED(HOST, "Dns", WORDS, 0, 8, is_address, "Each of at most 8 is an IP address."),
	ALLOWED(HOST, "DnsSearch", WORDS, 0, 8, is_search_domain,
			"Each of at most 8 is a domain name, or \".\"."),
	ALLOWED(HOST, "DnsOptions", WORDS, 0, 8, is_resolver_option,
			"Each of at most 8 is an option of resolv.conf, as in ndots:2."),
	ALLOWED(HOST, "ExtraHosts", WORDS, 0, MAX_LIST, is_extra_host,
			"Each of at most 32 is name:address, or name:host-gateway for the host."),
	ALLOWED(HOST, "GroupAdd", WORDS, 0, 16, NULL, "Each of at most 16 is a numeric group."),
	ALLOWED(HOST, "OomScoreAdj", NUMBER, 0, 1000, NULL, "It is 0 to 1000: 0 is the usual."),
	ALLOWED(HOST, "CpuShares", NUMBER, 2, 1024, NULL, "It is 2 to 1024: 1024 is the usual."),
	ALLOWED(HOST, "BlkioWeight", NUMBER, 10, 500, NULL, "It is 10 to 500: 500 is the usual."),
	ALLOWED(HOST, "CpusetCpus", TEXT, 0, 0, is_cpu_list, CPUS_FORM),
	ALLOWED(HOST, "CpusetMems", TEXT, 0, 0, is_cpu_list, CPUS_FORM),
	ALLOWED(HOST, "MemoryReservation", NUMBER, INT64_C(6) << 20, INT64_MAX, NULL,
			"It is a number of bytes, from 6 MB to memory_limit."),
	ALLOWED(HOST, "MemorySwappiness", NUMBER, 0, 60, NULL, "It is 0 to 60: 60 is the usual."),
	ALLOWED(HOST, "Sysctls", PAIRS, 0, 16, NULL, "Its values are texts, as in {\"NAME\": \"1\"}."),

	OTHERWISE(WHOLE, "Image", HAS_COLUMN, "image"),
	OTHERWISE(WHOLE, "Cmd", HAS_COLUMN, "args, or command"),
	OTHERWISE(WHOLE, "Entrypoint", HAS_COLUMN, "entrypoint"),
	OTHERWISE(WHOLE, "Env", HAS_COLUMN, "environment"),
	OTHERWISE(WHOLE, "User", HAS_COLUMN, "run_as"),
	OTHERWISE(WHOLE, "WorkingDir", HAS_COLUMN, "working_directory"),
	OTHERWISE(WHOLE, "Labels", HAS_COLUMN, "labels"),
	OTHERWISE(WHOLE, "StopSignal", HAS_COLUMN, "stop_signal"),
	OTHERWISE(WHOLE, "Volumes", HAS_COLUMN, "volumes, or tmpfs"),
	OTHERWISE(WHOLE, "NetworkDisabled", HAS_COLUMN, "networks"),
	OTHERWISE(WHOLE, "NetworkingConfig", HAS_COLUMN, "networks"),
	OTHERWISE(HOST, "NetworkMode", HAS_COLUMN, "networks"),
	OTHERWISE(HOST, "Memory", HAS_COLUMN, "memory_limit"),
	OTHERWISE(HOST, "MemorySwap", HAS_COLUMN, "memory_limit, which includes swap"),
	OTHERWISE(HOST, "NanoCpus", HAS_COLUMN, "cpu_limit"),
	OTHERWISE(HOST, "CpuPeriod", HAS_COLUMN, "cpu_limit"),
	OTHERWISE(HOST, "CpuQuota", HAS_COLUMN, "cpu_limit"),
	OTHERWISE(HOST, "PidsLimit", HAS_COLUMN, "pids_limit"),
	OTHERWISE(HOST, "Ulimits", HAS_COLUMN, "ulimits"),
	OTHERWISE(HOST, "ShmSize", HAS_COLUMN, "shm_size"),
	OTHERWISE(HOST, "Tmpfs", HAS_COLUMN, "tmpfs"),
	OTHERWISE(HOST, "ReadonlyRootfs", HAS_COLUMN, "read_only"),
	OTHERWISE(HOST, "RestartPolicy", HAS_COLUMN, "max_attempts"),

	OTHERWISE(WHOLE, "Tty", IS_FIXED, "Without a terminal, stdout and stderr are told apart."),
	OTHERWISE(WHOLE, "StdinOnce", IS_FIXED, "Nobody attaches to a job."),
	OTHERWISE(WHOLE, "Healthcheck", IS_FIXED, "Health checks are turned off in jobs."),
	OTHERWISE(WHOLE, "ExposedPorts", IS_FIXED,
			  "Ports are reached by the networks of a job, exposed or not."),
	OTHERWISE(WHOLE, "Shell", IS_FIXED, "It concerns the building of images only."),
	OTHERWISE(WHOLE, "OnBuild", IS_FIXED, "It concerns the building of images only."),
	OTHERWISE(WHOLE, "ArgsEscaped", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "AutoRemove", IS_FIXED, "A container is removed when its end is recorded."),
	OTHERWISE(HOST, "Init", IS_FIXED, "Jobs always have an init process."),
	OTHERWISE(HOST, "CapDrop", IS_FIXED, "Jobs have no capabilities."),
	OTHERWISE(HOST, "ConsoleSize", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "Isolation", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "CpuCount", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "CpuPercent", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "IOMaximumIOps", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "IOMaximumBandwidth", IS_FIXED, FOR_WINDOWS),
	OTHERWISE(HOST, "Cpuset", IS_FIXED, "Engines call it CpusetCpus."),

	OTHERWISE(WHOLE, "MacAddress", NEVER, "With it a job takes the place of another machine."),
	OTHERWISE(HOST, "Privileged", NEVER, "A privileged container is root on its host."),
	OTHERWISE(HOST, "CapAdd", NEVER, "Capabilities are rights of root."),
	OTHERWISE(HOST, "Capabilities", NEVER, "Capabilities are rights of root."),
	OTHERWISE(HOST, "Binds", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "Mounts", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "VolumesFrom", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "VolumeDriver", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "ContainerIDFile", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "StorageOpt", NEVER, DATA_OF_OTHERS),
	OTHERWISE(HOST, "PidMode", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "IpcMode", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "UTSMode", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "UsernsMode", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "CgroupnsMode", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "Cgroup", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "Links", NEVER, NAMESPACE_OF_OTHERS),
	OTHERWISE(HOST, "CgroupParent", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "OomKillDisable", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "CpuRealtimePeriod", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "CpuRealtimeRuntime", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "KernelMemory", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "KernelMemoryTCP", NEVER, OUTSIDE_LIMITS),
	OTHERWISE(HOST, "Devices", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "DeviceCgroupRules", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "DeviceRequests", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "BlkioWeightDevice", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "BlkioDeviceReadBps", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "BlkioDeviceWriteBps", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "BlkioDeviceReadIOps", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "BlkioDeviceWriteIOps", NEVER, RAW_DEVICES),
	OTHERWISE(HOST, "SecurityOpt", NEVER, PROFILES),
	OTHERWISE(HOST, "MaskedPaths", NEVER, PROFILES),
	OTHERWISE(HOST, "ReadonlyPaths", NEVER, PROFILES),
	OTHERWISE(HOST, "Runtime", NEVER, PROFILES),
	OTHERWISE(HOST, "Annotations", NEVER, "Runtimes take them for orders, such as hooks."),
	OTHERWISE(HOST, "PortBindings", NEVER, PORTS),
	OTHERWISE(HOST, "PublishAllPorts", NEVER, PORTS),
	OTHERWISE(HOST, "LogConfig", NEVER, "Output would go elsewhere, or nowhere."),
};

#define N_RULES ((int) (sizeof(rules) / sizeof(rules[0])))

/*
 * Settings of the kernel that a network namespace has for itself.  What takes
 * memory (buffers, queues of messages) is not among them.
 */
static const struct
{
	const char *name;
	int n_numbers;
	long least;
	long most;
} sysctls[] = {
	{"net.core.somaxconn", 1, 1, 65535},
	{"net.ipv4.ip_local_port_range", 2, 1024, 65535},
	{"net.ipv4.ip_unprivileged_port_start", 1, 0, 65535},
	{"net.ipv4.tcp_fin_timeout", 1, 1, 300},
	{"net.ipv4.tcp_keepalive_intvl", 1, 1, 32767},
	{"net.ipv4.tcp_keepalive_probes", 1, 1, 127},
	{"net.ipv4.tcp_keepalive_time", 1, 1, 32767},
	{"net.ipv4.tcp_retries2", 1, 1, 100},
	{"net.ipv4.tcp_syn_retries", 1, 1, 127},
	{"net.ipv4.tcp_tw_reuse", 1, 0, 2},
	{"net.ipv6.conf.all.disable_ipv6", 1, 0, 1},
	{"net.ipv6.conf.default.disable_ipv6", 1, 0, 1},
};

#define N_SYSCTLS ((int) (sizeof(sysctls) / sizeof(sysctls[0])))

/* ---- names ---- */

/*
 * The next letter of a name as Go's decoder compares it: lower case, and with
 * it the long s (U+017F) and the sign for Kelvin (U+212A).
 */
static char
take_folded(const char **text)
{
	const unsigned char *bytes = (const unsigned char *) *text;

	if (bytes[0] == 0xc5 && bytes[1] == 0xbf)
	{
		*text += 2;
		return 's';
	}
	if (bytes[0] == 0xe2 && bytes[1] == 0x84 && bytes[2] == 0xaa)
	{
		*text += 3;
		return 'k';
	}
	(*text)++;
	return cm_chars_is_upper((char) bytes[0]) ? (char) (bytes[0] - 'A' + 'a') : (char) bytes[0];
}

static bool
is_folded_same(const char *text, const char *name)
{
	while (*text != '\0' && *name != '\0')
	{
		if (take_folded(&text) != take_folded(&name))
			return false;
	}
	return *text == *name;
}

/* In the section where it was found, if there, else in the other. */
static const Rule *
find_rule(const CmOption *option, bool is_exact)
{
	const Rule *found = NULL;

	for (int i = 0; i < N_RULES; i++)
	{
		if (is_exact ? strcmp(option->name, rules[i].name) != 0
					 : !is_folded_same(option->name, rules[i].name))
			continue;
		if (found == NULL || rules[i].in_host_config == option->in_host_config)
			found = &rules[i];
	}
	return found;
}

/* How many letters are to be changed, added or taken away. */
static int
count_changes(const char *a, const char *b)
{
	int row[MAX_NAME_BYTES + 1];
	int n_a = (int) strnlen(a, MAX_NAME_BYTES);
	int n_b = (int) strnlen(b, MAX_NAME_BYTES);

	for (int j = 0; j <= n_b; j++)
		row[j] = j;
	for (int i = 1; i <= n_a; i++)
	{
		int diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= n_b; j++)
		{
			int changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
			int shorter = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);

			diagonal = row[j];
			row[j] = changed < shorter ? changed : shorter;
		}
	}
	return row[n_b];
}

static const Rule *
find_nearest(const char *name)
{
	const Rule *nearest = NULL;
	int n_nearest = 4; /* so many are no slip of the pen */

	for (int i = 0; i < N_RULES; i++)
	{
		int n = count_changes(name, rules[i].name);

		if (rules[i].verdict == MAY_BE_SAID && n < n_nearest && n < (int) strlen(rules[i].name) / 2)
		{
			nearest = &rules[i];
			n_nearest = n;
		}
	}
	return nearest;
}

/* As it stands in the text: HostConfig.Dns. */
static const char *
show_option(bool in_host_config, const char *name, char shown[SHOWN_SIZE + 16])
{
	char cut[SHOWN_SIZE];

	snprintf(shown, SHOWN_SIZE + 16, "%s%s", in_host_config ? "HostConfig." : "",
			 cm_policy_show_text(name, cut));
	return shown;
}

static bool
refuse_option(CmProblem *problem, const CmOption *option, const char *sqlstate, const char *verb)
{
	char shown[SHOWN_SIZE + 16];

	show_option(option->in_host_config, option->name, shown);
	cm_policy_refuse(problem, sqlstate, COLUMN, "%s %s \"%s\"", COLUMN, verb, shown);
	snprintf(problem->part, sizeof(problem->part), "%.*s", (int) cm_chars_cut(shown, 71), shown);
	return false;
}

static bool
refuse_by_rule(CmProblem *problem, const CmOption *option, const Rule *rule)
{
	refuse_option(problem, option, rule->verdict == NEVER ? NOT_ALLOWED : BAD_VALUE, "cannot have");
	switch (rule->verdict)
	{
		case NEVER:
			snprintf(problem->detail, sizeof(problem->detail),
					 "%s It can never be had, whoever asks.", rule->text);
			return cm_policy_add_hint(problem, "Leave it out; no setting allows it.");
		case HAS_COLUMN:
			snprintf(problem->detail, sizeof(problem->detail),
					 "A job has a column of its own for it.");
			return cm_policy_add_hint(problem, "Use %s.", rule->text);
		case IS_FIXED:
			cm_policy_add_detail(problem, rule->text);
			return cm_policy_add_hint(problem, "Leave it out.");
		case MAY_BE_SAID:
			break;
	}
	return cm_policy_add_hint(problem, "Write it as {\"HostConfig\": {\"%s\": ...}}.", rule->name);
}

/* An engine would take it for the name that it is not. */
static bool
refuse_spelling(CmProblem *problem, const CmOption *option, const Rule *rule)
{
	refuse_option(problem, option, rule->verdict == NEVER ? NOT_ALLOWED : BAD_VALUE, "cannot have");
	if (rule->verdict != MAY_BE_SAID)
	{
		snprintf(problem->detail, sizeof(problem->detail),
				 "Engines take it for \"%s\", which is refused, too.", rule->name);
		return cm_policy_add_hint(problem, "Leave it out.");
	}
	cm_policy_add_detail(problem, "The case of letters counts.");
	return cm_policy_add_hint(problem, "Write \"%s\".", rule->name);
}

static bool
refuse_unknown(CmProblem *problem, const CmOption *option)
{
	const Rule *nearest = find_nearest(option->name);
	char shown[SHOWN_SIZE + 16];

	refuse_option(problem, option, BAD_VALUE, "has an unknown option");
	cm_policy_add_detail(problem, "Only what is known to do no harm is passed on.");
	if (nearest != NULL)
		return cm_policy_add_hint(problem, "Perhaps you meant \"%s\".",
								  show_option(nearest->in_host_config, nearest->name, shown));
	return cm_policy_add_hint(problem, "The options that can be had are listed in doc/jobs.md.");
}

/* ---- values ---- */

static const char *
describe_kind(CmOptionKind kind)
{
	switch (kind)
	{
		case CM_OPTION_BOOL:
			return "a boolean";
		case CM_OPTION_NUMBER:
			return "a whole number";
		case CM_OPTION_TEXT:
			return "a text";
		case CM_OPTION_WORDS:
			return "a list of texts";
		case CM_OPTION_PAIRS:
		case CM_OPTION_OTHER:
			break;
	}
	return "an object with texts";
}

static bool
refuse_value(CmProblem *problem, const CmOption *option, const char *sqlstate, const char *what,
			 const char *hint)
{
	char shown[SHOWN_SIZE + 16];
	char part[sizeof(problem->part)];

	refuse_option(problem, option, sqlstate, "cannot have");
	memcpy(part, problem->part, sizeof(part));
	cm_policy_refuse(problem, sqlstate, COLUMN, "%s \"%s\" %s", COLUMN,
					 show_option(option->in_host_config, option->name, shown), what);
	memcpy(problem->part, part, sizeof(part));
	return cm_policy_add_hint(problem, "%s", hint);
}

static bool
refuse_text(CmProblem *problem, const CmOption *option, const Rule *rule, const char *text)
{
	char shown[SHOWN_SIZE];
	char what[SHOWN_SIZE + 16];

	snprintf(what, sizeof(what), "cannot be \"%s\"", cm_policy_show_text(text, shown));
	return refuse_value(problem, option, BAD_VALUE, what, rule->text);
}

static bool
check_number(const CmOption *option, const Rule *rule, const CmJobSpec *spec, CmProblem *problem)
{
	char what[64];

	if (option->number < rule->least || option->number > rule->most)
	{
		snprintf(what, sizeof(what), "cannot be %lld", (long long) option->number);
		return refuse_value(problem, option, BAD_VALUE, what, rule->text);
	}
	if (strcmp(rule->name, "MemoryReservation") == 0 &&
		option->number > spec->memory_limit_mb * INT64_C(1048576))
		return refuse_value(problem, option, BAD_VALUE, "is over memory_limit", rule->text);
	return true;
}

static bool
check_group(const CmOption *option, const char *text, const CmLimits *limits, CmProblem *problem)
{
	int64_t gid;
	int64_t none;

	if (!cm_policy_parse_run_as(text, &gid, &none) || none >= 0)
		return refuse_value(problem, option, BAD_VALUE, "has a group that is no number",
							"Names are not looked up; give numbers, as in [\"2000\"].");
	if (gid >= limits->min_uid)
		return true;
	return refuse_value(
		problem, option, NOT_ALLOWED, "has a group below the lowest allowed number",
		"Use a higher one, or have an administrator lower container_manager.min_uid.");
}

static bool
check_words(const CmOption *option, const Rule *rule, const CmLimits *limits, CmProblem *problem)
{
	if (option->words.count > rule->most)
		return refuse_value(problem, option, OVER_LIMIT, "has too many entries", rule->text);
	for (int i = 0; i < option->words.count; i++)
	{
		const char *word = option->words.words[i];

		if (rule->is_good == NULL ? !check_group(option, word, limits, problem)
								  : !rule->is_good(word))
			return rule->is_good == NULL ? false : refuse_text(problem, option, rule, word);
	}
	return true;
}

/* So many numbers within the bounds, with single spaces between. */
static bool
are_numbers(const char *text, int n, long least, long most)
{
	for (int i = 0; i < n; i++)
	{
		long number;

		if ((i > 0 && *text++ != ' ') || !take_number(&text, most, &number) || number < least)
			return false;
	}
	return *text == '\0';
}

static bool
check_sysctl(const CmOption *option, const CmPair *pair, CmProblem *problem)
{
	char shown[SHOWN_SIZE];
	char what[2 * SHOWN_SIZE];
	char form[128];

	cm_policy_show_text(pair->name, shown);
	for (int i = 0; i < N_SYSCTLS; i++)
	{
		if (strcmp(pair->name, sysctls[i].name) != 0)
			continue;
		if (are_numbers(pair->value, sysctls[i].n_numbers, sysctls[i].least, sysctls[i].most))
			return true;
		snprintf(what, sizeof(what), "has a value of \"%s\" that it cannot have", shown);
		snprintf(form, sizeof(form), "It is %s of %ld to %ld, as a text.",
				 sysctls[i].n_numbers == 1 ? "a number" : "two numbers", sysctls[i].least,
				 sysctls[i].most);
		return refuse_value(problem, option, BAD_VALUE, what, form);
	}
	snprintf(what, sizeof(what), "cannot have \"%s\"", shown);
	return refuse_value(
		problem, option, NOT_ALLOWED, what,
		"Only some settings under net. that a container has for itself can be had: see doc/jobs.md.");
}

static bool
check_pairs(const CmOption *option, const Rule *rule, CmProblem *problem)
{
	if (option->n_pairs > rule->most)
		return refuse_value(problem, option, OVER_LIMIT, "has too many entries", rule->text);
	for (int i = 0; i < option->n_pairs; i++)
	{
		if (!check_sysctl(option, &option->pairs[i], problem))
			return false;
		for (int j = 0; j < i; j++)
		{
			if (strcmp(option->pairs[j].name, option->pairs[i].name) == 0)
				return refuse_value(problem, option, BAD_VALUE, "has a name twice", rule->text);
		}
	}
	return true;
}

static bool
check_value(const CmOption *option, const Rule *rule, const CmJobSpec *spec, const CmLimits *limits,
			CmProblem *problem)
{
	char what[64];

	if (option->kind != rule->kind)
	{
		snprintf(what, sizeof(what), "is not %s", describe_kind(rule->kind));
		return refuse_value(problem, option, BAD_VALUE, what, rule->text);
	}
	switch (option->kind)
	{
		case CM_OPTION_NUMBER:
			return check_number(option, rule, spec, problem);
		case CM_OPTION_TEXT:
			return rule->is_good(option->text) || refuse_text(problem, option, rule, option->text);
		case CM_OPTION_WORDS:
			return check_words(option, rule, limits, problem);
		case CM_OPTION_PAIRS:
			return check_pairs(option, rule, problem);
		case CM_OPTION_BOOL:
		case CM_OPTION_OTHER:
			break;
	}
	return true;
}

static bool
check_option(const CmOption *option, const CmJobSpec *spec, const CmLimits *limits,
			 CmProblem *problem)
{
	const Rule *rule = find_rule(option, true);

	if (rule == NULL)
	{
		/* The store takes apart the one that is an object. */
		if (!option->in_host_config && strcmp(option->name, "HostConfig") == 0)
			return refuse_value(problem, option, BAD_VALUE, "is not an object",
								"Write it as {\"HostConfig\": {\"Dns\": [\"10.0.0.1\"]}}.");
		if (is_folded_same(option->name, "HostConfig"))
		{
			refuse_option(problem, option, NOT_ALLOWED, "cannot have");
			cm_policy_add_detail(problem, "Engines take it for \"HostConfig\".");
			return cm_policy_add_hint(problem, "Write \"HostConfig\".");
		}
		rule = find_rule(option, false);
		return rule != NULL ? refuse_spelling(problem, option, rule)
							: refuse_unknown(problem, option);
	}
	if (rule->verdict != MAY_BE_SAID || (rule->in_host_config && !option->in_host_config))
		return refuse_by_rule(problem, option, rule);
	if (rule->in_host_config != option->in_host_config)
	{
		refuse_option(problem, option, BAD_VALUE, "cannot have");
		return cm_policy_add_hint(problem, "Write \"%s\" outside of HostConfig.", rule->name);
	}
	return check_value(option, rule, spec, limits, problem);
}

bool
cm_policy_check_options(const CmJobSpec *spec, const CmLimits *limits, CmProblem *problem)
{
	const CmOption *options = spec->options;

	if (spec->n_options > CM_MAX_OPTIONS)
	{
		cm_policy_refuse(problem, OVER_LIMIT, COLUMN, "%s has more than %d options", COLUMN,
						 CM_MAX_OPTIONS);
		return cm_policy_add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < spec->n_options; i++)
	{
		if (!check_option(&options[i], spec, limits, problem))
			return false;
		for (int j = 0; j < i; j++)
		{
			if (options[j].in_host_config == options[i].in_host_config &&
				strcmp(options[j].name, options[i].name) == 0)
				return refuse_value(problem, &options[i], BAD_VALUE, "is given twice",
									"Leave one of them out.");
		}
	}
	return true;
}
