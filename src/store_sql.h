/*
 * store_sql.h
 *		What the store's files share: statements that are planned once, and
 *		arrays to pass batches.
 *
 * Floor 3, for store*.c only.
 */
#ifndef CM_STORE_SQL_H
#define CM_STORE_SQL_H

#include "postgres.h"
#include "executor/spi.h"

#define CM_SQL_MAX_ARGS 20

/*
 * A statement; "@extschema@" in its text becomes the extension's schema.
 * Declared static and planned at first use; its plan stays.
 */
typedef struct CmSql
{
	const char *text;
	int n_args;
	Oid arg_types[CM_SQL_MAX_ARGS];
	SPIPlanPtr plan;
	uint64 generation; /* of the extension that it was planned for */
} CmSql;

/*
 * Runs it with the given arguments (nulls may be NULL: none is) and returns
 * the number of rows; they are in SPI_tuptable until the transaction ends.
 * The current memory context is left as it was.
 */
extern uint64 cm_sql_run(CmSql *sql, const Datum *values, const char *nulls);

/* A column of the result, in the current context; text is UTF-8 or NULL. */
extern Datum cm_sql_datum(uint64 row, int column, bool *is_null);
extern int64 cm_sql_int64(uint64 row, int column, int64 fallback);
extern int32 cm_sql_int32(uint64 row, int column, int32 fallback);
extern bool cm_sql_bool(uint64 row, int column);
extern char *cm_sql_text(uint64 row, int column);

/* Quoted name of the extension's schema. */
extern const char *cm_sql_schema(void);

/* How often an extension was found: plans for an earlier one are of no use. */
extern uint64 cm_sql_generation(void);

/* One column of a batch: an array that is filled value by value. */
typedef struct CmColumn
{
	Oid type;
	int n;
	int size;
	Datum *values;
	bool *nulls;
} CmColumn;

extern void cm_column_init(CmColumn *column, Oid type, int size);
extern void cm_column_add(CmColumn *column, Datum value, bool is_null);
extern void cm_column_add_int32(CmColumn *column, int32 value);
extern void cm_column_add_int64(CmColumn *column, int64 value);
/* UTF-8, converted; NULL adds a NULL. */
extern void cm_column_add_text(CmColumn *column, const char *utf8);
/* 0 adds a NULL. */
extern void cm_column_add_time(CmColumn *column, int64 at);
extern Datum cm_column_array(const CmColumn *column);

#endif /* CM_STORE_SQL_H */
