/*
 * sqlapi_hosts.c
 *		Hosts as SQL sees them: the check of every row.
 *
 * Floor 5.  Whoever may write cm_hosts may do so by plain INSERT and UPDATE, so
 * the checks are in a row trigger and cm_add_host (PL/pgSQL) adds nothing to
 * them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "chars.h"
#include "compat.h"
#include "endpoint.h"
#include "guc.h"
#include "mock_config.h"
#include "policy.h"
#include "shmem.h"
#include "store.h"
#include "sqlapi_util.h"

PG_FUNCTION_INFO_V1(cm_hosts_check_row);
PG_FUNCTION_INFO_V1(cm_hosts_wake);
PG_FUNCTION_INFO_V1(cm_hosts_nearest_word);

/* --- the check of a row --- */

/* The row on its way into cm_hosts, and its name as messages show it. */
typedef struct HostRow
{
	Relation relation;
	HeapTuple tuple;
	char shown[CM_MAX_NAME_BYTES + 1];
} HostRow;

static int
find_column(const HostRow *row, const char *column)
{
	int number = get_attnum(RelationGetRelid(row->relation), column);

	if (number <= 0)
		elog(ERROR, "cm_hosts has no column \"%s\"", column);
	return number;
}

static Datum
get_column(const HostRow *row, const char *column, bool *is_null)
{
	return heap_getattr(row->tuple, find_column(row, column), RelationGetDescr(row->relation),
						is_null);
}

/* NULL where the column is NULL. */
static const char *
get_text(const HostRow *row, const char *column)
{
	bool is_null;
	Datum value = get_column(row, column, &is_null);

	return is_null ? NULL : TextDatumGetCString(value);
}

static bool
get_bool(const HostRow *row, const char *column)
{
	bool is_null;
	Datum value = get_column(row, column, &is_null);

	return !is_null && DatumGetBool(value);
}

static void
set_column(HostRow *row, const char *column, Datum value)
{
	int number = find_column(row, column);
	bool is_null = false;

	row->tuple = heap_modify_tuple_by_cols(row->tuple, RelationGetDescr(row->relation), 1, &number,
										   &value, &is_null);
}

pg_noreturn static void
refuse(const char *sqlstate, const char *column, const char *message, const char *detail,
	   const char *hint)
{
	CmProblem problem;

	strlcpy(problem.sqlstate, sqlstate, sizeof(problem.sqlstate));
	strlcpy(problem.column, column, sizeof(problem.column));
	strlcpy(problem.message, message, sizeof(problem.message));
	strlcpy(problem.detail, detail, sizeof(problem.detail));
	strlcpy(problem.hint, hint, sizeof(problem.hint));
	cm_store_throw_problem(&problem, "cm_hosts");
}

/* A name fit for a one-line message, whatever it holds. */
static void
show_name(const char *name, char *out, size_t out_size)
{
	int length = pg_mbcliplen(name, strlen(name), out_size - 1);

	memcpy(out, name, length);
	out[length] = '\0';
	for (char *c = out; *c != '\0'; c++)
	{
		memset(c, '?', cm_chars_control_length(c));
	}
}

static void
check_name(HostRow *row)
{
	const char *name = get_text(row, "name");

	show_name(name != NULL ? name : "", row->shown, sizeof(row->shown));
	if (name == NULL)
		refuse("22023", "name", "name of the host is missing", "",
			   "Give it a short name such as local or build-1.");
	if (!cm_policy_is_plain_name(name))
		refuse(
			"22023", "name", psprintf("invalid host name \"%s\"", row->shown),
			"A host name is 1 to 63 letters, digits, \"_\", \".\" and \"-\", and begins with a letter or digit.",
			"Use a short name such as local or build-1; the address goes into connection_string.");
}

/* tls_enabled follows the kind of endpoint where unsaid, tls_verify follows that. */
static void
check_tls(HostRow *row, const CmEndpoint *endpoint)
{
	static const char *const columns[] = {"tls_enabled", "tls_verify"};
	bool is_unix = endpoint->kind == CM_ENDPOINT_UNIX;
	bool is_null;

	for (int i = 0; i < lengthof(columns); i++)
	{
		(void) get_column(row, columns[i], &is_null);
		if (is_null)
			set_column(row, columns[i],
					   BoolGetDatum(!is_unix && (i == 0 || get_bool(row, columns[0]))));
		else if (is_unix && get_bool(row, columns[i]))
			refuse("22023", columns[i],
				   psprintf("%s cannot be true for host \"%s\"", columns[i], row->shown),
				   "Unix sockets are guarded by file permissions; there is no TLS on them.",
				   psprintf("Leave %s out.", columns[i]));
	}
	if (is_unix && get_text(row, "tls_cert_path") != NULL)
		refuse("22023", "tls_cert_path",
			   psprintf("tls_cert_path cannot be given for host \"%s\"", row->shown),
			   "Unix sockets are guarded by file permissions; there is no TLS on them.",
			   "Leave tls_cert_path out.");
}

/* The path is opened by the server, wherever that happens to have begun. */
static void
check_cert_path(const HostRow *row)
{
	const char *path = get_text(row, "tls_cert_path");

	if (path == NULL)
		return;
	if (path[0] != '/' || strlen(path) >= MAXPGPATH - 16 || cm_chars_has_control(path))
		refuse("22023", "tls_cert_path",
			   psprintf("invalid tls_cert_path for host \"%s\"", row->shown),
			   "It must be the absolute path of a directory.",
			   "Name a directory of the database server with ca.pem, cert.pem and key.pem.");
	if (!get_bool(row, "tls_enabled"))
		refuse("22023", "tls_cert_path",
			   psprintf("tls_cert_path cannot be given for host \"%s\" without TLS", row->shown),
			   "tls_enabled is false.", "Leave one of them out.");
}

/* People take one of Docker's ports for the other. */
static void
note_odd_port(const HostRow *row, const CmEndpoint *endpoint)
{
	if (endpoint->port == 2375 && get_bool(row, "tls_enabled"))
		ereport(NOTICE, (errmsg("host \"%s\": port 2375 is by custom without TLS", row->shown),
						 errhint("Engines listen on 2376 with TLS.")));
	if (endpoint->port == 2377)
		ereport(NOTICE, (errmsg("host \"%s\": port 2377 is Swarm's own", row->shown),
						 errhint("Engines listen on 2376 with TLS.")));
}

static void
check_tcp(HostRow *row, const CmEndpoint *endpoint)
{
	bool is_plain = !get_bool(row, "tls_enabled");

	if (is_plain && get_bool(row, "tls_verify"))
		refuse("22023", "tls_verify",
			   psprintf("tls_verify cannot be true for host \"%s\" without TLS", row->shown),
			   "tls_enabled is false, so that there is no certificate to verify.",
			   "Set tls_verify => false, too, or leave it out.");
	check_cert_path(row);
	/* What a name leads to is looked at when it is connected to. */
	if (is_plain && !cm_guc_allow_plain_tcp && !cm_endpoint_is_loopback(endpoint))
		refuse("42501", "tls_enabled",
			   psprintf("host \"%s\" cannot be used without TLS", row->shown),
			   "It is on another machine, and whoever reaches an engine without TLS is root there.",
			   "Leave tls_enabled out, or let the server's administrator set "
			   "container_manager.allow_plain_tcp.");
	note_odd_port(row, endpoint);
}

static void
check_endpoint(HostRow *row)
{
	const char *text = get_text(row, "connection_string");
	CmEndpoint endpoint;
	char error[256];
	char hint[512];

	if (text == NULL)
		refuse("22023", "connection_string",
			   psprintf("connection_string of host \"%s\" is missing", row->shown), "",
			   "Write unix:///var/run/docker.sock, for instance.");
	if (!cm_endpoint_parse(text, &endpoint, error, sizeof(error), hint, sizeof(hint)))
		refuse("22P02", "connection_string",
			   psprintf("invalid connection_string for host \"%s\": %s", row->shown, error),
			   "A connection string is unix:///path of a socket or tcp://host:port.",
			   hint[0] != '\0' ? hint : "Write unix:///var/run/docker.sock, for instance.");
	set_column(row, "host_type",
			   CStringGetTextDatum(endpoint.kind == CM_ENDPOINT_TCP ? "tcp" : "unix"));
	check_tls(row, &endpoint);
	if (endpoint.kind == CM_ENDPOINT_TCP)
		check_tcp(row, &endpoint);
}

static void
check_range(const HostRow *row, const char *column, int min, int max)
{
	bool is_null;
	int value = DatumGetInt32(get_column(row, column, &is_null));

	if (!is_null && (value < min || value > max))
		refuse("22023", column,
			   psprintf("%s %d of host \"%s\" is out of range", column, value, row->shown),
			   psprintf("It must be from %d to %d.", min, max), "");
}

static bool
is_mock(const HostRow *row)
{
	const char *type = get_text(row, "executor_type");

	return type != NULL && strcmp(type, "mock") == 0;
}

static void
check_executor_type(const HostRow *row)
{
	const char *type = get_text(row, "executor_type");

	if (type == NULL || strcmp(type, "docker") == 0 || is_mock(row))
		return;
	refuse("22023", "executor_type", psprintf("unknown executor_type for host \"%s\"", row->shown),
		   "The executor types are docker and mock.", "Leave executor_type out.");
}

/* Whoever called: the owner of cm_add_host, with whose rights this may run, does not count. */
static void
check_may_mock(const HostRow *row)
{
	if (!superuser_arg(GetOuterUserId()))
		refuse("42501", "executor_type",
			   psprintf("permission denied for host \"%s\": its executor_type is mock", row->shown),
			   "A mock host ends jobs as its script says, without running them.",
			   "Only superusers may write the row of such a host.");
}

static void
check_mock_address(HostRow *row)
{
	static const char *const columns[] = {"tls_enabled", "tls_verify"};
	const char *text = get_text(row, "connection_string");
	const char *seed;
	bool is_null;

	if (text == NULL || !cm_mock_parse_address(text, &seed))
		refuse(
			"22P02", "connection_string",
			psprintf("invalid connection_string for host \"%s\" of executor_type mock", row->shown),
			"It is mock://NAME. Hosts of one name and one script do the same to the same jobs.",
			"Write mock://1, for instance.");
	for (int i = 0; i < lengthof(columns); i++)
	{
		(void) get_column(row, columns[i], &is_null);
		if (is_null)
			set_column(row, columns[i], BoolGetDatum(false));
	}
	if (get_bool(row, "tls_enabled") || get_bool(row, "tls_verify") ||
		get_text(row, "tls_cert_path") != NULL)
		refuse("22023", "tls_enabled",
			   psprintf("TLS cannot be used for host \"%s\" of executor_type mock", row->shown),
			   "There is no engine and no connection.",
			   "Leave tls_enabled, tls_verify and tls_cert_path out.");
	set_column(row, "host_type", CStringGetTextDatum("mock"));
}

static void
check_script(const HostRow *row)
{
	bool is_null;
	Datum config = get_column(row, "executor_config", &is_null);
	Jsonb *jsonb;
	CmMockScript script;
	CmProblem problem;
	char *json;

	/* What is no object is left to the table's CHECK. */
	if (is_null || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(config)))
		return;
	jsonb = DatumGetJsonbP(config);
	json = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	if (!cm_mock_config_read(row->shown, pg_server_to_any(json, strlen(json), PG_UTF8), &script,
							 &problem))
		cm_store_throw_problem(&problem, "cm_hosts");
}

static void
check_mock(HostRow *row)
{
	check_may_mock(row);
	check_mock_address(row);
	check_script(row);
}

/*
 * As images name one: with a dot or a port, but for localhost.  What is no registry may
 * be a key that other tools know, and its value a password that is in the clear.
 */
static bool
is_registry(const char *name, int n)
{
	return memchr(name, '.', n) != NULL || memchr(name, ':', n) != NULL ||
		   (n == strlen("localhost") && strncmp(name, "localhost", n) == 0);
}

/* {"registry": "name of a secret"}.  Whether there is one shows when it is used. */
static void
check_registries(const HostRow *row, const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbValue item;
	bool is_good = value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);

	iterator = is_good ? JsonbIteratorInit(value->val.binary.data) : NULL;
	if (is_good)
		(void) JsonbIteratorNext(&iterator, &item, true);
	while (is_good && JsonbIteratorNext(&iterator, &item, true) == WJB_KEY)
	{
		is_good = is_registry(item.val.string.val, item.val.string.len);
		(void) JsonbIteratorNext(&iterator, &item, true);
		is_good = is_good && item.type == jbvString &&
				  cm_policy_is_plain_name(pnstrdup(item.val.string.val, item.val.string.len));
	}
	if (!is_good)
		refuse(
			"22023", "executor_config",
			psprintf("executor_config \"registry_auth\" of host \"%s\" cannot be used", row->shown),
			"It has the name of a secret for each registry, as docker.io or registry.example:5000; the secret is user:password.",
			"Write {\"registry_auth\": {\"registry.example:5000\": \"secret name\"}}.");
}

static void
check_option(const HostRow *row, const char *key, const JsonbValue *value)
{
	if (strcmp(key, "registry_auth") == 0)
	{
		check_registries(row, value);
		return;
	}
	if (strcmp(key, "require_userns") != 0)
		refuse("0A000", "executor_config",
			   psprintf("executor_config \"%s\" is not available in this version", key),
			   "This version knows require_userns and registry_auth.", "Leave it out.");
	if (value->type != jbvBool)
		refuse("22023", "executor_config",
			   psprintf("executor_config \"%s\" of host \"%s\" is not a boolean", key, row->shown),
			   "", "Write true or false.");
}

static void
check_executor_config(const HostRow *row)
{
	bool is_null;
	Datum config = get_column(row, "executor_config", &is_null);
	JsonbIterator *iterator;
	JsonbValue value;

	/* What is no object is left to the table's CHECK. */
	if (is_null || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(config)))
		return;
	iterator = JsonbIteratorInit(&DatumGetJsonbP(config)->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		char key[CM_MAX_NAME_BYTES + 1];

		show_name(pnstrdup(value.val.string.val, value.val.string.len), key, sizeof(key));
		(void) JsonbIteratorNext(&iterator, &value, true);
		check_option(row, key, &value);
	}
}

static void
check_labels(const HostRow *row)
{
	bool is_null;
	Datum labels = get_column(row, "labels", &is_null);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	char key[CM_MAX_NAME_BYTES + 1] = "";

	if (is_null || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(labels)))
		return;
	iterator = JsonbIteratorInit(&DatumGetJsonbP(labels)->root);
	(void) JsonbIteratorNext(&iterator, &value, true);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			show_name(pnstrdup(value.val.string.val, value.val.string.len), key, sizeof(key));
		else if (token == WJB_VALUE && value.type == jbvBinary)
			refuse("22023", "labels",
				   psprintf("label \"%s\" of host \"%s\" is not a single value", key, row->shown),
				   "Labels are compared as a whole; arrays and objects are no labels.",
				   "Write a text, a number or a boolean.");
	}
}

static void
check_is_row_trigger(const FunctionCallInfo fcinfo, const char *function)
{
	const TriggerData *trigdata = (const TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		elog(ERROR, "%s must be called as trigger before insert or update of a row", function);
}

/* BEFORE INSERT OR UPDATE on cm_hosts: checks the row and fills what follows. */
Datum
cm_hosts_check_row(PG_FUNCTION_ARGS)
{
	const TriggerData *trigdata = (const TriggerData *) fcinfo->context;
	HostRow row;
	bool is_update;

	check_is_row_trigger(fcinfo, "cm_internal.check_host");
	is_update = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	row.relation = trigdata->tg_relation;
	row.tuple = is_update ? trigdata->tg_newtuple : trigdata->tg_trigtuple;

	check_name(&row);
	check_executor_type(&row);
	if (is_mock(&row))
		check_mock(&row);
	else
	{
		check_endpoint(&row);
		check_executor_config(&row);
	}
	check_range(&row, "max_concurrent_jobs", 0, 10000);
	check_range(&row, "weight", 1, 1000);
	check_labels(&row);
	if (is_update)
		set_column(&row, "updated_at", TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	return PointerGetDatum(row.tuple);
}

/* AFTER statement trigger on cm_hosts and cm_internal.host_drains. */
Datum
cm_hosts_wake(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "cm_internal.wake_hosts must be called as trigger");
	cm_shmem_wake_at_commit(CM_WAKE_HOSTS);
	return PointerGetDatum(NULL);
}

/* --- misspelt names --- */

/* (word, words) -> that of the words which was probably meant, or NULL. */
Datum
cm_hosts_nearest_word(PG_FUNCTION_ARGS)
{
	const char *word = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const char *nearest;
	char **words;
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls,
					  &n);
	words = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		words[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	nearest = cm_sqlapi_find_nearest(word, strlen(word), n, words);
	if (nearest == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(nearest));
}
