/*
 * worker_main.h
 *		The process in which an executor lives, and how it is registered.
 *
 * Floor 5.
 */
#ifndef CM_WORKER_MAIN_H
#define CM_WORKER_MAIN_H

#include "postgres.h"
#include "postmaster/bgworker.h"

/*
 * Registers a worker for the database that tells this process when it starts
 * and ends.  NULL: max_worker_processes are used up.  The handle is palloc'ed.
 * Call cm_shmem_begin_start() first.
 */
extern BackgroundWorkerHandle *cm_worker_start(Oid database);

/* What the server runs in that worker; its argument is the database's oid. */
extern PGDLLEXPORT void cm_executor_main(Datum database);

#endif /* CM_WORKER_MAIN_H */
