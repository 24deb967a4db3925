/*
 * guc.h
 *		The settings, all under container_manager.
 *
 * Floor 1.  What guards a host is set by the server's administrator, for the
 * whole server; what a job may say itself anyway (the defaults) by anyone.
 */
#ifndef CM_GUC_H
#define CM_GUC_H

#include "postgres.h"

#include "policy.h"

#define CM_MAX_PIDS 4194304 /* Linux' own bound */

extern bool cm_guc_enabled;
extern bool cm_guc_take_over_copies;
extern bool cm_guc_allow_plain_tcp;
extern int cm_guc_poll_interval_ms;
extern int cm_guc_heartbeat_interval_ms;
extern int cm_guc_default_memory_limit_mb;
extern int cm_guc_max_memory_limit_mb;
extern double cm_guc_default_cpu_limit;
extern double cm_guc_max_cpu_limit;
extern int cm_guc_disable_unhealthy_after_s;
extern int cm_guc_default_timeout_s;
extern int cm_guc_max_timeout_s;
extern int cm_guc_max_keep_container_s;
extern int cm_guc_max_kept_containers;
extern int cm_guc_stop_grace_ms;
extern int cm_guc_max_stop_grace_ms;
extern int cm_guc_pids_limit;
extern int cm_guc_min_uid;
extern bool cm_guc_allow_image_user;
extern char *cm_guc_default_run_as;
extern int cm_guc_max_log_size_kb;
extern bool cm_guc_job_channels;
extern int cm_guc_max_starts_in_flight;
extern char *cm_guc_secret_key_file;
extern int cm_guc_certificate_warning_days;
extern int cm_guc_placement_strategy; /* a CmStrategy */

extern void cm_guc_define(void);

/* The guard's limits as they stand now. */
extern CmLimits cm_guc_limits(void);

/*
 * For background workers, outside of transactions: reads the configuration
 * files again.  Never leaves synchronous_commit below local.  Whoever calls it
 * looks at cm_guc_enabled afterwards.
 */
extern void cm_guc_reload(void);

#endif /* CM_GUC_H */
