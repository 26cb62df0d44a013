"""Reads pages of metrics, checks them by the rules of `promtool check metrics`, and finds what the queries of a Grafana
dashboard refer to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

OWN_PREFIXES = ("grpc_", "dgx_music_")
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")
ABBREVIATED_UNITS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
OTHER_UNITS = {"milliseconds", "microseconds", "minutes", "hours", "days", "kilobytes", "megabytes", "bits", "percent"}
TYPE_WORDS = {"gauge", "counter", "histogram", "summary"}
PROMETHEUS_LABELS = {"job", "instance"}
"""Labels that Prometheus itself adds."""


@dataclass
class Family:
    """A metric of a page, or of several."""

    name: str
    """As its TYPE line has it: that of a counter with `_total`."""
    type: str
    help: str
    labels: set[str] = field(default_factory=set)
    samples: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """The name and the labels of each value."""


def read_families(page: str) -> dict[str, Family]:
    """Returns the metrics of a page by name."""
    families = {}
    for parsed in text_string_to_metric_families(page):
        name = f"{parsed.name}_total" if parsed.type == "counter" else parsed.name
        family = families[name] = Family(name, parsed.type, parsed.documentation)
        for sample in parsed.samples:
            family.samples.append((sample.name, sample.labels))
            family.labels |= set(sample.labels) - {"le"}
    return families


def find_problems(page: str) -> list[str]:
    """Returns what `promtool check metrics` would complain about, and a type or a help text that is given twice."""
    problems = []
    for keyword in ("HELP", "TYPE"):
        names = re.findall(rf"^# {keyword} (\S+)", page, re.M)
        problems += [f"{name}: more than one {keyword}" for name in {name for name in names if names.count(name) > 1}]
    for family in read_families(page).values():
        problems += [f"{family.name}: {problem}" for problem in _problems_of(family)]
    return problems


def _problems_of(family: Family) -> Iterator[str]:
    words = set(family.name.split("_"))
    if not family.help.strip():
        yield "no help text"
    if family.type not in ("counter", "gauge", "histogram"):
        yield f"the type is {family.type}"
    if family.type != "counter" and family.name.endswith("_total"):
        yield "only a counter ends in _total"
    if family.type != "histogram" and family.name.endswith(HISTOGRAM_SUFFIXES):
        yield "only a histogram has such a suffix"
    if re.fullmatch("[a-z][a-z0-9_]*", family.name) is None:
        yield "the name is not snake_case"
    if bad := words & (ABBREVIATED_UNITS | OTHER_UNITS | TYPE_WORDS):
        yield f"the name contains {', '.join(sorted(bad))}"
    if len({frozenset(labels) for name, labels in family.samples if name == family.samples[0][0]}) > 1:
        yield "its values have different labels"


@dataclass(frozen=True)
class Query:
    """A query of a dashboard's panel."""

    panel: str
    expression: str
    legend: str

    @property
    def selectors(self) -> list[tuple[str, str]]:
        """The metrics, each with what stands in its braces."""
        without_grouping = re.sub(r"\b(by|without)\s*\([^)]*\)", "", self.expression)
        without_ranges = re.sub(r"\[[^\]]*\]", "", without_grouping)
        # A name that is followed by a parenthesis is a function's.
        found = re.findall(r"([a-zA-Z_]\w*)\s*(?:\{([^}]*)\})?(?!\w|\s*\()", re.sub(r'"[^"]*"', _blank, without_ranges))
        return [(name, self._braces(name) if braces else "") for name, braces in found]

    def _braces(self, name: str) -> str:
        found = re.search(rf"{name}\{{([^}}]*)\}}", self.expression)
        assert found is not None
        return found[1]

    @property
    def grouping(self) -> set[str]:
        """The labels of `by`."""
        groups = re.findall(r"\bby\s*\(([^)]*)\)", self.expression)
        return {label.strip() for group in groups for label in group.split(",")}

    @property
    def legend_labels(self) -> set[str]:
        """The labels that the legend shows."""
        return set(re.findall(r"\{\{\s*(\w+)\s*\}\}", self.legend))


def _blank(text: re.Match[str]) -> str:
    return '"' + "0" * (len(text[0]) - 2) + '"'


def read_queries(dashboard: Path) -> list[Query]:
    """Returns the queries of all panels."""
    content: dict[str, Any] = json.loads(dashboard.read_text())
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in content["panels"]
        for target in panel.get("targets", ())
    ]


def find_missing(query: Query, families: Mapping[str, Family]) -> list[str]:
    """Returns the metrics, labels and values of the query that no page has."""
    samples: dict[str, list[Mapping[str, str]]] = {}
    for family in families.values():
        for name, labels in family.samples:
            samples.setdefault(name, []).append(labels)
    missing, known = [], set(PROMETHEUS_LABELS)
    for name, braces in query.selectors:
        if name not in samples:
            missing.append(f"metric {name}")
            continue
        labels_of_metric = {label for labels in samples[name] for label in labels}
        known |= labels_of_metric
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', braces):
            if label not in labels_of_metric:
                missing.append(f"label {label} of {name}")
            elif operator in ("=", "!=") and value not in {labels.get(label) for labels in samples[name]}:
                missing.append(f"value {value!r} of label {label} of {name}")
    missing += [f"label {label} to group by" for label in query.grouping - known]
    missing += [f"label {label} of the legend" for label in query.legend_labels - (query.grouping or known)]
    return missing
