"""The shell commands of a documentation page: its blocks marked `sh`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METHOD = re.compile(r"MusicService/(\w+)")
REQUEST = re.compile(r"-d '(\{.*?\})'(?=\s)")


@dataclass(frozen=True)
class PageCommand:
    """A block of a page that calls a method of MusicService."""

    text: str
    method: str
    """The method's name."""
    request: str
    """Its request as JSON: what follows `-d`, or "{}" if that is a file or missing."""

    @property
    def uses_tls(self) -> bool:
        return "https://" in self.text


def page_commands(page: Path) -> list[PageCommand]:
    """Returns the commands of the page that call MusicService, in its order."""
    found = []
    for text in BLOCK.findall(page.read_text()):
        if method := METHOD.search(text):
            request = REQUEST.search(text)
            found.append(PageCommand(text, method[1], request[1] if request else "{}"))
    return found


def json_messages(output: str) -> list[dict[str, object]]:
    """Returns the JSON objects that `buf curl` printed one after the other."""
    decoder, messages, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages
