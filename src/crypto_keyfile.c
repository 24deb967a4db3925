/*
 * crypto_keyfile.c
 *		Reads the file of keys that container_manager.secret_key_file names.
 *
 * It must be fit for a secret, by the rule of the server's own ssl_key_file:
 * ours, and for nobody else; or root's, then our group may read it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "crypto_internal.h"
#include "guc.h"

#define MAX_FILE_BYTES 16384
#define MAKE_HINT                                                                             \
	"As the server's operating system user: (umask 077; openssl rand -hex 32 > "              \
	"/path/of/secret.key). Then set container_manager.secret_key_file to that path, reload, " \
	"and keep a copy of the file apart from the database's backups."

static bool
refuse_unreadable(const char *path, int os_error, CmCryptoProblem *problem)
{
	return cm_crypto_refuse(problem, CM_CRYPTO_UNREADABLE, "", MAKE_HINT,
							"could not read the secret key file \"%s\": %s", path,
							strerror(os_error));
}

static bool
check_mode(const char *path, const struct stat *st, CmCryptoProblem *problem)
{
	if (!S_ISREG(st->st_mode))
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_MODE, "It is not a plain file.", MAKE_HINT,
								"secret key file \"%s\" cannot be used", path);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_MODE,
								"It must belong to the server's operating system user, or root.",
								"Change its owner by chown.",
								"secret key file \"%s\" belongs to another user", path);
	if ((st->st_uid == geteuid() && (st->st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(st->st_uid != geteuid() && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_MODE,
								"It must have mode 0600 or less if it belongs to the server's "
								"user, or 0640 or less if it belongs to root.",
								"Change its mode by chmod. If others may have read it, put a new "
								"key in front.",
								"secret key file \"%s\" can be read or changed by others", path);
	return true;
}

/* The open file's text, which ends with NUL. */
static bool
read_text(int fd, const char *path, char text[MAX_FILE_BYTES + 2], size_t *n_text,
		  CmCryptoProblem *problem)
{
	struct stat st;
	ssize_t n_got;

	*n_text = 0;
	if (fstat(fd, &st) != 0)
		return refuse_unreadable(path, errno, problem);
	if (!check_mode(path, &st, problem))
		return false;
	while ((n_got = read(fd, text + *n_text, MAX_FILE_BYTES + 1 - *n_text)) > 0)
	{
		*n_text += n_got;
	}
	if (n_got < 0)
		return refuse_unreadable(path, errno, problem);
	if (*n_text > MAX_FILE_BYTES)
		return cm_crypto_refuse(problem, CM_CRYPTO_MALFORMED, "", MAKE_HINT,
								"secret key file \"%s\" is longer than %d bytes", path,
								MAX_FILE_BYTES);
	text[*n_text] = '\0';
	return true;
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

static bool
parse_key(const char *line, size_t length, CmCryptoKey *key)
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	if (length != 2 * CM_CRYPTO_KEY_BYTES)
		return false;
	for (int i = 0; i < CM_CRYPTO_KEY_BYTES; i++)
	{
		int high = hex_value(line[2 * i]);
		int low = hex_value(line[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		key->bytes[i] = high << 4 | low;
	}
	if (EVP_Digest(key->bytes, CM_CRYPTO_KEY_BYTES, digest, NULL, EVP_sha256(), NULL) != 1)
		return false;
	memcpy(key->id, digest, sizeof(key->id));
	return true;
}

static bool
parse_keys(const char *path, const char *text, size_t n_text, CmCryptoKeys *keys,
		   CmCryptoProblem *problem)
{
	const char *end = text + n_text;
	int line_number = 0;

	while (text < end)
	{
		const char *newline = memchr(text, '\n', end - text);
		const char *next = newline != NULL ? newline + 1 : end;
		size_t length = (newline != NULL ? newline : end) - text;

		line_number++;
		while (length > 0 && strchr(" \t\r", text[length - 1]) != NULL && text[length - 1] != '\0')
			length--;
		if (length > 0 && text[0] != '#')
		{
			if (keys->n == CM_CRYPTO_MAX_KEYS || !parse_key(text, length, &keys->keys[keys->n]))
				return cm_crypto_refuse(
					problem, CM_CRYPTO_MALFORMED,
					"Each line is a key of 64 hexadecimal digits, at most 64 of "
					"them; blank lines and those that begin with # do not count.",
					MAKE_HINT, "line %d of the secret key file \"%s\" is no key", line_number,
					path);
			keys->n++;
		}
		text = next;
	}
	if (keys->n > 0)
		return true;
	return cm_crypto_refuse(problem, CM_CRYPTO_MALFORMED, "", MAKE_HINT,
							"secret key file \"%s\" has no key in it", path);
}

bool
cm_crypto_read_keys(CmCryptoKeys *keys, CmCryptoProblem *problem)
{
	const char *path = cm_guc_secret_key_file;
	char text[MAX_FILE_BYTES + 2];
	size_t n_text;
	bool is_ok;
	int fd;

	memset(keys, 0, sizeof(*keys));
	if (path == NULL || path[0] == '\0')
		return cm_crypto_refuse(problem, CM_CRYPTO_NO_KEY_FILE,
								"Secrets are stored sealed with a key that is not in the database.",
								MAKE_HINT, "there is no secret key file");
	/* A pipe without writer would block otherwise. */
	fd = BasicOpenFile(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return refuse_unreadable(path, errno, problem);
	is_ok = read_text(fd, path, text, &n_text, problem) &&
			parse_keys(path, text, n_text, keys, problem);
	close(fd);
	OPENSSL_cleanse(text, sizeof(text));
	if (!is_ok)
		OPENSSL_cleanse(keys, sizeof(*keys));
	return is_ok;
}
