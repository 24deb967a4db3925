/*
 * policy.c
 *		The guard: which job definitions may reach an engine at all.
 *
 * Every rule is an allowlist: it says what a value may look like, not what it
 * must not hold.  The exceptions are places where an allowed form has a
 * meaning of its own to an engine (the network "host", a mount over /proc).
 *
 * Values of environment variables and commands may be secrets and are never
 * repeated in a message; what is repeated is cut short and cleaned, since it
 * ends in logs and terminals.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "chars.h"
#include "image_ref.h"
#include "placeholder.h"
#include "policy.h"
#include "policy_internal.h"
#include "retry.h"

/* Twice the most entries, so that the table of find_duplicate has gaps. */
#define HASH_SLOTS (2 * CM_MAX_PAIRS)

bool
refuse(CmProblem *problem, const char *sqlstate, const char *column, const char *format, ...)
{
	va_list args;

	memset(problem, 0, sizeof(*problem));
	snprintf(problem->sqlstate, sizeof(problem->sqlstate), "%s", sqlstate);
	snprintf(problem->column, sizeof(problem->column), "%s", column);
	va_start(args, format);
	vsnprintf(problem->message, sizeof(problem->message), format, args);
	va_end(args);
	return false;
}

bool
add_detail(CmProblem *problem, const char *detail)
{
	snprintf(problem->detail, sizeof(problem->detail), "%s", detail);
	return false;
}

bool
add_hint(CmProblem *problem, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(problem->hint, sizeof(problem->hint), format, args);
	va_end(args);
	return false;
}

const char *
show_text(const char *text, char shown[SHOWN_SIZE])
{
	size_t length = cm_chars_cut(text, MAX_SHOWN_BYTES);
	size_t n = 0;

	for (size_t i = 0; i < length; i++)
	{
		int control = cm_chars_control_length(text + i);

		shown[n++] = control > 0 ? '?' : text[i];
		if (control > 1)
			i++;
	}
	snprintf(shown + n, SHOWN_SIZE - n, "%s", text[length] != '\0' ? "..." : "");
	return shown;
}

bool
cm_policy_is_env_name(const char *name)
{
	size_t n_name = strlen(name);

	return n_name > 0 && cm_chars_count_name(name, n_name) == n_name;
}

bool
is_name_with(const char *name, const char *punctuation, size_t max)
{
	size_t length = strnlen(name, max + 1);

	if (length == 0 || length > max || !cm_chars_is_alnum(name[0]))
		return false;
	for (size_t i = 1; i < length; i++)
	{
		if (!cm_chars_is_alnum(name[i]) && strchr(punctuation, name[i]) == NULL)
			return false;
	}
	return true;
}

bool
cm_policy_is_plain_name(const char *name)
{
	return is_name_with(name, "_.-", 63);
}

/* Takes a number of 0..2^31-1 in its shortest form; NULL: there is none. */
static const char *
take_id(const char *text, int64_t *id)
{
	*id = 0;
	if (!cm_chars_is_digit(*text) || (text[0] == '0' && cm_chars_is_digit(text[1])))
		return NULL;
	for (; cm_chars_is_digit(*text); text++)
	{
		*id = *id * 10 + (*text - '0');
		if (*id > INT32_MAX)
			return NULL;
	}
	return text;
}

bool
cm_policy_parse_run_as(const char *text, int64_t *uid, int64_t *gid)
{
	*gid = -1;
	text = take_id(text, uid);
	if (text == NULL)
		return false;
	if (*text == '\0')
		return true;
	if (*text != ':')
		return false;
	text = take_id(text + 1, gid);
	return text != NULL && *text == '\0';
}

static bool
check_name(const char *name, CmProblem *problem)
{
	if (name == NULL)
		return true;
	if (strnlen(name, CM_MAX_NAME_BYTES + 1) > CM_MAX_NAME_BYTES)
	{
		refuse(problem, OVER_LIMIT, "name", "name is longer than %d bytes", CM_MAX_NAME_BYTES);
		return add_hint(problem, NO_SETTING);
	}
	if (cm_chars_has_control(name))
		return refuse(problem, BAD_VALUE, "name", "name contains a control character");
	return true;
}

static bool
check_namespace(const char *name, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (name == NULL)
		return refuse(problem, BAD_VALUE, "namespace", "namespace is missing");
	if (cm_policy_is_plain_name(name))
		return true;
	refuse(problem, BAD_VALUE, "namespace", "namespace \"%s\" is not a valid name",
		   show_text(name, shown));
	return add_hint(problem, "A name has 1 to 63 letters, digits, \"_\", \".\" and \"-\", "
							 "and begins with a letter or digit.");
}

static bool
check_image(const char *image, CmProblem *problem)
{
	CmImageRef ref;
	char error[128];
	char shown[SHOWN_SIZE];

	if (image == NULL || image[0] == '\0')
	{
		refuse(problem, BAD_VALUE, "image", "image is missing");
		return add_hint(problem, "Name an image, as in busybox:1.36.");
	}
	if (cm_image_ref_parse(image, &ref, error, sizeof(error)))
		return true;
	refuse(problem, BAD_VALUE, "image", "image \"%s\" is not valid: %s", show_text(image, shown),
		   error);
	return add_hint(problem, "The form is [registry[:port]/]path[:tag][@sha256:digest].");
}

static bool
check_command(const CmJobSpec *spec, CmProblem *problem)
{
	const char *command = spec->command;

	if (command == NULL)
		return true;
	if (spec->args.is_set)
	{
		refuse(problem, BAD_VALUE, "args", "command and args cannot both be given");
		return add_hint(problem, "command is run by a shell in place of the image's entrypoint; "
								 "args are given to the entrypoint.");
	}
	if (spec->entrypoint.is_set)
	{
		refuse(problem, BAD_VALUE, "entrypoint", "command and entrypoint cannot both be given");
		return add_hint(problem,
						"command is run by a shell in place of the entrypoint; give args instead.");
	}
	if (command[strspn(command, " \t\n\v\f\r")] == '\0')
	{
		refuse(problem, BAD_VALUE, "command", "command is empty");
		return add_hint(problem, "Leave it out to run what the image runs by itself.");
	}
	if (strlen(command) > CM_MAX_TEXT_BYTES)
	{
		refuse(problem, OVER_LIMIT, "command", "command is longer than %d bytes",
			   CM_MAX_TEXT_BYTES);
		return add_hint(problem, NO_SETTING);
	}
	return true;
}

static bool
check_words(const CmWords *words, const char *column, CmProblem *problem)
{
	size_t n_bytes = 0;

	if (!words->is_set)
		return true;
	if (words->count < 0 || words->count > CM_MAX_WORDS)
	{
		refuse(problem, OVER_LIMIT, column, "%s has more than %d entries", column, CM_MAX_WORDS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < words->count; i++)
	{
		if (words->words[i] == NULL)
		{
			refuse(problem, BAD_VALUE, column, "entry %d of %s is null", i + 1, column);
			return add_hint(problem, "Give an empty string, or leave the entry out.");
		}
		n_bytes += strlen(words->words[i]);
	}
	if (n_bytes <= CM_MAX_TEXT_BYTES)
		return true;
	refuse(problem, OVER_LIMIT, column, "%s take more than %d bytes together",
		   strcmp(column, "args") == 0 ? "args" : "words of entrypoint", CM_MAX_TEXT_BYTES);
	return add_hint(problem, NO_SETTING);
}

/*
 * What an engine cannot be told: it takes empty args for args left out, and
 * then runs the image's CMD, unless an entrypoint is given, too.
 */
static bool
check_emptiness(const CmJobSpec *spec, CmProblem *problem)
{
	const CmWords *entrypoint = &spec->entrypoint;

	if (spec->args.is_set && spec->args.count == 0 && !entrypoint->is_set)
	{
		refuse(problem, BAD_VALUE, "args", "args are empty and there is no entrypoint");
		add_detail(problem, "An engine would run the image's own command instead.");
		return add_hint(problem, "Leave args out to run what the image runs by itself, or give "
								 "entrypoint, too.");
	}
	if (!entrypoint->is_set)
		return true;
	if (entrypoint->count == 0 && (!spec->args.is_set || spec->args.count == 0))
	{
		refuse(problem, BAD_VALUE, "entrypoint",
			   "entrypoint is empty and there are no args: nothing would be run");
		return add_hint(problem, "Give the program and its arguments as args.");
	}
	if (entrypoint->count > 0 && entrypoint->words[0][0] == '\0')
	{
		refuse(problem, BAD_VALUE, "entrypoint", "entry 1 of entrypoint is empty");
		return add_hint(problem, "It is the program to run; give '{}' to have no entrypoint.");
	}
	return true;
}

static uint32_t
hash_name(const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name != '\0'; name++)
		hash = (hash ^ (unsigned char) *name) * 16777619u; /* FNV-1a */
	return hash % HASH_SLOTS;
}

/*
 * A name that is there twice, or NULL.  n is at most CM_MAX_PAIRS.  Names made
 * to collide cost a comparison each, which that bound keeps bearable.
 */
static const char *
find_duplicate(const CmPair *pairs, int n)
{
	uint16_t slots[HASH_SLOTS] = {0}; /* index + 1 */

	for (int i = 0; i < n; i++)
	{
		uint32_t slot = hash_name(pairs[i].name);

		for (; slots[slot] != 0; slot = (slot + 1) % HASH_SLOTS)
		{
			if (strcmp(pairs[slots[slot] - 1].name, pairs[i].name) == 0)
				return pairs[i].name;
		}
		slots[slot] = (uint16_t) (i + 1);
	}
	return NULL;
}

static bool
check_variable(const CmPair *pair, const char *column, CmProblem *problem)
{
	const char *name = pair->name != NULL ? pair->name : "";
	char shown[SHOWN_SIZE];

	show_text(name, shown);
	if (!cm_policy_is_env_name(name))
	{
		refuse(problem, BAD_VALUE, column, "name \"%s\" of an environment variable is not valid",
			   shown);
		return add_hint(problem,
						"A name has letters, digits and \"_\", and does not begin with a digit.");
	}
	if (strncmp(name, CM_RESERVED_PREFIX, strlen(CM_RESERVED_PREFIX)) == 0)
	{
		refuse(problem, NOT_ALLOWED, column, "environment variable \"%s\" is reserved", shown);
		return add_hint(problem, "Names that begin with " CM_RESERVED_PREFIX
								 " tell a job about itself; choose another.");
	}
	if (pair->value == NULL)
	{
		refuse(problem, BAD_VALUE, column, "environment variable \"%s\" has no value", shown);
		return add_hint(problem, "Give an empty string, or leave the variable out.");
	}
	if (strlen(name) + strlen(pair->value) > CM_MAX_TEXT_BYTES)
	{
		refuse(problem, OVER_LIMIT, column, "environment variable \"%s\" is longer than %d bytes",
			   shown, CM_MAX_TEXT_BYTES);
		return add_hint(problem, NO_SETTING);
	}
	return true;
}

static bool
check_environment(const CmPair *pairs, int n, CmProblem *problem)
{
	const char *twice;
	char shown[SHOWN_SIZE];

	if (n < 0 || n > CM_MAX_PAIRS)
	{
		refuse(problem, OVER_LIMIT, "environment", "environment has more than %d variables",
			   CM_MAX_PAIRS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < n; i++)
	{
		if (!check_variable(&pairs[i], "environment", problem))
			return false;
	}
	twice = find_duplicate(pairs, n);
	if (twice == NULL)
		return true;
	return refuse(problem, BAD_VALUE, "environment", "environment variable \"%s\" is given twice",
				  show_text(twice, shown));
}

static bool
has_name(const CmPair *pairs, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(pairs[i].name, name) == 0)
			return true;
	}
	return false;
}

/* The value is the name of a secret. */
static bool
check_secret(const CmJobSpec *spec, const CmPair *pair, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (!check_variable(pair, "secret_environment", problem))
		return false;
	if (strncmp(pair->name, CM_PARAMETER_PREFIX, strlen(CM_PARAMETER_PREFIX)) == 0)
	{
		refuse(problem, NOT_ALLOWED, "secret_environment",
			   "environment variable \"%s\" is reserved", show_text(pair->name, shown));
		return add_hint(problem, "Names that begin with " CM_PARAMETER_PREFIX
								 " have the values of parameters; choose another.");
	}
	if (!cm_policy_is_plain_name(pair->value))
	{
		refuse(problem, BAD_VALUE, "secret_environment",
			   "secret of environment variable \"%s\" is not a valid name",
			   show_text(pair->name, shown));
		return add_hint(problem,
						"Give the name that cm_set_secret stored it under, not its value.");
	}
	if (!has_name(spec->environment, spec->n_environment, pair->name))
		return true;
	refuse(problem, BAD_VALUE, "secret_environment",
		   "environment variable \"%s\" is in environment, too", show_text(pair->name, shown));
	return add_hint(problem, "Leave it out of one of them.");
}

static bool
check_secrets(const CmJobSpec *spec, CmProblem *problem)
{
	const char *twice;
	char shown[SHOWN_SIZE];

	if (spec->n_secrets < 0 || spec->n_secrets > CM_MAX_SECRETS)
	{
		refuse(problem, OVER_LIMIT, "secret_environment",
			   "secret_environment has more than %d variables", CM_MAX_SECRETS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < spec->n_secrets; i++)
	{
		if (!check_secret(spec, &spec->secrets[i], problem))
			return false;
	}
	twice = find_duplicate(spec->secrets, spec->n_secrets);
	if (twice == NULL)
		return true;
	return refuse(problem, BAD_VALUE, "secret_environment",
				  "environment variable \"%s\" is given twice", show_text(twice, shown));
}

static bool
check_label(const CmPair *pair, CmProblem *problem)
{
	const char *key = pair->name != NULL ? pair->name : "";
	char shown[SHOWN_SIZE];

	show_text(key, shown);
	if (!is_name_with(key, "_./-", CM_MAX_LABEL_KEY_BYTES))
	{
		refuse(problem, BAD_VALUE, "labels", "label key \"%s\" is not valid", shown);
		return add_hint(problem,
						"A key has 1 to %d letters, digits, \"_\", \".\", \"/\" and \"-\", "
						"and begins with a letter or digit.",
						CM_MAX_LABEL_KEY_BYTES);
	}
	if (pair->value == NULL)
	{
		refuse(problem, BAD_VALUE, "labels", "label \"%s\" has no value", shown);
		return add_hint(problem, "Give an empty string, or leave the label out.");
	}
	if (strnlen(pair->value, CM_MAX_LABEL_BYTES + 1) > CM_MAX_LABEL_BYTES)
	{
		refuse(problem, OVER_LIMIT, "labels", "label \"%s\" is longer than %d bytes", shown,
			   CM_MAX_LABEL_BYTES);
		return add_hint(problem, NO_SETTING);
	}
	return true;
}

static bool
check_labels(const CmPair *pairs, int n, CmProblem *problem)
{
	const char *twice;
	size_t n_bytes = 0;
	char shown[SHOWN_SIZE];

	if (n < 0 || n > CM_MAX_PAIRS)
	{
		refuse(problem, OVER_LIMIT, "labels", "more than %d labels are given", CM_MAX_PAIRS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < n; i++)
	{
		if (!check_label(&pairs[i], problem))
			return false;
		n_bytes += strlen(pairs[i].name) + strlen(pairs[i].value);
	}
	if (n_bytes > CM_MAX_LABELS_BYTES)
	{
		refuse(problem, OVER_LIMIT, "labels", "labels take more than %d bytes together",
			   CM_MAX_LABELS_BYTES);
		return add_hint(problem, NO_SETTING);
	}
	twice = find_duplicate(pairs, n);
	if (twice == NULL)
		return true;
	return refuse(problem, BAD_VALUE, "labels", "label \"%s\" is given twice",
				  show_text(twice, shown));
}

/* Is a component of the path this word? */
static bool
has_component(const char *path, const char *word)
{
	for (;;)
	{
		size_t length = strcspn(path, "/");

		if (length == strlen(word) && strncmp(path, word, length) == 0)
			return true;
		if (path[length] == '\0')
			return false;
		path += length + 1;
	}
}

/* What every path in a container must keep to; NULL: it does. */
static const char *
find_path_fault(const char *path)
{
	if (path[0] != '/')
		return "is not absolute";
	if (strnlen(path, CM_MAX_PATH_BYTES + 1) > CM_MAX_PATH_BYTES)
		return "is longer than 4096 bytes";
	if (cm_chars_has_control(path))
		return "contains a control character";
	if (has_component(path, ".."))
		return "contains \"..\"";
	return NULL;
}

static bool
check_working_directory(const char *path, CmProblem *problem)
{
	const char *fault = path != NULL ? find_path_fault(path) : NULL;
	char shown[SHOWN_SIZE];

	if (fault == NULL)
		return true;
	return refuse(problem, BAD_VALUE, "working_directory", "working_directory \"%s\" %s",
				  show_text(path, shown), fault);
}

/* Who that is is known only on the host; then it is judged as a number. */
static bool
check_image_user(const CmLimits *limits, CmProblem *problem)
{
	if (limits->allow_image_user)
		return true;
	refuse(problem, NOT_ALLOWED, "run_as", "run_as of '" CM_RUN_AS_IMAGE "' is not allowed");
	return add_hint(problem, "Give numbers, as in 65534:65534, or have an administrator turn "
							 "container_manager.allow_image_user on.");
}

static bool
check_run_as(const char *run_as, const CmLimits *limits, CmProblem *problem)
{
	int64_t uid;
	int64_t gid;
	char shown[SHOWN_SIZE];

	/* unsaid would be the image's own user, which mostly is root */
	if (run_as == NULL)
		return refuse(problem, BAD_VALUE, "run_as", "run_as is missing");
	if (strcmp(run_as, CM_RUN_AS_IMAGE) == 0)
		return check_image_user(limits, problem);
	if (!cm_policy_parse_run_as(run_as, &uid, &gid))
	{
		refuse(problem, BAD_VALUE, "run_as", "run_as \"%s\" is not a uid or uid:gid",
			   show_text(run_as, shown));
		return add_hint(problem, "Names are not looked up; give numbers, as in 65534:65534.");
	}
	if (uid < limits->min_uid)
	{
		refuse(problem, NOT_ALLOWED, "run_as",
			   "run_as of %" PRId64 " is below the lowest allowed uid %" PRId64, uid,
			   limits->min_uid);
		return add_hint(
			problem, "Use a higher uid, or have an administrator lower container_manager.min_uid.");
	}
	if (gid == 0 && limits->min_uid > 0)
	{
		refuse(problem, NOT_ALLOWED, "run_as", "run_as of %" PRId64 ":0 has the group of root",
			   uid);
		return add_hint(
			problem,
			"Use another gid, or have an administrator set container_manager.min_uid to 0.");
	}
	return true;
}

bool
cm_policy_check_user(const char *user, const CmLimits *limits, CmProblem *problem)
{
	int64_t uid;
	int64_t gid;

	memset(problem, 0, sizeof(*problem));
	if (cm_policy_parse_run_as(user, &uid, &gid))
		return check_run_as(user, limits, problem);
	return refuse(problem, BAD_VALUE, "run_as", "its number is not known");
}

bool
hint_at_limit(CmProblem *problem, const char *setting)
{
	return add_hint(problem, "Ask for less, or have an administrator raise %s.", setting);
}

static bool
check_memory(int64_t memory_mb, const CmLimits *limits, CmProblem *problem)
{
	if (memory_mb < CM_MIN_MEMORY_MB)
		return refuse(problem, BAD_VALUE, "memory_limit",
					  "memory_limit of %" PRId64 " MB is below the least of %d MB", memory_mb,
					  CM_MIN_MEMORY_MB);
	if (memory_mb <= limits->max_memory_mb)
		return true;
	refuse(problem, OVER_LIMIT, "memory_limit",
		   "memory_limit of %" PRId64 " MB is over the limit of %" PRId64 " MB", memory_mb,
		   limits->max_memory_mb);
	return hint_at_limit(problem, "container_manager.max_memory_limit");
}

/* Billionths as a decimal number without zeros at its end. */
static const char *
show_cpus(int64_t nano_cpus, char shown[SHOWN_SIZE])
{
	uint64_t magnitude = nano_cpus < 0 ? -(uint64_t) nano_cpus : (uint64_t) nano_cpus;
	size_t length;

	snprintf(shown, SHOWN_SIZE, "%s%" PRIu64 ".%09" PRIu64, nano_cpus < 0 ? "-" : "",
			 magnitude / 1000000000, magnitude % 1000000000);
	length = strlen(shown);
	while (shown[length - 1] == '0')
		length--;
	if (shown[length - 1] == '.')
		length--;
	shown[length] = '\0';
	return shown;
}

static bool
check_cpus(int64_t nano_cpus, const CmLimits *limits, CmProblem *problem)
{
	char asked[SHOWN_SIZE];
	char bound[SHOWN_SIZE];

	show_cpus(nano_cpus, asked);
	if (nano_cpus < CM_MIN_NANO_CPUS)
		return refuse(problem, BAD_VALUE, "cpu_limit", "cpu_limit of %s is below the least of %s",
					  asked, show_cpus(CM_MIN_NANO_CPUS, bound));
	if (nano_cpus <= limits->max_nano_cpus)
		return true;
	refuse(problem, OVER_LIMIT, "cpu_limit", "cpu_limit of %s is over the limit of %s", asked,
		   show_cpus(limits->max_nano_cpus, bound));
	return hint_at_limit(problem, "container_manager.max_cpu_limit");
}

static bool
check_timeout(int64_t seconds, const CmLimits *limits, CmProblem *problem)
{
	if (seconds < 1)
		return refuse(problem, BAD_VALUE, "timeout_seconds",
					  "timeout_seconds of %" PRId64 " is below the least of 1", seconds);
	if (seconds <= limits->max_timeout_seconds)
		return true;
	refuse(problem, OVER_LIMIT, "timeout_seconds",
		   "timeout_seconds of %" PRId64 " is over the limit of %" PRId64, seconds,
		   limits->max_timeout_seconds);
	return hint_at_limit(problem, "container_manager.max_timeout");
}

/*
 * Beyond what holds for every path: one spelling per place, so that the test
 * of places below cannot be got round, and no marks of the engines' own
 * "path:option,option" form.
 */
const char *
find_target_fault(const char *target)
{
	const char *fault = find_path_fault(target);

	if (fault != NULL)
		return fault;
	if (strcmp(target, "/") == 0)
		return "is the root directory";
	if (strstr(target, "//") != NULL || has_component(target, ".") ||
		target[strlen(target) - 1] == '/')
		return "is not in its plain form, without \".\", doubled slashes and a slash at the end";
	if (strpbrk(target, ":,") != NULL)
		return "contains \":\" or \",\"";
	return NULL;
}

bool
is_kernel_place(const char *target)
{
	static const char *const places[] = {"/proc", "/sys", "/dev"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
	{
		size_t length = strlen(places[i]);

		if (strncmp(target, places[i], length) == 0 &&
			(target[length] == '\0' || target[length] == '/'))
			return true;
	}
	return false;
}

static bool
check_tmpfs_target(const char *target, CmProblem *problem)
{
	const char *fault = find_target_fault(target);
	char shown[SHOWN_SIZE];

	show_text(target, shown);
	if (fault != NULL)
		return refuse(problem, BAD_VALUE, "tmpfs", "tmpfs path \"%s\" %s", shown, fault);
	if (!is_kernel_place(target))
		return true;
	refuse(problem, NOT_ALLOWED, "tmpfs", "tmpfs path \"%s\" is not allowed", shown);
	return add_detail(problem, "Nothing can be mounted in /proc, /sys and /dev.");
}

static bool
check_tmpfs_size(const CmTmpfs *tmpfs, int64_t memory_mb, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	show_text(tmpfs->target, shown);
	if (tmpfs->size_mb < 1)
		return refuse(problem, BAD_VALUE, "tmpfs",
					  "tmpfs \"%s\" of %" PRId64 " MB is below the least of 1 MB", shown,
					  tmpfs->size_mb);
	if (tmpfs->size_mb <= memory_mb)
		return true;
	refuse(problem, BAD_VALUE, "tmpfs",
		   "tmpfs \"%s\" of %" PRId64 " MB is over the memory_limit of %" PRId64 " MB", shown,
		   tmpfs->size_mb, memory_mb);
	return add_hint(problem, "Files in a tmpfs count as memory of the job: raise memory_limit, "
							 "or make the tmpfs smaller.");
}

static bool
check_tmpfs(const CmJobSpec *spec, CmProblem *problem)
{
	char shown[SHOWN_SIZE];

	if (spec->n_tmpfs < 0 || spec->n_tmpfs > CM_MAX_TMPFS)
	{
		refuse(problem, OVER_LIMIT, "tmpfs", "more than %d tmpfs mounts are given", CM_MAX_TMPFS);
		return add_hint(problem, NO_SETTING);
	}
	for (int i = 0; i < spec->n_tmpfs; i++)
	{
		const CmTmpfs *tmpfs = &spec->tmpfs[i];

		if (tmpfs->target == NULL)
			return refuse(problem, BAD_VALUE, "tmpfs", "path of a tmpfs is missing");
		if (!check_tmpfs_target(tmpfs->target, problem) ||
			!check_tmpfs_size(tmpfs, spec->memory_limit_mb, problem))
			return false;
		for (int j = 0; j < i; j++)
		{
			if (strcmp(spec->tmpfs[j].target, tmpfs->target) == 0)
				return refuse(problem, BAD_VALUE, "tmpfs", "tmpfs path \"%s\" is given twice",
							  show_text(tmpfs->target, shown));
		}
	}
	return true;
}

static bool
check_retry_on(const char *retry_on, CmProblem *problem)
{
	CmRetryOn on;
	const char *wrong;
	size_t n_wrong;
	char item[2 * MAX_SHOWN_BYTES];
	char shown[SHOWN_SIZE];

	if (cm_retry_parse(retry_on, &on, &wrong, &n_wrong))
		return true;
	snprintf(item, sizeof(item), "%.*s",
			 (int) (n_wrong < sizeof(item) ? n_wrong : sizeof(item) - 1), wrong);
	refuse(problem, BAD_VALUE, "retry_on", "retry_on cannot have \"%s\"", show_text(item, shown));
	add_detail(problem, "It takes \"any\", or a list of exit codes (1 to 255) and of the reasons "
						"exit_code, oom, killed, timeout, image_pull, create, start, network and "
						"infrastructure.");
	return strcmp(item, "host_lost") == 0
			   ? add_hint(problem, "For a lost host there is on_host_loss => 'retry'.")
			   : add_hint(problem, "Write it as in '%s, 75'.", CM_RETRY_DEFAULT);
}

static bool
check_retries(const CmJobSpec *spec, CmProblem *problem)
{
	if (spec->max_attempts < 1 || spec->max_attempts > CM_MAX_ATTEMPTS)
		return refuse(problem, BAD_VALUE, "max_attempts", "max_attempts of %d is not in 1 to %d",
					  spec->max_attempts, CM_MAX_ATTEMPTS);
	if (!check_retry_on(spec->retry_on, problem))
		return false;
	if (spec->retry_delay_ms < 0 || spec->retry_delay_ms > CM_MAX_PAUSE_MS)
		return refuse(problem, BAD_VALUE, "retry_delay", "retry_delay is not in 0 to 30 days");
	if (spec->host_loss_grace_ms < 0 || spec->host_loss_grace_ms > CM_MAX_PAUSE_MS)
		return refuse(problem, BAD_VALUE, "host_loss_grace",
					  "host_loss_grace is not in 0 to 30 days");
	if (spec->on_host_loss != CM_HOST_LOSS_RETRY || spec->max_attempts > 1)
		return true;
	refuse(problem, BAD_VALUE, "on_host_loss",
		   "on_host_loss of 'retry' needs more than one attempt");
	return add_hint(problem, "Give max_attempts of 2 or more, if the job may run twice.");
}

static bool
check_keep(int64_t keep_ms, const CmLimits *limits, CmProblem *problem)
{
	if (keep_ms < 0)
	{
		refuse(problem, BAD_VALUE, "keep_container", "keep_container is out of range");
		return add_hint(problem, "Give a positive interval, or leave it out.");
	}
	if (keep_ms <= limits->max_keep_seconds * 1000)
		return true;
	refuse(problem, OVER_LIMIT, "keep_container",
		   "keep_container of %" PRId64 " s is over the limit of %" PRId64 " s",
		   (keep_ms + 999) / 1000, limits->max_keep_seconds);
	return hint_at_limit(problem, "container_manager.max_keep_container");
}

static size_t
count_text(const char *text)
{
	return text != NULL ? strlen(text) : 0;
}

static size_t
count_words(const CmWords *words)
{
	size_t n_bytes = 0;

	for (int i = 0; words->is_set && i < words->count; i++)
		n_bytes += count_text(words->words[i]);
	return n_bytes;
}

static size_t
count_pairs(const CmPair *pairs, int n)
{
	size_t n_bytes = 0;

	for (int i = 0; i < n; i++)
		n_bytes += count_text(pairs[i].name) + count_text(pairs[i].value);
	return n_bytes;
}

/* Comes last: every part is known to be whole and bounded then. */
static bool
check_sum(const CmJobSpec *spec, CmProblem *problem)
{
	size_t n_bytes =
		count_text(spec->namespace_name) + count_text(spec->name) + count_text(spec->image) +
		count_text(spec->command) + count_text(spec->working_directory) + count_text(spec->run_as) +
		cm_policy_count_attachments(spec) + count_text(spec->retry_on) + count_words(&spec->args) +
		count_words(&spec->entrypoint) + count_pairs(spec->environment, spec->n_environment) +
		count_pairs(spec->secrets, spec->n_secrets) + count_pairs(spec->labels, spec->n_labels);

	for (int i = 0; i < spec->n_tmpfs; i++)
		n_bytes += count_text(spec->tmpfs[i].target);
	if (n_bytes <= CM_MAX_SPEC_BYTES)
		return true;
	refuse(problem, OVER_LIMIT, "", "job definition takes %zu bytes, over the bound of %d", n_bytes,
		   CM_MAX_SPEC_BYTES);
	return add_hint(problem, NO_SETTING);
}

bool
cm_policy_check(const CmJobSpec *spec, const CmLimits *limits, CmProblem *problem)
{
	memset(problem, 0, sizeof(*problem));
	return check_namespace(spec->namespace_name, problem) && check_name(spec->name, problem) &&
		   check_image(spec->image, problem) && check_command(spec, problem) &&
		   check_words(&spec->args, "args", problem) &&
		   check_words(&spec->entrypoint, "entrypoint", problem) &&
		   check_emptiness(spec, problem) &&
		   check_environment(spec->environment, spec->n_environment, problem) &&
		   check_secrets(spec, problem) && check_labels(spec->labels, spec->n_labels, problem) &&
		   check_working_directory(spec->working_directory, problem) &&
		   check_run_as(spec->run_as, limits, problem) && cm_policy_check_networks(spec, problem) &&
		   check_memory(spec->memory_limit_mb, limits, problem) &&
		   check_cpus(spec->nano_cpus, limits, problem) &&
		   check_timeout(spec->timeout_seconds, limits, problem) && check_tmpfs(spec, problem) &&
		   cm_policy_check_volumes(spec, problem) &&
		   cm_policy_check_process_limits(spec, limits, problem) &&
		   cm_policy_check_options(spec, limits, problem) && check_retries(spec, problem) &&
		   check_keep(spec->keep_container_ms, limits, problem) && check_sum(spec, problem);
}
