/*
 * image_ref.h
 *		Parses image references: [registry[:port]/]path[:tag][@digest].
 *
 * Floor 0: pure.  The grammar is that of the OCI distribution reference, less
 * what engines read in more than one way: ids of images are refused, so is
 * upper case in a first component that is no host name, and the repository
 * name is bounded by 255 bytes with the registry.  Digests are sha256 or sha512.
 */
#ifndef CM_IMAGE_REF_H
#define CM_IMAGE_REF_H

#include <stdbool.h>
#include <stddef.h>

#define CM_IMAGE_REF_MAX 1024

/*
 * registry is empty where the text names none.  tag and digest are empty
 * where the text has none; nothing is filled in.  name is what the engine
 * wants as fromImage: registry and path without tag and digest.
 */
typedef struct CmImageRef
{
	char registry[256];
	char path[512];
	char name[768];
	char tag[129];
	char digest[136]; /* "sha512:" and 128 digits */
} CmImageRef;

/*
 * Fills *ref from text; false with one line (no final period) in error where
 * the text is not a reference.
 */
extern bool cm_image_ref_parse(const char *text, CmImageRef *ref, char *error, size_t error_size);

/*
 * Writes a form fit for narrow columns: the last path component, with its
 * tag ("busybox:1.36"), or where it has none the first 12 hex digits of the
 * digest after an '@'.  What is too long, or cannot be parsed, is cut to size
 * between two characters.
 */
extern void cm_image_ref_shorten(const char *text, char *out, size_t out_size);

#endif /* CM_IMAGE_REF_H */
