/*
 * executor_spec.c
 *		A task's own copy of its definition: what was claimed lives only as
 *		long as the turn.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "executor_internal.h"

static const char *
copy_text(const char *text, MemoryContext context)
{
	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

static void
copy_words(CmWords *to, const CmWords *from, MemoryContext context)
{
	*to = *from;
	to->words = MemoryContextAllocZero(context, sizeof(char *) * Max(from->count, 1));
	for (int i = 0; i < from->count; i++)
		to->words[i] = copy_text(from->words[i], context);
}

static const CmPair *
copy_pairs(const CmPair *from, int n, MemoryContext context)
{
	CmPair *to = MemoryContextAlloc(context, sizeof(CmPair) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i].name = copy_text(from[i].name, context);
		to[i].value = copy_text(from[i].value, context);
	}
	return to;
}

static const CmTmpfs *
copy_tmpfs(const CmTmpfs *from, int n, MemoryContext context)
{
	CmTmpfs *to = MemoryContextAlloc(context, sizeof(CmTmpfs) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i].target = copy_text(from[i].target, context);
		to[i].size_mb = from[i].size_mb;
	}
	return to;
}

static const CmNetwork *
copy_networks(const CmNetwork *from, int n, MemoryContext context)
{
	CmNetwork *to = MemoryContextAlloc(context, sizeof(CmNetwork) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i].name = copy_text(from[i].name, context);
		to[i].ip = copy_text(from[i].ip, context);
		to[i].ip6 = copy_text(from[i].ip6, context);
		copy_words(&to[i].aliases, &from[i].aliases, context);
	}
	return to;
}

static const CmVolume *
copy_volumes(const CmVolume *from, int n, MemoryContext context)
{
	CmVolume *to = MemoryContextAlloc(context, sizeof(CmVolume) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i].name = copy_text(from[i].name, context);
		to[i].target = copy_text(from[i].target, context);
		to[i].read_only = from[i].read_only;
	}
	return to;
}

static const CmUlimit *
copy_ulimits(const CmUlimit *from, int n, MemoryContext context)
{
	CmUlimit *to = MemoryContextAlloc(context, sizeof(CmUlimit) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i] = from[i];
		to[i].name = copy_text(from[i].name, context);
	}
	return to;
}

static const CmOption *
copy_options(const CmOption *from, int n, MemoryContext context)
{
	CmOption *to = MemoryContextAlloc(context, sizeof(CmOption) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		to[i] = from[i];
		to[i].name = copy_text(from[i].name, context);
		to[i].text = copy_text(from[i].text, context);
		copy_words(&to[i].words, &from[i].words, context);
		to[i].pairs = copy_pairs(from[i].pairs, from[i].n_pairs, context);
	}
	return to;
}

void
cm_spec_copy(CmJobSpec *to, const CmJobSpec *from, MemoryContext context)
{
	*to = *from;
	to->namespace_name = copy_text(from->namespace_name, context);
	to->name = copy_text(from->name, context);
	to->image = copy_text(from->image, context);
	to->command = copy_text(from->command, context);
	copy_words(&to->args, &from->args, context);
	copy_words(&to->entrypoint, &from->entrypoint, context);
	to->environment = copy_pairs(from->environment, from->n_environment, context);
	to->secrets = copy_pairs(from->secrets, from->n_secrets, context);
	to->labels = copy_pairs(from->labels, from->n_labels, context);
	to->working_directory = copy_text(from->working_directory, context);
	to->run_as = copy_text(from->run_as, context);
	to->networks = copy_networks(from->networks, from->n_networks, context);
	to->volumes = copy_volumes(from->volumes, from->n_volumes, context);
	to->retry_on = copy_text(from->retry_on, context);
	to->tmpfs = copy_tmpfs(from->tmpfs, from->n_tmpfs, context);
	to->ulimits = copy_ulimits(from->ulimits, from->n_ulimits, context);
	to->stop_signal = copy_text(from->stop_signal, context);
	to->options = copy_options(from->options, from->n_options, context);
}
