"""Fills a data directory for the Studio: thousands of takes, of which the finished ones have a file, and takes in which
everything that somebody else can write is hostile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from sqlalchemy import text

from benchmarks.storage_rows import Rows, load
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.types import pack_json

RATE, SECONDS = 32_000, 2.0

HOSTILE_TEXTS = (
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    "<svg/onload=window.attacked=1>",
    "\"><iframe srcdoc='<script>parent.attacked=1</script>'>",
    "' autofocus onfocus=window.attacked=1 x='",
    "javascript:window.attacked=1//",
    "</title></style></textarea></template><img src=x onerror=window.attacked=1>",
    "<math><mi//xlink:href='data:x,<script>attacked=1</script>'>",
    "{{constructor.constructor('window.attacked=1')()}} ${window.attacked=1}",
    "<a href='javascript:window.attacked=1' id=compose name=history>click</a>",
    "<form id=now><input name=attributes><input name=childNodes>",
    "%3Cscript%3Ewindow.attacked=1%3C/script%3E &lt;img src=x onerror=window.attacked=1&gt;",
    "../../../etc/passwd\x1b]0;title\x07\x00"[:-1],
    "\u202egpj.exe\u202c \u2066x\u2069 \u200f\u061c",
    "مرحبا بالعالم – שלום עולם – موسيقى هادئة",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞ 👩‍👩‍👧‍👦🏳️‍🌈🎵",
    "__proto__",
    "constructor",
    "x" * 9_000 + " long without a space",
    "a word " * 1_400,
)
ATTACKED = "window.attacked !== undefined || Object.prototype.attacked !== undefined"
"""Is true in a page in which one of them ran."""


def fill(data_dir: Path, count: int, seed: int = 1) -> list[str]:
    """Inserts `count` takes into a new database, nine of ten of them COMPLETED, each with the same file of 2 s;
    returns the ids of the completed ones, newest first."""
    data_dir.mkdir(parents=True, exist_ok=True)
    url = StorageSettings(data_dir=data_dir).resolved_database_url()
    schema.upgrade(url)
    with Database(url) as database:
        load(database, Rows(seed), count)
        with database.write() as session:
            # Nobody claims what no model here can make, and nobody is at work.
            session.execute(
                text(
                    "UPDATE generations SET status = 'cancelled', completed_at = created_at, ranked_at = NULL, "
                    "lease_token = NULL, lease_expires_at = NULL, lease_check_at = NULL, stage = NULL "
                    "WHERE status IN ('pending', 'processing')"
                )
            )
        with database.read() as session:
            paths = session.execute(
                text("SELECT id, file_path FROM generations WHERE status = 'completed' ORDER BY created_at DESC, id")
            ).all()
        size = _write_files(data_dir, [path for _, path in paths])
        with database.write() as session:
            session.execute(
                text(
                    "UPDATE generations SET duration_seconds = :seconds, "
                    "file_size_bytes = CASE WHEN file_size_bytes IS NULL THEN NULL ELSE :size END"
                ),
                {"seconds": SECONDS, "size": size},
            )
    return [generation_id for generation_id, _ in paths]


def fill_with_hostile_texts(data_dir: Path) -> dict[str, str]:
    """Inserts one completed take for each hostile text, which is in its prompt, its model, its tags and its client;
    returns id → text."""
    ids = fill(data_dir, 2 * len(HOSTILE_TEXTS))[: len(HOSTILE_TEXTS)]
    url = StorageSettings(data_dir=data_dir).resolved_database_url()
    names = ("genre", "key", "instruments", "time_signature", "license", "measured_key", "normalization_mode", "title")
    with Database(url) as database, database.write() as session:
        for generation_id, hostile in zip(ids, HOSTILE_TEXTS, strict=True):
            tags = {**dict.fromkeys(names, hostile[:2_000]), hostile[:200]: hostile[:2_000], "bpm": 120.0}
            session.execute(
                text(
                    "UPDATE generations SET prompt = :text, model_name = :short, model_version = :short, "
                    "client = :short, metadata = :metadata WHERE id = :id"
                ),
                {"text": hostile, "short": hostile[:90], "metadata": pack_json(tags), "id": generation_id},
            )
    return dict(zip(ids, HOSTILE_TEXTS, strict=True))


def _write_files(data_dir: Path, paths: list[str]) -> int:
    """Writes the same file under all paths; returns its size."""
    first: Path | None = None
    for path in paths:
        file = data_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            soundfile.write(file, _audio(), RATE, subtype="PCM_24")
            first = file
        else:
            os.link(first, file)
    return first.stat().st_size if first else 0


def _audio() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Notes that fade, one each half second."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    note = np.sin(2 * np.pi * 220 * 2 ** np.floor(time * 2 % 4 / 3) * time) * np.exp(-6 * (time % 0.5)) * 0.5
    return np.stack([note, np.roll(note, 400)], axis=1).astype(np.float32)
