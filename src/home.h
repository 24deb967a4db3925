/*
 * home.h
 *		Where this cluster lives, and as what it was started.
 *
 * Floor 1.
 */
#ifndef CM_HOME_H
#define CM_HOME_H

#include "postgres.h"

#include "identity.h"

/*
 * Writes the home (see identity.h) of the running cluster.  false: it cannot
 * be told, errno says why.
 */
extern bool cm_home_read(char home[CM_HOME_SIZE]);

/* What this server writes now.  Not while it is in recovery. */
extern int64 cm_home_timeline(void);

/* In the postmaster, when the library is preloaded. */
extern void cm_home_note_start(void);

/* Was the server a standby when it was started?  If so and it writes now, it was
 * promoted.  Always false where the library was not preloaded. */
extern bool cm_home_was_standby(void);

#endif /* CM_HOME_H */
