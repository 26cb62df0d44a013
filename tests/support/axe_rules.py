"""Accessibility rules, by axe-core."""

from __future__ import annotations

import json
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
MINOR = "minor"


async def accessibility_findings(page: Page, selector: str | None = None) -> list[str]:
    """Returns what axe-core finds in the page, or in what the selector matches: one text for each rule that is broken,
    without findings that axe-core itself calls minor."""
    await page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}
    found: dict[str, Any] = await page.evaluate(
        "([selector, options]) => axe.run(selector ?? document, options)", [selector, options]
    )
    return [_describe(violation) for violation in found["violations"] if violation["impact"] != MINOR]


def _describe(violation: dict[str, Any]) -> str:
    places = [
        f"  {json.dumps(node['target'])}: {node['html'][:200]}\n    "
        + "\n    ".join(check["message"] for check in [*node["any"], *node["all"], *node["none"]])
        for node in violation["nodes"][:5]
    ]
    return "\n".join([f"{violation['id']} ({violation['impact']}): {violation['help']}", *places])
