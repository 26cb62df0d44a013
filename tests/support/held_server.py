"""A generation server whose model hangs, or loses the device, at the third step.

python -m tests.support.held_server hold|lose
"""

from __future__ import annotations

import asyncio
import sys
import threading

from generation_service.config import GenerationSettings
from generation_service.models.catalog import ModelCatalog
from generation_service.rpc.server import build
from service_runtime.rpc.server import serve_until_signalled
from tests.support.tone_model import ToneModel, fail_with


def main() -> None:
    settings = GenerationSettings()
    model = ToneModel()
    endings = {
        "hold": lambda: threading.Event().wait(),
        "lose": fail_with(RuntimeError("CUDA error: an illegal memory access was encountered")),
    }
    model.at["a", 3] = endings[sys.argv[1]]
    service = build(settings, catalog=ModelCatalog(lambda: [model.entry]))
    asyncio.run(serve_until_signalled([service], settings.generation_address, settings))


if __name__ == "__main__":
    main()
