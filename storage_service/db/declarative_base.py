"""What all tables have in common."""

from __future__ import annotations

from sqlalchemy import Index, MetaData, text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can speak of them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def partial_index(name: str, condition: str, *columns: str) -> Index:
    """An index of the rows alone for which the condition holds; a query has to say so in the same words."""
    return Index(f"ix_{name}", *columns, sqlite_where=text(condition), postgresql_where=text(condition))
