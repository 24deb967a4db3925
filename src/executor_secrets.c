/*
 * executor_secrets.c
 *		A task's secrets: kept sealed, opened for the moment of its create.
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/memutils.h"

#include "crypto.h"
#include "docker_json.h"
#include "executor_internal.h"
#include "guc.h"
#include "image_ref.h"

/* What they are sealed for: see cm_set_secret. */
#define PURPOSE "secret"

const CmSealed *
cm_secrets_keep(const CmSealed *secrets, int n, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	CmSealed *kept = NULL;

	if (secrets != NULL)
		kept = palloc(sizeof(CmSealed) * n);
	for (int i = 0; kept != NULL && i < n; i++)
	{
		char *bytes = palloc(secrets[i].n_bytes);

		memcpy(bytes, secrets[i].bytes, secrets[i].n_bytes);
		kept[i].name = pstrdup(secrets[i].name);
		kept[i].bytes = bytes;
		kept[i].n_bytes = secrets[i].n_bytes;
	}
	MemoryContextSwitchTo(caller);
	return kept;
}

static void
wipe_all(char **values, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (values[i] == NULL)
			continue;
		cm_crypto_wipe(values[i], strlen(values[i]));
		pfree(values[i]);
	}
}

static void
refuse_unopened(CmTask *task, const char *secret, const CmCryptoProblem *why)
{
	cm_task_refuse(task, CM_REASON_CREATE,
				   psprintf("secret \"%s\" cannot be opened: %s", secret, why->message),
				   why->detail[0] ? why->detail : NULL, why->hint[0] ? why->hint : NULL);
}

char *
cm_secrets_make_body(CmTask *task)
{
	int n = task->spec.n_secrets;
	char **values = palloc0(sizeof(char *) * Max(n, 1));
	char *body = NULL;
	CmCryptoProblem problem;
	size_t n_bytes;
	int i;

	/* Recovered, and of that the container was thought to be there. */
	if (n > 0 && task->secrets == NULL)
	{
		cm_task_refuse(task, CM_REASON_CREATE, "the job's secrets were not loaded", NULL, NULL);
		return NULL;
	}
	for (i = 0; i < n; i++)
	{
		if (!cm_crypto_open(PURPOSE, task->secrets[i].name, task->secrets[i].bytes,
							task->secrets[i].n_bytes, &values[i], &n_bytes, &problem))
		{
			values[i] = NULL;
			refuse_unopened(task, task->spec.secrets[i].value, &problem);
			break;
		}
	}
	if (i == n)
		body =
			cm_engine_create_body(&task->host->engine, &cm_ex.identity, &task->spec,
								  task->pids_limit, (const char *const *) values, task->spec_hash);
	wipe_all(values, n);
	pfree(values);
	return body;
}

/* --- registries --- */

void
cm_secrets_keep_registries(CmExecHost *host, const CmHostRow *row)
{
	MemoryContext caller;

	MemoryContextReset(host->registries_context);
	caller = MemoryContextSwitchTo(host->registries_context);
	host->n_registries = row->n_registries;
	host->registries = palloc0(sizeof(CmRegistryAuth) * Max(row->n_registries, 1));
	for (int i = 0; i < row->n_registries; i++)
	{
		const CmRegistryAuth *auth = &row->registries[i];

		host->registries[i].registry = pstrdup(auth->registry);
		host->registries[i].secret = pstrdup(auth->secret);
		if (auth->sealed.bytes != NULL)
			host->registries[i].sealed =
				*cm_secrets_keep(&auth->sealed, 1, host->registries_context);
	}
	MemoryContextSwitchTo(caller);
}

/* Images without a registry are those of docker.io. */
static const CmRegistryAuth *
find_registry(const CmExecHost *host, const char *image)
{
	CmImageRef ref;
	char error[256];
	const char *registry;

	if (!cm_image_ref_parse(image, &ref, error, sizeof(error)))
		return NULL;
	registry = ref.registry[0] != '\0' ? ref.registry : "docker.io";
	for (int i = 0; i < host->n_registries; i++)
		if (pg_strcasecmp(host->registries[i].registry, registry) == 0)
			return &host->registries[i];
	return NULL;
}

/* user:password as JSON; what begins with { is JSON already.  Wiped by the caller. */
static char *
make_auth_json(const char *registry, const char *plain)
{
	const char *colon = strchr(plain, ':');
	StringInfoData json;
	char *user;

	initStringInfo(&json);
	enlargeStringInfo(&json, 6 * strlen(plain) + 6 * strlen(registry) + 128);
	if (plain[0] == '{')
	{
		appendStringInfoString(&json, plain);
		return json.data;
	}
	user = pnstrdup(plain, colon - plain);
	appendStringInfoString(&json, "{\"username\":");
	cm_json_append_string(&json, user);
	appendStringInfoString(&json, ",\"password\":");
	cm_json_append_string(&json, colon + 1);
	appendStringInfoString(&json, ",\"serveraddress\":");
	cm_json_append_string(&json, registry);
	appendStringInfoChar(&json, '}');
	pfree(user);
	return json.data;
}

/* As for URLs, with padding. */
static char *
encode(const char *json)
{
	int n_json = strlen(json);
	int n_room = pg_b64_enc_len(n_json);
	char *encoded = palloc(n_room + 1);
	int n = pg_b64_encode((const void *) json, n_json, encoded, n_room);

	encoded[Max(n, 0)] = '\0';
	for (char *c = encoded; *c != '\0'; c++)
		*c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
	return encoded;
}

static bool
refuse_registry(CmTask *task, const CmRegistryAuth *auth, const char *why, const char *detail,
				const char *hint)
{
	cm_task_refuse(task, CM_REASON_IMAGE_PULL,
				   psprintf("image \"%s\" cannot be pulled: secret \"%s\" for registry \"%s\" %s",
							task->spec.image, auth->secret, auth->registry, why),
				   detail, hint);
	return false;
}

bool
cm_secrets_make_registry_auth(CmTask *task, char **header)
{
	const CmRegistryAuth *auth = find_registry(task->host, task->spec.image);
	CmCryptoProblem problem;
	char *plain;
	size_t n_plain;
	char *json;

	*header = NULL;
	if (auth == NULL)
		return true;
	if (auth->sealed.bytes == NULL)
		return refuse_registry(task, auth, "does not exist in namespace \"default\"", NULL,
							   "Store it by cm_set_secret, or take it out of registry_auth.");
	if (!cm_crypto_open(PURPOSE, auth->sealed.name, auth->sealed.bytes, auth->sealed.n_bytes,
						&plain, &n_plain, &problem))
		return refuse_registry(task, auth, psprintf("cannot be opened: %s", problem.message),
							   problem.detail[0] ? problem.detail : NULL,
							   problem.hint[0] ? problem.hint : NULL);
	if (plain[0] != '{' && strchr(plain, ':') == NULL)
	{
		cm_crypto_wipe(plain, n_plain);
		return refuse_registry(task, auth, "is not user:password", NULL,
							   "Store it again by cm_set_secret.");
	}
	json = make_auth_json(auth->registry, plain);
	*header = encode(json);
	cm_crypto_wipe(json, strlen(json));
	cm_crypto_wipe(plain, n_plain);
	pfree(json);
	pfree(plain);
	return true;
}

void
cm_secrets_wipe_text(char *text)
{
	if (text == NULL)
		return;
	cm_crypto_wipe(text, strlen(text));
	pfree(text);
}
