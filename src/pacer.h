/*
 * pacer.h
 *		How many starts one engine is given at a time.
 *
 * Floor 0: pure; time is an argument.
 *
 * An engine that starts many containers at once starts fewer per second than one
 * that is given a few after each other, and how many are best hangs on its CPUs,
 * its disk and what else it does.  So the limit is sought: a round of starts is
 * timed at one limit, the next round at another, and the two rates tell in which
 * direction to go on.  Rounds count only where the limit was what held starts
 * back: an engine with little to do tells nothing.
 *
 * It bounds starts, not containers that run.
 */
#ifndef CM_PACER_H
#define CM_PACER_H

#include <stdbool.h>
#include <stdint.h>

#define CM_PACER_MAX 64

typedef struct CmPacer
{
	int limit;
	int cap; /* 1..CM_PACER_MAX: the limit goes no higher */

	/* the round under way */
	int n_warm;		  /* ends left that do not count: begun at the limit before */
	int n_counted;	  /* starts since */
	int64_t begun_ms; /* since when they are counted; 0: no round is under way */

	/* the round before, at another limit; rate 0: there was none to compare with */
	int other_limit;
	double other_rate; /* starts per ms */

	bool goes_up;	   /* the direction in which the limit is sought */
	int n_rounds_held; /* left at this limit before another is tried */
} CmPacer;

/* first: the limit to begin with. */
extern void cm_pacer_init(CmPacer *pacer, int first);

/* 0, or more than CM_PACER_MAX: that. */
extern void cm_pacer_set_cap(CmPacer *pacer, int cap);

/*
 * A start has ended, well or not, while n_in_flight were under way, it among them.
 * is_wanted: another one waits for its place.
 */
extern void cm_pacer_note_end(CmPacer *pacer, int n_in_flight, bool is_good, bool is_wanted,
							  int64_t now_ms);

/* The engine was lost: what is under way tells nothing.  The limit is kept. */
extern void cm_pacer_void_round(CmPacer *pacer);

#endif /* CM_PACER_H */
