"""Lists of comparisons, in pages."""

from __future__ import annotations

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, selectinload

from service_runtime.rpc.paging import Page
from service_runtime.validation import check_uuid
from storage_service.db.dependent_models import Comparison, ComparisonEntry
from storage_service.domain.page_tokens import (
    decode_page_token,
    hash_filters,
    parse_timestamp,
    parse_uuid,
    split_page,
)


def list_comparisons(session: Session, generation_id: str, page: Page) -> tuple[list[Comparison], str]:
    """Returns a page of comparisons, newest first, and the token of the next page, which is empty on the last.

    With a `generation_id`, only those of this generation. Raises InvalidArgument if it is not a UUID.
    """
    newest_first = (
        select(Comparison)
        .options(selectinload(Comparison.entries))
        .order_by(Comparison.created_at.desc(), Comparison.id.desc())
        .limit(page.limit + 1)
    )
    if generation_id:
        generation_id = check_uuid("generation_id", generation_id)
        of_generation = select(ComparisonEntry.comparison_id).where(ComparisonEntry.generation_id == generation_id)
        newest_first = newest_first.where(Comparison.id.in_(of_generation))
    filters_hash = hash_filters("comparisons", generation_id)
    if page.token:
        last = decode_page_token(page.token, filters_hash, parse_timestamp, parse_uuid)
        newest_first = newest_first.where(tuple_(Comparison.created_at, Comparison.id) < last)
    rows = list(session.scalars(newest_first))
    return split_page(rows, page.limit, filters_hash, lambda row: [row.created_at.isoformat(), row.id])
