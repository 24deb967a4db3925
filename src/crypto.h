/*
 * crypto.h
 *		Secrets at rest: sealed with a key that is not in the database.
 *
 * Floor 2.  crypto*.c are the only users of OpenSSL.  Nothing is thrown while
 * an object of OpenSSL's is held, and no callback of ours runs within it but
 * one that refuses passphrases; what fails is told in a CmCryptoProblem.
 *
 * The keys are lines of a text file that container_manager.secret_key_file
 * names: 64 hexadecimal digits each, as "openssl rand -hex 32" prints them;
 * blank lines and those that begin with # do not count.  The first key seals,
 * all of them open: put a new one in front, and what the old ones sealed can
 * still be read.  The file is read at each call, so that nothing of it stays in
 * memory.
 *
 * What is sealed is AES-256-GCM: one byte of version, the key's id, nonce, tag,
 * ciphertext.  Purpose and name are authenticated with it: what was sealed for
 * one row does not open for another.
 */
#ifndef CM_CRYPTO_H
#define CM_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>

#define CM_CRYPTO_KEY_ID_HEX 16						 /* digits */
#define CM_CRYPTO_MAX_PLAIN_BYTES (16 * 1024 * 1024) /* more is refused */

typedef enum CmCryptoCode
{
	CM_CRYPTO_OK,
	CM_CRYPTO_NO_KEY_FILE, /* the setting is empty */
	CM_CRYPTO_UNREADABLE,  /* the file is not there, or not for us */
	CM_CRYPTO_BAD_MODE,	   /* others may read it, or it is somebody else's */
	CM_CRYPTO_MALFORMED,   /* it does not hold keys */
	CM_CRYPTO_OTHER_KEY,   /* sealed with a key that is not in the file */
	CM_CRYPTO_DAMAGED,	   /* or moved here from another row */
	CM_CRYPTO_BAD_INPUT,   /* what was given is not a certificate, key, ... */
	CM_CRYPTO_FAILED	   /* out of memory, no random numbers, ... */
} CmCryptoCode;

/* For ereport: message without final period, detail and hint sentences or "". */
typedef struct CmCryptoProblem
{
	CmCryptoCode code;
	char message[512];
	char detail[512];
	char hint[512];
} CmCryptoProblem;

/* The SQLSTATE that says it, as five letters. */
extern const char *cm_crypto_sqlstate(CmCryptoCode code);

/* Sealed bytes in the current context. */
extern bool cm_crypto_seal(const char *purpose, const char *name, const void *plain, size_t n_plain,
						   char **sealed, size_t *n_sealed, CmCryptoProblem *problem);

/*
 * Plain bytes in the current context, with a NUL behind them; to be wiped when
 * they were used.  Messages do not name what it is: the caller knows.
 */
extern bool cm_crypto_open(const char *purpose, const char *name, const void *sealed,
						   size_t n_sealed, char **plain, size_t *n_plain,
						   CmCryptoProblem *problem);

/* Overwrites; NULL: nothing. */
extern void cm_crypto_wipe(void *bytes, size_t n_bytes);

/* The id of the key that sealed it; false: it is no sealed text. */
extern bool cm_crypto_sealed_key_id(const void *sealed, size_t n_sealed,
									char id[CM_CRYPTO_KEY_ID_HEX + 1]);

/* The id of the key that seals now. */
extern bool cm_crypto_current_key_id(char id[CM_CRYPTO_KEY_ID_HEX + 1], CmCryptoProblem *problem);

#endif /* CM_CRYPTO_H */
