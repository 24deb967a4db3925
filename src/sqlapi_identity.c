/*
 * sqlapi_identity.c
 *		Where this cluster lives, and the way out of a hold.
 *
 * Floor 5.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "home.h"
#include "shmem.h"

PG_FUNCTION_INFO_V1(cm_identity_home);
PG_FUNCTION_INFO_V1(cm_identity_wake);

/* () -> home, timeline; see sql/10-identity.sql. */
Datum
cm_identity_home(PG_FUNCTION_ARGS)
{
	char home[CM_HOME_SIZE];
	TupleDesc desc;
	Datum values[2];
	bool nulls[2] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!cm_home_read(home))
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not stat file \"%s\": %m", "PG_VERSION")));
	values[0] = CStringGetTextDatum(home);
	nulls[1] = RecoveryInProgress();
	values[1] = nulls[1] ? (Datum) 0 : Int64GetDatum(cm_home_timeline());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* AFTER statement trigger on cm_internal.identity: somebody has asked for a takeover. */
Datum
cm_identity_wake(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "cm_internal.wake_identity must be called as trigger");
	cm_shmem_wake_at_commit(CM_WAKE_EXTENSION);
	return PointerGetDatum(NULL);
}
