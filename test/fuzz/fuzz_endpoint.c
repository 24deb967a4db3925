/*
 * fuzz_endpoint.c
 *		Connection strings: what is taken, written again from its parts, is the
 *		same text and is taken as the same; what is refused is told in a line.
 */
#include "endpoint.h"
#include "fuzz.h"

static void
write_again(const CmEndpoint *endpoint, char *out, size_t out_size)
{
	if (endpoint->kind == CM_ENDPOINT_UNIX)
		snprintf(out, out_size, "unix://%s", endpoint->path);
	else
		snprintf(out, out_size, endpoint->host_is_ipv6 ? "tcp://[%s]:%d" : "tcp://%s:%d",
				 endpoint->host, endpoint->port);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	char *text = fuzz_make_string(data, n_bytes);
	CmEndpoint endpoint;
	CmEndpoint again;
	char written[512];
	char error[128];
	char hint[256];

	if (cm_endpoint_parse(text, &endpoint, error, sizeof(error), hint, sizeof(hint)))
	{
		REQUIRE(error[0] == '\0' && hint[0] == '\0');
		write_again(&endpoint, written, sizeof(written));
		REQUIRE(strcmp(written, text) == 0);
		REQUIRE(cm_endpoint_parse(written, &again, error, sizeof(error), hint, sizeof(hint)));
		REQUIRE(memcmp(&again, &endpoint, sizeof(endpoint)) == 0);
		if (endpoint.kind == CM_ENDPOINT_UNIX)
			REQUIRE(endpoint.path[0] == '/' && strstr(endpoint.path, "/../") == NULL &&
					strstr(endpoint.path, "//") == NULL && fuzz_is_line(endpoint.path));
		else
			REQUIRE(endpoint.port >= 1 && endpoint.port <= 65535 &&
					strpbrk(endpoint.host, "@/?# %\\") == NULL && fuzz_is_line(endpoint.host));
	}
	else
	{
		REQUIRE(fuzz_is_line(error) && error[strlen(error) - 1] != '.');
		REQUIRE(hint[0] == '\0' || hint[strlen(hint) - 1] == '.');
	}
	free(text);
	return 0;
}
