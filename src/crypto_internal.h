/*
 * crypto_internal.h
 *		What the crypto files share.
 *
 * Floor 2, for crypto*.c only.
 */
#ifndef CM_CRYPTO_INTERNAL_H
#define CM_CRYPTO_INTERNAL_H

#include "postgres.h"

#include "crypto.h"

#define CM_CRYPTO_KEY_BYTES 32
#define CM_CRYPTO_KEY_ID_BYTES (CM_CRYPTO_KEY_ID_HEX / 2)
#define CM_CRYPTO_MAX_KEYS 64

typedef struct CmCryptoKey
{
	unsigned char id[CM_CRYPTO_KEY_ID_BYTES]; /* the first of its SHA-256 */
	unsigned char bytes[CM_CRYPTO_KEY_BYTES];
} CmCryptoKey;

typedef struct CmCryptoKeys
{
	int n;
	CmCryptoKey keys[CM_CRYPTO_MAX_KEYS];
} CmCryptoKeys;

/* All keys of the file, at least one; to be wiped.  crypto_keyfile.c */
extern bool cm_crypto_read_keys(CmCryptoKeys *keys, CmCryptoProblem *problem);

/* Fills the problem; always false.  message is a format. */
extern bool cm_crypto_refuse(CmCryptoProblem *problem, CmCryptoCode code, const char *detail,
							 const char *hint, const char *message, ...) pg_attribute_printf(5, 6);

/*
 * OpenSSL refused, or has no memory: its own words become the detail, and its
 * queue of errors, which the server's TLS shares, is emptied.  Always false.
 */
extern bool cm_crypto_fail(CmCryptoProblem *problem, CmCryptoCode code, const char *message);

/* palloc that gives NULL, for use while objects of OpenSSL's are held. */
extern char *cm_crypto_alloc(size_t n_bytes);

/* A callback of OpenSSL's: keeps it from asking a terminal.  crypto_certs.c */
extern int cm_crypto_give_no_passphrase(char *buffer, int size, int is_writing, void *arg);

extern void cm_crypto_print_hex(const unsigned char *bytes, size_t n_bytes, char *out);

#endif /* CM_CRYPTO_INTERNAL_H */
