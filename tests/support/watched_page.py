"""`WatchedPage`: a page that remembers whatever goes wrong in it, so that a test fails for what it did not look for."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, Response

REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP violation: ${event.effectiveDirective} blocked ${event.blockedURI} at ${event.sourceFile}`);
});
"""
NAVIGATION = "net::ERR_ABORTED"
"""What Chromium calls a request that the page itself gave up, also by leaving."""


class WatchedPage:
    """A page of a browser, and the problems that it has had.

    Problems are: errors and warnings on the console, exceptions and rejected promises that nothing handled, violations
    of the content security policy, requests that failed, and answers with a status of 400 or more.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requests: list[str] = []
        """METHOD URL of all requests so far."""
        self._allowed: list[re.Pattern[str]] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._report(f"exception: {error.stack or error}"))
        page.on("requestfailed", self._on_failed)
        page.on("request", lambda request: self.requests.append(f"{request.method} {request.url}"))
        page.on("response", self._on_response)
        page.on("crash", lambda _: self._report("the page crashed"))
        page.on("dialog", self._on_dialog)

    def allow(self, *patterns: str) -> None:
        """Takes what these regular expressions match for granted, also what has happened already."""
        self._allowed += [re.compile(pattern, re.DOTALL) for pattern in patterns]

    def check(self) -> None:
        """Raises AssertionError if there was a problem that the test has not allowed."""
        unexpected = [
            problem for problem in self.problems if not any(pattern.search(problem) for pattern in self._allowed)
        ]
        assert not unexpected, "\n".join(unexpected)

    async def captured_samples(self, generation_id: str) -> bytes:
        """Returns the LIVE samples that the player has received, float32 and interleaved."""
        encoded: str = await self.page.evaluate(
            """(id) => {
                const samples = window.dgxStudio.capturedSamples(id)?.samples;
                if (!samples) return "";
                const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
                let text = "";
                for (let start = 0; start < bytes.length; start += 32768)
                    text += String.fromCharCode(...bytes.subarray(start, start + 32768));
                return btoa(text);
            }""",
            generation_id,
        )
        return base64.b64decode(encoded)

    async def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the window."""
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(await self.page.evaluate(script))

    def _report(self, problem: str) -> None:
        self.problems.append(problem)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._report(f"console {message.type}: {message.text} ({message.location.get('url', '')})")

    def _on_failed(self, request: Request) -> None:
        if request.failure != NAVIGATION:
            self._report(f"request failed: {request.method} {request.url}: {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self._report(f"status {response.status}: {response.request.method} {response.url}")

    async def _on_dialog(self, dialog: Any) -> None:
        self._report(f"dialog: {dialog.message}")
        await dialog.dismiss()


OpenPage = Callable[..., Awaitable[WatchedPage]]
"""What the fixture `open_studio` is: opens a path of the Studio."""


async def open_page(context: BrowserContext, url: str) -> WatchedPage:
    """Opens a page in the context and waits until it has loaded."""
    await context.add_init_script(REPORT_VIOLATIONS)
    watched = WatchedPage(await context.new_page())
    await watched.page.goto(url)
    return watched
