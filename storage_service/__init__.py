"""The database: generations, their life cycle, and their prompts.

The names below are the library's (`storage_service.api`). They are loaded on first use, so that importing the settings
does not load SQLAlchemy.

>>> from storage_service import *
>>> init_db("sqlite:///music.db")  # or postgresql://USER@HOST/DATABASE; without a URL, that of the settings

All work is done in sessions. A session commits at the end of its block and rolls back on an exception;
`session.commit()` inside the block is allowed. Loaded objects stay usable after the block.

>>> with get_session() as session:
...     gen = create_generation(session=session, prompt="hip hop beat at 140 BPM", model_name="musicgen-small",
...                             duration_seconds=16.0, sample_rate=32000, channels=2,
...                             file_path="outputs/gen_123.wav", metadata={"bpm": 140})
>>> gen.status, gen.is_pending, gen.get_metadata()
(<GenerationStatus.PENDING: 'pending'>, True, {'bpm': 140})

A status equals its string. It follows the same transitions as in the service: PENDING, PROCESSING, COMPLETED. An
illegal transition raises `dgx_music.errors.FailedPrecondition` and changes nothing.

>>> gen.status == "pending"
True
>>> with get_session() as session:
...     get_generation(session, gen.id).mark_completed(generation_time=18.5)
Traceback (most recent call last):
dgx_music.errors.FailedPrecondition: cannot mark completed generation …
>>> with get_session() as session:
...     get_generation(session, gen.id).mark_processing()
>>> with get_session() as session:
...     done = complete_generation(session, gen.id, generation_time=18.5, file_size_bytes=5242880,
...                                metadata={"bpm": 140, "key": "Cm"})
>>> done.is_complete, done.is_finished, done.get_metadata()
(True, True, {'bpm': 140, 'key': 'Cm'})

A failed generation has an error message, and can be retried.

>>> with get_session() as session:
...     other = create_generation(session, "a calm piano", "musicgen-small", 8.0, 32000, 2, "outputs/gen_124.wav")
...     other.mark_processing()
...     other.mark_failed("out of memory")
...     failed = get_generations_by_status(session, "failed")
...     again = update_generation_status(session, other.id, "pending")
>>> [generation.prompt for generation in failed], again.is_pending
(['a calm piano'], True)

Lists are newest first. Creating a generation counts its prompt.

>>> with get_session() as session:
...     print([generation.prompt for generation in get_all_generations(session, limit=10)])
...     print(count_generations(session), count_generations(session, status="completed"))
...     print([(prompt.text, prompt.used_count) for prompt in get_most_used_prompts(session, limit=1)])
...     print(track_prompt_usage(session, "a calm piano").used_count)
...     print(get_database_stats(session)["pending_generations"])
...     print(get_generation(session, "unknown"), delete_generation(session, "unknown"))
['a calm piano', 'hip hop beat at 140 BPM']
2 1
[('a calm piano', 1)]
2
1
None False
>>> done.to_dict()["status"], done.to_dict()["file_path"]
('completed', 'outputs/gen_123.wav')

A generation can be rated from 1 to 5; 0 removes the rating.

>>> with get_session() as session:
...     print(rate_generation(session, done.id, 5).rating, rate_generation(session, done.id, 0).rating)
5 None
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage_service.api import (
        complete_generation,
        count_generations,
        create_generation,
        delete_generation,
        get_all_generations,
        get_all_prompts,
        get_database_stats,
        get_generation,
        get_generations_by_status,
        get_most_used_prompts,
        get_pending_generations,
        get_prompt,
        get_prompt_by_text,
        get_session,
        init_db,
        rate_generation,
        reset_database,
        track_prompt_usage,
        update_generation_status,
    )
    from storage_service.db.models import Generation, Prompt
    from storage_service.states import GenerationStatus

__all__ = [
    "Generation",
    "GenerationStatus",
    "Prompt",
    "complete_generation",
    "count_generations",
    "create_generation",
    "delete_generation",
    "get_all_generations",
    "get_all_prompts",
    "get_database_stats",
    "get_generation",
    "get_generations_by_status",
    "get_most_used_prompts",
    "get_pending_generations",
    "get_prompt",
    "get_prompt_by_text",
    "get_session",
    "init_db",
    "rate_generation",
    "reset_database",
    "track_prompt_usage",
    "update_generation_status",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("storage_service.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
