/*
 * test_policy_options.c
 *		The guard's part for docker_options: what may be said, at its bounds, and
 *		every other field of Docker's create request, by every spelling that Go's
 *		decoder takes for it.
 */
#include <stdlib.h>

#include "policy.h"
#include "tap.h"

#define BAD "22023"
#define OVER "53400"
#define DENIED "42501"

static const CmLimits limits = {.max_memory_mb = 2048,
								.max_nano_cpus = INT64_C(2000000000),
								.max_timeout_seconds = 3600,
								.min_uid = 1001,
								.max_pids = 256,
								.max_stop_grace_ms = 60000,
								.max_log_kb = 262144,
								.max_keep_seconds = 60};

static const CmNetwork bridge = {.name = "bridge"};

static bool
check_options(const CmOption *options, int n, CmProblem *problem)
{
	CmJobSpec spec = {.namespace_name = "default",
					  .image = "x",
					  .run_as = "65534",
					  .networks = &bridge,
					  .n_networks = 1,
					  .memory_limit_mb = 64,
					  .nano_cpus = INT64_C(1000000000),
					  .timeout_seconds = 60,
					  .max_attempts = 1,
					  .options = options,
					  .n_options = n};

	return cm_policy_check(&spec, &limits, problem);
}

static bool
is_line(const char *text)
{
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			return false;
	}
	return true;
}

/* A refusal is whole; sqlstate NULL: it passes. */
static void
check_one(const CmOption *option, const char *sqlstate, const char *name)
{
	CmProblem problem;
	bool may_run = check_options(option, 1, &problem);

	is_int(may_run, sqlstate == NULL, "%s: verdict", name);
	is_str(problem.sqlstate, sqlstate != NULL ? sqlstate : "", "%s: sqlstate", name);
	if (sqlstate == NULL)
		return;
	is_str(problem.column, "docker_options", "%s: column", name);
	ok(is_line(problem.message) && problem.message[0] != '\0' && is_line(problem.detail) &&
		   is_line(problem.hint),
	   "%s: lines", name);
	ok(problem.hint[0] != '\0' && problem.hint[strlen(problem.hint) - 1] == '.',
	   "%s: a hint that is a sentence", name);
	ok(problem.detail[0] == '\0' || problem.detail[strlen(problem.detail) - 1] == '.',
	   "%s: detail is a sentence", name);
	ok(problem.part[0] != '\0' && strstr(problem.message, problem.part) != NULL,
	   "%s: the part is named", name);
}

/* ---- what may be said ---- */

#define WHOLE false
#define HOST true

typedef struct TextRow
{
	bool in_host_config;
	const char *name;
	const char *text;
	const char *sqlstate;
} TextRow;

#define L63 "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabc"

static const TextRow text_rows[] = {
	{WHOLE, "Hostname", "worker-1.site", NULL},
	{WHOLE, "Hostname", "1", NULL},
	{WHOLE, "Hostname", L63, NULL},
	{WHOLE, "Hostname", L63 "x", BAD},
	{WHOLE, "Hostname", "", BAD},
	{WHOLE, "Hostname", "-a", BAD},
	{WHOLE, "Hostname", "a-", BAD},
	{WHOLE, "Hostname", "a..b", BAD},
	{WHOLE, "Hostname", "a.", BAD},
	{WHOLE, "Hostname", ".a", BAD},
	{WHOLE, "Hostname", "a-.b", BAD},
	{WHOLE, "Hostname", "a_b", BAD},
	{WHOLE, "Hostname", "a b", BAD},
	{WHOLE, "Hostname", "a\nb", BAD},
	{WHOLE, "Hostname", "\xc3\xa4", BAD},
	{WHOLE, "Domainname", "example.com", NULL},
	{WHOLE, "Domainname", "a_b.c", NULL},
	{WHOLE, "Domainname",
	 L63 "." L63 "." L63 ".abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghija", NULL},
	{WHOLE, "Domainname", L63 "." L63 "." L63 "." L63, BAD},
	{WHOLE, "Domainname", L63 "x.a", BAD},
	{HOST, "CpusetCpus", "0", NULL},
	{HOST, "CpusetCpus", "0-3,5,8191", NULL},
	{HOST, "CpusetCpus", "", BAD},
	{HOST, "CpusetCpus", "3-0", BAD},
	{HOST, "CpusetCpus", "0-", BAD},
	{HOST, "CpusetCpus", "0,", BAD},
	{HOST, "CpusetCpus", ",0", BAD},
	{HOST, "CpusetCpus", "8192", BAD},
	{HOST, "CpusetCpus", "99999999999999999999", BAD},
	{HOST, "CpusetCpus", "0 ", BAD},
	{HOST, "CpusetCpus", "0-1-2", BAD},
	{HOST, "CpusetCpus", "a", BAD},
	{HOST, "CpusetMems", "0", NULL},
	{HOST, "CpusetMems", "x", BAD},
};

static void
test_texts(void)
{
	for (size_t i = 0; i < lengthof(text_rows); i++)
	{
		const TextRow *row = &text_rows[i];
		CmOption option = {.in_host_config = row->in_host_config,
						   .name = row->name,
						   .kind = CM_OPTION_TEXT,
						   .text = row->text};
		char name[400];

		snprintf(name, sizeof(name), "%s \"%s\"", row->name, row->text);
		check_one(&option, row->sqlstate, name);
	}
}

typedef struct NumberRow
{
	bool in_host_config;
	const char *name;
	int64_t number;
	const char *sqlstate;
} NumberRow;

static const NumberRow number_rows[] = {
	{WHOLE, "StopTimeout", 0, NULL},
	{WHOLE, "StopTimeout", 600, NULL},
	{WHOLE, "StopTimeout", 601, BAD},
	{WHOLE, "StopTimeout", -1, BAD},
	{HOST, "OomScoreAdj", 0, NULL},
	{HOST, "OomScoreAdj", 1000, NULL},
	{HOST, "OomScoreAdj", -1, BAD},
	{HOST, "OomScoreAdj", 1001, BAD},
	{HOST, "OomScoreAdj", INT64_MIN, BAD},
	{HOST, "CpuShares", 2, NULL},
	{HOST, "CpuShares", 1024, NULL},
	{HOST, "CpuShares", 1, BAD},
	{HOST, "CpuShares", 0, BAD},
	{HOST, "CpuShares", 1025, BAD},
	{HOST, "BlkioWeight", 10, NULL},
	{HOST, "BlkioWeight", 500, NULL},
	{HOST, "BlkioWeight", 9, BAD},
	{HOST, "BlkioWeight", 501, BAD},
	{HOST, "MemoryReservation", INT64_C(6) << 20, NULL},
	{HOST, "MemoryReservation", INT64_C(64) << 20, NULL},
	{HOST, "MemoryReservation", (INT64_C(64) << 20) + 1, BAD},
	{HOST, "MemoryReservation", (INT64_C(6) << 20) - 1, BAD},
	{HOST, "MemoryReservation", INT64_MAX, BAD},
	{HOST, "MemoryReservation", -1, BAD},
	{HOST, "MemorySwappiness", 0, NULL},
	{HOST, "MemorySwappiness", 60, NULL},
	{HOST, "MemorySwappiness", 61, BAD},
	{HOST, "MemorySwappiness", -1, BAD},
};

static void
test_numbers(void)
{
	for (size_t i = 0; i < lengthof(number_rows); i++)
	{
		const NumberRow *row = &number_rows[i];
		CmOption option = {.in_host_config = row->in_host_config,
						   .name = row->name,
						   .kind = CM_OPTION_NUMBER,
						   .number = row->number};
		char name[128];

		snprintf(name, sizeof(name), "%s %lld", row->name, (long long) row->number);
		check_one(&option, row->sqlstate, name);
	}
}

typedef struct WordRow
{
	const char *name;
	const char *word;
	const char *sqlstate;
} WordRow;

static const WordRow word_rows[] = {
	{"Dns", "10.0.0.1", NULL},
	{"Dns", "fd00::1", NULL},
	{"Dns", "10.0.0", BAD},
	{"Dns", "10.0.0.1:53", BAD},
	{"Dns", "010.0.0.1", BAD},
	{"Dns", "dns.example", BAD},
	{"Dns", "fe80::1%eth0", BAD},
	{"Dns", "10.0.0.1\noptions debug", BAD},
	{"Dns", "", BAD},
	{"DnsSearch", "example.com", NULL},
	{"DnsSearch", ".", NULL},
	{"DnsSearch", "a b", BAD},
	{"DnsSearch", "a\nnameserver 10.0.0.1", BAD},
	{"DnsSearch", "", BAD},
	{"DnsOptions", "ndots:2", NULL},
	{"DnsOptions", "single-request-reopen", NULL},
	{"DnsOptions", "ndots:", BAD},
	{"DnsOptions", "ndots:100", BAD},
	{"DnsOptions", "ndots:1 x", BAD},
	{"DnsOptions", "Ndots", BAD},
	{"DnsOptions", "", BAD},
	{"ExtraHosts", "db:10.0.0.1", NULL},
	{"ExtraHosts", "db.example:fd00::1", NULL},
	{"ExtraHosts", "me:host-gateway", NULL},
	{"ExtraHosts", "db", BAD},
	{"ExtraHosts", "db:", BAD},
	{"ExtraHosts", ":10.0.0.1", BAD},
	{"ExtraHosts", "db:other", BAD},
	{"ExtraHosts", "a b:10.0.0.1", BAD},
	{"ExtraHosts", "db:10.0.0.1\n10.0.0.2 x", BAD},
	{"GroupAdd", "1001", NULL},
	{"GroupAdd", "2147483647", NULL},
	{"GroupAdd", "1000", DENIED},
	{"GroupAdd", "0", DENIED},
	{"GroupAdd", "docker", BAD},
	{"GroupAdd", "root", BAD},
	{"GroupAdd", "1001:0", BAD},
	{"GroupAdd", "00", BAD},
	{"GroupAdd", "-1", BAD},
	{"GroupAdd", "4294967296", BAD},
	{"GroupAdd", "", BAD},
};

static void
test_words(void)
{
	for (size_t i = 0; i < lengthof(word_rows); i++)
	{
		const WordRow *row = &word_rows[i];
		const char *words[] = {row->word};
		CmOption option = {.in_host_config = true,
						   .name = row->name,
						   .kind = CM_OPTION_WORDS,
						   .words = {true, 1, words}};
		char name[128];

		snprintf(name, sizeof(name), "%s \"%s\"", row->name, row->word);
		check_one(&option, row->sqlstate, name);
	}
}

static void
test_numbers_of_words(void)
{
	static const struct
	{
		const char *name;
		const char *word;
		int most;
	} rows[] = {{"Dns", "10.0.0.1", 8},
				{"DnsSearch", "a", 8},
				{"DnsOptions", "rotate", 8},
				{"ExtraHosts", "a:10.0.0.1", 32},
				{"GroupAdd", "2000", 16}};

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		const char *words[64];
		CmOption option = {.in_host_config = true,
						   .name = rows[i].name,
						   .kind = CM_OPTION_WORDS,
						   .words = {true, rows[i].most, words}};

		for (size_t j = 0; j < lengthof(words); j++)
			words[j] = rows[i].word;
		check_one(&option, NULL, rows[i].name);
		option.words.count = 0;
		check_one(&option, NULL, rows[i].name);
		option.words.count = rows[i].most + 1;
		check_one(&option, OVER, rows[i].name);
	}
}

static const CmPair sysctl_rows[] = {
	{"net.core.somaxconn", "1024"},
	{"net.core.somaxconn", "65535"},
	{"net.ipv4.ip_unprivileged_port_start", "0"},
	{"net.ipv4.ip_local_port_range", "1024 65535"},
	{"net.ipv6.conf.all.disable_ipv6", "1"},
	{NULL, BAD},
	{"net.core.somaxconn", "0"},
	{"net.core.somaxconn", "65536"},
	{"net.core.somaxconn", "1 2"},
	{"net.core.somaxconn", ""},
	{"net.core.somaxconn", " 1"},
	{"net.core.somaxconn", "1\n"},
	{"net.core.somaxconn", "0x10"},
	{"net.core.somaxconn", "-1"},
	{"net.ipv4.ip_local_port_range", "1024"},
	{"net.ipv4.ip_local_port_range", "1023 65535"},
	{"net.ipv4.ip_local_port_range", "1024  65535"},
	{"net.ipv6.conf.all.disable_ipv6", "2"},
	{NULL, DENIED},
	{"kernel.core_pattern", "|/tmp/x"},
	{"kernel.shmmax", "1"},
	{"kernel.msgmax", "1"},
	{"fs.mqueue.msg_max", "1"},
	{"vm.overcommit_memory", "1"},
	{"net.ipv4.ip_forward", "1"},
	{"net.core.rmem_max", "1"},
	{"Net.Core.Somaxconn", "1"},
	{"net/core/somaxconn", "1"},
	{"net.core.somaxconn.", "1"},
	{"", "1"},
};

static void
test_sysctls(void)
{
	const char *sqlstate = NULL;

	for (size_t i = 0; i < lengthof(sysctl_rows); i++)
	{
		CmOption option = {.in_host_config = true,
						   .name = "Sysctls",
						   .kind = CM_OPTION_PAIRS,
						   .pairs = &sysctl_rows[i],
						   .n_pairs = 1};
		char name[128];

		if (sysctl_rows[i].name == NULL)
		{
			sqlstate = sysctl_rows[i].value;
			continue;
		}
		snprintf(name, sizeof(name), "%s=\"%s\"", sysctl_rows[i].name, sysctl_rows[i].value);
		check_one(&option, sqlstate, name);
	}
}

static void
test_sysctls_twice(void)
{
	static const CmPair twice[] = {{"net.core.somaxconn", "1"}, {"net.core.somaxconn", "2"}};
	CmPair many[17];
	CmOption option = {.in_host_config = true,
					   .name = "Sysctls",
					   .kind = CM_OPTION_PAIRS,
					   .pairs = twice,
					   .n_pairs = 2};

	check_one(&option, BAD, "a sysctl twice");
	for (size_t i = 0; i < lengthof(many); i++)
		many[i] = twice[0];
	option.pairs = many;
	option.n_pairs = lengthof(many);
	check_one(&option, OVER, "many sysctls");
}

/* Every value of every kind but the right one. */
static void
test_kinds(void)
{
	static const struct
	{
		bool in_host_config;
		const char *name;
		CmOptionKind kind;
	} rows[] = {
		{WHOLE, "Hostname", CM_OPTION_TEXT},
		{WHOLE, "OpenStdin", CM_OPTION_BOOL},
		{WHOLE, "AttachStdin", CM_OPTION_BOOL},
		{WHOLE, "AttachStdout", CM_OPTION_BOOL},
		{WHOLE, "AttachStderr", CM_OPTION_BOOL},
		{WHOLE, "StopTimeout", CM_OPTION_NUMBER},
		{HOST, "Dns", CM_OPTION_WORDS},
		{HOST, "GroupAdd", CM_OPTION_WORDS},
		{HOST, "Sysctls", CM_OPTION_PAIRS},
		{HOST, "CpuShares", CM_OPTION_NUMBER},
		{HOST, "MemorySwappiness", CM_OPTION_NUMBER},
	};

	for (size_t i = 0; i < lengthof(rows); i++)
	{
		for (int kind = CM_OPTION_OTHER; kind <= CM_OPTION_PAIRS; kind++)
		{
			CmOption option = {.in_host_config = rows[i].in_host_config,
							   .name = rows[i].name,
							   .kind = (CmOptionKind) kind,
							   .number = 30,
							   .text = "30",
							   .words = {true, 0, NULL}};
			char name[64];

			snprintf(name, sizeof(name), "%s of kind %d", rows[i].name, kind);
			check_one(&option, kind == (int) rows[i].kind ? NULL : BAD, name);
		}
	}
}

/* ---- what may not ---- */

/* All fields of create requests up to API 1.55 that are refused. */
static const char *const never[] = {"MacAddress",
									"Privileged",
									"CapAdd",
									"Capabilities",
									"Binds",
									"Mounts",
									"VolumesFrom",
									"VolumeDriver",
									"ContainerIDFile",
									"StorageOpt",
									"PidMode",
									"IpcMode",
									"UTSMode",
									"UsernsMode",
									"CgroupnsMode",
									"Cgroup",
									"Links",
									"CgroupParent",
									"OomKillDisable",
									"CpuRealtimePeriod",
									"CpuRealtimeRuntime",
									"KernelMemory",
									"KernelMemoryTCP",
									"Devices",
									"DeviceCgroupRules",
									"DeviceRequests",
									"BlkioWeightDevice",
									"BlkioDeviceReadBps",
									"BlkioDeviceWriteBps",
									"BlkioDeviceReadIOps",
									"BlkioDeviceWriteIOps",
									"SecurityOpt",
									"MaskedPaths",
									"ReadonlyPaths",
									"Runtime",
									"Annotations",
									"PortBindings",
									"PublishAllPorts",
									"LogConfig"};

static const char *const otherwise[] = {"Image",
										"Cmd",
										"Entrypoint",
										"Env",
										"User",
										"WorkingDir",
										"Labels",
										"StopSignal",
										"Volumes",
										"NetworkDisabled",
										"NetworkingConfig",
										"NetworkMode",
										"Memory",
										"MemorySwap",
										"NanoCpus",
										"CpuPeriod",
										"CpuQuota",
										"PidsLimit",
										"Ulimits",
										"ShmSize",
										"Tmpfs",
										"ReadonlyRootfs",
										"RestartPolicy",
										"Tty",
										"StdinOnce",
										"Healthcheck",
										"ExposedPorts",
										"Shell",
										"OnBuild",
										"ArgsEscaped",
										"AutoRemove",
										"Init",
										"CapDrop",
										"ConsoleSize",
										"Isolation",
										"CpuCount",
										"CpuPercent",
										"IOMaximumIOps",
										"IOMaximumBandwidth",
										"Cpuset"};

static void
check_refused(const char *name, const char *sqlstate)
{
	static const char *const words[] = {"x"};
	CmOption option = {
		.name = name, .number = 1, .text = "x", .words = {true, 1, (const char **) words}};

	for (int in_host_config = 0; in_host_config <= 1; in_host_config++)
	{
		for (int kind = CM_OPTION_OTHER; kind <= CM_OPTION_PAIRS; kind++)
		{
			option.in_host_config = in_host_config;
			option.kind = (CmOptionKind) kind;
			check_one(&option, sqlstate, name);
		}
	}
}

/* Upper case, lower case, and the two letters that Go folds into ASCII. */
static void
check_spellings(const char *name, const char *sqlstate)
{
	char lower[64] = "";
	char upper[64] = "";
	char folded[192] = "";
	size_t n = 0;

	for (size_t i = 0; name[i] != '\0'; i++)
	{
		lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char) (name[i] + 32) : name[i];
		upper[i] = name[i] >= 'a' && name[i] <= 'z' ? (char) (name[i] - 32) : name[i];
		if (lower[i] == 's')
			n += (size_t) snprintf(folded + n, sizeof(folded) - n, "\xc5\xbf");
		else if (lower[i] == 'k')
			n += (size_t) snprintf(folded + n, sizeof(folded) - n, "\xe2\x84\xaa");
		else
			folded[n++] = name[i];
	}
	check_refused(lower, sqlstate);
	check_refused(upper, sqlstate);
	if (strcmp(folded, name) != 0)
		check_refused(folded, sqlstate);
}

static void
test_refused(void)
{
	for (size_t i = 0; i < lengthof(never); i++)
	{
		check_refused(never[i], DENIED);
		check_spellings(never[i], DENIED);
	}
	for (size_t i = 0; i < lengthof(otherwise); i++)
	{
		check_refused(otherwise[i], BAD);
		check_spellings(otherwise[i], BAD);
	}
	check_spellings("HostConfig", DENIED);
	check_spellings("Hostname", BAD);
	check_spellings("GroupAdd", BAD);
	check_spellings("Sysctls", BAD);
}

typedef struct WordingRow
{
	CmOption option;
	const char *message;
	const char *detail;
	const char *hint;
} WordingRow;

static const WordingRow wording_rows[] = {
	{{.in_host_config = true, .name = "Privileged", .kind = CM_OPTION_BOOL, .number = 1},
	 "docker_options cannot have \"HostConfig.Privileged\"",
	 "A privileged container is root on its host. It can never be had, whoever asks.",
	 "Leave it out; no setting allows it."},
	{{.in_host_config = false, .name = "Privileged", .kind = CM_OPTION_BOOL, .number = 1},
	 "docker_options cannot have \"Privileged\"",
	 "A privileged container is root on its host. It can never be had, whoever asks.",
	 "Leave it out; no setting allows it."},
	{{.in_host_config = true, .name = "privileged", .kind = CM_OPTION_BOOL, .number = 1},
	 "docker_options cannot have \"HostConfig.privileged\"",
	 "Engines take it for \"Privileged\", which is refused, too.",
	 "Leave it out."},
	{{.name = "hostname", .kind = CM_OPTION_TEXT, .text = "x"},
	 "docker_options cannot have \"hostname\"",
	 "The case of letters counts.",
	 "Write \"Hostname\"."},
	{{.name = "HostConfig", .kind = CM_OPTION_OTHER},
	 "docker_options \"HostConfig\" is not an object",
	 "",
	 "Write it as {\"HostConfig\": {\"Dns\": [\"10.0.0.1\"]}}."},
	{{.name = "hostconfig", .kind = CM_OPTION_OTHER},
	 "docker_options cannot have \"hostconfig\"",
	 "Engines take it for \"HostConfig\".",
	 "Write \"HostConfig\"."},
	{{.name = "Dns", .kind = CM_OPTION_WORDS},
	 "docker_options cannot have \"Dns\"",
	 "",
	 "Write it as {\"HostConfig\": {\"Dns\": ...}}."},
	{{.in_host_config = true, .name = "Hostname", .kind = CM_OPTION_TEXT, .text = "x"},
	 "docker_options cannot have \"HostConfig.Hostname\"",
	 "",
	 "Write \"Hostname\" outside of HostConfig."},
	{{.name = "Env", .kind = CM_OPTION_WORDS},
	 "docker_options cannot have \"Env\"",
	 "A job has a column of its own for it.",
	 "Use environment."},
	{{.in_host_config = true, .name = "AutoRemove", .kind = CM_OPTION_BOOL},
	 "docker_options cannot have \"HostConfig.AutoRemove\"",
	 "A container is removed when its end is recorded.",
	 "Leave it out."},
	{{.name = "Hostnam", .kind = CM_OPTION_TEXT, .text = "x"},
	 "docker_options has an unknown option \"Hostnam\"",
	 "Only what is known to do no harm is passed on.",
	 "Perhaps you meant \"Hostname\"."},
	{{.in_host_config = true, .name = "ExtraHost", .kind = CM_OPTION_WORDS},
	 "docker_options has an unknown option \"HostConfig.ExtraHost\"",
	 "Only what is known to do no harm is passed on.",
	 "Perhaps you meant \"HostConfig.ExtraHosts\"."},
	{{.in_host_config = true, .name = "GwPriority", .kind = CM_OPTION_NUMBER},
	 "docker_options has an unknown option \"HostConfig.GwPriority\"",
	 "Only what is known to do no harm is passed on.",
	 "The options that can be had are listed in doc/jobs.md."},
	{{.name = "Hostname", .kind = CM_OPTION_TEXT, .text = "a b"},
	 "docker_options \"Hostname\" cannot be \"a b\"",
	 "",
	 "It has 1 to 63 letters, digits, \"-\" and \".\"."},
	{{.in_host_config = true, .name = "OomScoreAdj", .kind = CM_OPTION_NUMBER, .number = -500},
	 "docker_options \"HostConfig.OomScoreAdj\" cannot be -500",
	 "",
	 "It is 0 to 1000: 0 is the usual."},
	{{.in_host_config = true, .name = "OomScoreAdj", .kind = CM_OPTION_TEXT, .text = "5"},
	 "docker_options \"HostConfig.OomScoreAdj\" is not a whole number",
	 "",
	 "It is 0 to 1000: 0 is the usual."},
	{{.name = "\x1b[31m\xc2\x9b", .kind = CM_OPTION_TEXT, .text = "5"},
	 "docker_options has an unknown option \"?[31m?\"",
	 "Only what is known to do no harm is passed on.",
	 "The options that can be had are listed in doc/jobs.md."},
};

static void
test_wording(void)
{
	for (size_t i = 0; i < lengthof(wording_rows); i++)
	{
		const WordingRow *row = &wording_rows[i];
		CmProblem problem;

		ok(!check_options(&row->option, 1, &problem), "%s: refused", row->message);
		is_str(problem.message, row->message, "%s: message", row->message);
		is_str(problem.detail, row->detail, "%s: detail", row->message);
		is_str(problem.hint, row->hint, "%s: hint", row->message);
	}
}

static void
test_sets(void)
{
	CmOption twice[] = {{.name = "Hostname", .kind = CM_OPTION_TEXT, .text = "a"},
						{.name = "Hostname", .kind = CM_OPTION_TEXT, .text = "b"}};
	CmOption *many = calloc(CM_MAX_OPTIONS + 1, sizeof(CmOption));
	CmProblem problem;

	ok(!check_options(twice, 2, &problem), "an option twice");
	is_str(problem.message, "docker_options \"Hostname\" is given twice", "it is told");
	ok(check_options(NULL, 0, &problem), "none at all");
	for (int i = 0; i <= CM_MAX_OPTIONS; i++)
		many[i] = twice[0];
	ok(!check_options(many, CM_MAX_OPTIONS + 1, &problem), "more than there can be");
	is_str(problem.sqlstate, OVER, "which is over a limit");
	free(many);
}

int
main(void)
{
	test_texts();
	test_numbers();
	test_words();
	test_numbers_of_words();
	test_sysctls();
	test_sysctls_twice();
	test_kinds();
	test_refused();
	test_wording();
	test_sets();
	return tap_done();
}
