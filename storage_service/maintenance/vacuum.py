"""What an administrator does to a whole database now and then."""

from __future__ import annotations

from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import DatabaseError

from storage_service.db.database import DamagedDatabase, Database
from storage_service.db.declarative_base import Base
from storage_service.db.models import Generation, Prompt


def vacuum(database: Database) -> tuple[int, int]:
    """Gives the space of deleted rows back and lets the database look anew at what its tables hold, for its query
    plans. Gives its size in bytes, before and after. SQLite writes the file anew: nobody else may use it meanwhile."""
    before = size_bytes(database)
    with database.outside_transactions() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("ANALYZE")
        else:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(Base.metadata.tables)}")
    return before, size_bytes(database)


def size_bytes(database: Database) -> int:
    """What the database takes on its disk."""
    pages = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    with database.read() as session:
        statement = text(pages) if database.is_sqlite else select(func.pg_database_size(func.current_database()))
        return int(session.scalar(statement) or 0)


def has_rows(database: Database) -> bool:
    """Whether anything is kept here; true also of tables that can't be read."""
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
