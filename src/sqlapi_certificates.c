/*
 * sqlapi_certificates.c
 *		Certificates as SQL sees them: making and reading.
 *
 * Floor 5.  The functions know no tables: who calls them from SQL stores what
 * they give.  The private key of a CA comes and goes sealed; it is in the clear
 * in here only, and is wiped.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "chars.h"
#include "compat.h"
#include "crypto_certs.h"
#include "guc.h"
#include "san.h"

#define CA_PURPOSE "ca"

PG_FUNCTION_INFO_V1(cm_certificates_make_ca);
PG_FUNCTION_INFO_V1(cm_certificates_issue);
PG_FUNCTION_INFO_V1(cm_certificates_read);
PG_FUNCTION_INFO_V1(cm_certificates_state);

/* ---- errors ---- */

pg_noreturn static void
throw_problem(const CmCryptoProblem *problem, const char *what)
{
	const char *state = cm_crypto_sqlstate(problem->code);

	ereport(ERROR, (errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
					errmsg("%s: %s", what, problem->message),
					problem->detail[0] != '\0' ? errdetail("%s", problem->detail) : 0,
					problem->hint[0] != '\0' ? errhint("%s", problem->hint) : 0));
}

pg_noreturn static void
refuse(const char *parameter, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid %s: %s", parameter, why),
			 hint[0] != '\0' ? errhint("%s", hint) : 0));
}

/* ---- arguments ---- */

static const char *
get_text(FunctionCallInfo fcinfo, int n)
{
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static int64_t
get_seconds(FunctionCallInfo fcinfo, int n)
{
	TimestampTz at = PG_GETARG_TIMESTAMPTZ(n);

	if (TIMESTAMP_NOT_FINITE(at))
		refuse("valid_for", "it is not finite", "");
	return at / USECS_PER_SEC + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64_t) SECS_PER_DAY;
}

/* In UTF-8. */
static const char *
get_common_name(FunctionCallInfo fcinfo, int n)
{
	const char *name = get_text(fcinfo, n);
	int length = pg_mbstrlen(name);

	if (length == 0 || length > CM_CERT_MAX_COMMON_NAME_BYTES)
		refuse("common_name", "it must have 1 to 64 characters",
			   "A longer host name goes into sans, with a short one in its place.");
	name = pg_server_to_any(name, strlen(name), PG_UTF8);
	if (cm_chars_has_control(name))
		refuse("common_name", "it contains a control character", "");
	return name;
}

static CmKeyType
get_key_type(FunctionCallInfo fcinfo, int n)
{
	const char *word = get_text(fcinfo, n);

	if (strcmp(word, "ec") == 0)
		return CM_KEY_EC;
	if (strcmp(word, "rsa") != 0)
		refuse("key_type", "it must be ec or rsa", "ec is P-256, rsa has 3072 bits.");
	return CM_KEY_RSA;
}

static CmCertKind
get_kind(FunctionCallInfo fcinfo, int n)
{
	return strcmp(get_text(fcinfo, n), "server") == 0 ? CM_CERT_SERVER : CM_CERT_CLIENT;
}

static const char *
check_san(const char *text)
{
	char out[CM_SAN_SIZE];
	const char *error;

	if (!cm_san_parse(text, out, &error))
	{
		int length = pg_mbcliplen(text, strlen(text), 64);

		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid name \"%.*s\" of a server: %s", length, text, error),
						errhint("Use host names and IP addresses, as clients write them in "
								"tcp://host:2376.")));
	}
	return pstrdup(out);
}

static bool
is_in(const char *const *words, int n, const char *word)
{
	for (int i = 0; i < n; i++)
	{
		if (pg_strcasecmp(words[i], word) == 0)
			return true;
	}
	return false;
}

static void
get_sans(FunctionCallInfo fcinfo, int n, CmCertRequest *request)
{
	Datum *values;
	bool *nulls;
	int count;
	const char **sans;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(n), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  &count);
	if (count > CM_CERT_MAX_SANS)
		refuse("sans", psprintf("there are more than %d names", CM_CERT_MAX_SANS), "");
	sans = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		const char *san;

		if (nulls[i])
			refuse("sans", "a name is NULL", "");
		san = check_san(TextDatumGetCString(values[i]));
		if (!is_in(sans, request->n_sans, san))
			sans[request->n_sans++] = san;
	}
	request->sans = sans;
}

/* ---- making ---- */

static Datum
make_record(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* make_ca(name, common_name, key_type, not_before, not_after) */
Datum
cm_certificates_make_ca(PG_FUNCTION_ARGS)
{
	const char *name = get_text(fcinfo, 0);
	CmCertRequest request = {.kind = CM_CERT_CA};
	CmCryptoProblem problem;
	char *cert;
	char *key;
	char *sealed;
	size_t n_sealed;
	bool is_ok;
	Datum values[2];
	bool nulls[2] = {false, false};

	request.common_name = get_common_name(fcinfo, 1);
	request.key_type = get_key_type(fcinfo, 2);
	request.not_before_s = get_seconds(fcinfo, 3);
	request.not_after_s = get_seconds(fcinfo, 4);
	if (!cm_crypto_issue(&request, &cert, &key, &problem))
		throw_problem(&problem, psprintf("CA \"%s\" cannot be made", name));
	is_ok = cm_crypto_seal(CA_PURPOSE, name, key, strlen(key), &sealed, &n_sealed, &problem);
	cm_crypto_wipe(key, strlen(key));
	if (!is_ok)
		throw_problem(&problem, psprintf("the key of CA \"%s\" cannot be stored", name));
	values[0] = CStringGetTextDatum(cert);
	values[1] = PointerGetDatum(cstring_to_text_with_len(sealed, n_sealed));
	return make_record(fcinfo, values, nulls);
}

/* The key of a CA in the clear, to be wiped. */
static char *
open_ca_key(const char *name, bytea *sealed)
{
	CmCryptoProblem problem;
	char *key;
	size_t n_key;

	if (!cm_crypto_open(CA_PURPOSE, name, VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), &key,
						&n_key, &problem))
		throw_problem(&problem, psprintf("the key of CA \"%s\" cannot be used", name));
	return key;
}

/* issue(ca, ca_cert, ca_key_sealed, kind, common_name, sans, key_type, not_before, not_after) */
Datum
cm_certificates_issue(PG_FUNCTION_ARGS)
{
	const char *ca = get_text(fcinfo, 0);
	CmCertRequest request = {.ca_cert = get_text(fcinfo, 1)};
	CmCryptoProblem problem;
	char *ca_key;
	char *cert;
	char *key;
	bool is_ok;
	Datum values[2];
	bool nulls[2] = {false, false};

	request.kind = get_kind(fcinfo, 3);
	request.common_name = get_common_name(fcinfo, 4);
	get_sans(fcinfo, 5, &request);
	request.key_type = get_key_type(fcinfo, 6);
	request.not_before_s = get_seconds(fcinfo, 7);
	request.not_after_s = get_seconds(fcinfo, 8);
	request.ca_key = ca_key = open_ca_key(ca, PG_GETARG_BYTEA_PP(2));
	is_ok = cm_crypto_issue(&request, &cert, &key, &problem);
	cm_crypto_wipe(ca_key, strlen(ca_key));
	if (!is_ok)
		throw_problem(&problem, psprintf("CA \"%s\"", ca));
	values[0] = CStringGetTextDatum(cert);
	values[1] = CStringGetTextDatum(key);
	cm_crypto_wipe(key, strlen(key));
	return make_record(fcinfo, values, nulls);
}

/* ---- reading ---- */

static Datum
get_timestamptz(int64_t seconds)
{
	int64_t since_2000 =
		seconds - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64_t) SECS_PER_DAY;

	return TimestampTzGetDatum(since_2000 * USECS_PER_SEC);
}

static void
put_certificate(ReturnSetInfo *result, int number, const CmCertificate *certificate)
{
	Datum values[11] = {0};
	bool nulls[11] = {false};

	values[0] = Int32GetDatum(number);
	values[1] = CStringGetTextDatum(certificate->subject);
	values[2] = CStringGetTextDatum(certificate->issuer);
	values[3] = CStringGetTextDatum(certificate->serial);
	values[4] = CStringGetTextDatum(certificate->fingerprint);
	values[5] = CStringGetTextDatum(certificate->sans);
	values[6] = CStringGetTextDatum(certificate->key_type);
	values[7] = get_timestamptz(certificate->not_before_s);
	values[8] = get_timestamptz(certificate->not_after_s);
	values[9] = BoolGetDatum(certificate->is_ca);
	nulls[10] = true;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_problem(ReturnSetInfo *result, const CmCryptoProblem *problem)
{
	Datum values[11] = {0};
	bool nulls[11] = {true, true, true, true, true, true, true, true, true, true, false};

	values[10] = CStringGetTextDatum(problem->message);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* read_certificates(pem): what cannot be read is a row with a problem. */
Datum
cm_certificates_read(PG_FUNCTION_ARGS)
{
	CmCertificate *certificates;
	CmCryptoProblem problem;
	int n;

	InitMaterializedSRF(fcinfo, 0);
	n = cm_crypto_read_certificates(get_text(fcinfo, 0), &certificates, &problem);
	if (n == 0)
		put_problem((ReturnSetInfo *) fcinfo->resultinfo, &problem);
	for (int i = 0; i < n; i++)
		put_certificate((ReturnSetInfo *) fcinfo->resultinfo, i + 1, &certificates[i]);
	return (Datum) 0;
}

/* certificate_state(not_before, not_after) */
Datum
cm_certificates_state(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	const char *state = "valid";
	int64 warning_us = cm_guc_certificate_warning_days * USECS_PER_DAY;

	if (now >= PG_GETARG_TIMESTAMPTZ(1))
		state = "expired";
	else if (now < PG_GETARG_TIMESTAMPTZ(0))
		state = "not yet valid";
	else if (PG_GETARG_TIMESTAMPTZ(1) - now < warning_us)
		state = "expiring";
	PG_RETURN_TEXT_P(cstring_to_text(state));
}
