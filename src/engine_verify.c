/*
 * engine_verify.c
 *		Is a container that was made what was asked for?
 *
 * What the create body says is compared with what inspect tells, field by field,
 * for what would make a container dangerous to its host or to others, or
 * would let it run twice.  An engine fills in what was left unsaid, a plugin
 * changes what was said, and a hostile engine does as it likes; a container that
 * differs is not started.
 *
 * Engines tell the same in several ways: unsaid, null, false, 0 and empty are
 * one.  podman tells other words for some fields; those are not compared there.
 */
#include "postgres.h"

#include "chars.h"
#include "engine_internal.h"

/* podman counts CPUs in millionths of a second per tenth of a second. */
#define NANO_CPUS_ROUNDED 10000

typedef enum Comparison
{
	SAME,		   /* as asked */
	OWN_NAMESPACE, /* as asked; its own where that is unsaid */
	NETWORK,	   /* likewise */
	NO_OTHERS,	   /* nothing in the list that was not asked for */
	CONFINED,	   /* likewise, and all that was asked for */
	CPUS,
	NOT_BELOW,	 /* at least what was asked for */
	LOG_CONFIG,	 /* as asked; the engine adds options of its own */
	NO_BARE_LIST /* not an empty list, which takes the engine's own away */
} Comparison;

typedef struct Field
{
	const char *section; /* NULL: of the whole */
	const char *name;
	Comparison comparison;
	bool is_dockers; /* podman has other words for it */
} Field;

static const Field fields[] = {
	{"Config", "User", SAME, false},
	{"Config", "Tty", SAME, false},
	{"HostConfig", "Privileged", SAME, false},
	{"HostConfig", "Mounts", SAME, true},
	{"HostConfig", "VolumesFrom", NO_OTHERS, false},
	{"HostConfig", "VolumeDriver", SAME, false},
	{"HostConfig", "Devices", NO_OTHERS, false},
	{"HostConfig", "DeviceCgroupRules", NO_OTHERS, false},
	{"HostConfig", "DeviceRequests", NO_OTHERS, false},
	{"HostConfig", "CapAdd", NO_OTHERS, false},
	{"HostConfig", "CapDrop", SAME, true},
	{"HostConfig", "SecurityOpt", CONFINED, false},
	{"HostConfig", "MaskedPaths", NO_BARE_LIST, false},
	{"HostConfig", "ReadonlyPaths", NO_BARE_LIST, false},
	{"HostConfig", "PidMode", OWN_NAMESPACE, false},
	{"HostConfig", "IpcMode", OWN_NAMESPACE, false},
	{"HostConfig", "UTSMode", OWN_NAMESPACE, false},
	{"HostConfig", "UsernsMode", OWN_NAMESPACE, false},
	{"HostConfig", "CgroupnsMode", OWN_NAMESPACE, false},
	{"HostConfig", "NetworkMode", NETWORK, false},
	{"HostConfig", "Cgroup", SAME, true},
	{"HostConfig", "CgroupParent", SAME, true},
	{"HostConfig", "Links", NO_OTHERS, false},
	{"HostConfig", "GroupAdd", NO_OTHERS, false},
	{"HostConfig", "Sysctls", SAME, true},
	{"HostConfig", "Annotations", SAME, true},
	{"HostConfig", "PortBindings", SAME, false},
	{"HostConfig", "PublishAllPorts", SAME, false},
	{"HostConfig", "Memory", SAME, false},
	{"HostConfig", "NanoCpus", CPUS, false},
	{"HostConfig", "PidsLimit", SAME, false},
	{"HostConfig", "OomKillDisable", SAME, false},
	{"HostConfig", "OomScoreAdj", NOT_BELOW, false},
	{"HostConfig", "ReadonlyRootfs", SAME, false},
	{"HostConfig", "Init", SAME, true},
	{"HostConfig", "AutoRemove", SAME, false},
	{"HostConfig", "LogConfig", LOG_CONFIG, true},
	{"HostConfig", "RestartPolicy", SAME, true},
};

static bool
is_nothing(const CmJson *value)
{
	if (value == NULL)
		return true;
	switch (value->kind)
	{
		case CM_JSON_NULL:
			return true;
		case CM_JSON_BOOL:
			return !cm_json_bool(value, true);
		case CM_JSON_NUMBER:
			return cm_json_int(value, 1) == 0;
		case CM_JSON_STRING:
			return value->text[0] == '\0';
		case CM_JSON_ARRAY:
			return value->count == 0;
		case CM_JSON_OBJECT:
			for (int i = 0; i < value->count; i++)
				if (!is_nothing(value->items[i]))
					return false;
			return true;
	}
	return false;
}

static bool is_same(const CmJson *asked, const CmJson *made);

/* Every member that one has the other has, too. */
static bool
has_members_of(const CmJson *object, const CmJson *other)
{
	for (int i = 0; i < other->count; i++)
		if (!is_same(cm_json_get(object, other->items[i]->name),
					 cm_json_get(other, other->items[i]->name)))
			return false;
	return true;
}

/* Both trees are at most CM_JSON_MAX_DEPTH deep. */
static bool
is_same(const CmJson *asked, const CmJson *made)
{
	if (is_nothing(asked) || is_nothing(made))
		return is_nothing(asked) && is_nothing(made);
	if (asked->kind != made->kind)
		return false;
	if (asked->kind == CM_JSON_OBJECT)
		return has_members_of(asked, made) && has_members_of(made, asked);
	if (asked->kind != CM_JSON_ARRAY)
		return strcmp(asked->text, made->text) == 0;
	if (asked->count != made->count)
		return false;
	for (int i = 0; i < asked->count; i++)
		if (!is_same(asked->items[i], made->items[i]))
			return false;
	return true;
}

static bool
has_item(const CmJson *list, const CmJson *item)
{
	for (int i = 0; list != NULL && i < list->count; i++)
		if (is_same(list->items[i], item))
			return true;
	return false;
}

static bool
has_no_others(const CmJson *asked, const CmJson *made)
{
	if (is_nothing(made))
		return true;
	if (made->kind != CM_JSON_ARRAY)
		return false;
	for (int i = 0; i < made->count; i++)
		if (!has_item(asked, made->items[i]))
			return false;
	return true;
}

/* no-new-privileges may be told with its value. */
static bool
is_option(const CmJson *item, const char *asked)
{
	const char *text = cm_json_string(item, "");
	size_t n = strlen(asked);

	return strncmp(text, asked, n) == 0 &&
		   (text[n] == '\0' || strcmp(text + n, ":true") == 0 || strcmp(text + n, "=true") == 0);
}

static bool
has_option(const CmJson *list, const char *asked)
{
	for (int i = 0; list != NULL && i < list->count; i++)
		if (is_option(list->items[i], asked))
			return true;
	return false;
}

/* A label of SELinux confines, unless it is the word that turns it off. */
static bool
is_label(const CmJson *item)
{
	const char *text = cm_json_string(item, "");

	return strncmp(text, "label=", 6) == 0 && strcmp(text, "label=disable") != 0;
}

static bool
is_confined(const CmJson *asked, const CmJson *made)
{
	for (int i = 0; asked != NULL && i < asked->count; i++)
		if (!has_option(made, cm_json_string(asked->items[i], "")))
			return false;
	for (int i = 0; made != NULL && i < made->count; i++)
	{
		bool was_asked = false;

		for (int j = 0; asked != NULL && j < asked->count; j++)
			was_asked |= is_option(made->items[i], cm_json_string(asked->items[j], ""));
		if (!was_asked && !is_label(made->items[i]))
			return false;
	}
	return true;
}

/*
 * What is unsaid is private, and may be told so.  podman calls any IPC
 * namespace of its own shareable, and has no word for control groups.
 */
static bool
is_own_namespace(const CmEngine *engine, const CmJson *asked, const CmJson *made)
{
	const char *wanted = is_nothing(asked) ? "private" : cm_json_string(asked, "");

	if (is_same(asked, made) || strcmp(wanted, cm_json_string(made, "")) == 0)
		return true;
	return engine->is_podman && strcmp(wanted, "private") == 0 &&
		   (is_nothing(made) || strcmp(cm_json_string(made, ""), "shareable") == 0);
}

/* podman tells the kind of network, and its name elsewhere. */
static bool
is_network(const CmEngine *engine, const CmJson *asked, const CmJson *made)
{
	const char *wanted = cm_json_string(asked, "");
	const char *told = cm_json_string(made, "");

	if (strcmp(wanted, told) == 0)
		return true;
	if (strcmp(wanted, "bridge") == 0 && strcmp(told, "default") == 0)
		return true;
	return engine->is_podman && strcmp(wanted, "none") != 0 && strcmp(told, "bridge") == 0;
}

static bool
is_log_config(const CmJson *asked, const CmJson *made)
{
	const CmJson *options = cm_json_get(asked, "Config");

	return is_same(cm_json_get(asked, "Type"), cm_json_get(made, "Type")) &&
		   (options == NULL || has_members_of(cm_json_get(made, "Config"), options));
}

/* An image's own volumes have ids for names. */
static bool
is_anonymous(const char *name, size_t n_name)
{
	char id[CM_CONTAINER_ID_LEN + 1];

	if (n_name != CM_CONTAINER_ID_LEN)
		return false;
	memcpy(id, name, n_name);
	id[n_name] = '\0';
	return cm_engine_is_id(id);
}

/* source:target:options */
static bool
is_volume_bind(const char *bind, const CmJson *mount)
{
	const char *source = cm_json_string(cm_json_get(mount, "Source"), "");
	const char *target = cm_json_string(cm_json_get(mount, "Target"), "");
	char *wanted = psprintf("%s:%s", source, target);
	const char *options = bind + strlen(wanted);

	if (strcmp(cm_json_string(cm_json_get(mount, "Type"), ""), "volume") != 0 ||
		strncmp(bind, wanted, strlen(wanted)) != 0 || (*options != '\0' && *options != ':'))
		return false;
	return !cm_json_bool(cm_json_get(mount, "ReadOnly"), false) ||
		   strncmp(options, ":ro", 3) == 0 || strstr(options, ",ro") != NULL;
}

/* podman tells of volumes as of binds, by their names. */
static bool
are_volumes(const CmJson *mounts, const CmJson *binds)
{
	for (int i = 0; binds != NULL && i < binds->count; i++)
	{
		const char *bind = cm_json_string(binds->items[i], "");
		bool is_known = is_anonymous(bind, strcspn(bind, ":"));

		for (int j = 0; mounts != NULL && j < mounts->count && !is_known; j++)
			is_known = is_volume_bind(bind, mounts->items[j]);
		if (!is_known)
			return false;
	}
	return is_nothing(binds) || binds->kind == CM_JSON_ARRAY;
}

static bool
is_as_asked(const CmEngine *engine, const Field *field, const CmJson *asked, const CmJson *made)
{
	switch (field->comparison)
	{
		case SAME:
			return is_same(asked, made);
		case OWN_NAMESPACE:
			return is_own_namespace(engine, asked, made);
		case NETWORK:
			return is_network(engine, asked, made);
		case NO_OTHERS:
			return has_no_others(asked, made);
		case CONFINED:
			return is_confined(asked, made);
		case CPUS:
			return is_same(asked, made) ||
				   (engine->is_podman && cm_json_int(made, 0) > 0 &&
					Abs(cm_json_int(made, 0) - cm_json_int(asked, 0)) < NANO_CPUS_ROUNDED);
		case NOT_BELOW:
			return cm_json_int(made, 0) >= cm_json_int(asked, 0);
		case LOG_CONFIG:
			return is_log_config(asked, made);
		case NO_BARE_LIST:
			return made == NULL || made->kind != CM_JSON_ARRAY || made->count > 0;
	}
	return false;
}

/* Limits that were asked for; an engine may have others of its own. */
static bool
has_ulimits(const CmJson *asked, const CmJson *made)
{
	for (int i = 0; asked != NULL && i < asked->count; i++)
		if (!has_item(made, asked->items[i]))
			return false;
	return true;
}

/*
 * What is mounted, as the engine sees it: nothing of the host, and no volume
 * by a name that was not asked for.  An image's own volumes have ids for names.
 */
static bool
may_be_mounted(const CmJson *mount, const CmJson *asked)
{
	const char *type = cm_json_string(cm_json_get(mount, "Type"), "");
	const char *name = cm_json_string(cm_json_get(mount, "Name"), "");

	if (strcmp(type, "tmpfs") == 0)
		return true;
	if (strcmp(type, "volume") != 0)
		return false;
	if (is_anonymous(name, strlen(name)))
		return true;
	for (int i = 0; asked != NULL && i < asked->count; i++)
		if (strcmp(cm_json_string(cm_json_get(asked->items[i], "Type"), ""), "volume") == 0 &&
			strcmp(cm_json_string(cm_json_get(asked->items[i], "Source"), ""), name) == 0)
			return true;
	return false;
}

static const CmJson *
find_bad_mount(const CmJson *asked, const CmJson *made)
{
	const CmJson *mounts = cm_json_get(made, "Mounts");

	for (int i = 0; mounts != NULL && i < mounts->count; i++)
		if (!may_be_mounted(mounts->items[i], cm_json_path(asked, "HostConfig", "Mounts")))
			return mounts->items[i];
	return NULL;
}

/* As JSON would have it, cut short: for one line. */
static void
show_value(char *out, size_t out_size, const CmJson *value)
{
	StringInfoData text;

	if (value == NULL || value->kind == CM_JSON_NULL)
	{
		strlcpy(out, "nothing", out_size);
		return;
	}
	if (value->kind != CM_JSON_ARRAY && value->kind != CM_JSON_OBJECT)
	{
		cm_engine_copy_line(out, out_size, value->text, strlen(value->text));
		return;
	}
	initStringInfo(&text);
	for (int i = 0; i < value->count && text.len < out_size; i++)
	{
		const CmJson *item = value->items[i];

		appendStringInfo(&text, "%s%s%s%s", i > 0 ? ", " : "", item->name ? item->name : "",
						 item->name ? "=" : "", item->text ? item->text : "...");
	}
	cm_engine_copy_line(out, out_size, text.len > 0 ? text.data : "nothing",
						text.len > 0 ? text.len : strlen("nothing"));
	pfree(text.data);
}

static bool
set_difference(CmDifference *difference, const char *section, const char *name, const CmJson *asked,
			   const CmJson *made)
{
	snprintf(difference->field, sizeof(difference->field), "%s%s%s", section ? section : "",
			 section ? "." : "", name);
	show_value(difference->asked, sizeof(difference->asked), asked);
	show_value(difference->made, sizeof(difference->made), made);
	return true;
}

static bool
find_difference(const CmEngine *engine, const CmJson *asked, const CmJson *made,
				CmDifference *difference)
{
	const CmJson *ulimits = cm_json_path(asked, "HostConfig", "Ulimits");
	const CmJson *binds = cm_json_path(made, "HostConfig", "Binds");
	const CmJson *mount = find_bad_mount(asked, made);

	if (!are_volumes(cm_json_path(asked, "HostConfig", "Mounts"), binds))
		return set_difference(difference, "HostConfig", "Binds", NULL, binds);
	for (size_t i = 0; i < lengthof(fields); i++)
	{
		const Field *field = &fields[i];
		/* Config's fields stand outside of sections in a create body. */
		const CmJson *wanted = strcmp(field->section, "Config") == 0
								   ? cm_json_get(asked, field->name)
								   : cm_json_path(asked, field->section, field->name);
		const CmJson *told = cm_json_path(made, field->section, field->name);

		if (!(field->is_dockers && engine->is_podman) && !is_as_asked(engine, field, wanted, told))
			return set_difference(difference, field->section, field->name, wanted, told);
	}
	if (!has_ulimits(ulimits, cm_json_path(made, "HostConfig", "Ulimits")) && !engine->is_podman)
		return set_difference(difference, "HostConfig", "Ulimits", ulimits,
							  cm_json_path(made, "HostConfig", "Ulimits"));
	return mount != NULL &&
		   set_difference(difference, NULL, "Mounts", NULL, cm_json_get(mount, "Type"));
}

bool
cm_engine_find_difference(const CmEngine *engine, const CmInspect *inspect, const char *body,
						  CmDifference *difference)
{
	const char *error;
	const CmJson *asked = cm_json_parse(body, strlen(body), &error);

	/* Not to be told apart from a container of which nothing is as it was asked for. */
	if (asked == NULL)
		return set_difference(difference, NULL, "create request", NULL, NULL);
	return find_difference(engine, asked, inspect->reply, difference);
}

const char *
cm_engine_inspect_user(const CmInspect *inspect)
{
	return cm_json_string(cm_json_path(inspect->reply, "Config", "User"), "");
}

int64
cm_engine_inspect_pids_limit(const CmInspect *inspect)
{
	return cm_json_int(cm_json_path(inspect->reply, "HostConfig", "PidsLimit"), 0);
}
