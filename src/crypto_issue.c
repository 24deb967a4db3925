/*
 * crypto_issue.c
 *		Makes keys and certificates.
 */
#include "postgres.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "lib/stringinfo.h"

#include "crypto_certs.h"
#include "crypto_internal.h"

#define RSA_BITS 3072
#define SERIAL_BYTES 16

/* What is being made, and who signs it; each is NULL or to be freed. */
typedef struct Issue
{
	const CmCertRequest *request;
	const char *sans; /* as OpenSSL's configuration writes them; NULL: none */
	EVP_PKEY *key;
	X509 *cert;
	EVP_PKEY *ca_key;
	X509 *ca_cert;
} Issue;

/* The key usages of each kind.  RSA keys also take keys in old TLS. */
static const struct
{
	const char *basic;
	const char *usage;
	const char *rsa_usage;
	const char *extended;
} extensions[] = {
	[CM_CERT_CA] = {"critical,CA:TRUE,pathlen:0", "critical,keyCertSign,cRLSign",
					"critical,keyCertSign,cRLSign", NULL},
	[CM_CERT_SERVER] = {"critical,CA:FALSE", "critical,digitalSignature",
						"critical,digitalSignature,keyEncipherment", "serverAuth"},
	[CM_CERT_CLIENT] = {"critical,CA:FALSE", "critical,digitalSignature",
						"critical,digitalSignature", "clientAuth"},
};

static bool
read_ca(Issue *issue)
{
	BIO *cert = BIO_new_mem_buf(issue->request->ca_cert, -1);
	BIO *key = BIO_new_mem_buf(issue->request->ca_key, -1);

	if (cert != NULL && key != NULL)
	{
		issue->ca_cert = PEM_read_bio_X509(cert, NULL, cm_crypto_give_no_passphrase, NULL);
		issue->ca_key = PEM_read_bio_PrivateKey(key, NULL, cm_crypto_give_no_passphrase, NULL);
	}
	BIO_free(key);
	BIO_free(cert);
	return issue->ca_cert != NULL && issue->ca_key != NULL &&
		   X509_check_private_key(issue->ca_cert, issue->ca_key) == 1;
}

static EVP_PKEY *
make_key(CmKeyType type)
{
	if (type == CM_KEY_RSA)
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t) RSA_BITS);
	return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
}

/* Positive, with 126 random bits and the highest but one set: always 16 bytes. */
static bool
set_serial(X509 *cert)
{
	unsigned char bytes[SERIAL_BYTES];
	BIGNUM *number = NULL;
	bool is_ok;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] = (bytes[0] & 0x3f) | 0x40;
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	is_ok = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
	BN_free(number);
	return is_ok;
}

static bool
set_times(X509 *cert, const CmCertRequest *request)
{
	return ASN1_TIME_set(X509_getm_notBefore(cert), request->not_before_s) != NULL &&
		   ASN1_TIME_set(X509_getm_notAfter(cert), request->not_after_s) != NULL;
}

static bool
set_names(Issue *issue)
{
	X509_NAME *subject = X509_get_subject_name(issue->cert);
	X509 *issuer = issue->ca_cert != NULL ? issue->ca_cert : issue->cert;

	return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
									  (const unsigned char *) issue->request->common_name, -1, -1,
									  0) == 1 &&
		   X509_set_issuer_name(issue->cert, X509_get_subject_name(issuer)) == 1;
}

static bool
add_extension(X509V3_CTX *context, X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, context, nid, value);
	bool is_ok = extension != NULL && X509_add_ext(cert, extension, -1) == 1;

	X509_EXTENSION_free(extension);
	return is_ok;
}

/* The identifier of our key comes first: that of a CA's own issuer is it. */
static bool
add_extensions(Issue *issue)
{
	CmCertKind kind = issue->request->kind;
	const char *usage = issue->request->key_type == CM_KEY_RSA ? extensions[kind].rsa_usage
															   : extensions[kind].usage;
	X509 *issuer = issue->ca_cert != NULL ? issue->ca_cert : issue->cert;
	X509V3_CTX context;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, issue->cert, NULL, NULL, 0);
	return add_extension(&context, issue->cert, NID_basic_constraints, extensions[kind].basic) &&
		   add_extension(&context, issue->cert, NID_key_usage, usage) &&
		   (extensions[kind].extended == NULL ||
			add_extension(&context, issue->cert, NID_ext_key_usage, extensions[kind].extended)) &&
		   add_extension(&context, issue->cert, NID_subject_key_identifier, "hash") &&
		   add_extension(&context, issue->cert, NID_authority_key_identifier, "keyid:always") &&
		   (issue->sans == NULL ||
			add_extension(&context, issue->cert, NID_subject_alt_name, issue->sans));
}

static bool
make_certificate(Issue *issue)
{
	EVP_PKEY *signer;

	issue->key = make_key(issue->request->key_type);
	issue->cert = X509_new();
	if (issue->key == NULL || issue->cert == NULL)
		return false;
	signer = issue->ca_key != NULL ? issue->ca_key : issue->key;
	return X509_set_version(issue->cert, X509_VERSION_3) == 1 && set_serial(issue->cert) &&
		   set_times(issue->cert, issue->request) && set_names(issue) &&
		   X509_set_pubkey(issue->cert, issue->key) == 1 && add_extensions(issue) &&
		   X509_sign(issue->cert, signer, EVP_sha256()) > 0;
}

/* The text of a memory BIO, which a secure one wipes when it is freed. */
static char *
copy_bio_text(BIO *bio)
{
	char *bytes;
	long n = BIO_get_mem_data(bio, &bytes);
	char *text = n > 0 ? cm_crypto_alloc(n + 1) : NULL;

	if (text == NULL)
		return NULL;
	memcpy(text, bytes, n);
	text[n] = '\0';
	return text;
}

static bool
write_pem(const Issue *issue, char **cert, char **key)
{
	BIO *cert_bio = BIO_new(BIO_s_mem());
	BIO *key_bio = BIO_new(BIO_s_secmem());

	*cert = *key = NULL;
	if (cert_bio != NULL && key_bio != NULL && PEM_write_bio_X509(cert_bio, issue->cert) == 1 &&
		PEM_write_bio_PKCS8PrivateKey(key_bio, issue->key, NULL, NULL, 0, NULL, NULL) == 1)
	{
		*cert = copy_bio_text(cert_bio);
		*key = copy_bio_text(key_bio);
	}
	BIO_free(key_bio);
	BIO_free(cert_bio);
	return *cert != NULL && *key != NULL;
}

static const char *
join_sans(const CmCertRequest *request)
{
	StringInfoData list;

	if (request->n_sans == 0)
		return NULL;
	initStringInfo(&list);
	for (int i = 0; i < request->n_sans; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? "," : "", request->sans[i]);
	return list.data;
}

bool
cm_crypto_issue(const CmCertRequest *request, char **cert, char **key, CmCryptoProblem *problem)
{
	Issue issue = {.request = request, .sans = join_sans(request)};
	bool is_ok;

	is_ok = (request->ca_cert == NULL || read_ca(&issue)) && make_certificate(&issue) &&
			write_pem(&issue, cert, key);
	X509_free(issue.cert);
	X509_free(issue.ca_cert);
	EVP_PKEY_free(issue.key);
	EVP_PKEY_free(issue.ca_key);
	return is_ok || cm_crypto_fail(problem, CM_CRYPTO_FAILED, "could not make a certificate");
}
