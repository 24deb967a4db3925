/*
 * sqlapi_tls.c
 *		Certificates and key of a host that are stored in the database.
 *
 * Floor 5.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "crypto_certs.h"
#include "policy.h"
#include "store.h"
#include "transport.h"

PG_FUNCTION_INFO_V1(cm_hosts_seal_key);

pg_noreturn static void
refuse(const char *column, const char *message, const CmCryptoProblem *why)
{
	CmProblem problem;

	strlcpy(problem.sqlstate, cm_crypto_sqlstate(why->code), sizeof(problem.sqlstate));
	strlcpy(problem.column, column, sizeof(problem.column));
	snprintf(problem.message, sizeof(problem.message), "%s: %s", message, why->message);
	strlcpy(problem.detail, why->detail, sizeof(problem.detail));
	strlcpy(problem.hint, why->hint, sizeof(problem.hint));
	cm_store_throw_problem(&problem, "host_tls");
}

static void
check_certificates(const char *column, const char *pem)
{
	CmCertificate *certificates;
	CmCryptoProblem problem;

	if (pem != NULL && cm_crypto_read_certificates(pem, &certificates, &problem) == 0)
		refuse(column, psprintf("%s cannot be used", column), &problem);
}

static void
check_pair(const char *cert, const char *key)
{
	CmCryptoProblem problem = {.code = CM_CRYPTO_BAD_INPUT};

	if ((cert == NULL) != (key == NULL))
	{
		strlcpy(problem.message, "it comes alone", sizeof(problem.message));
		strlcpy(problem.hint, "Give cert and key together.", sizeof(problem.hint));
		refuse(cert == NULL ? "key" : "cert",
			   cert == NULL ? "key cannot be used" : "cert cannot be used", &problem);
	}
	if (cert != NULL && !cm_crypto_check_key(cert, key, &problem))
		refuse("key", "key cannot be used", &problem);
}

static char *
get_text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

/* (host_id, ca, cert, key) -> the sealed key, or NULL; throws on what is of no use. */
Datum
cm_hosts_seal_key(PG_FUNCTION_ARGS)
{
	char name[CM_TRANSPORT_KEY_NAME_SIZE];
	char *cert = get_text_argument(fcinfo, 2);
	char *key = get_text_argument(fcinfo, 3);
	char *sealed;
	size_t n_sealed;
	bytea *result;
	CmCryptoProblem problem;
	bool is_ok;

	check_certificates("ca", get_text_argument(fcinfo, 1));
	check_certificates("cert", cert);
	check_pair(cert, key);
	if (key == NULL)
		PG_RETURN_NULL();
	cm_transport_key_name(PG_GETARG_INT32(0), name);
	is_ok = cm_crypto_seal(CM_TRANSPORT_KEY_PURPOSE, name, key, strlen(key), &sealed, &n_sealed,
						   &problem);
	cm_crypto_wipe(key, strlen(key));
	if (!is_ok)
		refuse("key", "key cannot be sealed", &problem);
	result = palloc(VARHDRSZ + n_sealed);
	SET_VARSIZE(result, VARHDRSZ + n_sealed);
	memcpy(VARDATA(result), sealed, n_sealed);
	PG_RETURN_BYTEA_P(result);
}
