/*
 * diagnosis_tcp.h
 *		What can go wrong on the way to an engine by TCP and TLS.
 *
 * Floor 3, for diagnosis.c only.
 */
#ifndef CM_DIAGNOSIS_TCP_H
#define CM_DIAGNOSIS_TCP_H

#include "diagnosis.h"

/* false: TCP and TLS had no part in it; nothing was written. */
extern bool cm_diagnosis_explain_tcp(const CmEngine *engine, const CmHttpRequest *request,
									 const CmFault *fault, CmDiagnosis *diagnosis);

#endif /* CM_DIAGNOSIS_TCP_H */
