"""The base class of all tables."""

from __future__ import annotations

from sqlalchemy import Index, MetaData, text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The declarative base. It names every constraint, so that migrations can refer to it on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def partial_index(name: str, condition: str, *columns: str) -> Index:
    """Returns an index of only those rows for which `condition` holds. A query must contain the condition verbatim."""
    return Index(f"ix_{name}", *columns, sqlite_where=text(condition), postgresql_where=text(condition))
