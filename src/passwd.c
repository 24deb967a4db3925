/*
 * passwd.c
 *		The user that an image names, and the files in it that tell his number.
 *
 * Of several lines for a name the first counts, as for whoever looks it up in
 * the container.
 */
#include "passwd.h"

#include <string.h>

#include "chars.h"

/* Letters, digits and what names of users have besides; no colon above all. */
static bool
copy_name(char *out, const char *text, size_t n)
{
	if (n == 0 || n >= CM_PASSWD_NAME_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		if (!cm_chars_is_alnum(text[i]) && memchr("_.-$@", text[i], 5) == NULL)
			return false;
	}
	memcpy(out, text, n);
	out[n] = '\0';
	return true;
}

/* The number that the n bytes are, 0..2^31-1, or -1. */
static int64_t
read_id(const char *text, size_t n)
{
	int64_t id = 0;

	if (n == 0 || n > 10)
		return -1;
	for (size_t i = 0; i < n; i++)
	{
		if (!cm_chars_is_digit(text[i]))
			return -1;
		id = id * 10 + (text[i] - '0');
	}
	return id <= INT32_MAX ? id : -1;
}

static bool
is_number(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		if (!cm_chars_is_digit(text[i]))
			return false;
	}
	return n > 0;
}

/* A number, which must be one that can be, or a name. */
static bool
take_part(const char *text, size_t n, char *name, int64_t *id)
{
	if (!is_number(text, n))
		return copy_name(name, text, n);
	*id = read_id(text, n);
	return *id >= 0;
}

bool
cm_passwd_parse_user(const char *text, CmImageUser *user)
{
	size_t n_user = strcspn(text, ":");

	memset(user, 0, sizeof(*user));
	user->uid = user->gid = -1;
	if (text[0] == '\0')
	{
		user->uid = user->gid = 0;
		return true;
	}
	if (!take_part(text, n_user, user->user, &user->uid))
		return false;
	if (text[n_user] == '\0')
		return true;
	text += n_user + 1;
	return take_part(text, strlen(text), user->group, &user->gid);
}

/* The field, from 0, of a line without its newline; NULL: it has no such. */
static const char *
find_field(const char *line, size_t n_line, int field, size_t *n)
{
	const char *end = line + n_line;

	for (;;)
	{
		const char *colon = memchr(line, ':', (size_t) (end - line));

		*n = (size_t) ((colon != NULL ? colon : end) - line);
		if (field-- == 0)
			return line;
		if (colon == NULL)
			return NULL;
		line = colon + 1;
	}
}

/* The first line whose field 0 is the name; NULL: there is none. */
static const char *
find_line(const char *text, size_t n_bytes, const char *name, size_t *n_line)
{
	const char *end = text + n_bytes;

	while (text < end)
	{
		const char *newline = memchr(text, '\n', (size_t) (end - text));
		size_t n_name;

		*n_line = (size_t) ((newline != NULL ? newline : end) - text);
		(void) find_field(text, *n_line, 0, &n_name);
		if (n_name == strlen(name) && n_name < *n_line && memcmp(text, name, n_name) == 0)
			return text;
		text += *n_line + 1;
	}
	return NULL;
}

static int64_t
read_field_id(const char *line, size_t n_line, int field)
{
	size_t n;
	const char *text = find_field(line, n_line, field, &n);

	return text != NULL ? read_id(text, n) : -1;
}

bool
cm_passwd_find_user(const char *text, size_t n_bytes, CmImageUser *user)
{
	size_t n_line;
	const char *line = find_line(text, n_bytes, user->user, &n_line);

	if (line == NULL)
		return false;
	user->uid = read_field_id(line, n_line, 2);
	if (user->gid < 0 && user->group[0] == '\0')
	{
		user->gid = read_field_id(line, n_line, 3);
		if (user->gid < 0)
			return false;
	}
	return user->uid >= 0;
}

bool
cm_passwd_find_group(const char *text, size_t n_bytes, CmImageUser *user)
{
	size_t n_line;
	const char *line = find_line(text, n_bytes, user->group, &n_line);

	if (line == NULL)
		return false;
	user->gid = read_field_id(line, n_line, 2);
	return user->gid >= 0;
}
