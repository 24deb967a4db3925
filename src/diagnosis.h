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
extern void cm_diagnosis_make(const CmEngine *engine, const CmHttpRequest *request,
							  const CmFault *fault, CmDiagnosis *diagnosis);

/* Printable ASCII; whatever else is in text becomes "?". */
extern void cm_diagnosis_copy_line(char *out, size_t out_size, const char *text);

/* Whom the server runs as, for advice about rights. */
extern const char *cm_diagnosis_os_user(void);

#endif /* CM_DIAGNOSIS_H */
