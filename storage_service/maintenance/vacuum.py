"""Maintenance of a whole database, which an administrator runs now and then."""

from __future__ import annotations

from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import DatabaseError

from storage_service.db.database import Database
from storage_service.db.declarative_base import Base
from storage_service.db.error_translation import DamagedDatabase
from storage_service.db.models import Generation, Prompt
from storage_service.db.schema import TEXT_INDEX_TABLE

_TABLES = {*Base.metadata.tables, TEXT_INDEX_TABLE}


def vacuum(database: Database) -> tuple[int, int]:
    """Frees the space of deleted rows and renews the statistics that queries are planned with.

    Returns the database's size in bytes before and after. SQLite rewrites the file: nobody else may use it meanwhile.
    """
    before = measure_size_bytes(database)
    with database.outside_transactions() as connection:
        tables = [table for table in inspect(connection).get_table_names() if table in _TABLES]
        if database.is_sqlite:
            if TEXT_INDEX_TABLE in tables:
                connection.exec_driver_sql("INSERT INTO prompt_search(prompt_search) VALUES ('rebuild')")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("ANALYZE")
        else:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(tables)}")
    return before, measure_size_bytes(database)


def measure_size_bytes(database: Database) -> int:
    """Returns the space that the database takes on disk, in bytes."""
    pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    with database.read() as session:
        statement = text(pages) if database.is_sqlite else select(func.pg_database_size(func.current_database()))
        return int(session.scalar(statement) or 0)


def has_rows(database: Database) -> bool:
    """Returns whether the database holds any generation or prompt, or tables that can't be read."""
    try:
        with database.read() as session:
            tables = set(inspect(session.connection()).get_table_names())
            return any(
                session.scalar(select(model.id).limit(1)) is not None
                for model in (Generation, Prompt)
                if model.__tablename__ in tables
            )
    except (DatabaseError, DamagedDatabase):
        return True
