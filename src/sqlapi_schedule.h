/*
 * sqlapi_schedule.h
 *		What a submitted job says of its order among others: depends_on,
 *		unique_key, concurrency_key.
 *
 * Floor 5.  Called by the triggers of cm_jobs; errors name the column.
 */
#ifndef CM_SQLAPI_SCHEDULE_H
#define CM_SQLAPI_SCHEDULE_H

#include "postgres.h"
#include "access/htup.h"
#include "utils/rel.h"

/*
 * Refuses jobs in depends_on that whoever submits does not see, or that are not
 * earlier ones.  With his rights.
 */
extern void cm_sqlapi_check_dependencies(Relation jobs, HeapTuple job);

/* The rest follows with the rights of the table's owner. */

/* They stay until the job is committed, and after that as long as it waits. */
extern void cm_sqlapi_lock_dependencies(Relation jobs, HeapTuple job);

extern void cm_sqlapi_check_keys(Relation jobs, HeapTuple job);

/*
 * Gives the job its unique_key.  0: it has it, or needs none; else the unfinished
 * job that has the key, and that on_conflict says is enough.
 */
extern int64 cm_sqlapi_take_unique_key(Relation jobs, HeapTuple job, Oid submitter);

/*
 * Jobs that a function of ours is submitting: what the trigger that checks them
 * tells it.  NULL: nobody asks.
 */
typedef struct CmSubmission
{
	int depth;	   /* of triggers, where the function was called */
	int n_checked; /* jobs that were let pass, or skipped */
	int n_skipped; /* for the sake of on_conflict; n_space: room for them */
	int n_space;
	int *skipped_at;	/* positions, from 0 */
	int64 *skipped_for; /* the jobs that are there instead */
} CmSubmission;

extern CmSubmission *cm_sqlapi_submission;

extern void cm_sqlapi_begin_submission(CmSubmission *submission);
/* To be called after an error, too, with what was before. */
extern void cm_sqlapi_end_submission(CmSubmission *before);
/* 0: it was let pass. */
extern void cm_sqlapi_note_checked(int64 skipped_for);

#endif /* CM_SQLAPI_SCHEDULE_H */
