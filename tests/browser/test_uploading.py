"""Files that are dropped on the form or chosen: a sound becomes a clip, whatever it is called, and a broken one is
refused with the reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.async_api import Page, expect

from tests.support.studio_library import ATTACKED
from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

RATE = 32_000


def melody(seconds: float = 2.0) -> bytes:
    time = np.arange(round(seconds * RATE)) / RATE
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 440 * time), RATE, format="WAV")
    return file.getvalue()


async def drop(page: Page, name: str, content: bytes) -> None:
    """Drags a file from the desktop onto the form."""
    transfer = await page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "audio/wav"}));
            return transfer;
        }""",
        [name, list(content)],
    )
    target = page.locator("#compose .drop").first
    for event in ("dragenter", "dragover", "drop"):
        await target.dispatch_event(event, {"dataTransfer": transfer})
