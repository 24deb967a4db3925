/*
 * executor_asked.c
 *		Networks and volumes that somebody asked to make or remove.
 *
 * What is asked for is a row of cm_internal.host_requests, and stays one until its
 * end is recorded.  So each may be carried out twice, and is made to bear that: it
 * looks first, what is there as it was asked for is done, and what is not ours is
 * left alone.  On one host they are carried out one by one, in the order in which
 * they were asked for, and before jobs that came with them or later.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "executor_internal.h"

/* Of one host, in memory. */
#define MAX_ASKED 10
#define RETRY_MS 1000
#define RETRY_MAX_MS 15000
#define BLOCKED_MS 250
/* Without an answer for so long though the host answers others, it is given up. */
#define GIVE_UP_MS 120000
/* An engine that says no so often will go on to. */
#define MAX_REFUSALS 5

typedef struct Asked
{
	dlist_node node;
	MemoryContext context;
	CmAsked row; /* its texts are in context */
	CmHttpRequest *request;
	int n_failures;
	int n_refusals;			/* that may be for a while only */
	int64 failing_since_ms; /* though the host could be reached */
	int64 not_before_ms;
	bool is_over;
	bool is_saved; /* by the transaction that is open */
	char *error;   /* NULL: it is done */
	char *hint;
} Asked;

/* --- its end --- */

static CmExecHost *
find_host(const Asked *asked)
{
	return cm_hosts_find(asked->row.host_id);
}

bool
cm_asked_is_waiting(const CmExecHost *host)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.asked)
	{
		const Asked *asked = dlist_container(Asked, node, iter.cur);

		if (asked->row.host_id == host->id && !asked->is_over)
			return true;
	}
	return false;
}

/* Not from here: a step may free tasks of this very list. */
static void
wake_tasks(const CmExecHost *host)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->host == host && task->waits_for_asked)
			task->wake_ms = cm_ex.now_ms;
	}
}

/* error NULL: it is done. */
static void
end_asked(Asked *asked, const char *error, const char *hint)
{
	CmExecHost *host = find_host(asked);

	asked->is_over = true;
	asked->error = error != NULL ? MemoryContextStrdup(asked->context, error) : NULL;
	asked->hint = hint != NULL ? MemoryContextStrdup(asked->context, hint) : NULL;
	cm_ex.db_wanted = true;
	if (host != NULL && !cm_asked_is_waiting(host))
		wake_tasks(host);
}

/* Nobody can say what became of it: it is looked at again. */
static void
try_again(Asked *asked, const CmFault *fault)
{
	CmExecHost *host = find_host(asked);

	if (asked->n_failures++ == 0 || fault->kind == CM_FAULT_UNREACHABLE)
		asked->failing_since_ms = cm_ex.now_ms;
	if (fault->kind != CM_FAULT_UNREACHABLE && host != NULL && host->phase == CM_HOST_READY &&
		cm_ex.now_ms - asked->failing_since_ms >= GIVE_UP_MS)
	{
		end_asked(asked,
				  psprintf("host \"%s\" does not answer: %s", asked->row.host, fault->message),
				  NULL);
		return;
	}
	asked->not_before_ms = cm_ex.now_ms + Min(RETRY_MS * asked->n_failures, RETRY_MAX_MS);
	if (host != NULL)
		cm_host_suspect(host);
}

static void
note_fault(Asked *asked, const CmFault *fault, const char *hint)
{
	if (fault->kind == CM_FAULT_REFUSED &&
		(fault->http_status < 500 || ++asked->n_refusals > MAX_REFUSALS))
		end_asked(asked, psprintf("host \"%s\" refused: %s", asked->row.host, fault->message),
				  hint);
	else
		try_again(asked, fault);
}

static Asked *
end_call(void *arg)
{
	Asked *asked = arg;

	asked->request = NULL;
	return asked;
}

static void
count_call(void)
{
	cm_ex.counters.http_requests++;
}

static void
refuse_foreign(Asked *asked, const char *kind)
{
	end_asked(asked,
			  psprintf("%s \"%s\" on host \"%s\" is not this database's", kind, asked->row.name,
					   asked->row.host),
			  asked->row.action == CM_ASKED_CREATE_NETWORK ||
					  asked->row.action == CM_ASKED_CREATE_VOLUME
				  ? "Choose another name."
				  : "What others made is theirs to remove.");
}

/* --- networks --- */

static void
note_network_changed(CmHttpRequest *request, void *arg)
{
	Asked *asked = end_call(arg);
	CmFault fault;
	bool is_done = asked->row.action == CM_ASKED_CREATE_NETWORK
					   ? cm_engine_read_create_network(request, &fault)
					   : cm_engine_read_remove_network(request, &fault);

	if (is_done)
		end_asked(asked, NULL, NULL);
	else if (fault.kind == CM_FAULT_REFUSED && fault.http_status == 409)
		try_again(asked, &fault); /* somebody was quicker: look */
	else
		note_fault(asked, &fault,
				   strstr(fault.message, "active endpoints") != NULL
					   ? "Containers are on it. It can be removed when those have ended."
					   : NULL);
	cm_http_finish(request);
}

static void
create_network(Asked *asked, CmExecHost *host)
{
	CmNetworkPlan plan = {
		.name = asked->row.name,
		.driver = asked->row.driver,
		.subnet = asked->row.subnet,
		.subnet6 = asked->row.subnet6,
		.parent = asked->row.parent,
		.is_internal = asked->row.is_internal,
	};

	asked->request = cm_engine_begin_create_network(&host->engine, &cm_ex.identity, &plan,
													note_network_changed, asked);
	count_call();
}

static bool
has_subnet(const CmNetworkFacts *facts, const char *subnet)
{
	if (subnet == NULL)
		return true;
	for (const char *at = facts->subnets; *at != '\0'; at += strspn(at, ", "))
	{
		size_t n = strcspn(at, ", ");

		if (n == strlen(subnet) && strncmp(at, subnet, n) == 0)
			return true;
		at += n;
	}
	return false;
}

static bool
is_as_planned(const CmNetworkFacts *facts, const CmAsked *row)
{
	return strcmp(facts->driver, row->driver) == 0 && has_subnet(facts, row->subnet) &&
		   has_subnet(facts, row->subnet6) && facts->is_internal == row->is_internal &&
		   (row->parent == NULL || strcmp(facts->parent, row->parent) == 0);
}

/* There is one of that name. */
static void
judge_network(Asked *asked, CmExecHost *host, const CmNetworkFacts *facts)
{
	const CmAsked *row = &asked->row;

	if (strcmp(facts->epoch, cm_ex.identity.epoch) != 0)
		refuse_foreign(asked, "network");
	else if (row->action == CM_ASKED_REMOVE_NETWORK)
	{
		asked->request =
			cm_engine_begin_remove_network(&host->engine, facts->id, note_network_changed, asked);
		count_call();
	}
	else if (!is_as_planned(facts, row))
		end_asked(asked,
				  psprintf("network \"%s\" on host \"%s\" is there, and made otherwise", row->name,
						   row->host),
				  "See cm_list_networks; remove it first, or choose another name.");
	else
		end_asked(asked, NULL, NULL);
}

static void
note_network(CmHttpRequest *request, void *arg)
{
	Asked *asked = end_call(arg);
	CmExecHost *host = find_host(asked);
	CmNetworkFacts facts;
	CmFault fault;
	bool is_there = cm_engine_read_network(request, &facts, &fault);

	if (!is_there && !(fault.kind == CM_FAULT_REFUSED && fault.http_status == 404))
		note_fault(asked, &fault, NULL);
	else if (host == NULL)
		asked->not_before_ms = 0;
	else if (is_there && strcmp(facts.name, asked->row.name) == 0)
		judge_network(asked, host, &facts);
	else if (asked->row.action == CM_ASKED_CREATE_NETWORK)
		create_network(asked, host);
	else
		end_asked(asked, NULL, NULL); /* it is not there any more */
	cm_http_finish(request);
}

/* --- volumes --- */

static const char *
name_volume(const Asked *asked, char *name)
{
	cm_engine_volume_name(&cm_ex.identity, asked->row.namespace_name, asked->row.name, name,
						  CM_VOLUME_NAME_SIZE);
	return name;
}

static void
note_volume_changed(CmHttpRequest *request, void *arg)
{
	Asked *asked = end_call(arg);
	CmFault fault;
	bool is_done = asked->row.action == CM_ASKED_CREATE_VOLUME
					   ? cm_engine_read_create_volume(request, &fault)
					   : cm_engine_read_remove_volume(request, &fault);

	if (is_done)
		end_asked(asked, NULL, NULL);
	else
		note_fault(
			asked, &fault,
			strstr(fault.message, "in use") != NULL
				? "Containers have it mounted. It can be removed when those are gone."
			: strstr(fault.message, "quota") != NULL
				? "The host's storage has no quotas (it takes XFS with pquota); leave size_limit out."
				: NULL);
	cm_http_finish(request);
}

static void
create_volume(Asked *asked, CmExecHost *host)
{
	CmVolumePlan plan = {
		.namespace_name = asked->row.namespace_name,
		.name = asked->row.name,
		.owner = asked->row.owner,
		.size_mb = asked->row.size_mb,
	};

	asked->request = cm_engine_begin_create_volume(&host->engine, &cm_ex.identity, &plan,
												   note_volume_changed, asked);
	count_call();
}

static void
judge_volume(Asked *asked, CmExecHost *host, const CmVolumeFacts *facts)
{
	const CmAsked *row = &asked->row;
	char name[CM_VOLUME_NAME_SIZE];

	if (!cm_engine_is_our_volume(facts, &cm_ex.identity, row->namespace_name, row->name))
		refuse_foreign(asked, "volume");
	else if (row->action == CM_ASKED_REMOVE_VOLUME)
	{
		asked->request = cm_engine_begin_remove_volume(&host->engine, name_volume(asked, name),
													   note_volume_changed, asked);
		count_call();
	}
	else if (strcmp(facts->owner, row->owner != NULL ? row->owner : "") != 0)
		end_asked(asked,
				  psprintf("volume \"%s\" on host \"%s\" is there, and made for another owner",
						   row->name, row->host),
				  "See cm_list_volumes; remove it first, or choose another name.");
	else
		end_asked(asked, NULL, NULL);
}

static void
note_volume(CmHttpRequest *request, void *arg)
{
	Asked *asked = end_call(arg);
	CmExecHost *host = find_host(asked);
	CmVolumeFacts facts;
	CmFault fault;
	bool is_there = cm_engine_read_volume(request, &facts, &fault);

	if (!is_there && !(fault.kind == CM_FAULT_REFUSED && fault.http_status == 404))
		note_fault(asked, &fault, NULL);
	else if (host == NULL)
		asked->not_before_ms = 0;
	else if (is_there)
		judge_volume(asked, host, &facts);
	else if (asked->row.action == CM_ASKED_CREATE_VOLUME)
		create_volume(asked, host);
	else
		end_asked(asked, NULL, NULL); /* it is not there any more */
	cm_http_finish(request);
}

/* --- carrying them out --- */

/* A row may have been written without the functions that check it. */
static bool
is_good(const CmAsked *row)
{
	switch (row->action)
	{
		case CM_ASKED_CREATE_NETWORK:
		case CM_ASKED_REMOVE_NETWORK:
			return cm_policy_is_network_name(row->name) &&
				   !cm_engine_is_built_in_network(row->name);
		case CM_ASKED_CREATE_VOLUME:
		case CM_ASKED_REMOVE_VOLUME:
			return cm_policy_is_volume_name(row->name) &&
				   cm_policy_is_plain_name(row->namespace_name);
	}
	return false;
}

static void
begin_asked(Asked *asked, CmExecHost *host)
{
	const CmAsked *row = &asked->row;
	char name[CM_VOLUME_NAME_SIZE];

	if (!is_good(row))
	{
		end_asked(asked, "its name cannot be used", NULL);
		return;
	}
	if (host->type != &cm_executor_docker) /* a mock host has whatever is asked for */
	{
		end_asked(asked, NULL, NULL);
		return;
	}
	if (row->action == CM_ASKED_CREATE_NETWORK || row->action == CM_ASKED_REMOVE_NETWORK)
		asked->request = cm_engine_begin_network(&host->engine, row->name, note_network, asked);
	else
		asked->request =
			cm_engine_begin_volume(&host->engine, name_volume(asked, name), note_volume, asked);
	count_call();
}

/* The first of its host that is not over. */
static bool
is_first(const Asked *asked)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.asked)
	{
		const Asked *other = dlist_container(Asked, node, iter.cur);

		if (other == asked)
			return true;
		if (other->row.host_id == asked->row.host_id && !other->is_over)
			return false;
	}
	return true;
}

int64
cm_asked_tick(void)
{
	int64 next_ms = 0;
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.asked)
	{
		Asked *asked = dlist_container(Asked, node, iter.cur);
		CmExecHost *host = find_host(asked);

		if (asked->is_over || asked->request != NULL || !is_first(asked))
			continue;
		if (host == NULL)
			end_asked(asked, "its host was removed", NULL);
		else if (host->phase != CM_HOST_READY)
			continue;
		else if (cm_ex.now_ms >= asked->not_before_ms)
			begin_asked(asked, host);
		else if (next_ms == 0 || asked->not_before_ms < next_ms)
			next_ms = asked->not_before_ms;
	}
	return next_ms;
}

/* --- rows --- */

static bool
is_known(int64 id)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.asked)
		if (dlist_container(Asked, node, iter.cur)->row.id == id)
			return true;
	return false;
}

static void
add_asked(const CmAsked *row)
{
	MemoryContext context =
		AllocSetContextCreate(cm_ex.context, "container_manager asked", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Asked *asked = palloc0(sizeof(Asked));

	asked->context = context;
	asked->row = *row;
	asked->row.host = pstrdup(row->host);
	asked->row.name = pstrdup(row->name);
	asked->row.namespace_name = row->namespace_name ? pstrdup(row->namespace_name) : NULL;
	asked->row.driver = row->driver ? pstrdup(row->driver) : NULL;
	asked->row.subnet = row->subnet ? pstrdup(row->subnet) : NULL;
	asked->row.subnet6 = row->subnet6 ? pstrdup(row->subnet6) : NULL;
	asked->row.parent = row->parent ? pstrdup(row->parent) : NULL;
	asked->row.owner = row->owner ? pstrdup(row->owner) : NULL;
	dlist_push_tail(&cm_ex.asked, &asked->node);
	MemoryContextSwitchTo(caller);
}

/* They are rows already, so that no rollback can take them back. */
void
cm_asked_load(void)
{
	int n;
	CmAsked *rows = cm_store_load_asked(MAX_ASKED, &n);

	for (int i = 0; i < n; i++)
		if (!is_known(rows[i].id))
			add_asked(&rows[i]);
}

void
cm_asked_save(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.asked)
	{
		Asked *asked = dlist_container(Asked, node, iter.cur);

		if (!asked->is_over)
			continue;
		asked->is_saved = cm_store_save_asked(asked->row.id, asked->error, asked->hint);
		if (!asked->is_saved) /* somebody has its row locked */
			cm_ex.next_poll_ms = Min(cm_ex.next_poll_ms, cm_ex.now_ms + BLOCKED_MS);
	}
}

static void
free_asked(Asked *asked)
{
	if (asked->request != NULL)
		cm_http_cancel(asked->request);
	dlist_delete(&asked->node);
	MemoryContextDelete(asked->context);
}

void
cm_asked_note_saved(void)
{
	static const int64 waiters[] = {CM_WAITER_FOR_HOSTS};
	bool is_any = false;
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.asked)
	{
		Asked *asked = dlist_container(Asked, node, iter.cur);

		if (!asked->is_over || !asked->is_saved)
			continue;
		is_any = true;
		free_asked(asked);
	}
	if (is_any)
		cm_shmem_wake_waiters(waiters, lengthof(waiters));
}

void
cm_asked_forget_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cm_ex.asked)
		free_asked(dlist_container(Asked, node, iter.cur));
}
