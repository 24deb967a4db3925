/*
 * executor_pulls.c
 *		Images being pulled: one pull per host and image, for all that wait for it.
 */
#include "postgres.h"

#include "executor_internal.h"

#define PULL_STALL_MS 300000

static void
end_pull(CmPullUnderWay *pull, bool is_there, const char *error)
{
	dlist_mutable_iter iter;

	dlist_delete(&pull->node);
	dlist_foreach_modify (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->pull != pull)
			continue;
		task->pull = NULL;
		cm_task_note_pulled(task, is_there, error);
	}
	pfree(pull->image);
	pfree(pull);
}

static void
note_image(CmHttpRequest *request, void *arg)
{
	CmPullUnderWay *pull = arg;
	CmFault fault;
	bool is_there = cm_engine_read_image(request, &fault);

	pull->request = NULL;
	cm_http_finish(request);
	end_pull(pull, is_there, is_there ? "" : fault.message);
}

static void
tell_progress(CmPullUnderWay *pull)
{
	dlist_iter iter;

	dlist_foreach (iter, &cm_ex.tasks)
	{
		CmTask *task = dlist_container(CmTask, node, iter.cur);

		if (task->pull == pull)
			cm_task_set_detail(task, pull->pull.progress);
	}
}

static void
take_pull_progress(CmHttpRequest *request, void *arg)
{
	CmPullUnderWay *pull = arg;

	if (cm_http_status(request) != 200)
		return;
	pull->last_progress_ms = cm_ex.now_ms;
	cm_engine_read_pull_progress(request, &pull->pull);
	tell_progress(pull);
}

static void
note_pull_ended(CmHttpRequest *request, void *arg)
{
	CmPullUnderWay *pull = arg;
	CmFault fault;
	bool is_good = cm_engine_read_stream_end(request, &fault);

	if (is_good)
		cm_engine_read_pull_progress(request, &pull->pull);
	pull->request = NULL;
	cm_http_finish(request);
	if (!is_good)
		end_pull(pull, false, fault.message);
	else if (pull->pull.error[0] != '\0')
		end_pull(pull, false, pull->pull.error);
	else
	{
		/* An engine may end the stream well and yet have no image. */
		pull->request = cm_engine_begin_image(&pull->host->engine, pull->image, note_image, pull);
		cm_ex.counters.http_requests++;
	}
}

void
cm_host_pull(CmExecHost *host, CmTask *task)
{
	CmPullUnderWay *pull;
	char *auth;
	dlist_iter iter;

	cm_task_set_detail(task, "pulling");
	dlist_foreach (iter, &host->pulls)
	{
		pull = dlist_container(CmPullUnderWay, node, iter.cur);
		if (strcmp(pull->image, task->spec.image) == 0)
		{
			task->pull = pull;
			return;
		}
	}
	if (!cm_secrets_make_registry_auth(task, &auth))
		return;
	pull = MemoryContextAllocZero(host->context, sizeof(CmPullUnderWay));
	pull->host = host;
	pull->image = MemoryContextStrdup(host->context, task->spec.image);
	pull->last_progress_ms = cm_ex.now_ms;
	dlist_push_tail(&host->pulls, &pull->node);
	task->pull = pull;
	pull->request = cm_engine_begin_pull(&host->engine, pull->image, auth, take_pull_progress,
										 note_pull_ended, pull);
	cm_secrets_wipe_text(auth);
	cm_ex.counters.http_requests++;
}

/* A pull that nobody waits for any more is ended. */
void
cm_host_leave_pull(CmTask *task)
{
	CmPullUnderWay *pull = task->pull;
	dlist_iter iter;

	task->pull = NULL;
	if (pull == NULL)
		return;
	dlist_foreach (iter, &cm_ex.tasks)
		if (dlist_container(CmTask, node, iter.cur)->pull == pull)
			return;
	if (pull->request != NULL)
		cm_http_cancel(pull->request);
	dlist_delete(&pull->node);
	pfree(pull->image);
	pfree(pull);
}

void
cm_host_end_stalled_pulls(CmExecHost *host)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &host->pulls)
	{
		CmPullUnderWay *pull = dlist_container(CmPullUnderWay, node, iter.cur);

		if (cm_ex.now_ms - pull->last_progress_ms < PULL_STALL_MS)
			continue;
		if (pull->request != NULL)
			cm_http_cancel(pull->request);
		end_pull(pull, false, "no progress for five minutes");
	}
}
