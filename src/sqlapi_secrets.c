/*
 * sqlapi_secrets.c
 *		Secrets are stored, and sealed anew.
 *
 * Floor 5.  A value comes in the clear and is wiped as soon as it is sealed.
 * Errors here hide the statement and its context from the server's log: either
 * may have the value in it.  The client, who sent it, sees them.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"

#include "compat.h"
#include "crypto.h"
#include "policy.h"
#include "shmem.h"
#include "sqlapi_triggers.h"
#include "sqlapi_util.h"
#include "store.h"

#define MAX_SECRET_BYTES (64 * 1024)

/* What cm_set_secret and its siblings are given. */
typedef struct Secret
{
	const char *name;
	const char *namespace_name;
	char *value; /* of the database's encoding */
	Oid owner;	 /* of the extension's tables */
} Secret;

static int
hide_all(void)
{
	return errhidestmt(true) + errhidecontext(true);
}

pg_noreturn static void
refuse(const char *parameter, const char *message, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
					hint[0] ? errhint("%s", hint) : 0,
					err_generic_string(PG_DIAG_COLUMN_NAME, parameter), hide_all()));
}

pg_noreturn static void
throw_crypto(const char *message, const CmCryptoProblem *why)
{
	const char *state = cm_crypto_sqlstate(why->code);

	ereport(ERROR, (errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
					errmsg("%s: %s", message, why->message),
					why->detail[0] ? errdetail("%s", why->detail) : 0,
					why->hint[0] ? errhint("%s", why->hint) : 0, hide_all()));
}

static void
check_secret(const Secret *secret)
{
	if (secret->name == NULL || !cm_policy_is_plain_name(secret->name))
		refuse(
			"name", "name of the secret is not valid",
			"It is 1 to 63 letters, digits, \"_\", \".\" and \"-\", and begins with a letter or digit.");
	if (secret->namespace_name == NULL || !cm_policy_is_plain_name(secret->namespace_name))
		refuse("namespace", "namespace of the secret is not valid",
			   "It is written as that of a job; leave it out for namespace \"default\".");
	if (secret->value == NULL)
		refuse("value", psprintf("value of secret \"%s\" is missing", secret->name),
			   "SELECT cm_drop_secret(...) drops a secret.");
	if (strlen(secret->value) > MAX_SECRET_BYTES)
		refuse("value",
			   psprintf("value of secret \"%s\" is longer than %d bytes", secret->name,
						MAX_SECRET_BYTES),
			   "");
}

/* Containers get UTF-8. */
static char *
to_utf8(const Secret *secret)
{
	char *text = pg_server_to_any(secret->value, strlen(secret->value), PG_UTF8);

	if (!pg_verify_mbstr(PG_UTF8, text, strlen(text), true))
		refuse("value", psprintf("value of secret \"%s\" is not valid UTF-8", secret->name),
			   "Give a text, base64 for instance.");
	return text;
}

static Datum
seal(const Secret *secret)
{
	char *plain = to_utf8(secret);
	CmCryptoProblem problem;
	char *sealed;
	size_t n_sealed;
	bool is_ok = cm_crypto_seal("secret", psprintf("%s/%s", secret->namespace_name, secret->name),
								plain, strlen(plain), &sealed, &n_sealed, &problem);

	cm_crypto_wipe(plain, strlen(plain));
	if (plain != secret->value)
		cm_crypto_wipe(secret->value, strlen(secret->value));
	if (!is_ok)
		throw_crypto(psprintf("secret \"%s\" cannot be sealed", secret->name), &problem);
	return PointerGetDatum(cstring_to_text_with_len(sealed, n_sealed));
}

/* One that is there may be changed by who set it first. */
static void
check_may_replace(Datum *values)
{
	Oid types[3] = {TEXTOID, TEXTOID, NAMEOID};

	if (SPI_execute_with_args(
			"SELECT s.created_by FROM cm_internal.secrets s WHERE s.namespace = $1 AND s.name = $2"
			" AND NOT cm_internal.is_role_of($3, s.created_by)",
			3, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for the secret");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for secret \"%s\"", TextDatumGetCString(values[1])),
				 errdetail("Another role set it; only that role and superusers may change it."),
				 hide_all()));
}

/* Is it new? */
static bool
store(const Secret *secret)
{
	Oid types[4] = {TEXTOID, TEXTOID, NAMEOID, BYTEAOID};
	Datum values[4];
	CmAsOwner as_owner;
	bool is_null;
	bool is_new;

	values[0] = CStringGetTextDatum(secret->namespace_name);
	values[1] = CStringGetTextDatum(secret->name);
	values[2] = DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(GetUserId(), false)));
	SPI_connect();
	cm_sqlapi_begin_as(secret->owner, &as_owner);
	/* Before the key is read: cm_rotate_secret_key() waits for it, or is waited for. */
	if (SPI_execute("LOCK TABLE cm_internal.secrets IN ROW EXCLUSIVE MODE", false, 0) !=
		SPI_OK_UTILITY)
		elog(ERROR, "could not lock the secrets");
	values[3] = seal(secret);
	check_may_replace(values);
	if (SPI_execute_with_args(
			"INSERT INTO cm_internal.secrets AS s (namespace, name, created_by, updated_by, sealed)"
			" VALUES ($1, $2, $3, $3, $4) ON CONFLICT (namespace, name) DO UPDATE"
			" SET sealed = excluded.sealed, updated_by = excluded.updated_by, updated_at = now()"
			" WHERE cm_internal.is_role_of($3, s.created_by)"
			" RETURNING xmax = 0",
			4, types, values, NULL, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not store the secret");
	/* It came up meanwhile, of somebody else. */
	if (SPI_processed == 0)
		check_may_replace(values);
	is_new = SPI_processed > 0 &&
			 DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
	if (is_new && SPI_execute_with_args("INSERT INTO cm_internal.secret_uses (secret)"
										" VALUES ($1 || '/' || $2) ON CONFLICT DO NOTHING",
										2, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store the secret");
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	cm_shmem_wake_at_commit(CM_WAKE_HOSTS);
	return is_new;
}

/* Whatever goes wrong, the log gets neither statement nor context. */
static bool
store_quietly(const Secret *secret)
{
	MemoryContext caller = CurrentMemoryContext;
	const char *query = debug_query_string;
	ErrorContextCallback *callers = error_context_stack;
	bool is_new = false;

	/* What is logged while it waits for somebody has neither, too. */
	debug_query_string = NULL;
	error_context_stack = NULL;
	pgstat_report_activity(STATE_RUNNING, "container_manager: a secret is stored");
	PG_TRY();
	{
		check_secret(secret);
		is_new = store(secret);
	}
	PG_CATCH();
	{
		ErrorData *error;

		debug_query_string = query;
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (secret->value != NULL)
			cm_crypto_wipe(secret->value, strlen(secret->value));
		error->hide_stmt = error->hide_ctx = true;
		ReThrowError(error);
	}
	PG_END_TRY();
	debug_query_string = query;
	error_context_stack = callers;
	return is_new;
}

static char *
get_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

PG_FUNCTION_INFO_V1(cm_secrets_set);

Datum
cm_secrets_set(PG_FUNCTION_ARGS)
{
	Secret secret = {get_argument(fcinfo, 0), get_argument(fcinfo, 2), get_argument(fcinfo, 1),
					 cm_sqlapi_owner(fcinfo)};

	PG_RETURN_BOOL(store_quietly(&secret));
}

/* --- dropped, granted, revoked --- */

/*
 * With the rights of whoever calls, as the server knows him here: within a function
 * of the extension's owner, only the session's user would be told.
 */
static bool
change(FunctionCallInfo fcinfo, const char *sql, const Oid *types)
{
	Oid owner = cm_sqlapi_owner(fcinfo);
	Oid all_types[4] = {NAMEOID};
	Datum values[4];
	char nulls[4] = "    ";
	CmAsOwner as_owner;
	bool is_null;
	bool is_changed;

	values[0] = DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(GetUserId(), false)));
	for (int i = 0; i < PG_NARGS(); i++)
	{
		all_types[i + 1] = types[i];
		values[i + 1] = PG_GETARG_DATUM(i);
		nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	SPI_connect();
	cm_sqlapi_begin_as(owner, &as_owner);
	if (SPI_execute_with_args(sql, PG_NARGS() + 1, all_types, values, nulls, false, 1) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not change the secret");
	is_changed =
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null));
	cm_sqlapi_end_as_owner(&as_owner);
	SPI_finish();
	return is_changed;
}

PG_FUNCTION_INFO_V1(cm_secrets_drop);

Datum
cm_secrets_drop(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, TEXTOID};
	bool is_dropped = change(fcinfo, "SELECT cm_internal.drop_secret($1, $2, $3)", types);

	cm_shmem_wake_at_commit(CM_WAKE_HOSTS);
	PG_RETURN_BOOL(is_dropped);
}

PG_FUNCTION_INFO_V1(cm_secrets_grant);

Datum
cm_secrets_grant(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, NAMEOID, TEXTOID};

	PG_RETURN_BOOL(change(fcinfo, "SELECT cm_internal.grant_secret($1, $2, $3, $4)", types));
}

PG_FUNCTION_INFO_V1(cm_secrets_revoke);

Datum
cm_secrets_revoke(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, NAMEOID, TEXTOID};

	PG_RETURN_BOOL(change(fcinfo, "SELECT cm_internal.revoke_secret($1, $2, $3, $4)", types));
}

/* --- by INSERT and COPY --- */

static char *
get_column(const TriggerData *trigger, const char *column)
{
	TupleDesc desc = RelationGetDescr(trigger->tg_relation);
	bool is_null;
	Datum value = heap_getattr(trigger->tg_trigtuple, SPI_fnumber(desc, column), desc, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

PG_FUNCTION_INFO_V1(cm_secrets_load);

Datum
cm_secrets_load(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = cm_sqlapi_trigger_data(fcinfo);
	Secret secret = {get_column(trigger, "name"), get_column(trigger, "namespace"),
					 get_column(trigger, "value"), trigger->tg_relation->rd_rel->relowner};

	if (secret.namespace_name == NULL)
		secret.namespace_name = "default";
	(void) store_quietly(&secret);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/* --- from a file --- */

pg_noreturn static void
throw_unreadable(const char *path)
{
	ereport(
		ERROR,
		(errcode_for_file_access(), errmsg("could not read file \"%s\": %m", path),
		 errhint(
			 "It is a file of the database server, read by the server's operating system user.")));
}

static char *
read_file(const char *path)
{
	struct stat st;
	char *bytes = palloc(MAX_SECRET_BYTES + 3);
	int fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		throw_unreadable(path);
	if (!S_ISREG(st.st_mode))
		refuse("path", psprintf("\"%s\" is not a plain file", path), "");
	n = read(fd, bytes, MAX_SECRET_BYTES + 2);
	if (n < 0)
		throw_unreadable(path);
	CloseTransientFile(fd);
	if (n > 0 && bytes[n - 1] == '\n')
		n--;
	if (n > 0 && bytes[n - 1] == '\r')
		n--;
	bytes[n] = '\0';
	if (strlen(bytes) != (size_t) n)
		refuse("path", psprintf("file \"%s\" has a zero byte in it", path),
			   "Only text can be a variable's value; base64 is one.");
	return bytes;
}

PG_FUNCTION_INFO_V1(cm_secrets_set_from_file);

Datum
cm_secrets_set_from_file(PG_FUNCTION_ARGS)
{
	char *path = get_argument(fcinfo, 1);
	Secret secret = {get_argument(fcinfo, 0), get_argument(fcinfo, 2), NULL,
					 cm_sqlapi_owner(fcinfo)};

	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to read files of the server"),
			 errhint(
				 "Only superusers and roles of pg_read_server_files may; others call cm_set_secret.")));
	if (path == NULL || !is_absolute_path(path))
		refuse("path", "path is not absolute", "Name a file of the database server, from / on.");
	secret.value = read_file(path);
	if (GetDatabaseEncoding() != PG_UTF8)
		secret.value = pg_any_to_server(secret.value, strlen(secret.value), PG_UTF8);
	PG_RETURN_BOOL(store_quietly(&secret));
}

/* --- another key --- */

PG_FUNCTION_INFO_V1(cm_secrets_reseal);

/* (purpose, name, sealed) */
Datum
cm_secrets_reseal(PG_FUNCTION_ARGS)
{
	char *purpose = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bytea *sealed = PG_GETARG_BYTEA_PP(2);
	char current[CM_CRYPTO_KEY_ID_HEX + 1];
	char id[CM_CRYPTO_KEY_ID_HEX + 1];
	char *plain;
	char *anew;
	size_t n_plain;
	size_t n_anew;
	CmCryptoProblem problem;
	const char *what = psprintf("%s of %s cannot be sealed anew",
								strcmp(purpose, "secret") == 0 ? "secret" : "key", name);
	bool is_ok;

	if (!cm_crypto_current_key_id(current, &problem))
		throw_crypto(what, &problem);
	/* Opened in any case: that the key is there does not say that it opens. */
	if (!cm_crypto_open(purpose, name, VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), &plain,
						&n_plain, &problem))
		throw_crypto(what, &problem);
	if (cm_crypto_sealed_key_id(VARDATA_ANY(sealed), VARSIZE_ANY_EXHDR(sealed), id) &&
		strcmp(id, current) == 0)
	{
		cm_crypto_wipe(plain, n_plain);
		PG_RETURN_BYTEA_P(sealed);
	}
	is_ok = cm_crypto_seal(purpose, name, plain, n_plain, &anew, &n_anew, &problem);
	cm_crypto_wipe(plain, n_plain);
	if (!is_ok)
		throw_crypto(what, &problem);
	PG_RETURN_BYTEA_P(cstring_to_text_with_len(anew, n_anew));
}
