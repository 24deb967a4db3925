/*
 * mock_config.h
 *		executor_config of a host of executor_type mock: JSON into a script.
 *
 * Floor 3.  Called when a row of cm_hosts is written (the problem becomes an
 * ERROR) and again by the executor when it loads the row.
 */
#ifndef CM_MOCK_CONFIG_H
#define CM_MOCK_CONFIG_H

#include "postgres.h"

#include "mock.h"
#include "policy.h"

#define CM_MOCK_MAX_CONFIG_BYTES (1024 * 1024)

/*
 * json: UTF-8.  The script is allocated in the current memory context and
 * points into what is allocated there.  false: *problem tells what is wrong and
 * where, of the host by that name.
 */
extern bool cm_mock_config_read(const char *host, const char *json, CmMockScript *script,
								CmProblem *problem);

#endif /* CM_MOCK_CONFIG_H */
