/*
 * transport.c
 *		From what a host's row says to an engine that can be spoken to.
 */
#include "postgres.h"

#include "certfiles.h"
#include "crypto_certs.h"
#include "guc.h"
#include "transport.h"

static bool
fail(CmDiagnosis *problem, const char *error, const char *hint)
{
	strlcpy(problem->error, error, sizeof(problem->error));
	strlcpy(problem->hint, hint, sizeof(problem->hint));
	return false;
}

/* what: the file or parameter that is of no use. */
static bool
fail_by_crypto(CmDiagnosis *problem, const char *what, const CmCryptoProblem *why)
{
	char line[sizeof(problem->error) + MAXPGPATH];

	snprintf(line, sizeof(line), "%s: %s", what, why->message);
	cm_diagnosis_copy_line(problem->error, sizeof(problem->error), line);
	strlcpy(problem->hint,
			why->hint[0] != '\0' ? why->hint
								 : "Give the CA's certificate, the client's, and its private key, "
								   "in PEM form.",
			sizeof(problem->hint));
	return false;
}

/*
 * libcurl would find the same when it connects, but not say it as clearly; and
 * what is renewed may be read half way, new certificate and old key.  Names
 * are those of CA, certificate and key, for people.
 */
static bool
check_texts(const CmCertFiles *texts, const char *const names[3], CmDiagnosis *problem)
{
	CmCertificate *certificates;
	CmCryptoProblem why;

	if (texts->ca != NULL && cm_crypto_read_certificates(texts->ca, &certificates, &why) == 0)
		return fail_by_crypto(problem, names[0], &why);
	if (texts->cert == NULL)
		return true;
	if (cm_crypto_read_certificates(texts->cert, &certificates, &why) == 0)
		return fail_by_crypto(problem, names[1], &why);
	return cm_crypto_check_key(texts->cert, texts->key, &why) ||
		   fail_by_crypto(problem, names[2], &why);
}

/* before: what is in use; it need not be checked again. */
static bool
make_tls(const CmHttpTls *before, bool verify, const CmCertFiles *texts, const char *const names[3],
		 CmHttpTls **tls, CmDiagnosis *problem)
{
	*tls = cm_http_tls_new(verify, texts->ca, texts->cert, texts->key);
	if (*tls == NULL)
		return fail(problem, "out of memory", "");
	if (cm_http_tls_equal(before, *tls) || check_texts(texts, names, problem))
		return true;
	cm_http_tls_release(*tls);
	*tls = NULL;
	return false;
}

static bool
make_tls_of_files(const CmHttpTls *before, const CmHostAddress *address, CmHttpTls **tls,
				  CmDiagnosis *problem)
{
	const char *directory = address->tls_cert_path;
	const char *const names[3] = {psprintf("%s/ca.pem", directory),
								  psprintf("%s/cert.pem", directory),
								  psprintf("%s/key.pem", directory)};
	CmCertFiles files;
	char error[512];
	int os_error;
	bool is_ok;

	if (!cm_certfiles_read(directory, address->tls_verify, &files, error, sizeof(error), &os_error))
	{
		cm_diagnosis_copy_line(problem->error, sizeof(problem->error), error);
		if (os_error == EACCES)
			snprintf(problem->hint, sizeof(problem->hint),
					 "The server's operating system user \"%s\" must be able to read it.",
					 cm_diagnosis_os_user());
		else
			strlcpy(problem->hint,
					"tls_cert_path names a directory of the database server with ca.pem, cert.pem "
					"and key.pem, as DOCKER_CERT_PATH does.",
					sizeof(problem->hint));
		return false;
	}
	is_ok = make_tls(before, address->tls_verify, &files, names, tls, problem);
	cm_certfiles_wipe(&files);
	return is_ok;
}

static bool
make_tls_of_stored(const CmHttpTls *before, const CmHostAddress *address, CmHttpTls **tls,
				   CmDiagnosis *problem)
{
	static const char *const names[3] = {"stored ca", "stored cert", "stored key"};
	CmCertFiles texts = {unconstify(char *, address->ca), unconstify(char *, address->cert), NULL};
	CmCryptoProblem why;
	char name[CM_TRANSPORT_KEY_NAME_SIZE];
	size_t n_key = 0;
	bool is_ok;

	cm_transport_key_name(address->host_id, name);
	if (address->key_sealed != NULL &&
		!cm_crypto_open(CM_TRANSPORT_KEY_PURPOSE, name, address->key_sealed, address->n_key_sealed,
						&texts.key, &n_key, &why))
		return fail_by_crypto(problem, "stored key cannot be opened", &why);
	is_ok = make_tls(before, address->tls_verify, &texts, names, tls, problem);
	cm_crypto_wipe(texts.key, n_key);
	return is_ok;
}

static bool
make_tls_of_row(const CmHttpTls *before, const CmHostAddress *address, CmHttpTls **tls,
				CmDiagnosis *problem)
{
	CmCertFiles none = {0};

	if (address->has_stored_tls)
		return make_tls_of_stored(before, address, tls, problem);
	if (address->tls_cert_path != NULL)
		return make_tls_of_files(before, address, tls, problem);
	return make_tls(before, address->tls_verify, &none, NULL, tls, problem);
}

void
cm_transport_key_name(int host_id, char name[CM_TRANSPORT_KEY_NAME_SIZE])
{
	snprintf(name, CM_TRANSPORT_KEY_NAME_SIZE, "%d", host_id);
}

bool
cm_transport_apply(CmEngine *engine, const CmHostAddress *address, CmDiagnosis *problem)
{
	CmEndpoint endpoint;
	CmHttpTls *tls = NULL;

	problem->error[0] = problem->hint[0] = '\0';
	/* The table's trigger refuses such, but triggers can be turned off. */
	if (!cm_endpoint_parse(address->connection_string, &endpoint, problem->error,
						   sizeof(problem->error), problem->hint, sizeof(problem->hint)))
		return false;
	if (endpoint.kind == CM_ENDPOINT_TCP && address->tls_enabled &&
		!make_tls_of_row(engine->tls, address, &tls, problem))
		return false;
	engine->endpoint = endpoint;
	engine->only_loopback = tls == NULL && !cm_guc_allow_plain_tcp;
	if (cm_http_tls_equal(engine->tls, tls))
	{
		cm_http_tls_release(tls);
		return true;
	}
	cm_http_tls_release(engine->tls);
	engine->tls = tls;
	return true;
}

void
cm_transport_close(CmEngine *engine)
{
	cm_http_tls_release(engine->tls);
	engine->tls = NULL;
}
