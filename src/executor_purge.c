/*
 * executor_purge.c
 *		The extension was dropped: our containers and marks are removed from all
 *		hosts that answer, unless another server has taken over there.
 */
#include "postgres.h"

#include "executor_internal.h"

/* A create that was under way may still bring one: so long it is looked for. */
#define PURGE_SURE_MS 3000

static void note_purge_list(CmHttpRequest *request, void *arg);

/* Another server has taken over: what is there is its own. */
static void
leave_host_alone(CmExecHost *host)
{
	ereport(
		LOG,
		(errmsg(
			"container_manager: containers on host \"%s\" are left to the server that took over",
			host->name)));
	host->is_purged = true;
	host->phase = CM_HOST_AWAY;
	host->engine.api_minor = 0;
}

static void
begin_purge_list(CmExecHost *host)
{
	host->phase = CM_HOST_LISTING;
	host->list_begun_ms = cm_ex.now_ms;
	host->request = cm_engine_begin_list(&host->engine, &cm_ex.identity, note_purge_list, host);
}

static void
note_purge_removed(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmFault fault;

	(void) cm_engine_read_remove(request, &fault);
	cm_http_finish(request);
	if (--host->n_starting == 0)
		begin_purge_list(host);
}

static void
note_purge_list(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmListed *listed;
	CmFault fault;
	int n;

	host->request = NULL;
	host->phase = CM_HOST_AWAY;
	host->is_purged = cm_engine_read_list(request, &listed, &n, &fault);
	cm_http_finish(request);
	for (int i = 0; host->is_purged && i < n; i++)
	{
		if (strcmp(listed[i].labels.epoch, cm_ex.identity.epoch) == 0 &&
			listed[i].labels.incarnation > cm_ex.identity.incarnation)
		{
			leave_host_alone(host);
			return;
		}
	}
	for (int i = 0; host->is_purged && i < n && host->n_starting < CM_MAX_REMOVALS; i++)
	{
		if (strcmp(listed[i].labels.epoch, cm_ex.identity.epoch) != 0)
			continue;
		host->phase = CM_HOST_LISTING;
		host->n_starting++;
		cm_engine_begin_remove(&host->engine, listed[i].id, true, note_purge_removed, host);
	}
}

/* Our marks go first: whoever is left has nothing to fear of us any more. */
static void
note_purge_markers(CmHttpRequest *request, void *arg)
{
	CmExecHost *host = arg;
	CmMarker *markers;
	CmFault fault;
	int n;

	host->request = NULL;
	if (!cm_engine_read_markers(request, &cm_ex.identity, &markers, &n, &fault))
	{
		/* Nothing is removed before it is known whose it is. */
		cm_http_finish(request);
		host->phase = CM_HOST_AWAY;
		return;
	}
	cm_http_finish(request);
	for (int i = 0; i < n; i++)
	{
		if (cm_identity_is_superseded(cm_ex.identity.incarnation, cm_ex.identity.home,
									  markers[i].incarnation, markers[i].home))
		{
			leave_host_alone(host);
			return;
		}
	}
	for (int i = 0; i < n; i++)
		cm_host_remove_mark(host, markers[i].incarnation);
	host->may_be_purged = true;
	begin_purge_list(host);
}

static void
begin_purge_host(CmExecHost *host)
{
	host->phase = CM_HOST_LISTING;
	host->list_begun_ms = cm_ex.now_ms;
	host->request =
		cm_engine_begin_list_markers(&host->engine, &cm_ex.identity, note_purge_markers, host);
}

void
cm_hosts_begin_purge(void)
{
	dlist_iter iter;

	ereport(
		LOG,
		(errmsg("container_manager: the extension was dropped; its containers are being removed")));
	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		cm_host_drop_requests(host);
		host->n_starting = 0;
		host->next_ms = cm_ex.now_ms + PURGE_SURE_MS;
		host->phase = CM_HOST_AWAY;
		host->is_purged = !host->type->is_lasting;
		if (host->engine.api_minor != 0)
			begin_purge_host(host);
	}
}

bool
cm_hosts_purge_is_done(void)
{
	bool is_done = true;
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (host->phase == CM_HOST_AWAY &&
			(host->engine.api_minor == 0 || (host->is_purged && cm_ex.now_ms >= host->next_ms)))
			continue;
		is_done = false;
		if (host->phase != CM_HOST_AWAY || cm_ex.now_ms - host->list_begun_ms < 500)
			continue;
		if (host->may_be_purged)
			begin_purge_list(host);
		else
			begin_purge_host(host);
	}
	return is_done;
}

void
cm_hosts_warn_of_unpurged(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.hosts)
	{
		CmExecHost *host = dlist_container(CmExecHost, node, iter.cur);

		if (!host->is_purged || host->phase != CM_HOST_AWAY)
			ereport(WARNING,
					(errmsg("containers of the dropped extension may be left on host \"%s\"",
							host->name),
					 errdetail("It did not answer in time."),
					 errhint("There, \"docker ps --all --filter label=%s=%s\" shows them.",
							 CM_LABEL_EPOCH, cm_ex.identity.epoch)));
	}
}
