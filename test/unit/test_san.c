/*
 * test_san.c
 *		Names for which a certificate is to be valid: what is taken, and refused.
 */
#include "san.h"
#include "tap.h"

#define NINE "123456789"
#define LABEL_63 NINE NINE NINE NINE NINE NINE NINE
#define NAME_255 LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63

#define NEITHER "it is neither a host name nor an IP address"
#define NO_ADDRESS "it is not an IP address"
#define TOO_LONG "it is longer than 253 bytes"
#define WILDCARD "wildcards are not for engines: name each host"

static const struct
{
	const char *text;
	const char *out;   /* NULL: refused */
	const char *error; /* then */
} rows[] = {
	{"docker1", "DNS:docker1", NULL},
	{"Docker-1.example.com", "DNS:Docker-1.example.com", NULL},
	{"my_engine", "DNS:my_engine", NULL},
	{"dns:a", "DNS:a", NULL},
	{"DNS:a.b", "DNS:a.b", NULL},
	{"192.0.2.1", "IP:192.0.2.1", NULL},
	{"IP:192.0.2.1", "IP:192.0.2.1", NULL},
	{"ip:2001:DB8:0::1", "IP:2001:db8::1", NULL},
	{"::1", "IP:::1", NULL},
	{LABEL_63 ".a", "DNS:" LABEL_63 ".a", NULL},
	{"", NULL, NEITHER},
	{"DNS:", NULL, NEITHER},
	{"IP:", NULL, NO_ADDRESS},
	{"IP:docker1", NULL, NO_ADDRESS},
	{"DNS:192.0.2.1", NULL, NEITHER},
	{"DNS:::1", NULL, NEITHER},
	{"[::1]", NULL, NEITHER},
	{"::1%lo", NULL, NEITHER},
	{"127.1", NULL, NEITHER},
	{"0x7f.1", NULL, NEITHER},
	{"a,DNS:b", NULL, NEITHER},
	{"a;b", NULL, NEITHER},
	{"a b", NULL, NEITHER},
	{"a\n", NULL, NEITHER},
	{"-a", NULL, NEITHER},
	{"a-", NULL, NEITHER},
	{"a..b", NULL, NEITHER},
	{"a.", NULL, NEITHER},
	{"\xc3\xa4", NULL, NEITHER},
	{"email:copy", NULL, NEITHER},
	{"DNS:DNS:a", NULL, NEITHER},
	{LABEL_63 "0", NULL, NEITHER},
	{NAME_255, NULL, TOO_LONG},
	{NAME_255 NAME_255 NAME_255, NULL, TOO_LONG},
	{"*", NULL, WILDCARD},
	{"*.example.com", NULL, WILDCARD},
	{"a.*.b", NULL, NEITHER},
};

int
main(void)
{
	for (size_t i = 0; i < lengthof(rows); i++)
	{
		char out[CM_SAN_SIZE] = "";
		const char *error = NULL;
		bool is_taken = cm_san_parse(rows[i].text, out, &error);

		if (rows[i].out != NULL)
			is_str(is_taken ? out : error, rows[i].out, "taken: %s", rows[i].text);
		else
			is_str(is_taken ? out : error, rows[i].error, "refused: %.80s", rows[i].text);
	}
	return tap_done();
}
