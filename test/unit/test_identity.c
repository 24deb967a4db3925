/*
 * test_identity.c
 *		Who a database is, by what is recorded and what is found; homes; who is in charge.
 */
#include <limits.h>

#include "identity.h"
#include "tap.h"

#define HERE                             \
	{                                    \
		5, 70, "12.900", 1, false, false \
	}

typedef struct Row
{
	const char *name;
	CmIdentityRow row;	 /* oid, system, home, timeline, hold, asked */
	CmIdentityHere here; /* oid, system, home, timeline, was standby, may */
	CmIdentityVerdict verdict;
	CmHold hold;
} Row;

/* clang-format off */
static const Row rows[] = {
	{"nothing changed", {5, 70, "12.900", 1, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_SAME, CM_HOLD_NOT},
	{"nothing changed, asked in vain", {5, 70, "12.900", 1, CM_HOLD_NOT, true}, HERE, CM_IDENTITY_SAME, CM_HOLD_NOT},
	{"nothing changed since it was a standby", {5, 70, "12.900", 1, CM_HOLD_NOT, false}, {5, 70, "12.900", 1, true, false}, CM_IDENTITY_SAME, CM_HOLD_NOT},
	{"copied within the cluster", {4, 70, "12.900", 1, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_NEW_EPOCH, CM_HOLD_NOT},
	{"copied within a clone", {4, 70, "13.900", 1, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_NEW_EPOCH, CM_HOLD_NOT},
	{"copied from one that holds", {4, 70, "12.900", 1, CM_HOLD_SUPERSEDED, false}, HERE, CM_IDENTITY_NEW_EPOCH, CM_HOLD_NOT},
	{"upgraded", {5, 71, "13.900", 9, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"upgraded while it held", {5, 71, "13.900", 9, CM_HOLD_COPIED, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"clone", {5, 70, "13.900", 1, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"clone in the same inode", {5, 70, "12.800", 1, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"restored backup", {5, 70, "13.900", 2, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"recovered in place", {5, 70, "12.900", 2, CM_HOLD_NOT, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_RECOVERED},
	{"clone, may take over", {5, 70, "13.900", 1, CM_HOLD_NOT, false}, {5, 70, "12.900", 1, false, true}, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"recovered, may take over", {5, 70, "12.900", 2, CM_HOLD_NOT, false}, {5, 70, "12.900", 1, false, true}, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"promoted", {5, 70, "13.900", 1, CM_HOLD_NOT, false}, {5, 70, "12.900", 2, true, false}, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"promoted back at home", {5, 70, "12.900", 1, CM_HOLD_NOT, false}, {5, 70, "12.900", 3, true, false}, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"promoted standby of a clone that holds", {5, 70, "13.900", 1, CM_HOLD_COPIED, false}, {5, 70, "12.900", 2, true, false}, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"held, at home again", {5, 70, "12.900", 1, CM_HOLD_COPIED, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_COPIED},
	{"held, asked", {5, 70, "13.900", 1, CM_HOLD_COPIED, true}, HERE, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"held, may take over since", {5, 70, "13.900", 1, CM_HOLD_RECOVERED, false}, {5, 70, "12.900", 1, false, true}, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
	{"superseded", {5, 70, "12.900", 1, CM_HOLD_SUPERSEDED, false}, HERE, CM_IDENTITY_HOLD, CM_HOLD_SUPERSEDED},
	{"superseded, may take over copies", {5, 70, "12.900", 1, CM_HOLD_SUPERSEDED, false}, {5, 70, "12.900", 1, false, true}, CM_IDENTITY_HOLD, CM_HOLD_SUPERSEDED},
	{"superseded, its standby promoted", {5, 70, "13.900", 1, CM_HOLD_SUPERSEDED, false}, {5, 70, "12.900", 2, true, false}, CM_IDENTITY_HOLD, CM_HOLD_SUPERSEDED},
	{"superseded, asked", {5, 70, "12.900", 1, CM_HOLD_SUPERSEDED, true}, HERE, CM_IDENTITY_TAKE_OVER, CM_HOLD_NOT},
};
/* clang-format on */

static void
test_judge(void)
{
	for (size_t i = 0; i < lengthof(rows); i++)
	{
		CmHold hold = CM_HOLD_RECOVERED;

		is_int(cm_identity_judge(&rows[i].row, &rows[i].here, &hold), rows[i].verdict, "%s",
			   rows[i].name);
		is_int(hold, rows[i].hold, "%s: why", rows[i].name);
	}
}

static void
test_home(void)
{
	ok(cm_identity_is_same_home("1.2", "1.2"), "same home");
	ok(!cm_identity_is_same_home("1.2", "2.2"), "another inode");
	ok(!cm_identity_is_same_home("1.2", "1.3"), "another birth");
	ok(cm_identity_is_same_home("1.2", "1.0"), "birth not known now");
	ok(cm_identity_is_same_home("1.0", "1.2"), "birth not known then");
	ok(!cm_identity_is_same_home("1.0", "2.0"), "inodes alone");
	ok(!cm_identity_is_same_home("", "1.2"), "nothing");
	ok(!cm_identity_is_same_home("1", "1.2"), "no birth");
	ok(!cm_identity_is_same_home("1.", "1.2"), "empty birth");
	ok(!cm_identity_is_same_home("1.2x", "1.2"), "more behind it");
	ok(!cm_identity_is_same_home("-1.2", "1.2"), "no number");
	ok(cm_identity_is_same_home("x", "x"), "the same words");
	ok(cm_identity_is_same_home("18446744073709551615.1", "18446744073709551615.1"), "largest");
	ok(!cm_identity_is_same_home("184467440737095516150.1", "1.1"), "too long");
}

static void
test_superseded(void)
{
	ok(!cm_identity_is_superseded(1, "1.2", 1, "1.2"), "ourselves");
	ok(!cm_identity_is_superseded(2, "1.2", 1, "3.4"), "an earlier one");
	ok(cm_identity_is_superseded(1, "1.2", 2, "1.2"), "a later one at our home");
	ok(cm_identity_is_superseded(1, "1.2", 2, NULL), "a later one, home not told");
	ok(cm_identity_is_superseded(2, "1.2", 2, "3.4"), "the same number elsewhere");
	ok(!cm_identity_is_superseded(2, "1.2", 2, NULL), "the same number, home not told");
	ok(cm_identity_is_superseded(1, "1.2", 1 + CM_MAX_INCARNATIONS_AHEAD, NULL), "much later");
	ok(!cm_identity_is_superseded(1, "1.2", 2 + CM_MAX_INCARNATIONS_AHEAD, NULL), "forged");
	ok(!cm_identity_is_superseded(1, "1.2", INT_MAX, NULL), "largest");
	ok(!cm_identity_is_superseded(1, "1.2", 0, NULL), "none");
}

static void
test_words(void)
{
	ok(cm_identity_hold_word(CM_HOLD_NOT) == NULL, "no word for no hold");
	is_int(cm_identity_parse_hold(NULL), CM_HOLD_NOT, "nor the other way");
	for (int hold = CM_HOLD_COPIED; hold <= CM_HOLD_SUPERSEDED; hold++)
		is_int(cm_identity_parse_hold(cm_identity_hold_word((CmHold) hold)), hold, "hold %d", hold);
	is_int(cm_identity_parse_hold("nonsense"), CM_HOLD_COPIED, "an unknown word holds");
}

int
main(void)
{
	test_judge();
	test_home();
	test_superseded();
	test_words();
	return tap_done();
}
