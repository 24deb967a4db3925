/*
 * policy_attach.c
 *		The guard on what a container is attached to: networks and volumes.
 *
 * A network is one that the host has, by its name; whose namespace it is can
 * never be chosen.  A volume is one of ours, by a name from which the engine's
 * name of it is made: there is no way to say a path of the host, or a volume of
 * somebody else's.
 */
#include <arpa/inet.h>
#include <stddef.h>

#include "policy.h"
#include "policy_internal.h"

#define TMP_DIRECTORY "/tmp"

/* --- networks --- */

/*
 * What asks for somebody else's network namespace.  Case does not count here,
 * so as not to depend on how an engine compares; "container:x", "ns:/path"
 * and podman's modes with options all have a colon.
 */
static bool
is_foreign_network(const char *name)
{
	return cm_chars_is_word(name, "host") || cm_chars_is_word(name, "default") ||
		   strpbrk(name, ":/") != NULL;
}

bool
cm_policy_is_network_name(const char *name)
{
	return is_name_with(name, "_.-", CM_MAX_NAME_BYTES) && !is_foreign_network(name);
}

static bool
check_network_name(const char *name, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (name == NULL)
		return refuse(problem, BAD_VALUE, "networks", "name of a network is missing");
	if (cm_policy_is_network_name(name))
		return true;
	show_text(name, shown);
	if (is_foreign_network(name))
	{
		refuse(problem, NOT_ALLOWED, "networks", "network \"%s\" is not allowed", shown);
		add_detail(
			problem,
			"Namespaces of the host and of other containers can never be had, whoever asks.");
	}
	else
		refuse(problem, BAD_VALUE, "networks", "network \"%s\" is not a valid name", shown);
	return add_hint(problem,
					"Use \"bridge\", \"none\" or the name of a network that the host has.");
}

/* A label of a host name, as DNS has them. */
static bool
is_dns_label(const char *alias)
{
	size_t length = strnlen(alias, CM_MAX_ALIAS_BYTES + 1);

	return is_name_with(alias, "-", CM_MAX_ALIAS_BYTES) && cm_chars_is_alnum(alias[length - 1]);
}

static bool
is_word_before(const CmWords *words, int i)
{
	for (int j = 0; j < i; j++)
		if (strcmp(words->words[j], words->words[i]) == 0)
			return true;
	return false;
}

static bool
check_aliases(const CmNetwork *network, CmProblem *problem)
{
	const CmWords *aliases = &network->aliases;
	char name[SHOWN_SIZE];
	char shown[SHOWN_SIZE];

	show_text(network->name, name);
	if (aliases->count < 0 || aliases->count > CM_MAX_ALIASES)
	{
		refuse(problem, OVER_LIMIT, "networks", "network \"%s\" has more than %d aliases", name,
			   CM_MAX_ALIASES);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < aliases->count; i++)
	{
		const char *alias = aliases->words[i] != NULL ? aliases->words[i] : "";

		show_text(alias, shown);
		if (!is_dns_label(alias))
		{
			refuse(problem, BAD_VALUE, "networks", "alias \"%s\" on network \"%s\" is not valid",
				   shown, name);
			return add_hint(problem,
							"An alias has 1 to %d letters, digits and \"-\", and neither "
							"begins nor ends with \"-\".",
							CM_MAX_ALIAS_BYTES);
		}
		if (is_word_before(aliases, i))
			return refuse(problem, BAD_VALUE, "networks",
						  "alias \"%s\" on network \"%s\" is given twice", shown, name);
	}
	return true;
}

static bool
check_address(const CmNetwork *network, int family, const char *address, CmProblem *problem)
{
	unsigned char bytes[sizeof(struct in6_addr)];
	char name[SHOWN_SIZE];
	char shown[SHOWN_SIZE];

	if (address == NULL || inet_pton(family, address, bytes) == 1)
		return true;
	refuse(problem, BAD_VALUE, "networks", "%s \"%s\" on network \"%s\" is not an IPv%c address",
		   family == AF_INET ? "ip" : "ip6", show_text(address, shown),
		   show_text(network->name, name), family == AF_INET ? '4' : '6');
	return add_hint(problem, "Write a plain address, such as \"%s\".",
					family == AF_INET ? "10.5.0.7" : "fd00:5::7");
}

/* The engine's own networks have no names in them, and give out their addresses. */
static bool
check_built_in(const CmNetwork *network, CmProblem *problem)
{
	const char *what = network->aliases.count > 0					 ? "aliases"
					   : network->ip != NULL || network->ip6 != NULL ? "addresses of one's own"
																	 : NULL;

	if (what == NULL ||
		(strcmp(network->name, "bridge") != 0 && strcmp(network->name, "none") != 0))
		return true;
	refuse(problem, BAD_VALUE, "networks", "network \"%s\" takes no %s", network->name, what);
	return add_hint(problem, "Use a network of your own: cm_create_network(host, name) makes one.");
}

static bool
check_network(const CmJobSpec *spec, int i, CmProblem *problem)
{
	const CmNetwork *network = &spec->networks[i];
	char shown[SHOWN_SIZE];

	if (!check_network_name(network->name, problem) || !check_aliases(network, problem) ||
		!check_address(network, AF_INET, network->ip, problem) ||
		!check_address(network, AF_INET6, network->ip6, problem) ||
		!check_built_in(network, problem))
		return false;
	if (strcmp(network->name, "none") == 0 && spec->n_networks > 1)
	{
		refuse(problem, BAD_VALUE, "networks", "network \"none\" is given with others");
		return add_hint(problem, "Write [] to have none, or leave \"none\" out.");
	}
	for (int j = 0; j < i; j++)
		if (strcmp(spec->networks[j].name, network->name) == 0)
			return refuse(problem, BAD_VALUE, "networks", "network \"%s\" is given twice",
						  show_text(network->name, shown));
	return true;
}

bool
cm_policy_check_networks(const CmJobSpec *spec, CmProblem *problem)
{
	if (spec->n_networks < 0 || spec->n_networks > CM_MAX_NETWORKS)
	{
		refuse(problem, OVER_LIMIT, "networks", "more than %d networks are given", CM_MAX_NETWORKS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < spec->n_networks; i++)
		if (!check_network(spec, i, problem))
			return false;
	return true;
}

/* --- volumes --- */

bool
cm_policy_is_volume_name(const char *name)
{
	return is_name_with(name, "_-", CM_MAX_VOLUME_NAME_BYTES);
}

static bool
check_volume_name(const char *name, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (name == NULL)
		return refuse(problem, BAD_VALUE, "volumes", "name of a volume is missing");
	if (cm_policy_is_volume_name(name))
		return true;
	refuse(problem, BAD_VALUE, "volumes", "volume \"%s\" is not a valid name",
		   show_text(name, shown));
	if (strpbrk(name, "/\\:") != NULL)
		add_detail(problem, "Paths of the host can never be had, whoever asks.");
	return add_hint(problem,
					"A name has 1 to %d letters, digits, \"_\" and \"-\", and begins with "
					"a letter or digit.",
					CM_MAX_VOLUME_NAME_BYTES);
}

/* Is it the directory itself, or something in it? */
static bool
is_within(const char *path, const char *directory)
{
	size_t length = strlen(directory);

	return strncmp(path, directory, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static bool
refuse_overlap(const char *target, const char *other, CmProblem *problem)
{
	char shown[SHOWN_SIZE];
	char shown_other[SHOWN_SIZE];

	refuse(problem, BAD_VALUE, "volumes", "path \"%s\" of a volume is in the way of \"%s\"",
		   show_text(target, shown), show_text(other, shown_other));
	return add_hint(problem, "Mount them side by side.");
}

/*
 * What is mounted within a volume leaves a directory of root's in it.  A volume
 * within a tmpfs is fine, but not in its place; /tmp is always one.
 */
static bool
check_overlaps(const CmJobSpec *spec, int i, CmProblem *problem)
{
	const char *target = spec->volumes[i].target;

	if (is_within(TMP_DIRECTORY, target))
		return refuse_overlap(target, TMP_DIRECTORY, problem);
	for (int j = 0; j < spec->n_tmpfs; j++)
		if (is_within(spec->tmpfs[j].target, target))
			return refuse_overlap(target, spec->tmpfs[j].target, problem);
	for (int j = 0; j < i; j++)
		if (is_within(spec->volumes[j].target, target) ||
			is_within(target, spec->volumes[j].target))
			return refuse_overlap(target, spec->volumes[j].target, problem);
	return true;
}

static bool
check_volume_target(const char *target, CmProblem *problem)
{
	const char *fault;
	char shown[SHOWN_SIZE];

	if (target == NULL)
		return refuse(problem, BAD_VALUE, "volumes", "path of a volume is missing");
	fault = find_target_fault(target);
	show_text(target, shown);
	if (fault != NULL)
		return refuse(problem, BAD_VALUE, "volumes", "path \"%s\" of a volume %s", shown, fault);
	if (!is_kernel_place(target))
		return true;
	refuse(problem, NOT_ALLOWED, "volumes", "path \"%s\" of a volume is not allowed", shown);
	return add_detail(problem, "Nothing can be mounted in /proc, /sys and /dev.");
}

bool
cm_policy_check_volumes(const CmJobSpec *spec, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (spec->n_volumes < 0 || spec->n_volumes > CM_MAX_VOLUMES)
	{
		refuse(problem, OVER_LIMIT, "volumes", "more than %d volumes are given", CM_MAX_VOLUMES);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < spec->n_volumes; i++)
	{
		if (!check_volume_name(spec->volumes[i].name, problem) ||
			!check_volume_target(spec->volumes[i].target, problem))
			return false;
		for (int j = 0; j < i; j++)
			if (strcmp(spec->volumes[j].name, spec->volumes[i].name) == 0)
				return refuse(problem, BAD_VALUE, "volumes", "volume \"%s\" is given twice",
							  show_text(spec->volumes[i].name, shown));
		if (!check_overlaps(spec, i, problem))
			return false;
	}
	return true;
}

/* --- the sum --- */

static size_t
count_text(const char *text)
{
	return text != NULL ? strlen(text) : 0;
}

size_t
cm_policy_count_attachments(const CmJobSpec *spec)
{
	size_t n_bytes = 0;

	for (int i = 0; i < spec->n_networks; i++)
	{
		const CmNetwork *network = &spec->networks[i];

		n_bytes += count_text(network->name) + count_text(network->ip) + count_text(network->ip6);
		for (int j = 0; j < network->aliases.count; j++)
			n_bytes += count_text(network->aliases.words[j]);
	}
	for (int i = 0; i < spec->n_volumes; i++)
		n_bytes += count_text(spec->volumes[i].name) + count_text(spec->volumes[i].target);
	return n_bytes;
}
