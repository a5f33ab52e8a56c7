"""Copy every row of one database into another, empty one, of either kind: SQLite to PostgreSQL, back, and a backup of PostgreSQL.

Tables go in the order of their foreign keys, JSON as the text that is stored (the audit chain hashes it), so that what arrives is what
lay there, byte for byte. The caller holds both connections, with one state of the source and one transaction in the target; nothing is
committed here. What is only an index (words of cases) is not copied. Called by `core.database_move` and `core.backup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import JSON, Connection, Table, Text, cast, column, func, insert, inspect, select, table, text
from sqlalchemy.exc import DBAPIError

from core.errors import UserError
from db import postgres, tables
from db.base import Base

assert tables  # mapping the tables fills Base.metadata

CHUNK = 2000


def revision_of(connection: Connection) -> str | None:
    """The schema's revision; None for a database without our tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def holds_tables(connection: Connection) -> bool:
    """Whether anything lies in the database, ours or not."""
    return bool(inspect(connection).get_table_names())


def counts(connection: Connection) -> dict[str, int]:
    """Rows by table, in the order in which they are copied."""
    return {one.name: connection.scalar(select(func.count()).select_from(one)) or 0 for one in Base.metadata.sorted_tables}


def copy_rows(source: Connection, target: Connection, on_table: Callable[[str, int], None] | None = None) -> int:
    """Copy all tables; returns how many rows. `on_table(name, rows)` after each table.

    Raises UserError("postgres.row_refused") for a row that the target cannot hold.
    """
    total = 0
    for one in Base.metadata.sorted_tables:
        done = _copy_postgres(source, target, one) if target.dialect.name == "postgresql" else _copy_sqlite(source, target, one)
        total += done
        if on_table is not None:
            on_table(one.name, done)
    if target.dialect.name == "postgresql":
        set_sequences(target)
    return total


def set_sequences(connection: Connection) -> None:
    """The next number of every table follows the largest that it holds."""
    for one in Base.metadata.sorted_tables:
        if one.autoincrement_column is None:
            continue
        name = connection.scalar(select(func.pg_get_serial_sequence(one.name, one.autoincrement_column.name)))
        highest = connection.scalar(select(func.max(one.autoincrement_column)))
        if name is not None:
            connection.execute(select(func.setval(name, highest or 1, highest is not None)))


def _rows(source: Connection, one: Table) -> Iterator[tuple[Any, ...]]:
    columns = [cast(c, Text) if isinstance(c.type, JSON) else c for c in one.columns]
    query = select(*columns).order_by(*one.primary_key.columns)
    with source.execute(query, execution_options={"yield_per": CHUNK}) as found:
        for row in found:
            yield tuple(row)


def _copy_postgres(source: Connection, target: Connection, one: Table) -> int:
    import psycopg  # only where PostgreSQL is used

    names = ", ".join(f'"{c.name}"' for c in one.columns)
    texts = {n for n, c in enumerate(one.columns) if isinstance(c.type, JSON)}
    driver: Any = target.connection.driver_connection
    done, last = 0, None
    try:
        with driver.cursor().copy(f'COPY "{one.name}" ({names}) FROM STDIN') as copy:
            for row in _rows(source, one):
                last = row[0]
                copy.write_row([postgres.plain_json(v) if n in texts and v is not None else v for n, v in enumerate(row)])
                done += 1
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise UserError("postgres.row_refused", table=one.name, row=last, reason=str(error).splitlines()[0]) from error
    return done


def _copy_sqlite(source: Connection, target: Connection, one: Table) -> int:
    plain = table(one.name, *(column(c.name, Text() if isinstance(c.type, JSON) else c.type) for c in one.columns))
    names, done = [c.name for c in one.columns], 0
    chunk: list[dict[str, Any]] = []
    try:
        for row in _rows(source, one):
            chunk.append(dict(zip(names, row, strict=True)))
            if len(chunk) == CHUNK:
                target.execute(insert(plain), chunk)
                done += len(chunk)
                chunk = []
        if chunk:
            target.execute(insert(plain), chunk)
    except DBAPIError as error:
        raise UserError("postgres.row_refused", table=one.name, row=done, reason=str(error.orig)) from error
    return done + len(chunk)
