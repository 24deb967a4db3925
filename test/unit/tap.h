/*
 * tap.h
 *		What the unit tests need of the Test Anything Protocol.
 *
 * A test includes this once, asserts, and ends with "return tap_done();".  The
 * plan is printed at the end, so that adding a row to a table is all there is
 * to adding a test.  Assertions return whether they held.
 */
#ifndef CM_TAP_H
#define CM_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

static int tap_n_run = 0;
static int tap_n_failed = 0;

/* Text for one TAP line: what would end it or begin a directive is escaped. */
static inline void
tap_print_text(const char *text, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c < 0x20 || c >= 0x7f)
			printf("\\x%02x", c);
		else if (c == '#' || c == '\\')
			printf("\\%c", c);
		else
			putchar(c);
	}
}

static inline bool
tap_result(bool is_true, const char *format, va_list args)
{
	char name[512];

	vsnprintf(name, sizeof(name), format, args);
	tap_n_run++;
	if (!is_true)
		tap_n_failed++;
	printf("%sok %d - ", is_true ? "" : "not ", tap_n_run);
	tap_print_text(name, strlen(name));
	putchar('\n');
	return is_true;
}

static inline void
tap_print_value(const char *title, const char *bytes, size_t n_bytes)
{
	printf("#   %s: ", title);
	if (bytes == NULL)
		printf("NULL");
	else
	{
		putchar('"');
		tap_print_text(bytes, n_bytes);
		putchar('"');
	}
	putchar('\n');
}

static inline bool ok(bool is_true, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool
ok(bool is_true, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tap_result(is_true, format, args);
	va_end(args);
	return is_true;
}

static inline bool is_int(int64_t got, int64_t wanted, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static inline bool
is_int(int64_t got, int64_t wanted, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tap_result(got == wanted, format, args);
	va_end(args);
	if (got != wanted)
		printf("#      got: %" PRId64 "\n#   wanted: %" PRId64 "\n", got, wanted);
	return got == wanted;
}

static inline bool is_str(const char *got, const char *wanted, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Either may be NULL. */
static inline bool
is_str(const char *got, const char *wanted, const char *format, ...)
{
	bool is_same = got == wanted || (got != NULL && wanted != NULL && strcmp(got, wanted) == 0);
	va_list args;

	va_start(args, format);
	tap_result(is_same, format, args);
	va_end(args);
	if (!is_same)
	{
		tap_print_value("   got", got, got != NULL ? strlen(got) : 0);
		tap_print_value("wanted", wanted, wanted != NULL ? strlen(wanted) : 0);
	}
	return is_same;
}

static inline bool is_bytes(const char *got, size_t n_got, const char *wanted, size_t n_wanted,
							const char *format, ...) __attribute__((format(printf, 5, 6)));

static inline bool
is_bytes(const char *got, size_t n_got, const char *wanted, size_t n_wanted, const char *format,
		 ...)
{
	bool is_same = n_got == n_wanted && (n_got == 0 || memcmp(got, wanted, n_got) == 0);
	va_list args;

	va_start(args, format);
	tap_result(is_same, format, args);
	va_end(args);
	if (!is_same)
	{
		tap_print_value("   got", got, n_got);
		tap_print_value("wanted", wanted, n_wanted);
	}
	return is_same;
}

/* Prints the plan; the exit code of main. */
static inline int
tap_done(void)
{
	printf("1..%d\n", tap_n_run);
	if (tap_n_failed > 0)
		printf("# %d of %d failed\n", tap_n_failed, tap_n_run);
	return tap_n_failed > 0 ? 1 : 0;
}

#endif /* CM_TAP_H */
