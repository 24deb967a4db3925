/*
 * placement.h
 *		Which host gets the next job.
 *
 * Floor 0: pure; randomness is an argument.
 */
#ifndef CM_PLACEMENT_H
#define CM_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

typedef enum CmStrategy
{
	CM_PLACE_LEAST_LOADED, /* (used + 1) / slots / weight is smallest */
	CM_PLACE_ROUND_ROBIN,  /* was given a job longest ago */
	CM_PLACE_WEIGHTED,	   /* at random, as often as its weight says */
	CM_PLACE_RESOURCES,	   /* keeps most of memory or CPUs, whichever is scarcer */
	CM_PLACE_PACK		   /* used / slots is largest, so that others stay empty */
} CmStrategy;

extern const char *cm_placement_word(CmStrategy strategy);
/* false: no such word. */
extern bool cm_placement_parse(const char *word, CmStrategy *strategy);

/*
 * A host as a candidate.  can_take says that it is active, not drained and
 * answers; used counts its launching and running jobs, and what is reserved is
 * the sum of their limits.
 */
typedef struct CmCandidate
{
	int host_id;
	bool can_take;
	int used;
	int slots;			 /* max_concurrent_jobs */
	int weight;			 /* 1..1000 */
	int64_t last_chosen; /* grows with each choice; 0: never was */
	int64_t memory_mb;	 /* 0: not known, as good as without end */
	int64_t nano_cpus;	 /* likewise */
	int64_t reserved_mb;
	int64_t reserved_nano_cpus;
} CmCandidate;

/* A host that has the labels that a placement key asks for. */
typedef struct CmKeyHost
{
	int key;
	int host_id;
} CmKeyHost;

/* All that a choice is made from. */
typedef struct CmFleet
{
	CmCandidate *candidates;
	int n;
	const CmKeyHost *key_hosts; /* in order of key, then host_id */
	int n_key_hosts;
	int64_t n_chosen; /* last_chosen of the last choice */
} CmFleet;

/*
 * What a job asks for.  key: 0 any host, above 0 the host of that id, below 0
 * those that key_hosts has of it.  A host that is asked for by its id need not
 * have room by RESOURCES: there is no choice.
 */
typedef struct CmPlacementAsk
{
	int key;
	CmStrategy strategy;
	int64_t memory_mb;
	int64_t nano_cpus;
} CmPlacementAsk;

/* Free slots of a candidate; 0 where it cannot take any. */
extern int cm_placement_free_slots(const CmCandidate *candidate);

/* Of all candidates that can take such a job; at most INT_MAX. */
extern int cm_placement_free_slots_for(const CmFleet *fleet, const CmPlacementAsk *ask);

/*
 * Index of the candidate for a job, or -1 where none can take it; unit_random,
 * in [0, 1), decides with WEIGHTED.  With RESOURCES, one that has not enough
 * memory or CPUs left cannot take it.  Ties go to the lower host_id.  Slots
 * beyond 2^26 are not compared: no host has so many.
 */
extern int cm_placement_choose(const CmFleet *fleet, const CmPlacementAsk *ask, double unit_random);

/* Notes that the candidate was given the job. */
extern void cm_placement_take(CmFleet *fleet, int chosen, const CmPlacementAsk *ask);

#endif /* CM_PLACEMENT_H */
