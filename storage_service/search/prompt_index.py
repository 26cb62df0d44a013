"""Looks up text in prompts by the index of their trigrams, which the database maintains (migration 0009).

On SQLite it is an FTS5 table, on Postgres a GIN index of `prompt_search`. What it finds is compared with the text, so
that a search finds what contains the text and nothing else, in any script, without regard to case. A text of one or two
characters is found by the trigrams that begin with it.

The index has each distinct prompt once. The generations of a prompt are found by an index of their own, which on
Postgres is on a hash of 64 bits: two texts of one hash are so unlikely that the texts are not compared.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    column,
    func,
    literal,
    literal_column,
    select,
    table,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from storage_service.db.models import Generation, Prompt
from storage_service.search.trigrams import LENGTH, fts5_query, prefix_end, select_trigrams, tsquery

RARE_PROMPTS = 2000
RARE_USES = 20_000
"""A text is rare if at most so many prompts, with so many uses, have its trigrams."""

_SEARCH = table("prompt_search", column("rowid", Integer), column("prompt_search", Text))
_TERMS = table("prompt_search_terms", column("term", Text), column("doc", Integer))
_TEXTS = table(
    "prompt_search", column("prompt_id", BigInteger), column("prompt_hash", BigInteger), column("text", Text)
)


class PromptIndex:
    """The search for one text."""

    def __init__(self, session: Session, text: str) -> None:
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"
        # As the database folds: what Postgres calls lower case depends on its locale.
        self._folded: str = text.casefold() if self._is_sqlite else session.scalar(select(func.lower(text))) or text
        self._is_rare: bool | None = None
        self._matches: list[tuple[int, int]] | None = None
        """Of a rare text, the id of each prompt that contains it and, on Postgres, the prompt's hash."""

    def contains(self, prompt: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Returns the condition that the column contains the text."""
        if self._is_sqlite:  # SQLite's lower() handles only ASCII.
            return func.instr(func.dgx_casefold(prompt), self._folded) > 0
        return func.strpos(func.lower(prompt), self._folded) > 0

    def find_rare(self) -> bool:
        """Returns whether the text is rare. If it is, the prompts that contain it have been found."""
        if self._is_rare is None:
            self._is_rare = self._find_rare()
        return self._is_rare

    def _find_rare(self) -> bool:
        candidates = self._candidates().limit(RARE_PROMPTS + 1)
        if self._is_sqlite:
            has_text = self.contains(Prompt.text)
            some = select(Prompt.id, literal(0), Prompt.used_count, has_text).where(Prompt.id.in_(candidates))
        else:
            found = candidates.add_columns(_TEXTS.c.prompt_hash, self._has_text().label("has_text")).subquery()
            # Not a join, for which the planner may read the whole table.
            uses = select(Prompt.used_count).where(Prompt.id == found.c.prompt_id).scalar_subquery()
            some = select(found.c.prompt_id, found.c.prompt_hash, func.coalesce(uses, 0), found.c.has_text)
        rows = self._session.execute(some).all()
        if len(rows) > RARE_PROMPTS or sum(uses for _, _, uses, _ in rows) > RARE_USES:
            return False
        self._matches = [(prompt_id, prompt_hash) for prompt_id, prompt_hash, _, has_text in rows if has_text]
        return True

    def finds_more_than(self, prompts: int) -> bool:
        """Returns whether more prompts than so many have the text's trigrams."""
        found = self._candidates().limit(prompts + 1).subquery()
        return (self._session.scalar(select(func.count()).select_from(found)) or 0) > prompts

    def matching_prompts(self) -> ColumnElement[bool]:
        """Returns the condition of the prompts that contain the text."""
        if self._is_sqlite:
            if self._matches is not None:
                return Prompt.id.in_([prompt_id for prompt_id, _ in self._matches])
            return and_(Prompt.id.in_(self._candidates()), self.contains(Prompt.text))
        if self._matches is not None:
            return Prompt.id == func.any(_array([prompt_id for prompt_id, _ in self._matches]))
        return Prompt.id == func.any(func.array(self._candidates().where(self._has_text()).scalar_subquery()))

    def newest_generations(
        self, where: list[ColumnElement[bool]], limit: int, prompts: list[int] | None = None
    ) -> Select[str]:
        """Returns a query for the ids of the newest generations that contain the text and meet the conditions: all, or
        those of some prompts that contain it, by their ids.

        The newest of each prompt are found first, because one prompt may have been used a million times.
        """
        newest_first = Generation.created_at.desc(), Generation.id.desc()
        if self._is_sqlite:
            # The newest generations are of the prompts that have the newest one each. Times sort as text in SQLite.
            place = literal_column("generations.created_at || generations.id", Text)
            newest_place = (
                select(place).where(Generation.prompt == Prompt.text, *where).order_by(*newest_first).limit(1)
            )
            by_newest = newest_place.correlate(Prompt).scalar_subquery().desc()
            matching_prompts = self.matching_prompts() if prompts is None else Prompt.id.in_(prompts)
            some_prompts = select(Prompt.id).where(matching_prompts).order_by(by_newest).limit(limit)
            of_prompt = select(Generation.id).where(Generation.prompt == Prompt.text, *where)
            found = aliased(Generation)
            is_newest = found.id.in_(of_prompt.order_by(*newest_first).limit(limit).correlate(Prompt))
            joined = select(found.id).join_from(Prompt, found, is_newest).where(Prompt.id.in_(some_prompts))
            return joined.order_by(found.created_at.desc(), found.id.desc()).limit(limit)
        if prompts is not None:
            hashes = select(_TEXTS.c.prompt_hash).where(_TEXTS.c.prompt_id == func.any(_array(prompts)))
        elif self._matches is not None:
            hashes = select(func.unnest(_array([prompt_hash for _, prompt_hash in self._matches])).label("prompt_hash"))
        else:
            hashes = select(_TEXTS.c.prompt_hash).where(self._has_trigrams(), self._has_text())
        matching = hashes.cte("matching").prefix_with("MATERIALIZED")
        prompt_hash = func.hashtextextended(Generation.prompt, literal_column("0"))  # As in the index.
        newest = (
            select(Generation.id, Generation.created_at)
            .where(prompt_hash == matching.c.prompt_hash, *where)
            .order_by(*newest_first)
            .limit(limit)
            .lateral()
        )
        ids = select(newest.c.id).select_from(matching.join(newest, true()))
        return ids.order_by(newest.c.created_at.desc(), newest.c.id.desc()).limit(limit)

    def _candidates(self) -> Select[Any]:
        """Returns a query for the ids of the prompts that have the text's trigrams."""
        if not self._is_sqlite:
            return select(_TEXTS.c.prompt_id).where(self._has_trigrams())
        if len(self._folded) >= LENGTH:
            query = fts5_query(select_trigrams(self._folded))
            return select(_SEARCH.c.rowid).where(_SEARCH.c.prompt_search.op("MATCH", return_type=Boolean())(query))
        begins = _TERMS.c.term >= self._folded
        end = prefix_end(self._folded)
        return select(_TERMS.c.doc).where(begins if end is None else and_(begins, _TERMS.c.term < end)).distinct()

    def _has_trigrams(self) -> ColumnElement[bool]:
        query = literal(tsquery(self._folded), Text).op("::", return_type=Text())(literal_column("tsquery"))
        return func.dgx_trigrams(_TEXTS.c.text).op("@@", return_type=Boolean())(query)

    def _has_text(self) -> ColumnElement[bool]:
        return func.strpos(_TEXTS.c.text, self._folded) > 0


def _array(numbers: list[int]) -> ColumnElement[Any]:
    return literal(numbers, ARRAY(BigInteger))
