/*
 * certfiles.c
 *		Reads a directory with ca.pem, cert.pem and key.pem.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "certfiles.h"

#define MAX_FILE_BYTES (1024 * 1024) /* a bundle of CAs has a quarter of it */

/* Where the reasons go. */
typedef struct Problem
{
	char *error;
	size_t error_size;
	int os_error;
} Problem;

static char *
refuse(Problem *problem, const char *file, const char *what)
{
	snprintf(problem->error, problem->error_size, "%s: %s", file, what);
	return NULL;
}

static char *
refuse_by_errno(Problem *problem, const char *file)
{
	problem->os_error = errno;
	return refuse(problem, file, strerror(problem->os_error));
}

/* The text of an open file. */
static char *
read_text(int fd, const char *file, Problem *problem)
{
	struct stat st;
	char *text;
	ssize_t n = 0;
	ssize_t n_got;

	if (fstat(fd, &st) != 0)
		return refuse_by_errno(problem, file);
	if (!S_ISREG(st.st_mode))
		return refuse(problem, file, "not a plain file");
	if (st.st_size > MAX_FILE_BYTES)
		return refuse(problem, file, "larger than 1 MB");
	text = palloc(st.st_size + 1);
	while (n < st.st_size && (n_got = read(fd, text + n, st.st_size - n)) != 0)
	{
		if (n_got < 0)
		{
			explicit_bzero(text, n);
			return refuse_by_errno(problem, file);
		}
		n += n_got;
	}
	text[n] = '\0';
	if (strlen(text) == n && strstr(text, "-----BEGIN ") != NULL)
		return text;
	explicit_bzero(text, n);
	return refuse(problem, file, "not in PEM form");
}

/* NULL with os_error ENOENT: it is not there. */
static char *
read_file(const char *directory, const char *name, Problem *problem)
{
	char file[MAXPGPATH];
	char *text;
	int fd;

	snprintf(file, sizeof(file), "%s/%s", directory, name);
	problem->os_error = 0;
	/* A pipe without writer would block otherwise. */
	fd = BasicOpenFile(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return refuse_by_errno(problem, file);
	text = read_text(fd, file, problem);
	close(fd);
	return text;
}

static bool
read_all(const char *directory, bool needs_ca, CmCertFiles *files, Problem *problem)
{
	struct stat st;

	if (stat(directory, &st) != 0)
		return refuse_by_errno(problem, directory) != NULL;
	if (!S_ISDIR(st.st_mode))
		return refuse(problem, directory, "not a directory") != NULL;
	files->ca = read_file(directory, "ca.pem", problem);
	if (files->ca == NULL && (needs_ca || problem->os_error != ENOENT))
		return false;
	files->cert = read_file(directory, "cert.pem", problem);
	if (files->cert == NULL && problem->os_error != ENOENT)
		return false;
	files->key = read_file(directory, "key.pem", problem);
	if (files->key == NULL && problem->os_error != ENOENT)
		return false;
	if ((files->cert == NULL) != (files->key == NULL))
		return refuse(problem, directory, "has only one of cert.pem and key.pem") != NULL;
	if (files->key != NULL && strstr(files->key, "ENCRYPTED") != NULL)
		return refuse(problem, directory, "key.pem is protected by a passphrase") != NULL;
	return true;
}

bool
cm_certfiles_read(const char *directory, bool needs_ca, CmCertFiles *files, char *error,
				  size_t error_size, int *os_error)
{
	Problem problem = {error, error_size, 0};
	bool is_ok;

	memset(files, 0, sizeof(*files));
	is_ok = read_all(directory, needs_ca, files, &problem);
	if (!is_ok)
		cm_certfiles_wipe(files);
	*os_error = problem.os_error;
	return is_ok;
}

void
cm_certfiles_wipe(CmCertFiles *files)
{
	if (files->key != NULL)
		explicit_bzero(files->key, strlen(files->key));
}
