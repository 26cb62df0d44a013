"""The database: generations, their lifecycle, and the prompts they came from.

The names below are the library's (`storage_service.library`), loaded when first used: who only wants the settings does
not pay for SQLAlchemy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage_service.library import (
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
        reset_database,
        track_prompt_usage,
        update_generation_status,
    )
    from storage_service.models import Generation, Prompt
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
    "reset_database",
    "track_prompt_usage",
    "update_generation_status",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("storage_service.library"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
