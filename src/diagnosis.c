/*
 * diagnosis.c
 *		Why an engine did not answer as it should, and what to do: in words for
 *		people.
 *
 * The transport tells that it could not connect, but not always why.  So the
 * socket is tried once more by hand: errno is the exact answer, and connecting
 * to a unix socket without blocking costs the engine nothing.
 *
 * Engines send anything; what is quoted from them is reduced to one line of
 * printable ASCII, which every database encoding can hold.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "diagnosis_tcp.h"

#define PLAIN_TEXT_SIZE 400

void
cm_diagnosis_copy_line(char *out, size_t out_size, const char *text)
{
	size_t n = 0;

	for (; *text != '\0' && n + 1 < out_size; text++)
		out[n++] = (*text >= 0x20 && *text < 0x7f) ? *text : '?';
	out[n] = '\0';
}

const char *
cm_diagnosis_os_user(void)
{
	const struct passwd *me = getpwuid(geteuid());

	return me != NULL ? me->pw_name : "postgres";
}

/* The errno of connecting to the socket; 0 where that succeeds. */
static int
try_connect(const char *path)
{
	struct sockaddr_un address;
	int sock;
	int result = 0;

	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	strlcpy(address.sun_path, path, sizeof(address.sun_path));

	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return errno;
	if (connect(sock, (struct sockaddr *) &address, sizeof(address)) != 0)
		result = errno;
	close(sock);
	return result;
}

static void
explain_permission(const char *path, CmDiagnosis *diagnosis)
{
	const char *user = cm_diagnosis_os_user();
	const struct group *owner;
	struct stat st;

	if (stat(path, &st) != 0)
	{
		snprintf(
			diagnosis->hint, sizeof(diagnosis->hint),
			"The server's operating system user \"%s\" may not enter the directory of the socket.",
			user);
		return;
	}
	owner = getgrgid(st.st_gid);
	if (st.st_gid == 0 || (st.st_mode & S_IWGRP) == 0 || owner == NULL)
		snprintf(
			diagnosis->hint, sizeof(diagnosis->hint),
			"Give the socket to a group of its own (dockerd --group docker), add the server's operating system user \"%s\" to it and restart the server; members of that group can become root on the host.",
			user);
	else
		snprintf(
			diagnosis->hint, sizeof(diagnosis->hint),
			"Add the server's operating system user \"%s\" to the socket's group \"%s\" and restart the server; members of that group can become root on the host.",
			user, owner->gr_name);
}

static void
explain_refusal(const char *path, CmDiagnosis *diagnosis)
{
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
	{
		snprintf(diagnosis->error, sizeof(diagnosis->error), "%s is not a socket", path);
		strlcpy(diagnosis->hint, "Correct the connection string of the host.",
				sizeof(diagnosis->hint));
		return;
	}
	strlcpy(
		diagnosis->hint,
		"Nothing listens on the socket: start the engine on this machine, for instance by systemctl start docker.",
		sizeof(diagnosis->hint));
}

static void
explain_socket(const char *path, const CmFault *fault, CmDiagnosis *diagnosis)
{
	int error = try_connect(path);

	if (error == 0)
	{
		cm_diagnosis_copy_line(diagnosis->error, PLAIN_TEXT_SIZE,
							   fault->message[0] != '\0' ? fault->message : "could not connect");
		strlcpy(diagnosis->hint, "The socket can be connected to now: try again.",
				sizeof(diagnosis->hint));
		return;
	}
	snprintf(diagnosis->error, sizeof(diagnosis->error), "socket %s: %s", path,
			 error == EAGAIN		 ? "too many connections wait there"
			 : error == ENOENT		 ? "no such file"
			 : error == EACCES		 ? "permission denied"
			 : error == ECONNREFUSED ? "connection refused"
									 : strerror(error));
	if (error == ENOENT)
		strlcpy(
			diagnosis->hint,
			"Is the engine running on the machine of the database server? Start it, or correct the connection string of the host.",
			sizeof(diagnosis->hint));
	else if (error == EACCES)
		explain_permission(path, diagnosis);
	else if (error == ECONNREFUSED)
		explain_refusal(path, diagnosis);
	else if (error == EAGAIN)
		strlcpy(diagnosis->hint, "The engine is overloaded or hangs; see its log.",
				sizeof(diagnosis->hint));
}

/*
 * A whole reply came, but not the one that was wanted.  A refusal in spite of
 * a good status is cm_engine_read_version's: there is no API for both.
 */
static void
explain_reply(const CmFault *fault, CmDiagnosis *diagnosis)
{
	bool is_version = fault->http_status >= 200 && fault->http_status <= 299;

	cm_diagnosis_copy_line(diagnosis->error, PLAIN_TEXT_SIZE, fault->message);
	if (is_version && strstr(fault->message, "at most") != NULL)
		strlcpy(diagnosis->hint,
				"The engine is too old: upgrade it to Docker Engine 20.10 or newer.",
				sizeof(diagnosis->hint));
	else if (is_version)
		strlcpy(
			diagnosis->hint,
			"The engine is too new for this version: upgrade the extension, or let the engine speak older APIs by DOCKER_MIN_API_VERSION=1.41 in its environment.",
			sizeof(diagnosis->hint));
	else if (fault->http_status >= 500)
		strlcpy(diagnosis->hint, "The engine failed by itself; see its log.",
				sizeof(diagnosis->hint));
}

static void
explain_stranger(const CmFault *fault, CmDiagnosis *diagnosis)
{
	char words[PLAIN_TEXT_SIZE];

	cm_diagnosis_copy_line(words, sizeof(words), fault->message);
	snprintf(diagnosis->error, sizeof(diagnosis->error),
			 "what answers there does not speak the Docker Engine API%s%s",
			 words[0] != '\0' ? ": " : "", words);
	strlcpy(diagnosis->hint, "Is the connection string that of a Docker engine?",
			sizeof(diagnosis->hint));
}

void
cm_diagnosis_make(const CmEngine *engine, const CmHttpRequest *request, const CmFault *fault,
				  CmDiagnosis *diagnosis)
{
	const CmEndpoint *endpoint = &engine->endpoint;

	diagnosis->error[0] = '\0';
	diagnosis->hint[0] = '\0';

	if (endpoint->kind == CM_ENDPOINT_TCP &&
		cm_diagnosis_explain_tcp(engine, request, fault, diagnosis))
		return;
	switch (cm_http_outcome(request))
	{
		case CM_HTTP_NOT_SENT:
		case CM_HTTP_FAILED:
			if (endpoint->kind == CM_ENDPOINT_UNIX)
				explain_socket(endpoint->path, fault, diagnosis);
			else
				cm_diagnosis_copy_line(diagnosis->error, PLAIN_TEXT_SIZE, fault->message);
			break;
		case CM_HTTP_TIMED_OUT:
			strlcpy(diagnosis->error, "timed out: connected, but no answer came",
					sizeof(diagnosis->error));
			strlcpy(
				diagnosis->hint,
				"The engine is overloaded or hangs, or something else listens there; see its log.",
				sizeof(diagnosis->hint));
			break;
		case CM_HTTP_CUT:
		case CM_HTTP_BAD_REPLY:
		case CM_HTTP_TOO_BIG:
			explain_stranger(fault, diagnosis);
			break;
		case CM_HTTP_OK:
			if (fault->kind == CM_FAULT_GARBLED || fault->http_status == 404)
				explain_stranger(fault, diagnosis);
			else
				explain_reply(fault, diagnosis);
			break;
	}
}
