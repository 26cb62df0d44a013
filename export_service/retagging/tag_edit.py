"""Edits of a file's tags: what a user sets in place of what was chosen when the file was written, or takes back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from export_service.tagging.cover import Cover
from export_service.tagging.tags import PUBLICATION_FIELDS, FileTags, clean_publication, clean_tag_field

TEXT_FIELDS = (*PUBLICATION_FIELDS, "genre")
COVER = "cover"


@dataclass(frozen=True)
class TagEdit:
    """A change of a file's tags. None leaves a text as it is, and an empty text restores what was chosen before."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    genre: str | None = None
    cover: Cover | None = None
    """Replaces the cover."""
    removes_cover: bool = False

    @property
    def changed(self) -> set[str]:
        """The names of the tags that it changes."""
        names = {name for name in TEXT_FIELDS if getattr(self, name) is not None}
        return names | ({COVER} if self.cover is not None or self.removes_cover else set())

    def without(self, names: Collection[str]) -> TagEdit:
        """Returns the edit without its changes of the tags with these names."""
        unset: dict[str, Any] = dict.fromkeys(set(TEXT_FIELDS).intersection(names))
        edit = replace(self, **unset)
        return replace(edit, cover=None, removes_cover=False) if COVER in names else edit

    def apply(self, tags: FileTags) -> FileTags:
        """Returns the edited tags."""
        given = {name: text for name in PUBLICATION_FIELDS if (text := getattr(self, name)) is not None}
        edited = replace(tags, publication=clean_publication(replace(tags.publication, **given)))
        if self.genre is not None:
            edited = edited.with_genre(clean_tag_field(self.genre))
        if self.cover is not None or self.removes_cover:
            edited = replace(edited, cover=self.cover)
        return edited
