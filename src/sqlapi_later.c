/*
 * sqlapi_later.c
 *		Functions whose names and parameters are fixed, but which this version
 *		does not have.
 *
 * Floor 5.  They exist so that nothing else takes their names, and so that who
 * calls one hears that it is the version, not a misspelling.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(cm_not_available);

Datum
cm_not_available(PG_FUNCTION_ARGS)
{
	const char *name = get_func_name(fcinfo->flinfo->fn_oid);

	ereport(ERROR, errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("%s is not available in this version", name != NULL ? name : "function"));
	PG_RETURN_NULL();
}
