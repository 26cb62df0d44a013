"""The column type of ids: text in Python and in SQLite, UUID in Postgres, where it takes 16 bytes of 37."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from service_runtime.validation import is_uuid


class UuidText(TypeDecorator[str]):
    """A UUID in lower case, as 1b4e28ba-2fa1-41d2-883f-0016d3cca427."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        own: TypeEngine[Any] = Text() if dialect.name == "sqlite" else Uuid(as_uuid=False)
        return dialect.type_descriptor(own)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        # What is no UUID is no row's id. As NULL it equals none, where Postgres would not even compare it.
        return value if value is None or dialect.name == "sqlite" or is_uuid(value) else None
