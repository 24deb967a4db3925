/*
 * test_passwd.c
 *		Users of images: the form of their names, and what their files say.
 */
#include "passwd.h"
#include "tap.h"

typedef struct FormRow
{
	const char *text;
	bool is_good;
	const char *user;
	const char *group;
	int64_t uid;
	int64_t gid;
} FormRow;

#define LONG_63 "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabc"

static const FormRow form_rows[] = {
	{"", true, "", "", 0, 0},
	{"0", true, "", "", 0, -1},
	{"1001", true, "", "", 1001, -1},
	{"1001:50", true, "", "", 1001, 50},
	{"007", true, "", "", 7, -1},
	{"app", true, "app", "", -1, -1},
	{"app:staff", true, "app", "staff", -1, -1},
	{"app:50", true, "app", "", -1, 50},
	{"1001:staff", true, "", "staff", 1001, -1},
	{"_apt-x.y$", true, "_apt-x.y$", "", -1, -1},
	{LONG_63, true, LONG_63, "", -1, -1},
	{LONG_63 "x", false, NULL, NULL, 0, 0},
	{"2147483647", true, "", "", 2147483647, -1},
	{"2147483648", false, NULL, NULL, 0, 0},
	{"99999999999999999999", false, NULL, NULL, 0, 0},
	{"4294967296", false, NULL, NULL, 0, 0},
	{"-1", true, "-1", "", -1, -1},
	{"+1", false, NULL, NULL, 0, 0},
	{" 1", false, NULL, NULL, 0, 0},
	{"app:", false, NULL, NULL, 0, 0},
	{":50", false, NULL, NULL, 0, 0},
	{"app:staff:x", false, NULL, NULL, 0, 0},
	{"a b", false, NULL, NULL, 0, 0},
	{"app\n", false, NULL, NULL, 0, 0},
	{"\xc3\xa4", false, NULL, NULL, 0, 0},
};

static void
test_forms(void)
{
	for (size_t i = 0; i < lengthof(form_rows); i++)
	{
		const FormRow *row = &form_rows[i];
		CmImageUser user;

		is_int(cm_passwd_parse_user(row->text, &user), row->is_good, "\"%s\"", row->text);
		if (!row->is_good)
			continue;
		is_str(user.user, row->user, "\"%s\": user", row->text);
		is_str(user.group, row->group, "\"%s\": group", row->text);
		is_int(user.uid, row->uid, "\"%s\": uid", row->text);
		is_int(user.gid, row->gid, "\"%s\": gid", row->text);
	}
}

typedef struct FileRow
{
	const char *name;
	const char *text;
	bool is_found;
	int64_t uid;
	int64_t gid;
} FileRow;

static const FileRow user_rows[] = {
	{"a line", "app:x:1001:50::/:/bin/sh\n", true, 1001, 50},
	{"no newline at the end", "root:x:0:0:::\napp:x:1001:50", true, 1001, 50},
	{"the first of two", "app:x:1001:50:::\napp:x:0:0:::\n", true, 1001, 50},
	{"root by another name", "app:x:0:0:::\n", true, 0, 0},
	{"the beginning of a name", "apple:x:1:1:::\nap:x:2:2:::\n", false, 0, 0},
	{"in another field", "x:app:1:1:app::\n", false, 0, 0},
	{"a comment", "#app:x:1:1:::\n", false, 0, 0},
	{"empty", "", false, 0, 0},
	{"no fields", "app\n", false, 0, 0},
	{"no number", "app:x:::::\n", false, 0, 0},
	{"a word for a number", "app:x:root:0:::\n", false, 0, 0},
	{"a sign", "app:x:-1:0:::\n", false, 0, 0},
	{"too large", "app:x:4294967296:4294967296:::\n", false, 0, 0},
	{"no group", "app:x:1001\n", false, 0, 0},
	{"a group that is none", "app:x:1001:x:::\n", false, 0, 0},
	{"blank lines", "\n\n:::\napp:x:7:8:::\n", true, 7, 8},
	{"a space before", " app:x:7:8:::\n", false, 0, 0},
};

static void
test_users(void)
{
	for (size_t i = 0; i < lengthof(user_rows); i++)
	{
		const FileRow *row = &user_rows[i];
		CmImageUser user;

		(void) cm_passwd_parse_user("app", &user);
		is_int(cm_passwd_find_user(row->text, strlen(row->text), &user), row->is_found, "%s",
			   row->name);
		if (!row->is_found)
			continue;
		is_int(user.uid, row->uid, "%s: uid", row->name);
		is_int(user.gid, row->gid, "%s: gid", row->name);
	}
}

/* A group that was given is not that of the line. */
static void
test_given_groups(void)
{
	static const char passwd[] = "app:x:1001:50:::\n";
	static const char group[] = "root:x:0:app\nstaff:x:60:\nbad:x:y:\n";
	CmImageUser user;

	(void) cm_passwd_parse_user("app:70", &user);
	ok(cm_passwd_find_user(passwd, strlen(passwd), &user), "user with a numeric group");
	is_int(user.gid, 70, "it is that group");
	(void) cm_passwd_parse_user("app:staff", &user);
	ok(cm_passwd_find_user(passwd, strlen(passwd), &user), "user with a named group");
	is_int(user.gid, -1, "which is not known yet");
	ok(cm_passwd_find_group(group, strlen(group), &user), "it is looked up");
	is_int(user.gid, 60, "and found");
	(void) cm_passwd_parse_user("app:bad", &user);
	ok(!cm_passwd_find_group(group, strlen(group), &user), "a group without a number");
	(void) cm_passwd_parse_user("app:none", &user);
	ok(!cm_passwd_find_group(group, strlen(group), &user), "a group that is not there");
}

int
main(void)
{
	test_forms();
	test_users();
	test_given_groups();
	return tap_done();
}
