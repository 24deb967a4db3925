/*
 * transport.c
 *		From what a host's row says to an engine that can be spoken to.
 */
#include "postgres.h"

#include "certfiles.h"
#include "guc.h"
#include "transport.h"

static bool
fail(CmDiagnosis *problem, const char *error, const char *hint)
{
	strlcpy(problem->error, error, sizeof(problem->error));
	strlcpy(problem->hint, hint, sizeof(problem->hint));
	return false;
}

static bool
make_tls(bool verify, const CmCertFiles *texts, CmHttpTls **tls, CmDiagnosis *problem)
{
	*tls = cm_http_tls_new(verify, texts->ca, texts->cert, texts->key);
	return *tls != NULL || fail(problem, "out of memory", "");
}

static bool
make_tls_of_files(const CmHostAddress *address, CmHttpTls **tls, CmDiagnosis *problem)
{
	CmCertFiles files;
	char error[512];
	int os_error;
	bool is_ok;

	if (!cm_certfiles_read(address->tls_cert_path, address->tls_verify, &files, error,
						   sizeof(error), &os_error))
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
	is_ok = make_tls(address->tls_verify, &files, tls, problem);
	cm_certfiles_wipe(&files);
	return is_ok;
}

static bool
make_tls_of_row(const CmHostAddress *address, CmHttpTls **tls, CmDiagnosis *problem)
{
	CmCertFiles none = {0};

	if (address->tls_cert_path != NULL)
		return make_tls_of_files(address, tls, problem);
	return make_tls(address->tls_verify, &none, tls, problem);
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
		!make_tls_of_row(address, &tls, problem))
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
