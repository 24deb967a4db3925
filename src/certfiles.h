/*
 * certfiles.h
 *		Reads a directory with ca.pem, cert.pem and key.pem, as DOCKER_CERT_PATH
 *		names one.
 *
 * Floor 1.  Blocks on nothing but the disk: what is no plain file is refused.
 */
#ifndef CM_CERTFILES_H
#define CM_CERTFILES_H

#include "postgres.h"

/* NULL: the file is not there.  cert and key are there both, or neither. */
typedef struct CmCertFiles
{
	char *ca;
	char *cert;
	char *key;
} CmCertFiles;

/*
 * In the current memory context; cm_certfiles_wipe() when they were used.
 * false: error is one line that names the file, os_error the errno or 0.
 */
extern bool cm_certfiles_read(const char *directory, bool needs_ca, CmCertFiles *files, char *error,
							  size_t error_size, int *os_error);
extern void cm_certfiles_wipe(CmCertFiles *files);

#endif /* CM_CERTFILES_H */
