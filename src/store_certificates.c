/*
 * store_certificates.c
 *		Which certificates are about to end, and that it was said.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "store.h"
#include "store_sql.h"

/*
 * A certificate that is used in many places is told once.  What was told is
 * noted in the same transaction, so that a restart does not tell it again.
 */
CmEndingCertificate *
cm_store_note_ending_certificates(int *n)
{
	static CmSql note = {
		"WITH ending AS (SELECT DISTINCT ON (c.fingerprint) c.* FROM @extschema@.cm_certificates c"
		"   WHERE c.state IN ('expiring', 'expired') ORDER BY c.fingerprint, c.host),"
		" over AS (DELETE FROM cm_internal.certificate_warnings w"
		"   WHERE w.fingerprint NOT IN (SELECT e.fingerprint FROM ending e)),"
		" noted AS (INSERT INTO cm_internal.certificate_warnings AS w (fingerprint, warned_at)"
		"   SELECT e.fingerprint, now() FROM ending e"
		"   ON CONFLICT (fingerprint) DO UPDATE SET warned_at = now()"
		"     WHERE w.warned_at <= now() - interval '1 day' RETURNING w.fingerprint)"
		" SELECT CASE e.kind WHEN 'ca' THEN 'CA' ELSE e.kind END, e.subject, e.host,"
		"   e.state = 'expired', to_char(e.not_after AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'"
		" FROM ending e JOIN noted USING (fingerprint) ORDER BY e.not_after, e.fingerprint",
		0,
		{0},
		NULL,
		0};
	CmEndingCertificate *ending;

	*n = (int) cm_sql_run(&note, NULL, NULL);
	ending = palloc0(sizeof(CmEndingCertificate) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		ending[i].kind = cm_sql_text(i, 1);
		ending[i].subject = cm_sql_text(i, 2);
		ending[i].host = cm_sql_text(i, 3);
		ending[i].has_ended = cm_sql_bool(i, 4);
		ending[i].not_after = cm_sql_text(i, 5);
	}
	return ending;
}
