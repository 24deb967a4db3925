/*
 * store_options.h
 *		docker_options, taken apart for the guard.
 *
 * Floor 3, for store*.c only.
 */
#ifndef CM_STORE_OPTIONS_H
#define CM_STORE_OPTIONS_H

#include "docker_json.h"
#include "jobspec.h"

/*
 * Of an object; nothing is judged here.  What is in a member HostConfig is
 * taken out of it.  Texts are those of the JSON tree.
 */
extern void cm_store_read_options(const CmJson *json, CmJobSpec *spec);

#endif /* CM_STORE_OPTIONS_H */
