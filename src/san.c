/*
 * san.c
 *		Parses a name for which a certificate is to be valid.
 *
 * What passes goes into a line of OpenSSL's configuration, where a comma begins
 * another name: so only the characters of host names and addresses pass.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "endpoint.h"
#include "san.h"

static bool
write_address(int family, const void *address, char out[CM_SAN_SIZE])
{
	char text[INET6_ADDRSTRLEN];

	if (inet_ntop(family, address, text, sizeof(text)) == NULL)
		return false;
	snprintf(out, CM_SAN_SIZE, "IP:%s", text);
	return true;
}

static bool
parse_address(const char *text, char out[CM_SAN_SIZE])
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1)
		return write_address(AF_INET, &v4, out);
	return inet_pton(AF_INET6, text, &v6) == 1 && write_address(AF_INET6, &v6, out);
}

static bool
has_prefix(const char *text, const char *prefix)
{
	char start[8] = "";
	size_t length = strlen(prefix);

	if (strnlen(text, length) < length)
		return false;
	memcpy(start, text, length);
	return cm_chars_is_word(start, prefix);
}

bool
cm_san_parse(const char *text, char out[CM_SAN_SIZE], const char **error)
{
	bool is_name = has_prefix(text, "dns:");
	bool is_address = has_prefix(text, "ip:");

	if (is_name || is_address)
		text += is_name ? 4 : 3;
	if (strnlen(text, CM_SAN_SIZE) > CM_ENDPOINT_MAX_NAME_BYTES)
		*error = "it is longer than 253 bytes";
	else if (text[0] == '*')
		*error = "wildcards are not for engines: name each host";
	else if (!is_name && parse_address(text, out))
		return true;
	else if (!is_address && cm_endpoint_is_host_name(text) && !parse_address(text, out))
	{
		snprintf(out, CM_SAN_SIZE, "DNS:%s", text);
		return true;
	}
	else
		*error =
			is_address ? "it is not an IP address" : "it is neither a host name nor an IP address";
	return false;
}
