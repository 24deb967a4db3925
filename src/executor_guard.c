/*
 * executor_guard.c
 *		What the guard asks of an engine: who an image's user is, and whether a
 *		container is what was asked for.
 *
 * An image tells its user by a name as it likes, and a container that is given
 * a name runs with all the groups that the image lists for it.  So the name is
 * looked up here, and the container is given numbers alone.  /etc/passwd is in
 * the image: it is read out of a probe, a container by the name that the job's
 * own is to have, which is made, read and removed, and never started.  While
 * that goes on the job has no container: a probe that is left over, as when the
 * host was lost, bears another hash, and gives way.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "executor_internal.h"
#include "guc.h"

/* --- the image's user --- */

static void
refuse_user(CmTask *task, const char *what, const char *hint)
{
	cm_task_refuse(task, CM_REASON_POLICY,
				   psprintf("the user of image \"%s\" on host \"%s\" %s", task->spec.image,
							task->host->name, what),
				   NULL, hint);
	cm_store_log_violation_on_host(task->host->name, task->spec.job_id, "run_as", what);
}

/* The numbers are known; may they be? */
static void
take_user(CmTask *task)
{
	const CmImageUser *found = &task->image_user;
	CmLimits limits = cm_guc_limits();
	CmProblem problem;
	char *user = psprintf("%lld", (long long) found->uid);

	if (found->gid >= 0)
		user = psprintf("%s:%lld", user, (long long) found->gid);
	if (cm_policy_check_user(user, &limits, &problem))
		task->spec.image_user = cm_task_keep_text(task, user);
	else
		refuse_user(task, psprintf("is not allowed: %s", problem.message), problem.hint);
}

static bool
is_user_known(const CmTask *task)
{
	return task->image_user.user[0] == '\0' && task->image_user.group[0] == '\0';
}

static void
note_probe_removed(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;

	task->probe_id[0] = '\0';
	if (!cm_engine_read_remove(request, &fault))
		cm_call_lose_sight(task);
	else if (task->s.refusal == CM_REASON_NONE)
		take_user(task);
	cm_http_finish(request);
	cm_task_step(task);
}

static void
remove_probe(CmTask *task)
{
	task->request = cm_engine_begin_remove(&task->host->engine, task->probe_id, false,
										   note_probe_removed, task);
	cm_ex.counters.http_requests++;
}

static void read_next_file(CmTask *task);

/* A file that is not there lists nobody; nonsense will be told again. */
static bool
is_final(const CmFault *fault)
{
	return (fault->kind == CM_FAULT_REFUSED && fault->http_status == 404) ||
		   fault->kind == CM_FAULT_GARBLED;
}

/* It may tell another time, until it has failed to so often. */
static bool
give_up_or_wait(CmTask *task, const char *what, const CmFault *fault)
{
	if (fault->kind != CM_FAULT_UNREACHABLE && task->n_refusals >= CM_MAX_REFUSALS)
	{
		cm_task_refuse(task, CM_REASON_CREATE,
					   psprintf("host \"%s\" did not tell %s of image \"%s\": %s", task->host->name,
								what, task->spec.image, fault->message),
					   fault->message, "Give the number of the user in run_as.");
		return true;
	}
	cm_call_note_fault(task, fault);
	if (fault->kind == CM_FAULT_UNSURE)
		task->n_refusals++;
	return false;
}

static void
take_file(CmTask *task, const char *text, size_t n_bytes)
{
	CmImageUser *user = &task->image_user;
	bool is_group = user->user[0] == '\0';

	if (is_group ? cm_passwd_find_group(text, n_bytes, user)
				 : cm_passwd_find_user(text, n_bytes, user))
	{
		*(is_group ? user->group : user->user) = '\0';
		return;
	}
	refuse_user(task,
				is_group ? "is of a group that its /etc/group does not list"
						 : "is not listed in its /etc/passwd",
				"Give its number in run_as.");
}

static void
note_file(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	const char *text = "";
	size_t n_bytes = 0;
	CmFault fault;
	bool is_over = cm_engine_read_file(request, &text, &n_bytes, &fault) || is_final(&fault);

	if (is_over)
		take_file(task, text, n_bytes);
	else
		is_over = give_up_or_wait(task, "a file", &fault);
	cm_http_finish(request);
	if (is_over)
		read_next_file(task);
	else
		cm_task_step(task);
}

static void
read_next_file(CmTask *task)
{
	if (task->s.refusal != CM_REASON_NONE || is_user_known(task))
	{
		remove_probe(task);
		return;
	}
	task->request = cm_engine_begin_file(
		&task->host->engine, task->probe_id,
		task->image_user.user[0] != '\0' ? "/etc/passwd" : "/etc/group", note_file, task);
	cm_ex.counters.http_requests++;
}

static void
note_probe(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	CmFault fault;
	bool is_made = cm_engine_read_create(request, task->probe_id, &fault);

	if (!is_made && fault.kind == CM_FAULT_REFUSED)
		cm_call_note_create_refused(task, &fault);
	else if (!is_made)
		cm_call_lose_sight(task);
	else
		task->n_failures = 0;
	cm_http_finish(request);
	if (is_made)
		read_next_file(task);
	else
		cm_task_step(task);
}

static void
begin_probe(CmTask *task)
{
	task->request = cm_engine_begin_create(&task->host->engine, task->container_name,
										   cm_call_make_body(task), false, note_probe, task);
	cm_ex.counters.http_requests++;
}

static void
note_image_user(CmHttpRequest *request, void *arg)
{
	CmTask *task = cm_call_end(arg);
	char text[2 * CM_PASSWD_NAME_BYTES];
	CmFault fault;

	if (cm_engine_read_image_user(request, text, sizeof(text), &fault))
	{
		task->n_failures = 0;
		task->has_image_user = cm_passwd_parse_user(text, &task->image_user);
		if (!task->has_image_user)
			refuse_user(task, "is named in a way that cannot be understood",
						"Give its number in run_as.");
		else if (is_user_known(task))
			take_user(task);
	}
	else if (fault.kind == CM_FAULT_REFUSED && fault.http_status == 404)
		cm_call_note_image_missing(task, &fault);
	else if (is_final(&fault))
		refuse_user(task, "is not told by the engine", "Give its number in run_as.");
	else
		(void) give_up_or_wait(task, "the user", &fault);
	cm_http_finish(request);
	cm_task_step(task);
}

bool
cm_guard_needs_user(const CmTask *task)
{
	return task->spec.image_user == NULL && strcmp(task->spec.run_as, CM_RUN_AS_IMAGE) == 0;
}

/* What is known of a user by half is known of an image that may be another by now. */
void
cm_guard_find_user(CmTask *task)
{
	if (task->has_image_user && !is_user_known(task))
	{
		task->has_image_user = false;
		begin_probe(task);
		return;
	}
	task->request =
		cm_engine_begin_image(&task->host->engine, task->spec.image, note_image_user, task);
	cm_ex.counters.http_requests++;
}

/* --- what was made --- */

/* Made by an executor before this one, which had looked the user up. */
static bool
take_user_as_made(CmTask *task, const CmInspect *inspect)
{
	const char *user = cm_engine_inspect_user(inspect);
	CmLimits limits = cm_guc_limits();
	CmProblem problem;

	if (!cm_guard_needs_user(task))
		return true;
	if (!cm_policy_check_user(user, &limits, &problem))
	{
		refuse_user(task, psprintf("is not allowed: %s", problem.message), problem.hint);
		return false;
	}
	task->spec.image_user = cm_task_keep_text(task, user);
	return true;
}

/*
 * One whose id is recorded was compared before; the setting that its limit is from may
 * have changed since, which is no reason to give it up.
 */
static void
take_limit_as_made(CmTask *task, const CmInspect *inspect)
{
	int64 limit = cm_engine_inspect_pids_limit(inspect);

	if (task->s.has_id && limit > 0 && limit <= CM_MAX_PIDS)
		task->pids_limit = (int) limit;
}

bool
cm_guard_check_made(CmTask *task, const CmInspect *inspect)
{
	CmDifference difference;

	take_limit_as_made(task, inspect);
	if (!take_user_as_made(task, inspect))
		return false;
	if (!cm_engine_find_difference(&task->host->engine, inspect, cm_call_make_body(task),
								   &difference))
		return true;
	cm_task_refuse(
		task, CM_REASON_POLICY,
		psprintf("host \"%s\" made a container whose %s is not what was asked for",
				 task->host->name, difference.field),
		psprintf("asked for: %s; made: %s", difference.asked, difference.made),
		"It was removed unstarted. Look for settings and plugins of the engine that change containers, or for an engine that cannot be trusted.");
	cm_store_log_violation_on_host(task->host->name, task->spec.job_id, difference.field,
								   "made otherwise than asked for");
	return false;
}
