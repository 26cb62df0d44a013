"""Edits of a file's tags: what a user sets in place of what was chosen when the file was written, or takes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from export_service.tagging.cover import Cover
from export_service.tagging.tags import PUBLICATION_FIELDS, FileTags, clean_publication, clean_tag_field

TEXT_FIELDS = (*PUBLICATION_FIELDS, "genre")


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

    def apply(self, tags: FileTags) -> FileTags:
        """Returns the edited tags."""
        given = {name: text for name in PUBLICATION_FIELDS if (text := getattr(self, name)) is not None}
        edited = replace(tags, publication=clean_publication(replace(tags.publication, **given)))
        if self.genre is not None:
            edited = edited.with_genre(clean_tag_field(self.genre))
        if self.cover is not None or self.removes_cover:
            edited = replace(edited, cover=self.cover)
        return edited
