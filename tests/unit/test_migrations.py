"""schema.sql is what the migrations add up to."""

from __future__ import annotations

from typing import Any

import duckdb

from cellrail_state.sql import migrations, schema


def shape(*scripts: str) -> list[Any]:
    connection = duckdb.connect(":memory:")
    try:
        for script in scripts:
            connection.execute(script)
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
            "WHERE NOT internal ORDER BY ALL"
        ).fetchall()
        rules = connection.execute(
            "SELECT table_name, constraint_type, constraint_text FROM duckdb_constraints() "
            "ORDER BY ALL"
        ).fetchall()
        return [*columns, *rules]
    finally:
        connection.close()


def test_the_schema_is_the_sum_of_the_migrations() -> None:
    assert shape(*migrations().values()) == shape(schema())


def test_migrations_are_numbered_without_gaps() -> None:
    assert list(migrations()) == list(range(1, len(migrations()) + 1))
