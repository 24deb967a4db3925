/*
 * container_manager.c
 *		What happens when the server loads the library.
 *
 * Preloaded, the launcher is registered and the extension works for all
 * databases, over restarts.  Loaded later, by a session, there are settings
 * and functions, and executors that are started by hand.  During pg_upgrade
 * nothing may run: only the settings are there, so that those in
 * pg_db_role_setting are known.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "guc.h"
#include "home.h"
#include "launcher.h"
#include "shmem.h"
#include "stepaside.h"

CM_MODULE_MAGIC("container_manager", CM_VERSION);

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	cm_guc_define();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	cm_home_note_start();
	cm_shmem_install_hooks();
	cm_stepaside_install();
	cm_launcher_register();
}
