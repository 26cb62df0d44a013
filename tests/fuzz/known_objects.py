"""`KnownObjects`: the ids, tokens and names that a server has given out, so that a request can name one that exists."""

from __future__ import annotations

from collections import defaultdict, deque
from random import Random

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

KEPT = 200
"""Of each kind."""

FIELDS = {
    "Generation.id": "generation",
    "Generation.request_id": "request",
    "Generation.client": "client",
    "ClaimGenerationResponse.lease_token": "lease",
    "RenderResponse.render_id": "render",
    "LibraryFile.render_id": "render",
    "LibraryFile.generation_id": "generation",
    "ImportClipResponse.clip_id": "clip",
    "Token.id": "token",
    "ExportResponse.file_sha256": "sha256",
    "ExportResponse.file_path": "path",
    "EditTagsResponse.file_sha256": "sha256",
    "Prompt.text": "prompt",
}
"""Field of a response → the kind of object that it names."""
USES = {
    "id": ("generation",),
    "generation_id": ("generation", "generation", "clip"),
    "source_id": ("generation", "clip"),
    "variation_of": ("generation",),
    "request_id": ("request",),
    "lease_token": ("lease",),
    "render_id": ("render",),
    "page_token": ("page",),
    "file_sha256": ("sha256",),
    "previous_file_sha256": ("sha256",),
    "file_path": ("path",),
    "client": ("client",),
    "text": ("prompt",),
}
"""Field of a request → the kinds of object whose names it takes."""


class KnownObjects:
    def __init__(self) -> None:
        self._names: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT))
        self.leases: deque[tuple[str, str]] = deque(maxlen=KEPT)
        """The id of a generation and the token of its lease."""

    def add(self, kind: str, name: str) -> None:
        if name and name not in self._names[kind]:
            self._names[kind].append(name)

    def names(self, kind: str) -> list[str]:
        return list(self._names[kind])

    def learn(self, response: Message) -> None:
        """Takes note of what a response names."""
        kind = response.DESCRIPTOR.name
        if kind == "ClaimGenerationResponse" and response.lease_token:  # type: ignore[attr-defined]
            self.leases.append((response.generation.id, response.lease_token))  # type: ignore[attr-defined]
        for field, value in response.ListFields():
            if field.name == "next_page_token":
                self.add("page", value)
            elif (named := FIELDS.get(f"{kind}.{field.name}")) is not None:
                self.add(named, value)
            elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
                for one in list(value)[:20] if field.is_repeated else [value]:
                    if one.DESCRIPTOR.full_name.startswith("dgx_music."):
                        self.learn(one)

    def draw(self, rng: Random, field: str, message: str) -> str:
        """Returns a name for a field of a request, mostly one that exists and is of the right kind; "" for none."""
        kinds = ("token",) if message in ("RevokeTokenRequest", "VerifyTokenRequest") else USES.get(field, ())
        if rng.random() < 0.05:
            kinds = tuple(self._names)
        names = [name for kind in kinds for name in self._names.get(kind, ())]
        return rng.choice(names) if names else ""
