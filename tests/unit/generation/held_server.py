"""A generation server whose model stops for good at its third step: run by a test that kills it there."""

from __future__ import annotations

import asyncio
import threading

from generation_service.config import GenerationSettings
from generation_service.registry import ModelCatalog
from generation_service.server import build
from service_runtime.server import serve_until_signalled
from tests.unit.generation.tone_model import ToneModel


def main() -> None:
    settings = GenerationSettings()
    model = ToneModel()
    model.at["a", 3] = lambda: threading.Event().wait()
    service = build(settings, catalog=ModelCatalog(lambda: [model.entry]))
    asyncio.run(serve_until_signalled([service], settings.generation_address, settings))


if __name__ == "__main__":
    main()
