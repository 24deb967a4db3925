/*
 * diagnosis.h
 *		Why an engine did not answer as it should, and what to do: in words for
 *		people.
 *
 * Floor 3, right of engine.  "Could not connect" is what the transport knows;
 * an administrator needs to hear which of the five usual causes it is.
 */
#ifndef CM_DIAGNOSIS_H
#define CM_DIAGNOSIS_H

#include "postgres.h"
#include "lib/stringinfo.h"

#include "engine.h"

/* ASCII, one line each: error without a final period, hint a sentence. */
typedef struct CmDiagnosis
{
	char error[512];
	char hint[512];
} CmDiagnosis;

/*
 * Explains a request that failed with fault.  Must be called soon after: where
 * the engine could not be reached, its socket is looked at again.  Never
 * throws, never blocks on the engine.
 */
extern void cm_diagnosis_make(const CmEndpoint *endpoint, CmHttpOutcome outcome,
							  const CmFault *fault, CmDiagnosis *diagnosis);

#endif /* CM_DIAGNOSIS_H */
