"""Prints the tables of the fleet's benchmarks."""

from __future__ import annotations

from collections.abc import Iterable


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints Markdown. Numbers have three significant digits."""
    names = list(header)
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(map(_format, row))} |", flush=True)


def _format(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
