/*
 * identity.h
 *		Is this database still the one that it was when it last worked?
 *
 * Floor 0: pure.  What is recorded is compared with what is found, and what
 * follows is said; the caller carries it out.
 *
 * A home is where a cluster lives: "<inode>.<birth time in ns>" of a file that is
 * written once in its life.  It stays over a restart and a move of the volume,
 * and differs in a copy.  Birth time 0: the file system knows none.
 */
#ifndef CM_IDENTITY_H
#define CM_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#define CM_HOME_SIZE 48

/* Why a database holds: it touches nothing on any host. */
typedef enum CmHold
{
	CM_HOLD_NOT,
	CM_HOLD_COPIED,	   /* its files are a copy; the original may be at work */
	CM_HOLD_RECOVERED, /* it was set back in time where it is */
	CM_HOLD_SUPERSEDED /* another server has taken over */
} CmHold;

/* What is recorded in cm_internal.identity. */
typedef struct CmIdentityRow
{
	uint32_t database_oid;
	int64_t system_identifier;
	const char *home;
	int64_t timeline;
	CmHold hold;
	bool is_take_over_asked; /* by cm_take_over() */
} CmIdentityRow;

/* What is found. */
typedef struct CmIdentityHere
{
	uint32_t database_oid;
	int64_t system_identifier;
	const char *home;
	int64_t timeline;
	bool was_standby; /* when the server was started */
	bool may_take_over_copies;
} CmIdentityHere;

typedef enum CmIdentityVerdict
{
	CM_IDENTITY_SAME,	   /* go on */
	CM_IDENTITY_NEW_EPOCH, /* copied within the cluster: somebody else */
	CM_IDENTITY_TAKE_OVER, /* the same, with a higher incarnation */
	CM_IDENTITY_HOLD	   /* why: *hold */
} CmIdentityVerdict;

/* *hold is NOT but for HOLD. */
extern CmIdentityVerdict cm_identity_judge(const CmIdentityRow *row, const CmIdentityHere *here,
										   CmHold *hold);

extern bool cm_identity_is_same_home(const char *a, const char *b);

/* Nobody takes over so often: what says so is forged, and would bar us for good. */
#define CM_MAX_INCARNATIONS_AHEAD 1000000

/*
 * Somebody was seen at work under our epoch; seen_home NULL: it did not say
 * where it lives.  Is it in charge, and not we?
 */
extern bool cm_identity_is_superseded(int incarnation, const char *home, int seen_incarnation,
									  const char *seen_home);

/* As in cm_internal.identity; NULL for NOT. */
extern const char *cm_identity_hold_word(CmHold hold);
/* NULL is NOT; what is no such word is COPIED: better to hold. */
extern CmHold cm_identity_parse_hold(const char *word);

#endif /* CM_IDENTITY_H */
