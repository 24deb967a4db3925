/*
 * placement.h
 *		Which host gets the next job.
 *
 * Floor 0: pure.
 */
#ifndef CM_PLACEMENT_H
#define CM_PLACEMENT_H

#include <stdbool.h>

/*
 * A host as a candidate.  can_take says that it is active, not drained and
 * answers; used counts its launching and running jobs.
 */
typedef struct CmCandidate
{
	int host_id;
	bool can_take;
	int used;
	int slots;	/* max_concurrent_jobs */
	int weight; /* 1..1000 */
} CmCandidate;

/* Free slots of a candidate; 0 where it cannot take any. */
extern int cm_placement_free_slots(const CmCandidate *candidate);

/*
 * Index of the candidate for a job: the one pinned by pinned_host_id, or with
 * 0 the least loaded ((used + 1) / slots / weight is smallest; ties go to the
 * lower host_id).  -1 where none can take it.  Does not change the candidates.
 * Slots beyond 2^26 are not compared: no host has so many.
 */
extern int cm_placement_choose(const CmCandidate *candidates, int n, int pinned_host_id);

#endif /* CM_PLACEMENT_H */
