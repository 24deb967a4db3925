/*
 * home.c
 *		Where this cluster lives, and as what it was started.
 *
 * The home is told by the data directory's PG_VERSION, which initdb writes and
 * nobody writes again: a copy of it is another file, with another inode and a
 * later birth.  A snapshot of a whole volume has the same; that cannot be told
 * from within.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"

#include "home.h"

#define STANDBY_FILE "standby.signal"

/* Set in the postmaster and inherited: so it stays after a crash of the server,
 * when the file is gone and shared memory made anew. */
static bool was_standby = false;

bool
cm_home_read(char home[CM_HOME_SIZE])
{
	char path[MAXPGPATH];
	struct stat plain;

	snprintf(path, sizeof(path), "%s/PG_VERSION", DataDir);
#ifdef STATX_BTIME
	{
		struct statx more;

		if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &more) == 0)
		{
			int64 born_ns = 0;

			if (more.stx_mask & STATX_BTIME)
				born_ns = more.stx_btime.tv_sec * INT64_C(1000000000) + more.stx_btime.tv_nsec;
			snprintf(home, CM_HOME_SIZE, "%llu.%lld", (unsigned long long) more.stx_ino,
					 (long long) Max(born_ns, 0));
			return true;
		}
	}
#endif
	if (stat(path, &plain) != 0)
		return false;
	snprintf(home, CM_HOME_SIZE, "%llu.0", (unsigned long long) plain.st_ino);
	return true;
}

/* The control file may still show the timeline before a promotion. */
int64
cm_home_timeline(void)
{
	return GetWALInsertionTimeLine();
}

/* recovery.signal alone is a recovery to a point in time, and no promotion. */
void
cm_home_note_start(void)
{
	char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/%s", DataDir, STANDBY_FILE);
	was_standby = access(path, F_OK) == 0;
}

bool
cm_home_was_standby(void)
{
	return was_standby;
}
