/*
 * stepaside.c
 *		Makes executors leave databases that somebody wants for himself.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE, ALTER DATABASE ... RENAME and
 * ... SET TABLESPACE fail while anybody is connected.  Before one of them runs
 * the executor is sent away and kept out until the end of the transaction,
 * whatever that is: then the launcher looks whether the database is still
 * there.
 *
 * Only for who has the right to do it: others could else stop executors by
 * commands that fail.  The rights are those that the command itself will
 * check; it checks them again, and says what is wrong.  Nothing here raises an
 * error but a cancel that came while waiting.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "engine.h"
#include "shmem.h"
#include "stepaside.h"

/* As long as the command itself waits for others to go. */
#define MAX_WAIT_MS 5000

static ProcessUtility_hook_type next_process_utility = NULL;

static Oid
find_database(const char *name)
{
	return name == NULL ? InvalidOid : get_database_oid(name, true);
}

static bool
is_owner(Oid database)
{
	return OidIsValid(database) && cm_database_ownercheck(database, GetUserId());
}

static bool
is_template(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return result;
}

/* The string of an option, or the fallback; what is no string is for the
 * command to refuse. */
static const char *
get_option(List *options, const char *name, const char *fallback)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return fallback;
}

static Oid
target_of_drop(DropdbStmt *statement)
{
	Oid database = find_database(statement->dbname);

	return is_owner(database) ? database : InvalidOid;
}

static Oid
target_of_create(CreatedbStmt *statement)
{
	Oid database = find_database(get_option(statement->options, "template", "template1"));

	if (!OidIsValid(database) || !have_createdb_privilege())
		return InvalidOid;
	return is_template(database) || is_owner(database) ? database : InvalidOid;
}

static Oid
target_of_rename(RenameStmt *statement)
{
	Oid database;

	if (statement->renameType != OBJECT_DATABASE || !have_createdb_privilege())
		return InvalidOid;
	database = find_database(statement->subname);
	return is_owner(database) ? database : InvalidOid;
}

static Oid
target_of_alter(AlterDatabaseStmt *statement)
{
	Oid database;

	if (get_option(statement->options, "tablespace", NULL) == NULL)
		return InvalidOid;
	database = find_database(statement->dbname);
	return is_owner(database) ? database : InvalidOid;
}

/*
 * The database that the statement needs for itself, if it may; else
 * InvalidOid.  Where the command would fail for being in a transaction block
 * nobody has to leave for it; RENAME alone may stand in one.
 */
static Oid
find_target(Node *statement, bool is_in_block)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return is_in_block ? InvalidOid : target_of_drop((DropdbStmt *) statement);
		case T_CreatedbStmt:
			return is_in_block ? InvalidOid : target_of_create((CreatedbStmt *) statement);
		case T_AlterDatabaseStmt:
			return is_in_block ? InvalidOid : target_of_alter((AlterDatabaseStmt *) statement);
		case T_RenameStmt:
			return target_of_rename((RenameStmt *) statement);
		default:
			return InvalidOid;
	}
}

/*
 * If the executor does not go in time the command is left to say that somebody
 * is connected.  Returns whether the database had an executor.
 */
static bool
clear_database(Oid database)
{
	int pid;

	if (!cm_shmem_hold(database, &pid) || pid == 0)
		return false;
	(void) cm_shmem_await_exit(database, pid, MAX_WAIT_MS);
	return true;
}

static void
note_drop(DropdbStmt *statement)
{
	ereport(LOG,
			(errmsg("database \"%s\" was dropped while container_manager was at work in it",
					statement->dbname),
			 errdetail(
				 "Containers that it had started are left on their hosts, with the jobs in them."),
			 errhint("On such a host \"docker ps --all --filter label=" CM_LABEL_EPOCH
					 "\" shows them.")));
}

static void
process_utility(PlannedStmt *plan, const char *query, bool is_read_only_tree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *environment,
				DestReceiver *destination, QueryCompletion *completion)
{
	Node *statement = plan->utilityStmt;
	bool is_in_block = IsInTransactionBlock(context == PROCESS_UTILITY_TOPLEVEL);
	Oid database = find_target(statement, is_in_block);
	bool had_executor = OidIsValid(database) && clear_database(database);
	ProcessUtility_hook_type next =
		next_process_utility != NULL ? next_process_utility : standard_ProcessUtility;

	next(plan, query, is_read_only_tree, context, params, environment, destination, completion);

	/* Whether it was ours is for the executor to see, who looks at once. */
	if (IsA(statement, DropStmt) && ((DropStmt *) statement)->removeType == OBJECT_EXTENSION)
		cm_shmem_wake_at_commit(CM_WAKE_EXTENSION);
	if (had_executor && IsA(statement, DropdbStmt))
		note_drop((DropdbStmt *) statement);
}

void
cm_stepaside_install(void)
{
	next_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
