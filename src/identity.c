/*
 * identity.c
 *		Is this database still the one that it was when it last worked?
 *
 * Two servers that both take themselves for the same database would each kill
 * and start what the other thinks its own.  So whoever finds himself in
 * another place than recorded holds, unless there is a reason to believe that
 * he is meant to go on.
 */
#include "identity.h"

#include <stddef.h>
#include <string.h>

#include "chars.h"

/* --- homes --- */

/* Digits up to the end or a point; false: something else. */
static bool
parse_number(const char **text, uint64_t *number)
{
	const char *begin = *text;

	*number = 0;
	for (; cm_chars_is_digit(**text) && *text - begin < 20; (*text)++)
		*number = *number * 10 + (uint64_t) (**text - '0');
	return *text > begin;
}

static bool
parse_home(const char *text, uint64_t *inode, uint64_t *born_ns)
{
	if (!parse_number(&text, inode) || *text++ != '.')
		return false;
	return parse_number(&text, born_ns) && *text == '\0';
}

/* A newer kernel may tell a time of birth where an older one told none. */
bool
cm_identity_is_same_home(const char *a, const char *b)
{
	uint64_t inode[2];
	uint64_t born_ns[2];

	if (!parse_home(a, &inode[0], &born_ns[0]) || !parse_home(b, &inode[1], &born_ns[1]))
		return strcmp(a, b) == 0;
	return inode[0] == inode[1] && (born_ns[0] == born_ns[1] || born_ns[0] == 0 || born_ns[1] == 0);
}

/* --- what follows --- */

static CmIdentityVerdict
hold_for(CmHold why, CmHold *hold)
{
	*hold = why;
	return CM_IDENTITY_HOLD;
}

/*
 * A hold that was recorded stays, whatever changes around it, until somebody
 * says that it is over.  A setting cannot end SUPERSEDED: two servers that
 * both had it would take turns.
 */
CmIdentityVerdict
cm_identity_judge(const CmIdentityRow *row, const CmIdentityHere *here, CmHold *hold)
{
	bool is_home = cm_identity_is_same_home(row->home, here->home);

	*hold = CM_HOLD_NOT;
	if (row->database_oid != here->database_oid)
		return CM_IDENTITY_NEW_EPOCH;
	if (row->hold != CM_HOLD_NOT)
	{
		if (row->is_take_over_asked ||
			(here->may_take_over_copies && row->hold != CM_HOLD_SUPERSEDED))
			return CM_IDENTITY_TAKE_OVER;
		return hold_for(row->hold, hold);
	}
	/* pg_upgrade: nothing else gives a cluster with the same database another one. */
	if (row->system_identifier != here->system_identifier)
		return CM_IDENTITY_TAKE_OVER;
	if (is_home && row->timeline == here->timeline)
		return CM_IDENTITY_SAME;
	if (here->was_standby || here->may_take_over_copies)
		return CM_IDENTITY_TAKE_OVER;
	return hold_for(is_home ? CM_HOLD_RECOVERED : CM_HOLD_COPIED, hold);
}

bool
cm_identity_is_superseded(int incarnation, const char *home, int seen_incarnation,
						  const char *seen_home)
{
	if (seen_incarnation != incarnation)
		return seen_incarnation > incarnation &&
			   seen_incarnation - incarnation <= CM_MAX_INCARNATIONS_AHEAD;
	return seen_home != NULL && !cm_identity_is_same_home(home, seen_home);
}

/* --- words --- */

static const char *const hold_words[] = {NULL, "copied", "recovered", "superseded"};

const char *
cm_identity_hold_word(CmHold hold)
{
	return hold_words[hold];
}

CmHold
cm_identity_parse_hold(const char *word)
{
	if (word == NULL)
		return CM_HOLD_NOT;
	for (int i = CM_HOLD_COPIED; i <= CM_HOLD_SUPERSEDED; i++)
		if (strcmp(word, hold_words[i]) == 0)
			return (CmHold) i;
	return CM_HOLD_COPIED;
}
