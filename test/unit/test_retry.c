/*
 * test_retry.c
 *		What is worth another attempt, and how long it is waited for.
 */
#include "retry.h"
#include "tap.h"

#define R(reason) CM_REASON_##reason

static const struct
{
	const char *list; /* NULL: unsaid */
	CmReason reason;
	int exit_code;
	bool wanted;
} listed_rows[] = {
	{NULL, R(INFRASTRUCTURE), -1, true},
	{NULL, R(IMAGE_PULL), -1, true},
	{NULL, R(INFRASTRUCTURE), 137, true},
	{NULL, R(EXIT_CODE), 1, false},
	{NULL, R(OOM), 137, false},
	{NULL, R(TIMEOUT), 143, false},
	{NULL, R(HOST_LOST), -1, false},
	{NULL, R(POLICY), -1, false},
	{"any", R(EXIT_CODE), 1, true},
	{"any", R(EXIT_CODE), 255, true},
	{"any", R(OOM), 137, true},
	{"any", R(KILLED), 137, true},
	{"any", R(TIMEOUT), 143, true},
	{"any", R(START), -1, true},
	{"any", R(NETWORK), -1, true},
	{"any", R(CREATE), -1, true},
	{"any", R(INFRASTRUCTURE), -1, true},
	{"any", R(POLICY), -1, false},
	{"any", R(IMAGE_POLICY), -1, false},
	{"any", R(CANCELLED), -1, false},
	{"any", R(EXPIRED), -1, false},
	{"any", R(DEPENDENCY_FAILED), -1, false},
	{"any", R(ABANDONED), -1, false},
	{"any", R(HOST_LOST), -1, false},
	{"any", R(NONE), 0, false},
	{"75", R(EXIT_CODE), 75, true},
	{"75", R(EXIT_CODE), 76, false},
	{"75", R(EXIT_CODE), 74, false},
	{"75", R(KILLED), 75, false},
	{"75", R(INFRASTRUCTURE), -1, false},
	{"1,255", R(EXIT_CODE), 1, true},
	{"1,255", R(EXIT_CODE), 255, true},
	{"1,255", R(EXIT_CODE), 0, false},
	{"1,255", R(EXIT_CODE), -1, false},
	{"1,255", R(EXIT_CODE), 256, false},
	{"1,255", R(EXIT_CODE), INT32_MAX, false},
	{"exit_code", R(EXIT_CODE), 42, true},
	{"exit_code", R(OOM), 137, false},
	{" infrastructure ,\t75\n, oom", R(OOM), 137, true},
	{" infrastructure ,\t75\n, oom", R(EXIT_CODE), 75, true},
	{" infrastructure ,\t75\n, oom", R(IMAGE_PULL), -1, false},
	{"oom, any", R(EXIT_CODE), 9, true},
};

static const struct
{
	const char *list;
	const char *wrong;
} wrong_rows[] = {
	{"", ""},
	{" ", ""},
	{",", ""},
	{"75,", ""},
	{",75", ""},
	{"75,,76", ""},
	{"0", "0"},
	{"256", "256"},
	{"1000", "1000"},
	{"-1", "-1"},
	{"+1", "+1"},
	{"7 5", "7 5"},
	{"75;76", "75;76"},
	{"ANY", "ANY"},
	{"Any", "Any"},
	{"anything", "anything"},
	{"an", "an"},
	{"exit_codes", "exit_codes"},
	{"policy", "policy"},
	{"image_policy", "image_policy"},
	{"cancelled", "cancelled"},
	{"expired", "expired"},
	{"dependency_failed", "dependency_failed"},
	{"abandoned", "abandoned"},
	{"host_lost", "host_lost"},
	{"75, nope , 76", "nope"},
	{"99999999999999999999", "99999999999999999999"},
};

static void
test_listed(void)
{
	for (size_t i = 0; i < lengthof(listed_rows); i++)
	{
		const char *list = listed_rows[i].list;
		CmRetryOn on;
		const char *wrong = NULL;
		size_t n_wrong = 0;

		if (!ok(cm_retry_parse(list, &on, &wrong, &n_wrong), "\"%s\" is read",
				list ? list : "NULL"))
			continue;
		is_int(cm_retry_is_listed(&on, listed_rows[i].reason, listed_rows[i].exit_code),
			   listed_rows[i].wanted, "\"%s\": reason %d, exit code %d", list ? list : "NULL",
			   listed_rows[i].reason, listed_rows[i].exit_code);
	}
}

static void
test_wrong(void)
{
	for (size_t i = 0; i < lengthof(wrong_rows); i++)
	{
		CmRetryOn on;
		const char *wrong = NULL;
		size_t n_wrong = 0;

		if (ok(!cm_retry_parse(wrong_rows[i].list, &on, &wrong, &n_wrong), "\"%s\" is refused",
			   wrong_rows[i].list))
			is_bytes(wrong, n_wrong, wrong_rows[i].wrong, strlen(wrong_rows[i].wrong),
					 "\"%s\": for its item", wrong_rows[i].list);
	}
}

static void
test_delays(void)
{
	is_int(cm_retry_delay_ms(1, 10000, 0.0), 5000, "first delay, least");
	is_int(cm_retry_delay_ms(1, 10000, 1.0), 10000, "first delay, most");
	is_int(cm_retry_delay_ms(3, 10000, 1.0), 40000, "doubled twice");
	is_int(cm_retry_delay_ms(1000, 10000, 1.0), CM_RETRY_MAX_DELAY_MS, "no longer than an hour");
	is_int(cm_retry_delay_ms(5, INT64_C(7200000), 1.0), 7200000, "or than the first");
	is_int(cm_retry_delay_ms(5, 0, 1.0), 0, "no delay");
}

int
main(void)
{
	test_listed();
	test_wrong();
	test_delays();
	return tap_done();
}
