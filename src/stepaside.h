/*
 * stepaside.h
 *		Makes executors leave databases that somebody wants for himself.
 *
 * Floor 5.
 */
#ifndef CM_STEPASIDE_H
#define CM_STEPASIDE_H

/* From _PG_init, when preloaded. */
extern void cm_stepaside_install(void);

#endif /* CM_STEPASIDE_H */
