/*
 * fuzz.h
 *		What the fuzzing harnesses share.
 *
 * Each fuzz_NAME.c is linked with libFuzzer, which calls LLVMFuzzerTestOneInput()
 * with bytes that it makes up.  A harness says what must hold whatever they are,
 * and ends the process where it does not: that is a crash, and libFuzzer keeps
 * the bytes.
 */
#ifndef CM_FUZZ_H
#define CM_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define REQUIRE(what)                                                                 \
	do                                                                                \
	{                                                                                 \
		if (!(what))                                                                  \
		{                                                                             \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                                  \
		}                                                                             \
	} while (0)

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* The bytes as a string that ends at their end, so that reading on is seen. */
static inline char *
fuzz_make_string(const uint8_t *data, size_t n_bytes)
{
	char *text = malloc(n_bytes + 1);

	REQUIRE(text != NULL);
	if (n_bytes > 0)
		memcpy(text, data, n_bytes);
	text[n_bytes] = '\0';
	return text;
}

/* One line without control characters of ASCII, and not empty. */
static inline bool
fuzz_is_line(const char *text)
{
	const char *p = text;

	for (; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7f)
			return false;
	}
	return p > text;
}

#endif /* CM_FUZZ_H */
