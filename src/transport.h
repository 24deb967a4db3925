/*
 * transport.h
 *		From what a host's row says to an engine that can be spoken to.
 *
 * Floor 3, right of diagnosis.  Certificates come from files or from the
 * database; either may be renewed at any time, so the same function is called
 * again whenever that should be noticed.
 */
#ifndef CM_TRANSPORT_H
#define CM_TRANSPORT_H

#include "postgres.h"

#include "diagnosis.h"
#include "endpoint.h"
#include "engine.h"

/* A stored key is sealed for this purpose, under this name: it opens for no other host. */
#define CM_TRANSPORT_KEY_PURPOSE "host_tls"
#define CM_TRANSPORT_KEY_NAME_SIZE 12
extern void cm_transport_key_name(int host_id, char name[CM_TRANSPORT_KEY_NAME_SIZE]);

/*
 * Sets endpoint, tls and only_loopback of an engine (zeroed at first).  Where
 * TLS changes, connections that are there are not used for new requests.
 * false: *problem says why, and the engine is as it was.
 */
extern bool cm_transport_apply(CmEngine *engine, const CmHostAddress *address,
							   CmDiagnosis *problem);

/* Lets go of what apply has set. */
extern void cm_transport_close(CmEngine *engine);

#endif /* CM_TRANSPORT_H */
