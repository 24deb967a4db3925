/*
 * guc.c
 *		The settings, all under container_manager.
 *
 * They are defined whenever the library is loaded, preloaded or not, so that
 * none is PGC_POSTMASTER.  Limits are PGC_SIGHUP: the same for all databases of
 * a server, because they guard its hosts, and not to be raised in a session.
 * Defaults are anyone's, because a job may say these values itself; the limits
 * hold all the same.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/xact.h"
#include "utils/guc.h"

#include "guc.h"
#include "pacer.h"
#include "placement.h"

#define MAX_MEMORY_MB (16 * 1024 * 1024) /* 16 TB */
#define MAX_CPUS 4096.0
#define MIN_CPUS 0.01 /* CM_MIN_NANO_CPUS */
#define MAX_TIMEOUT_S (366 * 24 * 3600)
#define MAX_KEPT 1000 /* far from what one look at a host can take in */

bool cm_guc_enabled = true;
bool cm_guc_take_over_copies = false;
bool cm_guc_allow_plain_tcp = false;
int cm_guc_poll_interval_ms = 10000;
int cm_guc_heartbeat_interval_ms = 20000;
int cm_guc_disable_unhealthy_after_s = 0;
int cm_guc_default_memory_limit_mb = 512;
int cm_guc_max_memory_limit_mb = 2048;
double cm_guc_default_cpu_limit = 1.0;
double cm_guc_max_cpu_limit = 2.0;
int cm_guc_default_timeout_s = 3600;
int cm_guc_max_timeout_s = 3600;
int cm_guc_max_keep_container_s = 24 * 3600;
int cm_guc_max_kept_containers = 20;
int cm_guc_stop_grace_ms = 10000;
int cm_guc_max_stop_grace_ms = 60000;
int cm_guc_pids_limit = 256;
int cm_guc_min_uid = 1001;
bool cm_guc_allow_image_user = false;
char *cm_guc_default_run_as = NULL;
int cm_guc_max_log_size_kb = 262144;
bool cm_guc_job_channels = false;
int cm_guc_max_starts_in_flight = 0;
char *cm_guc_secret_key_file = NULL;
int cm_guc_certificate_warning_days = 30;
int cm_guc_placement_strategy = CM_PLACE_LEAST_LOADED;

static const struct config_enum_entry strategies[] = {
	{"least_loaded", CM_PLACE_LEAST_LOADED, false},
	{"round_robin", CM_PLACE_ROUND_ROBIN, false},
	{"weighted", CM_PLACE_WEIGHTED, false},
	{"resources", CM_PLACE_RESOURCES, false},
	{"pack", CM_PLACE_PACK, false},
	{NULL, 0, false}};

static bool
check_run_as(char **newval, void **extra, GucSource source)
{
	int64_t uid;
	int64_t gid;

	if (*newval != NULL && cm_policy_parse_run_as(*newval, &uid, &gid))
		return true;

	GUC_check_errdetail("It must be a numeric user, \"uid\" or \"uid:gid\".");
	return false;
}

static void
define_working(void)
{
	DefineCustomBoolVariable(
		"container_manager.enabled", "Whether an executor runs for this database.",
		"Set it off by ALTER DATABASE to keep the executor out of a database, as before a "
		"restore, or by ALTER SYSTEM for all. It takes effect when the executor starts; "
		"SELECT cm_start_executor() starts it again.",
		&cm_guc_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable(
		"container_manager.take_over_copies",
		"Whether a copy of the server's files takes over the jobs of the original by itself.",
		"Off, it holds until cm_take_over(). Set it on only where the original can never run "
		"beside its copy, as when every start is from a restored backup.",
		&cm_guc_take_over_copies, false, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.poll_interval",
		"How often the executor looks for work that nobody told it of.",
		"A commit wakes the executor at once; this is the safety net for prepared "
		"transactions and replicated rows. Lower it where such are the rule.",
		&cm_guc_poll_interval_ms, 10000, 100, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL,
		NULL);

	DefineCustomIntVariable(
		"container_manager.heartbeat_interval",
		"How often each host is asked for a full list of its containers.",
		"Engines report the end of a container at once; the list finds what such a report "
		"missed, and a host that is gone. Raise it with hundreds of hosts.",
		&cm_guc_heartbeat_interval_ms, 20000, 1000, 600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL,
		NULL);

	DefineCustomIntVariable(
		"container_manager.disable_unhealthy_after",
		"How long a host may be unhealthy before it is disabled.",
		"An unhealthy host gets no jobs and is back by itself; a disabled one stays so until "
		"cm_enable_host(). 0 disables none. Set it where somebody is to look first.",
		&cm_guc_disable_unhealthy_after_s, 0, 0, MAX_TIMEOUT_S, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
		NULL);

	DefineCustomBoolVariable(
		"container_manager.job_channels",
		"Whether status changes are also notified on the channel cm_job_<id>.",
		"All are notified on cm_job_status. Set it on for clients that listen for one job "
		"and would drown in the changes of the others.",
		&cm_guc_job_channels, false, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.max_starts_in_flight",
		"Most containers that one host is given to start at a time.",
		"0, as many as its engine starts fastest with, which is found out as it works; -1, "
		"any number. It does not bound how many run: max_concurrent_jobs of the host does.",
		&cm_guc_max_starts_in_flight, 0, -1, CM_PACER_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_transport(void)
{
	DefineCustomBoolVariable(
		"container_manager.allow_plain_tcp",
		"Whether engines on other machines may be spoken to without TLS.",
		"Whoever can reach such an engine is root on its host. Set it on only where the network "
		"in between is closed to everybody else.",
		&cm_guc_allow_plain_tcp, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_secrets(void)
{
	DefineCustomStringVariable(
		"container_manager.secret_key_file", "File with the keys that seal what is secret.",
		"Lines of 64 hexadecimal digits, as openssl rand -hex 32 prints them; the first seals, all "
		"open. It belongs to the server's operating system user with mode 0600, or to root. A "
		"path that is not absolute begins in the data directory.",
		&cm_guc_secret_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.certificate_warning_days",
		"How many days before its end a certificate counts as expiring.",
		"cm_certificates and the server's log warn from then on. 0 warns only when it has ended.",
		&cm_guc_certificate_warning_days, 30, 0, 3650, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

static void
define_defaults(void)
{
	DefineCustomIntVariable(
		"container_manager.default_memory_limit", "Memory of a job that does not say memory_limit.",
		"In units of 2^20 bytes, swap included. At most max_memory_limit is allowed.",
		&cm_guc_default_memory_limit_mb, 512, CM_MIN_MEMORY_MB, MAX_MEMORY_MB, PGC_USERSET,
		GUC_UNIT_MB, NULL, NULL, NULL);

	DefineCustomRealVariable(
		"container_manager.default_cpu_limit", "CPU cores of a job that does not say cpu_limit.",
		"Fractions are allowed; at most max_cpu_limit is.", &cm_guc_default_cpu_limit, 1.0,
		MIN_CPUS, MAX_CPUS, PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.default_timeout",
		"How long a job may run that does not say timeout_seconds.",
		"Pulling the image and waiting for a host do not count. At most max_timeout is "
		"allowed.",
		&cm_guc_default_timeout_s, 3600, 1, MAX_TIMEOUT_S, PGC_USERSET, GUC_UNIT_S, NULL, NULL,
		NULL);

	DefineCustomStringVariable(
		"container_manager.default_run_as",
		"User of a job that does not say run_as, \"uid\" or \"uid:gid\".",
		"Numeric, because an image may give any name to root. The default is nobody. "
		"Users below min_uid are not allowed.",
		&cm_guc_default_run_as, "65534:65534", PGC_USERSET, 0, check_run_as, NULL, NULL);
}

static void
define_placement(void)
{
	DefineCustomEnumVariable("container_manager.placement_strategy",
							 "How a host is chosen for a job that does not say placement_strategy.",
							 "Changed, it counts for jobs that are submitted from then on.",
							 &cm_guc_placement_strategy, CM_PLACE_LEAST_LOADED, strategies,
							 PGC_USERSET, 0, NULL, NULL, NULL);
}

static void
define_limits(void)
{
	DefineCustomIntVariable(
		"container_manager.max_memory_limit", "Most memory that one job may have.",
		"Raise it for jobs that need more and hosts that have it. It is checked when a "
		"job is submitted and again when it is started.",
		&cm_guc_max_memory_limit_mb, 2048, CM_MIN_MEMORY_MB, MAX_MEMORY_MB, PGC_SIGHUP, GUC_UNIT_MB,
		NULL, NULL, NULL);

	DefineCustomRealVariable(
		"container_manager.max_cpu_limit", "Most CPU cores that one job may have.",
		"Raise it for jobs that need more and hosts that have them; an engine refuses "
		"more cores than it has.",
		&cm_guc_max_cpu_limit, 2.0, MIN_CPUS, MAX_CPUS, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("container_manager.max_timeout", "Longest time that one job may run.",
							"Raise it for long jobs: each holds a slot of its host until it ends.",
							&cm_guc_max_timeout_s, 3600, 1, MAX_TIMEOUT_S, PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.pids_limit", "Most processes and threads in one container.",
		"It stops fork bombs. Raise it for programs with many threads; a job may "
		"say less by its own pids_limit.",
		&cm_guc_pids_limit, 256, 2, CM_MAX_PIDS, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.min_uid", "Lowest numeric user that a container may run as.",
		"The default keeps out root and the users of the host's own services; 0 allows "
		"root in containers.",
		&cm_guc_min_uid, 1001, 0, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable(
		"container_manager.allow_image_user", "Whether run_as 'image' may be asked for.",
		"Such a job runs as the user that its image names, by his number, which must be at least "
		"min_uid. Set it on for images that work as no other user.",
		&cm_guc_allow_image_user, false, PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.stop_grace", "Time between SIGTERM and SIGKILL when a job is stopped.",
		"Cancelled and overdue jobs get this long to end in order. Raise it for programs "
		"that have much to save.",
		&cm_guc_stop_grace_ms, 10000, 0, 600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.max_stop_grace", "Longest stop_grace that a job may ask for.",
		"A job that is being stopped holds its slot so long. Raise it for programs that have "
		"much to save.",
		&cm_guc_max_stop_grace_ms, 60000, 0, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL,
		NULL);

	DefineCustomIntVariable(
		"container_manager.max_log_size", "Most output that is kept of one attempt.",
		"What comes beyond is dropped and the job says \"logs incomplete\". It bounds what "
		"one job can write into the database.",
		&cm_guc_max_log_size_kb, 262144, 64, MAX_MEMORY_MB, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL,
		NULL);
}

static void
define_keeping(void)
{
	DefineCustomIntVariable(
		"container_manager.max_keep_container",
		"Longest time that a job may have its failed container kept.",
		"A kept container holds disk space of its host, but no slot and no memory. 0 allows no "
		"job to say keep_container.",
		&cm_guc_max_keep_container_s, 24 * 3600, 0, MAX_TIMEOUT_S, PGC_SIGHUP, GUC_UNIT_S, NULL,
		NULL, NULL);

	DefineCustomIntVariable(
		"container_manager.max_kept_containers",
		"Most failed containers that are kept on one host.",
		"The oldest gives way to a new one. Raise it on hosts with disk space to spare.",
		&cm_guc_max_kept_containers, 20, 1, MAX_KEPT, PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
cm_guc_define(void)
{
	define_working();
	define_transport();
	define_secrets();
	define_defaults();
	define_placement();
	define_limits();
	define_keeping();
	MarkGUCPrefixReserved("container_manager");
}

CmLimits
cm_guc_limits(void)
{
	CmLimits limits = {
		.max_memory_mb = cm_guc_max_memory_limit_mb,
		.max_nano_cpus = (int64_t) rint(cm_guc_max_cpu_limit * 1e9),
		.max_timeout_seconds = cm_guc_max_timeout_s,
		.min_uid = cm_guc_min_uid,
		.max_pids = cm_guc_pids_limit,
		.max_stop_grace_ms = cm_guc_max_stop_grace_ms,
		.max_log_kb = cm_guc_max_log_size_kb,
		.max_keep_seconds = cm_guc_max_keep_container_s,
		.allow_image_user = cm_guc_allow_image_user,
	};

	return limits;
}

/*
 * The variable is set behind the back of the settings' bookkeeping: an entry
 * there would outrank the file, and "on" set in the file later would be lost.
 */
void
cm_guc_reload(void)
{
	ProcessConfigFile(PGC_SIGHUP);
	if (synchronous_commit < SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		synchronous_commit = SYNCHRONOUS_COMMIT_LOCAL_FLUSH;
}
