/*
 * store_sql.c
 *		Statements that are planned once, and arrays to pass batches.
 *
 * SPI leaves the current memory context at its own after every call; here it
 * is put back, so that results land where the caller wants them.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "store.h"
#include "store_sql.h"

static char *
fill_in_schema(const char *text)
{
	StringInfoData filled;
	const char *mark = "@extschema@";
	const char *found;

	initStringInfo(&filled);
	while ((found = strstr(text, mark)) != NULL)
	{
		appendBinaryStringInfo(&filled, text, found - text);
		appendStringInfoString(&filled, cm_sql_schema());
		text = found + strlen(mark);
	}
	appendStringInfoString(&filled, text);
	return filled.data;
}

static void
plan_statement(CmSql *sql)
{
	SPIPlanPtr plan = SPI_prepare(fill_in_schema(sql->text), sql->n_args, sql->arg_types);

	if (plan == NULL)
		elog(ERROR, "could not plan \"%s\": %s", sql->text, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	if (sql->plan != NULL)
		SPI_freeplan(sql->plan);
	sql->plan = plan;
	sql->generation = cm_sql_generation();
}

uint64
cm_sql_run(CmSql *sql, const Datum *values, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	int code;

	if (sql->plan == NULL || sql->generation != cm_sql_generation())
		plan_statement(sql);
	code = SPI_execute_plan(sql->plan, unconstify(Datum *, values), nulls, false, 0);
	if (code < 0)
		elog(ERROR, "could not run \"%s\": %s", sql->text, SPI_result_code_string(code));
	MemoryContextSwitchTo(caller);
	return SPI_processed;
}

Datum
cm_sql_datum(uint64 row, int column, bool *is_null)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, is_null);
}

int64
cm_sql_int64(uint64 row, int column, int64 fallback)
{
	bool is_null;
	Datum value = cm_sql_datum(row, column, &is_null);

	return is_null ? fallback : DatumGetInt64(value);
}

int32
cm_sql_int32(uint64 row, int column, int32 fallback)
{
	bool is_null;
	Datum value = cm_sql_datum(row, column, &is_null);

	return is_null ? fallback : DatumGetInt32(value);
}

bool
cm_sql_bool(uint64 row, int column)
{
	bool is_null;
	Datum value = cm_sql_datum(row, column, &is_null);

	return !is_null && DatumGetBool(value);
}

char *
cm_sql_text(uint64 row, int column)
{
	bool is_null;
	Datum value = cm_sql_datum(row, column, &is_null);
	char *in_database;

	if (is_null)
		return NULL;
	in_database = TextDatumGetCString(value);
	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return in_database;
	return pg_server_to_any(in_database, strlen(in_database), PG_UTF8);
}

void
cm_column_init(CmColumn *column, Oid type, int size)
{
	column->type = type;
	column->n = 0;
	column->size = Max(size, 1);
	column->values = palloc(sizeof(Datum) * column->size);
	column->nulls = palloc(sizeof(bool) * column->size);
}

void
cm_column_add(CmColumn *column, Datum value, bool is_null)
{
	if (column->n == column->size)
	{
		column->size *= 2;
		column->values = repalloc(column->values, sizeof(Datum) * column->size);
		column->nulls = repalloc(column->nulls, sizeof(bool) * column->size);
	}
	column->values[column->n] = value;
	column->nulls[column->n] = is_null;
	column->n++;
}

void
cm_column_add_int32(CmColumn *column, int32 value)
{
	cm_column_add(column, Int32GetDatum(value), false);
}

void
cm_column_add_int64(CmColumn *column, int64 value)
{
	cm_column_add(column, Int64GetDatum(value), false);
}

void
cm_column_add_text(CmColumn *column, const char *utf8)
{
	if (utf8 == NULL)
		cm_column_add(column, (Datum) 0, true);
	else
		cm_column_add(column, CStringGetTextDatum(cm_store_text_from_utf8(utf8)), false);
}

void
cm_column_add_time(CmColumn *column, int64 at)
{
	cm_column_add(column, TimestampTzGetDatum(at), at == 0);
}

Datum
cm_column_array(const CmColumn *column)
{
	int16 length;
	bool by_value;
	char align;
	int dims[1] = {column->n};
	int bounds[1] = {1};

	if (column->n == 0)
		return PointerGetDatum(construct_empty_array(column->type));
	get_typlenbyvalalign(column->type, &length, &by_value, &align);
	return PointerGetDatum(construct_md_array(column->values, column->nulls, 1, dims, bounds,
											  column->type, length, by_value, align));
}
