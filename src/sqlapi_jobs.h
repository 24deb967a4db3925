/*
 * sqlapi_jobs.h
 *		What cm_submit_job() and cm_submit_jobs() share.
 *
 * Floor 5.
 */
#ifndef CM_SQLAPI_JOBS_H
#define CM_SQLAPI_JOBS_H

#include "postgres.h"

/* Parameters of cm_submit_job: all but the last, options, are columns of cm_jobs. */
typedef struct CmParameters
{
	int n_columns;
	char **columns;
	Oid *types; /* n_columns, then jsonb */
} CmParameters;

/* They are kept for ever. */
extern void cm_sqlapi_read_parameters(Oid function, CmParameters *parameters);

/*
 * What is wrong with a job is wrong with the parameters: that they travel by an
 * INSERT is of no interest.  Takes the line that SPI added off the error's
 * context; what callers have added stays.
 */
extern void cm_sqlapi_hide_statement(ErrorData *error);

#endif /* CM_SQLAPI_JOBS_H */
