/*
 * sqlapi_triggers.h
 *		What the triggers share.
 *
 * Floor 5.  They run with the rights of whoever writes the row, so that "owner"
 * is who he says he is; what he may not read (hosts, identity, queue) is read as
 * the table's owner.  The executor's session runs as a replica, where none of
 * them fires but the one that publishes events.
 */
#ifndef CM_SQLAPI_TRIGGERS_H
#define CM_SQLAPI_TRIGGERS_H

#include "postgres.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"

/* A statement that is planned once per session and table. */
typedef struct CmTriggerSql
{
	const char *text; /* %s: the schema, once */
	int n_args;
	Oid arg_types[6];
	Oid relation;
	SPIPlanPtr plan;
} CmTriggerSql;

/* Returns the number of rows; those are in SPI_tuptable.  Throws where it fails. */
extern uint64 cm_sqlapi_run_in_trigger(CmTriggerSql *sql, Relation relation, Datum *values);
/* The same where some values are NULL: nulls has an 'n' for each. */
extern uint64 cm_sqlapi_run_in_trigger_nulls(CmTriggerSql *sql, Relation relation, Datum *values,
											 const char *nulls);
/* For a look at what is committed by now, whatever the transaction's own snapshot. */
extern uint64 cm_sqlapi_look_in_trigger(CmTriggerSql *sql, Relation relation, Datum *values);

/* A job is submitted in vain: nobody is told that it is queued. */
extern bool cm_submit_is_dry_run;

/* Throws where the function was not called as a trigger. */
extern TriggerData *cm_sqlapi_trigger_data(FunctionCallInfo fcinfo);

#endif /* CM_SQLAPI_TRIGGERS_H */
