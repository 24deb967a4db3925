/*
 * crypto.c
 *		Seals and opens.
 */
#include "postgres.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "utils/memutils.h"

#include "crypto_internal.h"

#define VERSION 1
#define NONCE_BYTES 12
#define TAG_BYTES 16

/* What stands before the ciphertext. */
#define ID_AT 1
#define NONCE_AT (ID_AT + CM_CRYPTO_KEY_ID_BYTES)
#define TAG_AT (NONCE_AT + NONCE_BYTES)
#define HEADER_BYTES (TAG_AT + TAG_BYTES)

/* ---- what the crypto files share ---- */

bool
cm_crypto_refuse(CmCryptoProblem *problem, CmCryptoCode code, const char *detail, const char *hint,
				 const char *message, ...)
{
	va_list arguments;

	problem->code = code;
	va_start(arguments, message);
	vsnprintf(problem->message, sizeof(problem->message), message, arguments);
	va_end(arguments);
	strlcpy(problem->detail, detail, sizeof(problem->detail));
	strlcpy(problem->hint, hint, sizeof(problem->hint));
	return false;
}

bool
cm_crypto_fail(CmCryptoProblem *problem, CmCryptoCode code, const char *message)
{
	unsigned long error = ERR_peek_error();
	const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
	char detail[256] = "";

	if (reason != NULL)
		snprintf(detail, sizeof(detail), "OpenSSL says: %s.", reason);
	ERR_clear_error();
	return cm_crypto_refuse(problem, code, detail, "", "%s", message);
}

char *
cm_crypto_alloc(size_t n_bytes)
{
	return palloc_extended(n_bytes, MCXT_ALLOC_NO_OOM);
}

void
cm_crypto_print_hex(const unsigned char *bytes, size_t n_bytes, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n_bytes; i++)
	{
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}

void
cm_crypto_wipe(void *bytes, size_t n_bytes)
{
	if (bytes != NULL)
		OPENSSL_cleanse(bytes, n_bytes);
}

const char *
cm_crypto_sqlstate(CmCryptoCode code)
{
	switch (code)
	{
		case CM_CRYPTO_OK:
			return "00000";
		case CM_CRYPTO_NO_KEY_FILE:
		case CM_CRYPTO_OTHER_KEY:
			return "55000";
		case CM_CRYPTO_UNREADABLE:
		case CM_CRYPTO_BAD_MODE:
		case CM_CRYPTO_MALFORMED:
			return "F0000";
		case CM_CRYPTO_DAMAGED:
			return "XX001";
		case CM_CRYPTO_BAD_INPUT:
			return "22023";
		case CM_CRYPTO_FAILED:
			return "58000";
	}
	return "XX000";
}

/* ---- seal and open ---- */

/* What must be the same when it is opened: the header's first part, and for what
 * it was sealed.  Neither has a NUL in it. */
static bool
feed_context(EVP_CIPHER_CTX *cipher, const unsigned char *header, const char *purpose,
			 const char *name)
{
	int n;

	return EVP_CipherUpdate(cipher, NULL, &n, header, NONCE_AT) == 1 &&
		   EVP_CipherUpdate(cipher, NULL, &n, (const unsigned char *) purpose,
							strlen(purpose) + 1) == 1 &&
		   EVP_CipherUpdate(cipher, NULL, &n, (const unsigned char *) name, strlen(name) + 1) == 1;
}

static bool
begin_cipher(EVP_CIPHER_CTX *cipher, bool seals, const CmCryptoKey *key,
			 const unsigned char *header, const char *purpose, const char *name)
{
	return EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, NULL, NULL, seals ? 1 : 0) == 1 &&
		   EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_IVLEN, NONCE_BYTES, NULL) == 1 &&
		   EVP_CipherInit_ex(cipher, NULL, NULL, key->bytes, header + NONCE_AT, seals ? 1 : 0) ==
			   1 &&
		   feed_context(cipher, header, purpose, name);
}

/* Fills the header's nonce and tag, and the text behind it. */
static bool
encrypt(const CmCryptoKey *key, const char *purpose, const char *name, const void *plain,
		size_t n_plain, unsigned char *out)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	int n = 0;
	int n_last = 0;
	bool is_ok;

	out[0] = VERSION;
	memcpy(out + ID_AT, key->id, sizeof(key->id));
	is_ok = cipher != NULL && RAND_bytes(out + NONCE_AT, NONCE_BYTES) == 1 &&
			begin_cipher(cipher, true, key, out, purpose, name) &&
			EVP_CipherUpdate(cipher, out + HEADER_BYTES, &n, plain, n_plain) == 1 &&
			EVP_CipherFinal_ex(cipher, out + HEADER_BYTES + n, &n_last) == 1 &&
			EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, out + TAG_AT) == 1;
	EVP_CIPHER_CTX_free(cipher);
	return is_ok;
}

/* Nothing of out may be used where it is false. */
static bool
decrypt(const CmCryptoKey *key, const char *purpose, const char *name, const unsigned char *sealed,
		size_t n_text, unsigned char *out)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	unsigned char tag[TAG_BYTES];
	int n = 0;
	int n_last = 0;
	bool is_ok;

	memcpy(tag, sealed + TAG_AT, TAG_BYTES);
	is_ok = cipher != NULL && begin_cipher(cipher, false, key, sealed, purpose, name) &&
			EVP_CipherUpdate(cipher, out, &n, sealed + HEADER_BYTES, n_text) == 1 &&
			EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
			EVP_CipherFinal_ex(cipher, out + n, &n_last) == 1;
	EVP_CIPHER_CTX_free(cipher);
	return is_ok;
}

bool
cm_crypto_seal(const char *purpose, const char *name, const void *plain, size_t n_plain,
			   char **sealed, size_t *n_sealed, CmCryptoProblem *problem)
{
	CmCryptoKeys keys;
	bool is_ok;

	if (n_plain > CM_CRYPTO_MAX_PLAIN_BYTES)
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "", "",
								"a secret may have at most %d bytes", CM_CRYPTO_MAX_PLAIN_BYTES);
	*n_sealed = HEADER_BYTES + n_plain;
	*sealed = palloc(*n_sealed);
	if (!cm_crypto_read_keys(&keys, problem))
		return false;
	is_ok = encrypt(&keys.keys[0], purpose, name, plain, n_plain, (unsigned char *) *sealed);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return is_ok || cm_crypto_fail(problem, CM_CRYPTO_FAILED, "could not seal a secret");
}

static const CmCryptoKey *
find_key(const CmCryptoKeys *keys, const unsigned char *sealed)
{
	for (int i = 0; i < keys->n; i++)
	{
		if (memcmp(keys->keys[i].id, sealed + ID_AT, CM_CRYPTO_KEY_ID_BYTES) == 0)
			return &keys->keys[i];
	}
	return NULL;
}

static bool
refuse_damaged(CmCryptoProblem *problem)
{
	ERR_clear_error();
	return cm_crypto_refuse(problem, CM_CRYPTO_DAMAGED,
							"It opens only unchanged, and only where it was stored.",
							"Set it anew, or restore it from a backup.",
							"the sealed text is damaged, or was moved from another place");
}

static bool
refuse_other_key(const void *sealed, size_t n_sealed, const CmCryptoKeys *keys,
				 CmCryptoProblem *problem)
{
	char id[CM_CRYPTO_KEY_ID_HEX + 1] = "";
	char current[CM_CRYPTO_KEY_ID_HEX + 1];
	char detail[256];

	(void) cm_crypto_sealed_key_id(sealed, n_sealed, id);
	cm_crypto_print_hex(keys->keys[0].id, CM_CRYPTO_KEY_ID_BYTES, current);
	snprintf(
		detail, sizeof(detail),
		"The file that container_manager.secret_key_file names has %d key(s), the first is %s.",
		keys->n, current);
	return cm_crypto_refuse(problem, CM_CRYPTO_OTHER_KEY, detail,
							"Put the key that sealed it into the file, on a line of its own.",
							"it was sealed with key %s, which is not in the secret key file", id);
}

bool
cm_crypto_open(const char *purpose, const char *name, const void *sealed, size_t n_sealed,
			   char **plain, size_t *n_plain, CmCryptoProblem *problem)
{
	CmCryptoKeys keys;
	const CmCryptoKey *key;
	bool is_ok = false;

	if (n_sealed < HEADER_BYTES || n_sealed - HEADER_BYTES > CM_CRYPTO_MAX_PLAIN_BYTES ||
		((const unsigned char *) sealed)[0] != VERSION)
		return refuse_damaged(problem);
	*n_plain = n_sealed - HEADER_BYTES;
	*plain = palloc(*n_plain + 1);
	(*plain)[*n_plain] = '\0';
	if (!cm_crypto_read_keys(&keys, problem))
		return false;
	key = find_key(&keys, sealed);
	if (key == NULL)
		refuse_other_key(sealed, n_sealed, &keys, problem);
	else if (decrypt(key, purpose, name, sealed, *n_plain, (unsigned char *) *plain))
		is_ok = true;
	else
	{
		OPENSSL_cleanse(*plain, *n_plain);
		refuse_damaged(problem);
	}
	OPENSSL_cleanse(&keys, sizeof(keys));
	return is_ok;
}

bool
cm_crypto_sealed_key_id(const void *sealed, size_t n_sealed, char id[CM_CRYPTO_KEY_ID_HEX + 1])
{
	const unsigned char *bytes = sealed;

	if (n_sealed < HEADER_BYTES || bytes[0] != VERSION)
		return false;
	cm_crypto_print_hex(bytes + ID_AT, CM_CRYPTO_KEY_ID_BYTES, id);
	return true;
}

bool
cm_crypto_current_key_id(char id[CM_CRYPTO_KEY_ID_HEX + 1], CmCryptoProblem *problem)
{
	CmCryptoKeys keys;

	if (!cm_crypto_read_keys(&keys, problem))
		return false;
	cm_crypto_print_hex(keys.keys[0].id, CM_CRYPTO_KEY_ID_BYTES, id);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return true;
}
