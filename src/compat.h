/*
 * compat.h
 *		What differs between PostgreSQL 15 and 18; the only PG_VERSION_NUM.
 *
 * Floor 1.  Macros rather than functions, so that this file needs postgres.h
 * and nothing else: whoever uses a macro includes the header of what it calls
 * (named beside it).  Names without prefix are those of the newest server,
 * given to the older ones.
 */
#ifndef CM_COMPAT_H
#define CM_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "container_manager needs PostgreSQL 15 or newer"
#endif

/* fmgr.h: the magic block, with name and version where the server has room. */
#if PG_VERSION_NUM >= 180000
#define CM_MODULE_MAGIC(name_, version_) PG_MODULE_MAGIC_EXT(.name = name_, .version = version_)
#else
#define CM_MODULE_MAGIC(name_, version_) PG_MODULE_MAGIC
#endif

/* A prefix: "pg_noreturn static void f(void)". */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/*
 * storage/latch.h: a set that lives as long as the session.  From 17 on the
 * argument is a resource owner; the current one would free the set at the end
 * of the transaction.
 */
#if PG_VERSION_NUM >= 170000
#define cm_create_wait_event_set(n_events) CreateWaitEventSet(NULL, (n_events))
#else
#define cm_create_wait_event_set(n_events) CreateWaitEventSet(TopMemoryContext, (n_events))
#endif

/*
 * utils/wait_event.h: what pg_stat_activity shows while we wait; before 17
 * everything of an extension is called "Extension".  The number is asked for
 * once per place of use, because asking takes a lock.  May throw.
 */
#if PG_VERSION_NUM >= 170000
#define cm_wait_event(name)                            \
	({                                                 \
		static uint32 wait_event_ = 0;                 \
                                                       \
		if (wait_event_ == 0)                          \
			wait_event_ = WaitEventExtensionNew(name); \
		wait_event_;                                   \
	})
#else
#define cm_wait_event(name) PG_WAIT_EXTENSION
#endif

/* postmaster/bgworker.h */
#if PG_VERSION_NUM >= 170000
#define CM_BGWORKER_BYPASS_ROLELOGINCHECK BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define CM_BGWORKER_BYPASS_ROLELOGINCHECK 0 /* nobody checks there */
#endif

/* storage/proc.h: this process' place in ProcGlobal->allProcs. */
#if PG_VERSION_NUM >= 170000
#define cm_my_proc_number() ((int) MyProcNumber)
#else
#define cm_my_proc_number() (MyProc->pgprocno)
#endif

/*
 * common/jsonapi.h: actions of the JSON parser, and its lexer over UTF-8 text
 * with escapes resolved.
 */
#if PG_VERSION_NUM >= 160000
#define CM_JSON_ACTION JsonParseErrorType
#define CM_JSON_ACTION_DONE return JSON_SUCCESS
#else
#define CM_JSON_ACTION void
#define CM_JSON_ACTION_DONE return
#endif

#if PG_VERSION_NUM >= 170000
#define cm_json_lexer_new(text, n_bytes) \
	makeJsonLexContextCstringLen(NULL, (text), (n_bytes), PG_UTF8, true)
#define cm_json_lexer_free(lexer) freeJsonLexContext(lexer)
#else
#define cm_json_lexer_new(text, n_bytes) \
	makeJsonLexContextCstringLen((text), (n_bytes), PG_UTF8, true)
#define cm_json_lexer_free(lexer)     \
	do                                \
	{                                 \
		pfree((lexer)->strval->data); \
		pfree((lexer)->strval);       \
		pfree(lexer);                 \
	} while (0)
#endif

/*
 * utils/acl.h, catalog/pg_*.h: may the role do this with the object?  The
 * checks on tables (pg_class_aclcheck) kept their name.
 */
#if PG_VERSION_NUM >= 160000
#define cm_database_ownercheck(database, role) \
	object_ownercheck(DatabaseRelationId, (database), (role))
#define cm_class_ownercheck(relation, role) \
	object_ownercheck(RelationRelationId, (relation), (role))
#define cm_extension_ownercheck(extension, role) \
	object_ownercheck(ExtensionRelationId, (extension), (role))
#define cm_database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, (database), (role), (mode))
#define cm_namespace_aclcheck(namespace_, role, mode) \
	object_aclcheck(NamespaceRelationId, (namespace_), (role), (mode))
#define cm_tablespace_aclcheck(tablespace, role, mode) \
	object_aclcheck(TableSpaceRelationId, (tablespace), (role), (mode))
#else
#define cm_database_ownercheck(database, role) pg_database_ownercheck((database), (role))
#define cm_class_ownercheck(relation, role) pg_class_ownercheck((relation), (role))
#define cm_extension_ownercheck(extension, role) pg_extension_ownercheck((extension), (role))
#define cm_database_aclcheck(database, role, mode) pg_database_aclcheck((database), (role), (mode))
#define cm_namespace_aclcheck(namespace_, role, mode) \
	pg_namespace_aclcheck((namespace_), (role), (mode))
#define cm_tablespace_aclcheck(tablespace, role, mode) \
	pg_tablespace_aclcheck((tablespace), (role), (mode))
#endif

/*
 * utils/guc.h: memory of a check hook's "extra" and of a string it replaces,
 * which the server frees.  NULL when there is none left.
 */
#if PG_VERSION_NUM >= 160000
#define cm_guc_malloc(n_bytes) guc_malloc(LOG, (n_bytes))
#else
#define cm_guc_malloc(n_bytes) malloc(n_bytes)
#endif

/*
 * utils/guc.h: a search_path that no user can put anything into, until the
 * AtEOXact_GUC of the nest level that the caller made by NewGUCNestLevel().
 */
#if PG_VERSION_NUM >= 170000
#define cm_restrict_search_path() RestrictSearchPath()
#else
#define cm_restrict_search_path()                                                               \
	((void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, \
							  GUC_ACTION_SAVE, true, 0, false))
#endif

#endif /* CM_COMPAT_H */
