/*
 * executor_words.c
 *		Why an attempt ended as it did, in words.
 *
 * error says what and which in one line, hint what to do next, detail is the
 * engine's own words where it had any.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "executor_internal.h"

static const char *
hint_of_exit_code(int exit_code)
{
	switch (exit_code)
	{
		case 126:
			return "The command was found but could not be executed: check that it is executable and made for this machine. stderr has the message.";
		case 127:
			return "The command was not found in the image: check its name and path, and that the image has /bin/sh if you gave a command as text. stderr has the message.";
		case 134:
			return "It aborted itself (SIGABRT).";
		case 137:
			return "It ended by SIGKILL: by itself, or for want of memory in a way that the engine did not notice.";
		case 139:
			return "It crashed (SIGSEGV).";
		case 143:
			return "It ended by SIGTERM, which nobody here had sent.";
		case 255:
			return "The program said so itself, or the engine was killed and lost its exit code.";
		default:
			return NULL;
	}
}

static void
tell_exit_code(const CmTask *task, CmRecord *record)
{
	record->error = psprintf("exited with code %d", task->s.exit_code);
	if (task->s.exit_code == 0)
	{
		record->hint = "It is not among the job's success_exit_codes.";
		return;
	}
	/* podman's init has no code of its own for a command that is not there. */
	if (task->host->engine.is_podman && task->s.exit_code == 1)
		record->hint =
			"If stderr has a message of catatonit's, the command was not found in the image or could not be executed: check its name and path.";
	else
		record->hint = hint_of_exit_code(task->s.exit_code);
}

static void
tell_infrastructure(const CmTask *task, CmRecord *record)
{
	if (task->s.seen == CM_SEEN_EXITED)
	{
		record->error =
			psprintf("its container ended while host \"%s\" was out of reach (exit code %d)",
					 task->host->name, task->s.exit_code);
		record->hint =
			"The engine was probably restarted; submit the job again if it may run twice.";
	}
	else if (task->s.seen == CM_SEEN_CREATED && task->s.engine_forgot &&
			 task->host->engine.is_podman)
	{
		record->error =
			psprintf("host \"%s\" was asked to start the container, and its answer was lost",
					 task->host->name);
		record->hint =
			"Podman does not tell whether it was restarted meanwhile, so it is not known whether the command ran; submit the job again if it may run twice.";
	}
	else if (task->s.seen == CM_SEEN_CREATED && task->s.engine_forgot)
	{
		record->error =
			psprintf("the engine of host \"%s\" was restarted while it started the container",
					 task->host->name);
		record->hint =
			"Whether the command ran is not known; it may even run on, unknown to the engine.";
	}
	else if (task->s.seen == CM_SEEN_CREATED)
		record->error =
			psprintf("host \"%s\" does not know that its container has run", task->host->name);
	else
	{
		record->error =
			psprintf("its container has disappeared from host \"%s\"", task->host->name);
		record->hint =
			"Somebody removed it, or the engine lost it; whether the command ran to its end is not known.";
	}
}

static void
tell_refusal(const CmTask *task, CmRecord *record)
{
	record->error = task->error;
	record->detail = task->error_detail;
	record->hint = task->error_hint;
}

static void
tell_reason(const CmTask *task, CmReason reason, CmRecord *record)
{
	switch (reason)
	{
		case CM_REASON_EXIT_CODE:
			tell_exit_code(task, record);
			break;
		case CM_REASON_OOM:
			record->error = psprintf("killed for want of memory: it has a memory_limit of %lld MB",
									 (long long) task->spec.memory_limit_mb);
			record->hint =
				"Give it a higher memory_limit, or make it use less. Files in /tmp and other tmpfs count as memory.";
			break;
		case CM_REASON_KILLED:
			record->error = psprintf("stopped from outside on host \"%s\"", task->host->name);
			record->hint = "Somebody used docker kill, stop or rm on its container.";
			break;
		case CM_REASON_TIMEOUT:
			record->error = psprintf("stopped: it ran longer than its timeout_seconds of %lld",
									 (long long) task->spec.timeout_seconds);
			break;
		case CM_REASON_CANCELLED:
			record->error = "cancelled";
			break;
		case CM_REASON_EXPIRED:
			record->error = "not started within its max_wait";
			break;
		case CM_REASON_INFRASTRUCTURE:
			if (task->s.refusal == CM_REASON_INFRASTRUCTURE)
				tell_refusal(task, record);
			else
				tell_infrastructure(task, record);
			break;
		case CM_REASON_HOST_LOST:
			record->error = psprintf("host \"%s\" has not answered since %s", task->host->name,
									 timestamptz_to_str(task->host->away_since));
			record->hint =
				"Whether the command ran, or still runs there, is not known; its container is removed when the host answers again.";
			break;
		case CM_REASON_ABANDONED:
		case CM_REASON_IMAGE_PULL:
		case CM_REASON_IMAGE_POLICY:
		case CM_REASON_CREATE:
		case CM_REASON_START:
		case CM_REASON_NETWORK:
		case CM_REASON_POLICY:
			tell_refusal(task, record);
			break;
		case CM_REASON_NONE:
		case CM_REASON_DEPENDENCY_FAILED:
			break;
	}
}

void
cm_words_of_end(const CmTask *task, const CmDecision *end, CmRecord *record)
{
	tell_reason(task, end->reason, record);
	if (end->next == CM_COMPLETED && task->s.oom_killed)
		record->detail = "a process in it was killed for want of memory";
	if (task->logs.incomplete && record->detail == NULL)
		record->detail = "logs incomplete";
}

const char *
cm_words_of_retry(const CmJobSpec *spec, const CmRecord *record)
{
	return psprintf("attempt %d of %d ended as %s; the next is due at %s", record->attempt,
					spec->max_attempts, cm_lifecycle_reason_word(record->reason),
					timestamptz_to_str(record->again_at));
}

const char *
cm_words_hint_of_refusal(const CmFault *fault)
{
	const char *message = fault->message;

	if (strstr(message, "no space left") != NULL)
		return "The host's disk is full.";
	if (strstr(message, "network ") != NULL && strstr(message, "not found") != NULL)
		return "Create the network on that host, or choose another one.";
	if (strstr(message, "working directory") != NULL || strstr(message, "chdir") != NULL)
		return "Check working_directory: it must be there in the image, or be creatable.";
	if (strstr(message, "docker-init") != NULL)
		return "The host lacks docker-init; install Docker's init (Debian: package tini).";
	if (strstr(message, "container-init binary") != NULL)
		return "The host lacks podman's init; install it (Debian: package catatonit).";
	if (strstr(message, "rlimit") != NULL)
		return "The engine asks for higher limits than it has itself; set default_ulimits in the host's containers.conf.";
	return NULL;
}
