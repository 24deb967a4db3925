/*
 * launcher.h
 *		The process that starts executors where they are wanted.
 *
 * Floor 5.
 */
#ifndef CM_LAUNCHER_H
#define CM_LAUNCHER_H

#include "postgres.h"

/* From _PG_init, when preloaded. */
extern void cm_launcher_register(void);

/* What the server runs in that worker. */
extern PGDLLEXPORT void cm_launcher_main(Datum unused);

#endif /* CM_LAUNCHER_H */
