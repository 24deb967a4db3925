/*
 * sqlapi_environment.h
 *		Where the environment of a submitted job is made.
 *
 * Floor 5.
 */
#ifndef CM_SQLAPI_ENVIRONMENT_H
#define CM_SQLAPI_ENVIRONMENT_H

#include "postgres.h"
#include "access/htup.h"
#include "utils/rel.h"

/*
 * Merges what a job's environment is made of, from the lowest: the environment
 * template of its template (template_environment, NULL: none), its template, its
 * own environment template, itself.  said is the row as it was given, filled the
 * same with what its template gives it: environment and secret_environment of
 * filled may already have those of said in them.  Returns filled with
 * environment, secret_environment and environment_sources set.  An environment
 * that is no object is left as it is, for the guard to refuse.
 */
extern HeapTuple cm_sqlapi_merge_environment(Relation jobs, HeapTuple said, HeapTuple filled,
											 const char *template_environment);

/* Throws where the job's secrets are not there, or not for the role. */
extern void cm_sqlapi_check_secrets(Relation jobs, HeapTuple job, Oid role);

#endif /* CM_SQLAPI_ENVIRONMENT_H */
