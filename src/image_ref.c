/*
 * image_ref.c
 *		Parses image references: [registry[:port]/]path[:tag][@digest].
 *
 * The engine resolves what it is given by its own rules, and policy (allowed
 * registries, required digests) is about the result.  So what different
 * engines, or one engine and this parser, would read differently is refused:
 * image ids, upper case in the first component, names only newer engines take.
 * Messages do not repeat the text: the caller knows it, and it may hold
 * anything.
 */
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "image_ref.h"

/* The engines' bounds; older ones count the registry as part of the name. */
#define MAX_NAME_BYTES 255
#define MAX_TAG_BYTES 128
#define SHOWN_DIGEST_DIGITS 12

/* A part of the text. */
typedef struct Piece
{
	const char *begin;
	size_t length;
} Piece;

static void
copy_piece(char *to, Piece from)
{
	memcpy(to, from.begin, from.length);
	to[from.length] = '\0';
}

/* Splits off the part of *piece after the first mark; false: there is no mark. */
static bool
split_off(Piece *piece, char mark, Piece *rest)
{
	const char *at = memchr(piece->begin, mark, piece->length);

	if (at == NULL)
		return false;
	rest->begin = at + 1;
	rest->length = piece->length - (size_t) (at + 1 - piece->begin);
	piece->length = (size_t) (at - piece->begin);
	return true;
}

static bool
is_hex_digits(Piece piece, size_t wanted)
{
	if (piece.length != wanted)
		return false;
	for (size_t i = 0; i < piece.length; i++)
	{
		if (!cm_chars_is_lower_hex(piece.begin[i]))
			return false;
	}
	return true;
}

static bool
is_word(Piece piece, const char *word)
{
	return piece.length == strlen(word) && memcmp(piece.begin, word, piece.length) == 0;
}

static const char *
check_digest(Piece digest)
{
	Piece algorithm = digest;
	Piece hex;

	if (split_off(&algorithm, ':', &hex) &&
		((is_word(algorithm, "sha256") && is_hex_digits(hex, 64)) ||
		 (is_word(algorithm, "sha512") && is_hex_digits(hex, 128))))
		return NULL;
	return "digest is not \"sha256:\" with 64 hex digits in lower case";
}

static const char *
check_tag(Piece tag)
{
	if (tag.length == 0)
		return "tag is empty";
	if (tag.length > MAX_TAG_BYTES)
		return "tag is longer than 128 characters";
	for (size_t i = 0; i < tag.length; i++)
	{
		char c = tag.begin[i];

		if (!cm_chars_is_alnum(c) && c != '_' && (i == 0 || (c != '.' && c != '-')))
			return "tag has a character that is not allowed there";
	}
	return NULL;
}

/* Bytes of a separator: ".", "_", "__" or any number of "-". */
static size_t
separator_length(Piece piece, size_t at)
{
	size_t length = 1;

	if (piece.begin[at] == '.')
		return 1;
	while (at + length < piece.length && piece.begin[at + length] == piece.begin[at])
		length++;
	return piece.begin[at] == '_' && length > 2 ? 2 : length;
}

static const char *
check_component(Piece piece)
{
	bool wants_alnum = true;

	if (piece.length == 0)
		return "repository name has an empty component";
	for (size_t i = 0; i < piece.length;)
	{
		char c = piece.begin[i];

		if (cm_chars_is_upper(c))
			return "repository name must be in lower case";
		if (cm_chars_is_lower(c) || cm_chars_is_digit(c))
		{
			wants_alnum = false;
			i++;
			continue;
		}
		if (c != '.' && c != '_' && c != '-')
			return "repository name may hold only letters, digits, \".\", \"_\", \"-\" and \"/\"";
		if (wants_alnum)
			break;
		wants_alnum = true;
		i += separator_length(piece, i);
	}
	return wants_alnum ? "repository name has a separator at a wrong place" : NULL;
}

static const char *
check_path(Piece path)
{
	const char *fault = NULL;
	Piece rest;

	while (fault == NULL && split_off(&path, '/', &rest))
	{
		fault = check_component(path);
		path = rest;
	}
	return fault != NULL ? fault : check_component(path);
}

static bool
is_port(Piece port)
{
	int number = 0;

	if (port.length == 0 || port.length > 5 || port.begin[0] == '0')
		return false;
	for (size_t i = 0; i < port.length; i++)
	{
		if (!cm_chars_is_digit(port.begin[i]))
			return false;
		number = number * 10 + (port.begin[i] - '0');
	}
	return number <= 65535;
}

static bool
is_domain_component(Piece piece)
{
	if (piece.length == 0 || piece.begin[0] == '-' || piece.begin[piece.length - 1] == '-')
		return false;
	for (size_t i = 0; i < piece.length; i++)
	{
		if (!cm_chars_is_alnum(piece.begin[i]) && piece.begin[i] != '-')
			return false;
	}
	return true;
}

static bool
is_domain(Piece domain)
{
	Piece rest;

	while (split_off(&domain, '.', &rest))
	{
		if (!is_domain_component(domain))
			return false;
		domain = rest;
	}
	return is_domain_component(domain);
}

/* The text between brackets; the engine's grammar asks no more either. */
static bool
is_ipv6_like(Piece address)
{
	for (size_t i = 0; i < address.length; i++)
	{
		char c = address.begin[i];

		if (!cm_chars_is_digit(c) && c != ':' && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
			return false;
	}
	return address.length > 0;
}

/* Splits "[address]:port"; false: that is not its form. */
static bool
split_bracketed(Piece *host, Piece *port, bool *has_port)
{
	host->begin++;
	host->length--;
	if (!split_off(host, ']', port))
		return false;
	*has_port = port->length > 0;
	if (!*has_port)
		return true;
	if (port->begin[0] != ':')
		return false;
	port->begin++;
	port->length--;
	return true;
}

static const char *
check_registry(Piece registry)
{
	Piece host = registry;
	Piece port = {NULL, 0};
	bool has_port = false;
	bool is_valid;

	if (registry.length > 0 && registry.begin[0] == '[')
		is_valid = split_bracketed(&host, &port, &has_port) && is_ipv6_like(host);
	else
	{
		has_port = split_off(&host, ':', &port);
		is_valid = is_domain(host);
	}

	if (!is_valid)
		return "registry is not a host name or address";
	if (has_port && !is_port(port))
		return "port of the registry is not a number from 1 to 65535";
	return NULL;
}

/* The engine's rule: else "a/b" would be b on a host a. */
static bool
names_registry(Piece first)
{
	return memchr(first.begin, '.', first.length) != NULL ||
		   memchr(first.begin, ':', first.length) != NULL || is_word(first, "localhost");
}

/* Splits "registry/path" and fills registry, path and name. */
static const char *
parse_name(Piece name, CmImageRef *ref)
{
	Piece first = name;
	Piece path = name;
	Piece rest;
	const char *fault;

	if (name.length > MAX_NAME_BYTES)
		return "repository name is longer than 255 bytes";
	if (split_off(&first, '/', &rest) && names_registry(first))
	{
		fault = check_registry(first);
		if (fault != NULL)
			return fault;
		copy_piece(ref->registry, first);
		path = rest;
	}
	fault = check_path(path);
	if (fault != NULL)
		return fault;
	copy_piece(ref->path, path);
	copy_piece(ref->name, name);
	return NULL;
}

/*
 * Ids of images on the host: they come from no registry, cannot be pulled,
 * and one may begin like the name of another's image.
 */
static bool
is_image_id(const CmImageRef *ref)
{
	Piece name = {ref->name, strlen(ref->name)};
	Piece tag = {ref->tag, strlen(ref->tag)};

	return is_hex_digits(name, 64) || (is_word(name, "sha256") && is_hex_digits(tag, 64));
}

/* The colon of a tag stands after the last slash; one before is a port's. */
static bool
split_off_tag(Piece *name, Piece *tag)
{
	Piece last = *name;
	Piece rest;

	while (split_off(&last, '/', &rest))
		last = rest;
	if (!split_off(&last, ':', tag))
		return false;
	name->length = (size_t) (last.begin + last.length - name->begin);
	return true;
}

static const char *
parse_parts(Piece name, CmImageRef *ref)
{
	Piece tag = {NULL, 0};
	Piece digest = {NULL, 0};
	bool has_digest = split_off(&name, '@', &digest);
	bool has_tag = split_off_tag(&name, &tag);
	const char *fault = parse_name(name, ref);

	if (fault == NULL && has_tag)
	{
		fault = check_tag(tag);
		if (fault == NULL)
			copy_piece(ref->tag, tag);
	}
	if (fault == NULL && has_digest)
	{
		fault = check_digest(digest);
		if (fault == NULL)
			copy_piece(ref->digest, digest);
	}
	if (fault == NULL && is_image_id(ref))
		fault = "image ids are not supported";
	return fault;
}

bool
cm_image_ref_parse(const char *text, CmImageRef *ref, char *error, size_t error_size)
{
	Piece whole = {text, strnlen(text, CM_IMAGE_REF_MAX + 1)};
	const char *fault;

	memset(ref, 0, sizeof(*ref));
	if (whole.length == 0)
		fault = "image reference is empty";
	else if (whole.length > CM_IMAGE_REF_MAX)
		fault = "image reference is longer than 1024 bytes";
	else if (strstr(text, "://") != NULL)
		fault = "image reference must not have a scheme such as https://";
	else
		fault = parse_parts(whole, ref);

	if (fault != NULL)
		memset(ref, 0, sizeof(*ref));
	snprintf(error, error_size, "%s", fault != NULL ? fault : "");
	return fault == NULL;
}

void
cm_image_ref_shorten(const char *text, char *out, size_t out_size)
{
	CmImageRef ref;
	char error[128];
	char shown[sizeof(ref.path) + sizeof(ref.tag) + 1];
	const char *last;
	size_t length;

	if (out_size == 0)
		return;
	if (cm_image_ref_parse(text, &ref, error, sizeof(error)))
	{
		last = strrchr(ref.path, '/');
		last = last != NULL ? last + 1 : ref.path;
		if (ref.tag[0] != '\0')
			snprintf(shown, sizeof(shown), "%s:%s", last, ref.tag);
		else if (ref.digest[0] != '\0')
			snprintf(shown, sizeof(shown), "%s@%.*s", last, SHOWN_DIGEST_DIGITS,
					 strchr(ref.digest, ':') + 1);
		else
			snprintf(shown, sizeof(shown), "%s", last);
		text = shown;
	}
	length = cm_chars_cut(text, out_size - 1);
	memcpy(out, text, length);
	out[length] = '\0';
}
