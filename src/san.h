/*
 * san.h
 *		Parses a name for which a certificate is to be valid.
 *
 * Floor 0: pure.
 */
#ifndef CM_SAN_H
#define CM_SAN_H

#include <stdbool.h>
#include <stddef.h>

#define CM_SAN_SIZE 272

/*
 * text is a host name or an address, with or without DNS: or IP: in front; out
 * becomes "DNS:name" or "IP:address", the address in its canonical form.  false
 * with a sentence (no final period) in error: wildcards, labels that are no
 * host's, addresses in other forms.  Its first CM_SAN_SIZE bytes are looked at.
 */
extern bool cm_san_parse(const char *text, char out[CM_SAN_SIZE], const char **error);

#endif /* CM_SAN_H */
