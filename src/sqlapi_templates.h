/*
 * sqlapi_templates.h
 *		What templates give to jobs.
 *
 * Floor 5.
 */
#ifndef CM_SQLAPI_TEMPLATES_H
#define CM_SQLAPI_TEMPLATES_H

#include "postgres.h"
#include "access/htup.h"
#include "utils/rel.h"

/*
 * A row of cm_jobs with what it leaves unsaid taken from the template that it
 * names, placeholders filled; as it is where it names none.  Throws where there is
 * no such template, or not all parameters or too many are given.
 * *environment_template: the name of the template's own, whose variables are
 * below all that is in the row; NULL: none.
 */
extern HeapTuple cm_sqlapi_fill_from_template(Relation jobs, HeapTuple job,
											  char **environment_template);

/*
 * Objects on top of each other: of a key that several have, the last counts.
 * Layers that are not objects, which the guard refuses, cover what is below.
 * *is_null: all of them are NULL.
 */
extern Datum cm_sqlapi_merge_objects(int n, const Datum *layers, const bool *nulls, bool *is_null);

/* What a submitted job of that row would be refused for; in sqlapi_submit.c. */
extern void cm_sqlapi_check_unsubmitted(Relation jobs, HeapTuple job);

#endif /* CM_SQLAPI_TEMPLATES_H */
