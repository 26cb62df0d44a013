"""The licence of a model, as its folder's model card states it.

The card is README.md with YAML in front: https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from generation_service.models.published import PUBLISHED

UNKNOWN_LICENCE = "NOASSERTION"
"""SPDX's word for a licence that nobody has stated."""
_SPDX_NAMES = {"mit": "MIT", "apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause", "cc0-1.0": "CC0-1.0"}
_MAX_CARD_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9.-]+")


def read_licence(folder: Path, name: str, source: object = None) -> str:
    """Returns the SPDX identifier of the licence of the model in `folder`, which was published as `name`.

    `source` is the licence of the model that it was converted from. A licence that SPDX does not list becomes
    "LicenseRef-" and its name. "NOASSERTION" if neither the card, nor the source, nor the model's name says anything.
    """
    card = _read_front_matter(folder / "README.md")
    licence = card.get("license")
    if isinstance(licence, list) and licence:
        licence = licence[0]
    if licence in ("other", None):
        licence = card.get("license_name")
    if stated := _to_spdx(licence) or _to_spdx(source):
        return stated
    return PUBLISHED[name].licence if name in PUBLISHED else UNKNOWN_LICENCE


def _to_spdx(licence: object) -> str:
    """Empty if it is not the name of a licence."""
    if not isinstance(licence, str) or not (words := _NOT_IN_A_NAME.sub("-", licence.strip()).strip("-")[:100]):
        return ""
    if words == UNKNOWN_LICENCE or words.startswith("LicenseRef-"):
        return words
    if words.lower().startswith("cc-by"):
        return words.upper()
    return _SPDX_NAMES.get(words.lower(), f"LicenseRef-{words}")


def _read_front_matter(card: Path) -> Mapping[str, Any]:
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            match = _FRONT_MATTER.match(file.read(_MAX_CARD_BYTES))
        fields = yaml.safe_load(match[1]) if match else None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # ValueError: such as a date that does not exist.
        return {}
    return fields if isinstance(fields, dict) else {}
