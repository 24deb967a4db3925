/*
 * executor_attach.c
 *		What a task's container is attached to: networks and volumes.
 *
 * Before the container is made, each network and volume that it is to have is
 * looked at: a network must be there under its very name, a volume may be missing,
 * but not be somebody else's.  The container is made on its first network; then
 * it joins the others, and volumes that are still root's are given their owner.
 * All of that is done before its id is recorded, hence before it can be started,
 * and each step may be done twice: who takes up a container whose id was not
 * recorded begins again with the first.
 */
#include "postgres.h"

#include "executor_internal.h"

static CmEngine *
engine_of(CmTask *task)
{
	return &task->host->engine;
}

static void
finish_call(CmHttpRequest *request, CmTask *task)
{
	cm_http_finish(request);
	cm_task_step(task);
}

/* --- what went wrong --- */

bool
cm_attach_is_network_refusal(const CmFault *fault)
{
	static const char *const words[] = {
		"Address already in use",
		"user specified IP address",
		"does not belong to any of this network's subnets",
		"no available IPv4 addresses",
		"network-scoped alias",
		"could not find an available, non-overlapping",
	};

	if (strstr(fault->message, "network ") != NULL && strstr(fault->message, "not found") != NULL)
		return true;
	for (int i = 0; i < lengthof(words); i++)
		if (strstr(fault->message, words[i]) != NULL)
			return true;
	return false;
}

static bool
is_missing(const CmFault *fault)
{
	return strstr(fault->message, "not found") != NULL;
}

/* The one that the engine's words are about, as far as they say. */
static const CmNetwork *
find_named(const CmTask *task, const CmFault *fault)
{
	const CmJobSpec *spec = &task->spec;
	const CmNetwork *found = spec->n_networks > 0 ? &spec->networks[0] : NULL;

	for (int i = 0; i < spec->n_networks; i++)
	{
		const char *name = spec->networks[i].name;
		const char *at = strstr(fault->message, name);

		if (at != NULL && (at[strlen(name)] == ' ' || at[strlen(name)] == '\0'))
			found = &spec->networks[i];
	}
	return found;
}

const char *
cm_attach_tell_network(const CmTask *task, const CmFault *fault)
{
	const CmNetwork *network = find_named(task, fault);

	if (is_missing(fault) && network != NULL)
		return psprintf("network \"%s\" not found on host \"%s\"", network->name, task->host->name);
	return psprintf("host \"%s\" could not attach the container to its networks: %s",
					task->host->name, fault->message);
}

/* Names of hosts and networks need no quoting. */
static const char *
tell_how_to_make(const CmTask *task, const CmNetwork *network)
{
	return psprintf("Create the network by SELECT cm_create_network('%s', '%s'), or choose one that"
					" cm_list_networks('%s') shows.",
					task->host->name, network->name, task->host->name);
}

static void
refuse_network(CmTask *task, const CmNetwork *network, const CmFault *fault)
{
	if (fault->http_status == 404)
		cm_task_refuse(
			task, CM_REASON_NETWORK,
			psprintf("network \"%s\" not found on host \"%s\"", network->name, task->host->name),
			fault->message, tell_how_to_make(task, network));
	else
		cm_task_refuse(task, CM_REASON_NETWORK,
					   psprintf("host \"%s\" could not attach the container to network \"%s\": %s",
								task->host->name, network->name, fault->message),
					   fault->message, cm_words_hint_of_refusal(fault));
}

/* --- looks, before it is made --- */

static const char *
name_volume(const CmTask *task, int i, char *name)
{
	cm_engine_volume_name(&cm_ex.identity, task->spec.namespace_name, task->spec.volumes[i].name,
						  name, CM_VOLUME_NAME_SIZE);
	return name;
}

/* What an engine or what stands before it says again and again will not change. */
static bool
is_final(const CmTask *task, const CmFault *fault)
{
	return fault->kind == CM_FAULT_REFUSED &&
		   (fault->http_status < 500 || task->n_refusals >= CM_MAX_REFUSALS);
}

/* An id, or its beginning, would do for the engine, but is no name. */
static void
judge_network(CmTask *task, const CmNetwork *network, const CmNetworkFacts *facts)
{
	if (strcmp(facts->name, network->name) != 0)
		cm_task_refuse(
			task, CM_REASON_NETWORK,
			psprintf("network \"%s\" not found on host \"%s\"", network->name, task->host->name),
			psprintf("The engine takes it for network \"%s\".", facts->name),
			"Write the network's name.");
	else if (strcmp(facts->driver, "host") == 0 || strcmp(facts->driver, "null") == 0)
		cm_task_refuse(
			task, CM_REASON_POLICY,
			psprintf("network \"%s\" on host \"%s\" is not allowed", network->name,
					 task->host->name),
			psprintf("Its driver is \"%s\".", facts->driver),
			"Use \"bridge\", \"none\" or the name of another network that the host has.");
	else
		task->n_looked_at++;
}

static void
note_network(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	const CmNetwork *network = &task->spec.networks[task->n_looked_at];
	CmNetworkFacts facts;
	CmFault fault;

	if (cm_engine_read_network(request, &facts, &fault))
		judge_network(task, network, &facts);
	else if (is_final(task, &fault))
		refuse_network(task, network, &fault);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
keep_owner(CmTask *task, int i, const CmVolumeFacts *facts)
{
	int64_t uid;
	int64_t gid;

	if (task->volume_owners == NULL)
		task->volume_owners =
			MemoryContextAllocZero(task->context, sizeof(char *) * task->spec.n_volumes);
	if (facts->owner[0] != '\0' && cm_policy_parse_run_as(facts->owner, &uid, &gid))
		task->volume_owners[i] = cm_task_keep_text(task, facts->owner);
}

static void
note_volume(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	int i = task->n_looked_at - task->spec.n_networks;
	const CmVolume *volume = &task->spec.volumes[i];
	CmVolumeFacts facts;
	CmFault fault;

	if (cm_engine_read_volume(request, &facts, &fault))
	{
		if (cm_engine_is_our_volume(&facts, &cm_ex.identity, task->spec.namespace_name,
									volume->name))
		{
			keep_owner(task, i, &facts);
			task->n_looked_at++;
		}
		else
			cm_task_refuse(task, CM_REASON_POLICY,
						   psprintf("volume \"%s\" on host \"%s\" is not this database's",
									volume->name, task->host->name),
						   psprintf("The engine has a volume \"%s\" that was made otherwise.",
									facts.engine_name),
						   "Remove that volume, or choose another name.");
	}
	else if (fault.kind == CM_FAULT_REFUSED && fault.http_status == 404)
		task->n_looked_at++; /* made with the container */
	else if (is_final(task, &fault))
		cm_task_refuse(task, CM_REASON_CREATE,
					   psprintf("host \"%s\" did not tell of volume \"%s\": %s", task->host->name,
								volume->name, fault.message),
					   fault.message, NULL);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

bool
cm_attach_begin_look(CmTask *task)
{
	const CmJobSpec *spec = &task->spec;
	char name[CM_VOLUME_NAME_SIZE];

	while (task->n_looked_at < spec->n_networks &&
		   cm_engine_is_built_in_network(spec->networks[task->n_looked_at].name))
		task->n_looked_at++;
	if (task->n_looked_at < spec->n_networks)
		task->request = cm_engine_begin_network(
			engine_of(task), spec->networks[task->n_looked_at].name, note_network, task);
	else if (task->n_looked_at < spec->n_networks + spec->n_volumes)
		task->request = cm_engine_begin_volume(
			engine_of(task), name_volume(task, task->n_looked_at - spec->n_networks, name),
			note_volume, task);
	else
		return false;
	cm_ex.counters.http_requests++;
	return true;
}

/* --- joining the other networks --- */

static void
note_connected(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_connect(request, &fault))
		task->n_joined++;
	else if (fault.kind == CM_FAULT_REFUSED && strstr(fault.message, "No such container") == NULL)
		refuse_network(task, &task->spec.networks[task->n_joined], &fault);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
begin_joining(CmTask *task)
{
	task->request = cm_engine_begin_connect(engine_of(task), &task->spec.networks[task->n_joined],
											task->container_id, note_connected, task);
}

/* --- giving volumes their owner --- */

/* Nobody writes to one that is mounted read-only, and it could not be given. */
static bool
is_given(const CmTask *task, int i)
{
	return task->spec.volumes[i].read_only;
}

static const char *
name_helper(const CmTask *task)
{
	return psprintf("%s-volume-%d", task->container_name, task->n_given);
}

/* false: it is to stay root's, or nobody can say whose it is to be. */
static bool
choose_owner(const CmTask *task, int64_t *uid, int64_t *gid)
{
	const char *owner = task->volume_owners != NULL ? task->volume_owners[task->n_given] : NULL;
	const char *user = task->spec.image_user != NULL ? task->spec.image_user : task->spec.run_as;

	if (!cm_policy_parse_run_as(owner != NULL ? owner : user, uid, gid))
		return false;
	if (*gid < 0)
		*gid = *uid;
	return *uid != 0 || *gid != 0;
}

static void
refuse_volume(CmTask *task, const CmFault *fault)
{
	cm_task_refuse(task, CM_REASON_CREATE,
				   psprintf("host \"%s\" could not give volume \"%s\" its owner: %s",
							task->host->name, task->spec.volumes[task->n_given].name,
							fault->message),
				   fault->message, cm_words_hint_of_refusal(fault));
}

/* What is left of one is removed with what is left of the job. */
static void
note_helper_removed(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_remove(request, &fault) || fault.kind == CM_FAULT_REFUSED)
		task->n_given++;
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
note_given(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	if (cm_engine_read_give(request, &fault))
	{
		task->request = cm_engine_begin_remove(engine_of(task), name_helper(task), false,
											   note_helper_removed, task);
		cm_ex.counters.http_requests++;
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		refuse_volume(task, &fault);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
begin_giving(CmTask *task)
{
	int64_t uid = 0;
	int64_t gid = 0;

	(void) choose_owner(task, &uid, &gid);
	task->request =
		cm_engine_begin_give(engine_of(task), name_helper(task), uid, gid, note_given, task);
	cm_ex.counters.http_requests++;
}

/* One of an earlier try will do. */
static void
note_helper(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	char id[CM_CONTAINER_ID_LEN + 1];
	CmFault fault;

	if (cm_engine_read_create(request, id, &fault) ||
		(fault.kind == CM_FAULT_REFUSED &&
		 (fault.http_status == 409 || strstr(fault.message, "already in use") != NULL)))
	{
		begin_giving(task);
	}
	else if (fault.kind == CM_FAULT_REFUSED)
		refuse_volume(task, &fault);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
begin_helper(CmTask *task)
{
	char name[CM_VOLUME_NAME_SIZE];

	task->request = cm_engine_begin_create_helper(engine_of(task), &cm_ex.identity, &task->spec,
												  name_volume(task, task->n_given, name),
												  name_helper(task), note_helper, task);
	cm_ex.counters.http_requests++;
}

/* The rest of the stream, which is the volume's content, is not wanted. */
static void
take_owner(CmHttpRequest *request, void *arg)
{
	CmTask *task = arg;
	CmOwned owned = CM_OWNED_UNKNOWN;
	int64_t uid;
	int64_t gid;

	if (cm_http_status(request) == 200)
		owned = cm_engine_read_owner(request);
	if (owned == CM_OWNED_UNKNOWN)
		return;
	(void) cm_call_end(task);
	cm_http_cancel(request);
	if (owned == CM_OWNED_BY_ROOT && choose_owner(task, &uid, &gid))
		begin_helper(task);
	else
		task->n_given++;
	cm_task_step(task);
}

/* It ended before it told. */
static void
note_owner_ended(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault = {0};

	if (cm_engine_read_stream_end(request, &fault))
	{
		/* Whoever does so each time is given up. */
		strlcpy(fault.message, "its answer was cut", sizeof(fault.message));
		if (task->n_refusals++ >= CM_MAX_REFUSALS)
			refuse_volume(task, &fault);
		else
			cm_call_lose_sight(task);
	}
	else if (fault.kind == CM_FAULT_REFUSED && fault.http_status != 404)
		refuse_volume(task, &fault);
	else
		cm_call_note_fault(task, &fault);
	finish_call(request, task);
}

static void
begin_owner(CmTask *task)
{
	task->request = cm_engine_begin_owner(engine_of(task), task->container_id,
										  task->spec.volumes[task->n_given].target, take_owner,
										  note_owner_ended, task);
}

/* --- the order of it --- */

void
cm_attach_note_made(CmTask *task)
{
	task->n_joined = Min(task->spec.n_networks, 1);
	task->n_given = 0;
	task->is_half_made = task->spec.n_networks > 1 || task->spec.n_volumes > 0;
}

void
cm_attach_go_on(CmTask *task)
{
	if (cm_attach_begin_look(task))
		return;
	while (task->n_given < task->spec.n_volumes && is_given(task, task->n_given))
		task->n_given++;
	if (task->n_joined < task->spec.n_networks)
		begin_joining(task);
	else if (task->n_given < task->spec.n_volumes)
		begin_owner(task);
	else
	{
		task->is_half_made = false;
		return;
	}
	cm_ex.counters.http_requests++;
}
