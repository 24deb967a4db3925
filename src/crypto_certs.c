/*
 * crypto_certs.c
 *		Reads certificates.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "crypto_certs.h"
#include "crypto_internal.h"

/* ---- text ---- */

/* A text that is filled up to its size; then it ends with "...". */
typedef struct Bounded
{
	char *text;
	size_t size;
	size_t n;
	bool is_full;
} Bounded;

static void
append(Bounded *to, const char *bytes, size_t n_bytes)
{
	for (size_t i = 0; i < n_bytes && !to->is_full; i++)
	{
		if (to->n + 1 >= to->size)
		{
			to->is_full = true;
			memcpy(to->text + to->size - 4, "...", 4);
			return;
		}
		to->text[to->n++] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?';
		to->text[to->n] = '\0';
	}
}

static bool
take_bio_text(BIO *bio, char *out, size_t out_size)
{
	Bounded to = {out, out_size, 0, false};
	char *bytes;
	long n = BIO_get_mem_data(bio, &bytes);

	out[0] = '\0';
	if (n < 0)
		return false;
	append(&to, bytes, n);
	return true;
}

static bool
print_name(const X509_NAME *name, char *out, size_t out_size)
{
	BIO *bio = BIO_new(BIO_s_mem());
	bool is_ok = bio != NULL && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0 &&
				 take_bio_text(bio, out, out_size);

	BIO_free(bio);
	return is_ok;
}

static void
append_address(Bounded *to, const ASN1_OCTET_STRING *address)
{
	const unsigned char *bytes = ASN1_STRING_get0_data(address);
	char text[INET6_ADDRSTRLEN] = "?";

	if (ASN1_STRING_length(address) == 4)
		inet_ntop(AF_INET, bytes, text, sizeof(text));
	else if (ASN1_STRING_length(address) == 16)
		inet_ntop(AF_INET6, bytes, text, sizeof(text));
	append(to, text, strlen(text));
}

static void
append_san(Bounded *to, const GENERAL_NAME *name)
{
	if (to->n > 0)
		append(to, ", ", 2);
	switch (name->type)
	{
		case GEN_DNS:
			append(to, "DNS:", 4);
			append(to, (const char *) ASN1_STRING_get0_data(name->d.dNSName),
				   ASN1_STRING_length(name->d.dNSName));
			break;
		case GEN_IPADD:
			append(to, "IP:", 3);
			append_address(to, name->d.iPAddress);
			break;
		default:
			append(to, "other", 5);
	}
}

/* ---- one certificate ---- */

static bool
read_serial(const X509 *x509, char *out, size_t out_size)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(x509);
	int n_bytes = ASN1_STRING_length(serial);
	bool is_cut = n_bytes > (int) (out_size - 4) / 2;

	if (is_cut)
		n_bytes = (out_size - 4) / 2;
	cm_crypto_print_hex(ASN1_STRING_get0_data(serial), n_bytes, out);
	if (is_cut)
		strlcat(out, "...", out_size);
	return true;
}

static bool
read_fingerprint(const X509 *x509, char out[65])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n;

	if (X509_digest(x509, EVP_sha256(), digest, &n) != 1 || n != 32)
		return false;
	cm_crypto_print_hex(digest, n, out);
	return true;
}

static bool
read_time(const ASN1_TIME *time, const ASN1_TIME *epoch, int64_t *out)
{
	int days;
	int seconds;

	if (ASN1_TIME_diff(&days, &seconds, epoch, time) != 1)
		return false;
	*out = days * INT64_C(86400) + seconds;
	return true;
}

static bool
read_times(const X509 *x509, CmCertificate *certificate)
{
	ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
	bool is_ok = epoch != NULL &&
				 read_time(X509_get0_notBefore(x509), epoch, &certificate->not_before_s) &&
				 read_time(X509_get0_notAfter(x509), epoch, &certificate->not_after_s);

	ASN1_TIME_free(epoch);
	return is_ok;
}

static void
read_sans(const X509 *x509, CmCertificate *certificate)
{
	Bounded to = {certificate->sans, sizeof(certificate->sans), 0, false};
	GENERAL_NAMES *names = X509_get_ext_d2i(x509, NID_subject_alt_name, NULL, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !to.is_full; i++)
		append_san(&to, sk_GENERAL_NAME_value(names, i));
	GENERAL_NAMES_free(names);
}

/* A type that this OpenSSL does not know is "unknown". */
static void
read_key_type(const X509 *x509, CmCertificate *certificate)
{
	EVP_PKEY *key = X509_get0_pubkey(x509);
	char group[32] = "";
	const char *type = "unknown";

	if (key != NULL && EVP_PKEY_get_base_id(key) == EVP_PKEY_EC)
	{
		EVP_PKEY_get_group_name(key, group, sizeof(group), NULL);
		type = strcmp(group, "prime256v1") == 0 ? "EC P-256" : "EC";
		if (strcmp(group, "secp384r1") == 0)
			type = "EC P-384";
		strlcpy(certificate->key_type, type, sizeof(certificate->key_type));
	}
	else if (key != NULL && EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA)
		snprintf(certificate->key_type, sizeof(certificate->key_type), "RSA %d",
				 EVP_PKEY_get_bits(key));
	else
	{
		if (key != NULL && EVP_PKEY_get0_type_name(key) != NULL)
			type = EVP_PKEY_get0_type_name(key);
		strlcpy(certificate->key_type, type, sizeof(certificate->key_type));
	}
}

static bool
read_certificate(X509 *x509, CmCertificate *certificate)
{
	memset(certificate, 0, sizeof(*certificate));
	if (!print_name(X509_get_subject_name(x509), certificate->subject,
					sizeof(certificate->subject)) ||
		!print_name(X509_get_issuer_name(x509), certificate->issuer, sizeof(certificate->issuer)) ||
		!read_serial(x509, certificate->serial, sizeof(certificate->serial)) ||
		!read_fingerprint(x509, certificate->fingerprint) || !read_times(x509, certificate))
		return false;
	read_sans(x509, certificate);
	read_key_type(x509, certificate);
	certificate->is_ca = X509_check_ca(x509) == 1;
	return true;
}

/* ---- PEM ---- */

static bool
check_size(const char *pem, const char *what, CmCryptoProblem *problem)
{
	if (strnlen(pem, CM_CERT_MAX_PEM_BYTES + 1) <= CM_CERT_MAX_PEM_BYTES)
		return true;
	return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "", "", "%s is longer than 1 MB", what);
}

static bool
refuse_pem(CmCryptoProblem *problem, const char *what, const char *label)
{
	char hint[256];

	ERR_clear_error();
	snprintf(hint, sizeof(hint), "It must be in PEM form: -----BEGIN %s----- and so on.", label);
	return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "", hint, "%s cannot be read", what);
}

static int
count_certificates(const char *pem)
{
	static const char *const begin = "-----BEGIN ";
	int n = 0;

	for (const char *at = pem; (at = strstr(at, begin)) != NULL; at += strlen(begin))
		n++;
	return n;
}

/* Which one of the text is bad; the first number is 1. */
static int
refuse_certificate(int number, CmCryptoProblem *problem)
{
	(void) refuse_pem(problem, "the certificate", "CERTIFICATE");
	if (number > 1)
		snprintf(problem->message, sizeof(problem->message), "certificate %d cannot be read",
				 number);
	return 0;
}

static int
read_all(BIO *bio, int max, CmCertificate *certificates, CmCryptoProblem *problem)
{
	int n = 0;
	X509 *x509;
	bool is_ok = true;
	unsigned long error;

	while (is_ok && n < max &&
		   (x509 = PEM_read_bio_X509(bio, NULL, cm_crypto_give_no_passphrase, NULL)) != NULL)
	{
		is_ok = read_certificate(x509, &certificates[n]);
		X509_free(x509);
		if (is_ok)
			n++;
	}
	error = ERR_peek_last_error();
	ERR_clear_error();
	/* The end of the text is told as a missing start. */
	if (!is_ok || n == 0 ||
		(n < max &&
		 !(ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE)))
		return refuse_certificate(n + 1, problem);
	return n;
}

int
cm_crypto_read_certificates(const char *pem, CmCertificate **certificates, CmCryptoProblem *problem)
{
	int max;
	BIO *bio;

	if (!check_size(pem, "the certificate", problem))
		return 0;
	/* Certificates are stored in clear. */
	if (strstr(pem, "PRIVATE KEY-----") != NULL)
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "",
								"Give the private key apart from the certificates.",
								"there is a private key among the certificates");
	max = count_certificates(pem);
	if (max == 0)
		return refuse_certificate(1, problem);
	if (max > CM_CERT_MAX_IN_BUNDLE)
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "", "",
								"there are more than %d certificates", CM_CERT_MAX_IN_BUNDLE);
	*certificates = palloc(max * sizeof(CmCertificate));
	bio = BIO_new_mem_buf(pem, -1);
	if (bio == NULL)
		return cm_crypto_fail(problem, CM_CRYPTO_FAILED, "could not read a certificate");
	max = read_all(bio, max, *certificates, problem);
	BIO_free(bio);
	return max;
}

int
cm_crypto_give_no_passphrase(char *buffer, int size, int is_writing, void *arg)
{
	return -1;
}

static bool
compare_key(BIO *cert_bio, BIO *key_bio, CmCryptoProblem *problem)
{
	X509 *x509 = PEM_read_bio_X509(cert_bio, NULL, cm_crypto_give_no_passphrase, NULL);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, cm_crypto_give_no_passphrase, NULL);
	bool is_ok = false;

	if (x509 == NULL)
		refuse_pem(problem, "the certificate", "CERTIFICATE");
	else if (key == NULL)
		refuse_pem(problem, "the private key", "PRIVATE KEY");
	else if (X509_check_private_key(x509, key) == 1)
		is_ok = true;
	else
	{
		ERR_clear_error();
		cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "",
						 "Give the certificate and the key that were made together.",
						 "the private key is not that of the certificate");
	}
	EVP_PKEY_free(key);
	X509_free(x509);
	return is_ok;
}

bool
cm_crypto_check_key(const char *cert, const char *key, CmCryptoProblem *problem)
{
	BIO *cert_bio;
	BIO *key_bio;
	bool is_ok;

	if (!check_size(cert, "the certificate", problem) ||
		!check_size(key, "the private key", problem))
		return false;
	if (strstr(key, "ENCRYPTED") != NULL)
		return cm_crypto_refuse(problem, CM_CRYPTO_BAD_INPUT, "",
								"Take it off by openssl pkey -in key.pem; it is stored sealed.",
								"the private key is protected by a passphrase");
	cert_bio = BIO_new_mem_buf(cert, -1);
	key_bio = BIO_new_mem_buf(key, -1);
	is_ok = cert_bio != NULL && key_bio != NULL
				? compare_key(cert_bio, key_bio, problem)
				: cm_crypto_fail(problem, CM_CRYPTO_FAILED, "could not read a private key");
	BIO_free(key_bio);
	BIO_free(cert_bio);
	return is_ok;
}
