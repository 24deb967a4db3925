/*
 * test_endpoint.c
 *		Connection strings: what is taken, and every refusal.
 */
#include "endpoint.h"
#include "tap.h"

#define NINE "123456789"
#define FIFTY "/" NINE NINE NINE NINE NINE "1234"
#define LABEL_63 NINE NINE NINE NINE NINE NINE NINE
#define PATH_107 FIFTY FIFTY "/123456"
#define HOST_253                                  \
	"a" NINE NINE NINE NINE NINE NINE "12345678." \
	"a" NINE NINE NINE NINE NINE NINE "12345678." \
	"a" NINE NINE NINE NINE NINE NINE "12345678." \
	"a" NINE NINE NINE NINE NINE NINE "123456"

static const struct
{
	const char *text;
	const char *path;
} unix_rows[] = {
	{"unix:///var/run/docker.sock", "/var/run/docker.sock"},
	{"unix:///s", "/s"},
	{"unix:///run/user/1000/podman/podman.sock", "/run/user/1000/podman/podman.sock"},
	{"unix:///tmp/a b:c@d?e#f%20", "/tmp/a b:c@d?e#f%20"},
	{"unix:///tmp/...", "/tmp/..."},
	{"unix:///x./.y", "/x./.y"},
	{"unix:///tmp/..a/.b", "/tmp/..a/.b"},
	{"unix:///tmp/\xc3\xa4", "/tmp/\xc3\xa4"},
	{"unix://" PATH_107, PATH_107},
};

static const struct
{
	const char *text;
	const char *host;
	int port;
	bool is_ipv6;
} tcp_rows[] = {
	{"tcp://docker1:2376", "docker1", 2376, false},
	{"tcp://docker-1.example.com:1", "docker-1.example.com", 1, false},
	{"tcp://my_engine:65535", "my_engine", 65535, false},
	{"tcp://Docker:9", "Docker", 9, false},
	{"tcp://1host.example:9", "1host.example", 9, false},
	{"tcp://4.example:9", "4.example", 9, false},
	{"tcp://127.0.0.1:2375", "127.0.0.1", 2375, false},
	{"tcp://255.255.255.255:2375", "255.255.255.255", 2375, false},
	{"tcp://[::1]:2376", "::1", 2376, true},
	{"tcp://[2001:db8::1]:2376", "2001:db8::1", 2376, true},
	{"tcp://[::ffff:192.0.2.1]:2376", "::ffff:192.0.2.1", 2376, true},
	{"tcp://" LABEL_63 ".a:1", LABEL_63 ".a", 1, false},
	{"tcp://" HOST_253 ":1", HOST_253, 1, false},
};

#define MISSING_SCHEME "connection string must begin with unix:// or tcp://"
#define WRITE_LOWER "Write unix:///var/run/docker.sock or tcp://host:2376, in lower case."
#define NO_HOST "host is neither a host name nor an IPv4 address"
#define WRITE_USUAL "Write a name, or an address in its usual form, as in 192.0.2.1."
#define BAD_PORT "port is not a number from 1 to 65535"
#define FOLLOWS "nothing may follow the port"
#define WITHOUT_PATH "Write tcp://host:port without a path."
#define NOT_PLAIN "path of the socket is not in its plain form"
#define LEAVE_OUT "Leave out \".\", \"..\", doubled slashes and a slash at the end."
#define THREE_SLASHES "Write three slashes: unix:///var/run/docker.sock."
#define TLS_SAYS "Write tcp://host:port; tls_enabled says whether TLS is used."
#define BRACKETS "IPv6 addresses stand in brackets: tcp://[::1]:2376."
#define PORT_2376 "Engines listen on 2376 with TLS: tcp://host:2376."

static const struct
{
	const char *text;
	const char *error;
	const char *hint;
} refused_rows[] = {
	{"", MISSING_SCHEME, WRITE_LOWER},
	{"docker1", MISSING_SCHEME, WRITE_LOWER},
	{"docker1:2376", MISSING_SCHEME, WRITE_LOWER},
	{"UNIX:///var/run/docker.sock", MISSING_SCHEME, WRITE_LOWER},
	{"Tcp://h:1", MISSING_SCHEME, WRITE_LOWER},
	{" tcp://h:1", MISSING_SCHEME, WRITE_LOWER},
	{"unix:/var/run/docker.sock", MISSING_SCHEME, WRITE_LOWER},
	{"tcp:h:1", MISSING_SCHEME, WRITE_LOWER},
	{"file:///etc/passwd", MISSING_SCHEME, WRITE_LOWER},
	{"\xff\n", MISSING_SCHEME, WRITE_LOWER},
	{"/var/run/docker.sock", "connection string has no scheme",
	 "Put unix:// before the path of the socket."},
	{"http://h:2375", "connection strings that begin with http:// are not supported", TLS_SAYS},
	{"https://h:2376", "connection strings that begin with https:// are not supported", TLS_SAYS},
	{"ssh://u@h", "connection strings that begin with ssh:// are not supported",
	 "Write tcp://host:port with TLS, or forward the engine's socket with ssh -L "
	 "and write unix:///path of the forwarded one."},
	{"npipe:////./pipe/docker_engine",
	 "connection strings that begin with npipe:// are not supported",
	 "Named pipes exist on Windows only; write tcp://host:port with TLS."},
	{"fd://", "connection strings that begin with fd:// are not supported",
	 "fd:// is what the engine listens on; write unix:///path of that socket."},

	{"unix://", "path of the socket is missing", "Write unix:///var/run/docker.sock."},
	{"unix://var/run/docker.sock", "path of the socket is not absolute", THREE_SLASHES},
	{"unix://./docker.sock", "path of the socket is not absolute", THREE_SLASHES},
	{"unix://\\0abstract", "path of the socket is not absolute", THREE_SLASHES},
	{"unix://" PATH_107 "x", "path of the socket is longer than 107 bytes",
	 "Sockets cannot have longer paths; make a shorter one or a symbolic link."},
	{"unix:///tmp/a\nb", "path of the socket contains a control character", ""},
	{"unix:///tmp/\x7f", "path of the socket contains a control character", ""},
	{"unix:///tmp/\xc2\x9b", "path of the socket contains a control character", ""},
	{"unix:///", NOT_PLAIN, LEAVE_OUT},
	{"unix:////var/run/docker.sock", NOT_PLAIN, LEAVE_OUT},
	{"unix:///var//docker.sock", NOT_PLAIN, LEAVE_OUT},
	{"unix:///var/docker.sock/", NOT_PLAIN, LEAVE_OUT},
	{"unix:///var/./docker.sock", NOT_PLAIN, LEAVE_OUT},
	{"unix:///var/.", NOT_PLAIN, LEAVE_OUT},
	{"unix:///..", NOT_PLAIN, LEAVE_OUT},
	{"unix:///../docker.sock", NOT_PLAIN, LEAVE_OUT},
	{"unix:///var/run/../docker.sock", NOT_PLAIN, LEAVE_OUT},

	{"tcp://", "host is missing", "Write tcp://host:port."},
	{"tcp://:2376", "host is missing", "Write tcp://host:port."},
	{"tcp:///var/run/docker.sock", "host is missing", "Write tcp://host:port."},
	{"tcp://[]:1", "host is missing", "Write tcp://host:port."},
	{"tcp://" HOST_253 "x:1", "host is longer than 253 bytes", ""},
	{"tcp://[" HOST_253 "x]:1", "host is longer than 253 bytes", ""},
	{"tcp://h", "port is missing", PORT_2376},
	{"tcp://h/", "port is missing", PORT_2376},
	{"tcp://h/x:1", "port is missing", PORT_2376},
	{"tcp://[::1]", "port is missing", PORT_2376},
	{"tcp://[::1]2376", "port is missing", PORT_2376},
	{"tcp://[::1", "bracket around the host is not closed", ""},
	{"tcp://[", "bracket around the host is not closed", ""},
	{"tcp://[::g]:1", "text in brackets is not an IPv6 address", ""},
	{"tcp://[127.0.0.1]:1", "text in brackets is not an IPv6 address", ""},
	{"tcp://[fe80::1%eth0]:1", "text in brackets is not an IPv6 address", ""},
	{"tcp://[::1 ]:1", "text in brackets is not an IPv6 address", ""},
	{"tcp://[[::1]]:1", "text in brackets is not an IPv6 address", ""},
	{"tcp://::1:2376", "host has more than one colon", BRACKETS},
	{"tcp://fe80::1", "host has more than one colon", BRACKETS},
	{"tcp://h:1:2", "host has more than one colon", BRACKETS},
	{"tcp://user@h:1", "connection string must not name a user",
	 "The engine knows its clients by their TLS certificates; see tls_cert_path."},
	{"tcp://h:1@evil:2", "connection string must not name a user",
	 "The engine knows its clients by their TLS certificates; see tls_cert_path."},
	{"tcp://h:", BAD_PORT, ""},
	{"tcp://h:0", BAD_PORT, ""},
	{"tcp://h:00", BAD_PORT, ""},
	{"tcp://h:01", BAD_PORT, ""},
	{"tcp://h:65536", BAD_PORT, ""},
	{"tcp://h:99999", BAD_PORT, ""},
	{"tcp://h:100000", BAD_PORT, ""},
	{"tcp://h:99999999999999999999999", BAD_PORT, ""},
	{"tcp://h:-1", BAD_PORT, ""},
	{"tcp://h:+1", BAD_PORT, ""},
	{"tcp://h: 1", BAD_PORT, ""},
	{"tcp://h:http", BAD_PORT, ""},
	{"tcp://h:/", BAD_PORT, ""},
	{"tcp://h:1/", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:1/v1.41", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:65535/", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:1?x", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:1#x", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:1 ", FOLLOWS, WITHOUT_PATH},
	{"tcp://h:12a", FOLLOWS, WITHOUT_PATH},
	{"tcp://127.1:1", NO_HOST, WRITE_USUAL},
	{"tcp://127.0.0.256:1", NO_HOST, WRITE_USUAL},
	{"tcp://127.0.0.01:1", NO_HOST, WRITE_USUAL},
	{"tcp://1.2.3.4.5:1", NO_HOST, WRITE_USUAL},
	{"tcp://2130706433:1", NO_HOST, WRITE_USUAL},
	{"tcp://0x7f000001:1", NO_HOST, WRITE_USUAL},
	{"tcp://127.0.0.0X1:1", NO_HOST, WRITE_USUAL},
	{"tcp://a" LABEL_63 ":1", NO_HOST, WRITE_USUAL},
	{"tcp://h.:1", NO_HOST, WRITE_USUAL},
	{"tcp://.h:1", NO_HOST, WRITE_USUAL},
	{"tcp://a..b:1", NO_HOST, WRITE_USUAL},
	{"tcp://-h:1", NO_HOST, WRITE_USUAL},
	{"tcp://h-:1", NO_HOST, WRITE_USUAL},
	{"tcp://h-.b:1", NO_HOST, WRITE_USUAL},
	{"tcp://a b:1", NO_HOST, WRITE_USUAL},
	{"tcp://%h:1", NO_HOST, WRITE_USUAL},
	{"tcp://h%20:1", NO_HOST, WRITE_USUAL},
	{"tcp://h?:1", NO_HOST, WRITE_USUAL},
	{"tcp://h#:1", NO_HOST, WRITE_USUAL},
	{"tcp://h\\:1", NO_HOST, WRITE_USUAL},
	{"tcp://h\n:1", NO_HOST, WRITE_USUAL},
	{"tcp://\xc3\xa4:1", NO_HOST, WRITE_USUAL},
};

static bool
parse(const char *text, CmEndpoint *endpoint, char error[128], char hint[256])
{
	return cm_endpoint_parse(text, endpoint, error, 128, hint, 256);
}

static void
test_unix(void)
{
	CmEndpoint endpoint;
	char error[128];
	char hint[256];

	for (size_t i = 0; i < lengthof(unix_rows); i++)
	{
		ok(parse(unix_rows[i].text, &endpoint, error, hint), "taken: %s", unix_rows[i].text);
		is_int(endpoint.kind, CM_ENDPOINT_UNIX, "kind of %s", unix_rows[i].text);
		is_str(endpoint.path, unix_rows[i].path, "path of %s", unix_rows[i].text);
		is_str(error, "", "no error for %s", unix_rows[i].text);
	}
}

static void
test_tcp(void)
{
	CmEndpoint endpoint;
	char error[128];
	char hint[256];

	for (size_t i = 0; i < lengthof(tcp_rows); i++)
	{
		ok(parse(tcp_rows[i].text, &endpoint, error, hint), "taken: %s", tcp_rows[i].text);
		is_int(endpoint.kind, CM_ENDPOINT_TCP, "kind of %s", tcp_rows[i].text);
		is_str(endpoint.host, tcp_rows[i].host, "host of %s", tcp_rows[i].text);
		is_int(endpoint.port, tcp_rows[i].port, "port of %s", tcp_rows[i].text);
		is_int(endpoint.host_is_ipv6, tcp_rows[i].is_ipv6, "IPv6 or not: %s", tcp_rows[i].text);
		is_str(hint, "", "no hint for %s", tcp_rows[i].text);
	}
}

static void
test_refusals(void)
{
	CmEndpoint endpoint;
	char error[128];
	char hint[256];

	for (size_t i = 0; i < lengthof(refused_rows); i++)
	{
		ok(!parse(refused_rows[i].text, &endpoint, error, hint), "refused: %s",
		   refused_rows[i].text);
		is_str(error, refused_rows[i].error, "error for %s", refused_rows[i].text);
		is_str(hint, refused_rows[i].hint, "hint for %s", refused_rows[i].text);
	}
}

/* Each byte in the place of one in a host, a port and a path. */
static void
test_bytes(void)
{
	CmEndpoint endpoint;
	char error[128];
	char hint[256];
	int n_hosts = 0;
	int n_ports = 0;
	int n_paths = 0;

	for (int c = 1; c < 256; c++)
	{
		char host[] = "tcp://axb:1";
		char port[] = "tcp://a:1x";
		char path[] = "unix:///axb";

		host[7] = port[9] = path[9] = (char) c;
		n_hosts += parse(host, &endpoint, error, hint);
		n_ports += parse(port, &endpoint, error, hint);
		n_paths += parse(path, &endpoint, error, hint);
	}
	is_int(n_hosts, 26 + 26 + 10 + 3,
		   "bytes taken inside a host: letters, digits, \"-\", \"_\", \".\"");
	is_int(n_ports, 10, "bytes taken in a port: digits");
	is_int(n_paths, 255 - 32, "bytes taken in a path: all but controls");
}

/* Buffers too small for the reasons are no reason to write beyond them. */
static void
test_small_buffers(void)
{
	CmEndpoint endpoint;
	char error[4] = "???";
	char hint[1] = "?";

	ok(!cm_endpoint_parse("docker1", &endpoint, error, sizeof(error), hint, sizeof(hint)),
	   "small buffers");
	is_str(error, "con", "error is cut");
	is_str(hint, "", "hint is cut");
	ok(!cm_endpoint_parse("docker1", &endpoint, NULL, 0, NULL, 0), "no buffers");
}

static bool
read_one(const char *text, CmEndpoint *endpoint)
{
	char error[128];
	char hint[256];

	return parse(text, endpoint, error, hint);
}

static void
test_loopback(void)
{
	static const char *const here[] = {"unix:///s", "tcp://localhost:1", "tcp://127.0.0.1:1",
									   "tcp://127.255.255.254:1", "tcp://[::1]:1"};
	static const char *const elsewhere[] = {"tcp://docker1:1",	 "tcp://localhost.example:1",
											"tcp://128.0.0.1:1", "tcp://0.0.0.0:1",
											"tcp://[::]:1",		 "tcp://[::2]:1"};
	CmEndpoint endpoint;

	for (size_t i = 0; i < lengthof(here); i++)
		ok(read_one(here[i], &endpoint) && cm_endpoint_is_loopback(&endpoint), "%s is here",
		   here[i]);
	for (size_t i = 0; i < lengthof(elsewhere); i++)
		ok(read_one(elsewhere[i], &endpoint) && !cm_endpoint_is_loopback(&endpoint), "%s is not",
		   elsewhere[i]);
}

static void
test_shown(void)
{
	CmEndpoint endpoint;
	char shown[300];

	read_one("tcp://[::1]:2376", &endpoint);
	cm_endpoint_show(&endpoint, shown, sizeof(shown));
	is_str(shown, "[::1]:2376", "IPv6 is shown in brackets");
	read_one("tcp://docker1:2376", &endpoint);
	cm_endpoint_show(&endpoint, shown, sizeof(shown));
	is_str(shown, "docker1:2376", "a name");
	read_one("unix:///run/docker.sock", &endpoint);
	cm_endpoint_show(&endpoint, shown, sizeof(shown));
	is_str(shown, "/run/docker.sock", "a path");
	cm_endpoint_show(&endpoint, shown, 5);
	is_str(shown, "/run", "cut to what fits");
}

int
main(void)
{
	is_int(strlen(PATH_107), 107, "the test's longest path");
	is_int(strlen(HOST_253), 253, "the test's longest host");
	test_unix();
	test_tcp();
	test_refusals();
	test_bytes();
	test_small_buffers();
	test_loopback();
	test_shown();
	return tap_done();
}
