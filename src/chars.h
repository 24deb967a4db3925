/*
 * chars.h
 *		Classes of characters, and cutting of UTF-8.
 *
 * Floor 0: pure.  <ctype.h> will not do: it asks the locale, and a letter that
 * the server's locale knows is still none to an engine.
 */
#ifndef CM_CHARS_H
#define CM_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool
cm_chars_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
cm_chars_is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static inline bool
cm_chars_is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static inline bool
cm_chars_is_alpha(char c)
{
	return cm_chars_is_lower(c) || cm_chars_is_upper(c);
}

static inline bool
cm_chars_is_alnum(char c)
{
	return cm_chars_is_alpha(c) || cm_chars_is_digit(c);
}

static inline bool
cm_chars_is_lower_hex(char c)
{
	return cm_chars_is_digit(c) || (c >= 'a' && c <= 'f');
}

/* Is text this word, given in lower case, in whatever case? */
static inline bool
cm_chars_is_word(const char *text, const char *word)
{
	for (; *text != '\0' && *word != '\0'; text++, word++)
	{
		if (*text != *word && !(cm_chars_is_upper(*text) && *text - 'A' + 'a' == *word))
			return false;
	}
	return *text == *word;
}

/*
 * The bytes of a control character at text: 0 where there is none, 1 for those
 * of ASCII, 2 for U+0080 to U+009F, which terminals obey as well.
 */
static inline int
cm_chars_control_length(const char *text)
{
	const unsigned char *bytes = (const unsigned char *) text;

	if (bytes[0] == '\0')
		return 0;
	if (bytes[0] < 0x20 || bytes[0] == 0x7f)
		return 1;
	if (bytes[0] == 0xc2 && bytes[1] >= 0x80 && bytes[1] < 0xa0)
		return 2;
	return 0;
}

static inline bool
cm_chars_has_control(const char *text)
{
	for (; *text != '\0'; text++)
	{
		if (cm_chars_control_length(text) > 0)
			return true;
	}
	return false;
}

/* The most bytes of text, up to max, that end between two UTF-8 characters. */
static inline size_t
cm_chars_cut(const char *text, size_t max)
{
	size_t length = strnlen(text, max);

	if (text[length] == '\0')
		return length;
	while (length > 0 && ((unsigned char) text[length] & 0xc0) == 0x80)
		length--;
	return length;
}

/* How many of the n bytes are a name as those of variables: [A-Za-z_][A-Za-z0-9_]*. */
static inline size_t
cm_chars_count_name(const char *text, size_t n)
{
	size_t i = 0;

	if (n == 0 || cm_chars_is_digit(text[0]))
		return 0;
	while (i < n && (cm_chars_is_alnum(text[i]) || text[i] == '_'))
		i++;
	return i;
}

#endif /* CM_CHARS_H */
