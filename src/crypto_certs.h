/*
 * crypto_certs.h
 *		Reads certificates, and makes them.
 *
 * Floor 2.  What is read may come from anybody: it is bounded, and what it says
 * is given as printable ASCII.
 */
#ifndef CM_CRYPTO_CERTS_H
#define CM_CRYPTO_CERTS_H

#include <stdbool.h>
#include <stdint.h>

#include "crypto.h"

#define CM_CERT_MAX_PEM_BYTES (1024 * 1024)
#define CM_CERT_MAX_IN_BUNDLE 512
#define CM_CERT_MAX_COMMON_NAME_BYTES 64 /* X.520 */
#define CM_CERT_MAX_SANS 100

/* What is too long is cut and ends with "...". */
typedef struct CmCertificate
{
	char subject[512]; /* as in RFC 2253 */
	char issuer[512];
	char serial[64];	  /* hexadecimal, lower case */
	char fingerprint[65]; /* SHA-256 of the whole, hexadecimal */
	char sans[2048];	  /* "DNS:a, IP:192.0.2.1" */
	char key_type[32];	  /* "EC P-256", "RSA 3072" */
	int64_t not_before_s; /* since 1970 */
	int64_t not_after_s;
	bool is_ca;
} CmCertificate;

/*
 * All certificates of a PEM text, in its order, in the current context; text
 * between them is skipped.  Returns how many; 0: problem says why there is none
 * or why one of them cannot be read.
 */
extern int cm_crypto_read_certificates(const char *pem, CmCertificate **certificates,
									   CmCryptoProblem *problem);

/* Is key, without a passphrase, the private key of the first certificate? */
extern bool cm_crypto_check_key(const char *cert, const char *key, CmCryptoProblem *problem);

typedef enum CmCertKind
{
	CM_CERT_CA,
	CM_CERT_SERVER,
	CM_CERT_CLIENT
} CmCertKind;

typedef enum CmKeyType
{
	CM_KEY_EC, /* P-256 */
	CM_KEY_RSA /* 3072 bits */
} CmKeyType;

typedef struct CmCertRequest
{
	CmCertKind kind;
	CmKeyType key_type;
	const char *common_name; /* UTF-8, 1 to 64 characters */
	int64_t not_before_s;	 /* since 1970 */
	int64_t not_after_s;
	int n_sans;
	const char *const *sans; /* as cm_san_parse() writes them */
	const char *ca_cert;	 /* PEM of who signs; NULL: itself */
	const char *ca_key;
} CmCertRequest;

/*
 * A new key, and its certificate, as PEM in the current context.  The key (PKCS
 * #8, not encrypted) is to be wiped when it was used.
 */
extern bool cm_crypto_issue(const CmCertRequest *request, char **cert, char **key,
							CmCryptoProblem *problem);

#endif /* CM_CRYPTO_CERTS_H */
