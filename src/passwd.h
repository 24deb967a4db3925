/*
 * passwd.h
 *		The user that an image names, and the files in it that tell his number.
 *
 * Floor 0: pure.  The files come from an image, so that anything may be in them.
 */
#ifndef CM_PASSWD_H
#define CM_PASSWD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CM_PASSWD_NAME_BYTES 64

/* USER of an image: name or uid, and perhaps :group or :gid.  "" is root. */
typedef struct CmImageUser
{
	char user[CM_PASSWD_NAME_BYTES];  /* "": it is a number */
	char group[CM_PASSWD_NAME_BYTES]; /* "": a number, or not given */
	int64_t uid;					  /* -1: not known */
	int64_t gid;					  /* -1: not known, or not given */
} CmImageUser;

/* false: it is of no such form. */
extern bool cm_passwd_parse_user(const char *text, CmImageUser *user);

/*
 * Looks up what user names in the text of /etc/passwd, or /etc/group.  A group
 * that is not given is that of the user's line.  false: it is not there, or
 * its line makes no sense.
 */
extern bool cm_passwd_find_user(const char *text, size_t n_bytes, CmImageUser *user);
extern bool cm_passwd_find_group(const char *text, size_t n_bytes, CmImageUser *user);

#endif /* CM_PASSWD_H */
