"""What can be seen of the four services from outside: metrics, traces and logs, and the dashboard that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
import yaml

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1.export_pb2 import RenderRequest, RenderResponse
from generation_service.hardware.gpu_readings import GpuReading
from generation_service.rpc.engine_metrics import read_engine_metrics
from tests.support.engine_reports import IDLE_REPORT
from tests.support.metric_pages import (
    OWN_PREFIXES,
    Family,
    Query,
    find_missing,
    find_problems,
    read_families,
    read_queries,
)
from tests.support.observed_services import SERVICES, Observed, observed_services
from tests.support.trace_collector import ReceivedSpan

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy/grafana/dgx-music.json"
FULL_READING = GpuReading(1, 2, 61.0, 432.0, 97.0)
FOREIGN_TRACE = "0af7651916cd43dd8448eb211c80319c"
PHASES = ["export upload", "export measure", "export limit", "export write", "export sign", "export sync"]
PATHS = {
    "create": "dgx_music.gateway.v1.MusicService/CreateGeneration",
    "store": "dgx_music.storage.v1.StorageService/CreateGeneration",
    "export": "dgx_music.export.v1.ExportService/Export",
    "complete": "dgx_music.storage.v1.StorageService/CompleteGeneration",
}


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """The services after a command that has generated music."""
    with observed_services(tmp_path_factory.mktemp("observed")) as observed:
        observed.collector.wait_for(lambda span: span.name == "job")
        observed.metrics = observed.read_metrics()
        yield observed


@pytest.fixture(scope="module")
def pages(observed: Observed) -> dict[str, str]:
    """Service → its metrics, when all it has done is to serve the command."""
    return observed.metrics


@pytest.fixture(scope="module")
def families(pages: Mapping[str, str]) -> dict[str, Family]:
    """The metrics of all services, and those of a GPU, which this machine may lack."""
    merged: dict[str, Family] = {}
    for page in pages.values():
        for name, family in read_families(page).items():
            known = merged.setdefault(name, family)
            assert (known.type, known.help) == (family.type, family.help)
            known.labels |= family.labels
            known.samples += family.samples
    for reading in read_engine_metrics([IDLE_REPORT], [FULL_READING]):
        if reading.name not in merged:
            labels = dict(reading.labels)
            merged[reading.name] = Family(reading.name, "gauge", reading.help, set(labels), [(reading.name, labels)])
    return merged


@pytest.fixture(scope="module")
def spans(observed: Observed) -> list[ReceivedSpan]:
    """The trace of the command."""
    root = observed.collector.wait_for(lambda span: span.name == "dgx-music generate")
    observed.collector.wait_for(lambda span: span.name == PATHS["complete"])
    observed.collector.wait_for(lambda span: span.name == PATHS["export"])
    return observed.collector.trace(root.trace_id)


class TestTrace:
    """The spans of one `dgx-music generate`, received by an OpenTelemetry collector."""

    def find(self, spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
        [span] = [span for span in spans if span.name == name]
        return span

    def test_one_trace_leads_from_the_command_to_the_file(self, spans: list[ReceivedSpan], observed: Observed) -> None:
        by_id = {span.span_id: span for span in spans}
        parents = {span.name: by_id[span.parent_id].name if span.parent_id else "" for span in spans}
        assert parents["dgx-music generate"] == ""
        assert parents[PATHS["create"]] == "dgx-music generate"
        assert parents[PATHS["store"]] == parents["wait for worker"] == parents["job"] == PATHS["create"]
        for phase in ("queue", "prefill", "decode", PATHS["export"], PATHS["complete"]):
            assert parents[phase] == "job"
        for phase in (*PHASES, "export commit"):
            assert parents[phase] == PATHS["export"]
        assert {span.service for span in spans} == {"dgx-music-cli", *(f"dgx-music-{name}" for name in SERVICES)}
        assert self.find(spans, "job").attributes["generation_id"] == observed.generation_id
        assert self.find(spans, "job").attributes["outcome"] == "completed"
        assert not any(span.is_error for span in spans)

    def test_phases_follow_one_another(self, spans: list[ReceivedSpan]) -> None:
        queue, prefill, decode = (self.find(spans, name) for name in ("queue", "prefill", "decode"))
        assert queue.started_ns <= queue.ended_ns <= prefill.started_ns <= prefill.ended_ns <= decode.started_ns
        assert decode.events == ("first chunk",)
        assert decode.attributes["audio_seconds"] == 1.0
        assert decode.attributes["steps"] >= 1
        assert decode.attributes["mean_batch_size"] == 1.0
        exported = [self.find(spans, name) for name in (*PHASES, "export commit")]
        assert all(one.ended_ns <= later.started_ns for one, later in pairwise(exported))

    def test_a_foreign_client_continues_its_own_trace(self, observed: Observed) -> None:
        span_id = "b7ad6b7169203331"
        request = RenderRequest(generation_id=observed.generation_id, output=OutputOptions(sample_rate_hz=16000))
        with grpc.insecure_channel(observed.environment["DGX_MUSIC_GATEWAY_ADDRESS"]) as channel:
            render = channel.unary_unary(
                "/dgx_music.gateway.v1.MusicService/Render",
                request_serializer=RenderRequest.SerializeToString,
                response_deserializer=RenderResponse.FromString,
            )
            metadata = [("traceparent", f"00-{FOREIGN_TRACE}-{span_id}-01")]
            assert render(request, metadata=metadata, timeout=60).file.file_path
        arrived = observed.collector.wait_for(lambda span: span.parent_id == span_id)
        passed_on = observed.collector.wait_for(lambda span: span.parent_id == arrived.span_id)
        written = observed.collector.wait_for(
            lambda span: span.name == "export write" and span.parent_id == passed_on.span_id
        )
        assert {span.trace_id for span in (arrived, passed_on, written)} == {FOREIGN_TRACE}
        assert (arrived.service, passed_on.service) == ("dgx-music-gateway", "dgx-music-export")

    def test_nothing_that_runs_anyway_starts_a_trace(self, observed: Observed, spans: list[ReceivedSpan]) -> None:
        names = {span.name for span in observed.collector.spans}
        assert PATHS["create"] in names
        assert not [name for name in names if name.endswith(("ClaimGeneration", "Check", "CheckOutput"))]


class TestLogs:
    """The log lines of the services, from debug on."""

    @pytest.mark.parametrize("service", SERVICES)
    def test_each_line_of_the_job_carries_its_id_and_its_trace(self, observed: Observed, service: str) -> None:
        trace_id = observed.collector.wait_for(lambda span: span.name == "job").trace_id
        events = [event for event in observed.processes[service].events if event.get("trace_id") != FOREIGN_TRACE]
        joined = [event for event in events if event.get("generation_id") == observed.generation_id]
        assert joined
        traced = [event for event in events if "trace_id" in event]
        assert {event["trace_id"] for event in traced} == {trace_id}
        # A claim belongs to no trace, and the gateway looks the model up before there is an id.
        untraced = [event for event in joined if event not in traced and event["event"] != "claimed"]
        assert [event for event in untraced if not event["method"].endswith("/ClaimGeneration")] == []
        unnamed = [event["method"] for event in traced if event not in joined]
        assert set(unnamed) <= {"/dgx_music.generation.v1.GenerationService/GetModel"}


class TestMetrics:
    """The metrics of the services."""

    @pytest.mark.parametrize("service", SERVICES)
    def test_metrics_follow_the_rules_of_prometheus(self, pages: dict[str, str], service: str) -> None:
        assert find_problems(pages[service]) == []
        families = read_families(pages[service])
        assert {"grpc_server_handled_total", "grpc_server_handling_seconds", "process_cpu_seconds_total"} <= set(
            families
        )

    def test_values_are_those_of_one_generation(self, pages: dict[str, str]) -> None:
        for service, line in (
            ("storage", 'dgx_music_storage_generations{state="completed"} 1.0'),
            ("storage", "dgx_music_storage_claims_total 1.0"),
            ("storage", "dgx_music_storage_queue_seconds_count 1.0"),
            ("storage", 'dgx_music_storage_attempts_ended_total{outcome="completed"} 1.0'),
            ("export", 'dgx_music_export_files_total{format="wav_pcm_24"} 1.0'),
            ("export", "dgx_music_export_audio_seconds_total 1.0"),
            ("export", 'dgx_music_export_phase_seconds_count{phase="commit"} 1.0'),
            ("generation", 'dgx_music_generation_requests_total{model="sketch",outcome="completed"} 1.0'),
            ("generation", 'dgx_music_generation_audio_seconds_total{model="sketch"} 1.0'),
            ("generation", 'dgx_music_generation_first_chunk_seconds_count{model="sketch"} 1.0'),
            ("generation", 'dgx_music_engine_audio_seconds_total{device="cpu"} 1.0'),
        ):
            assert line in pages[service].splitlines()
        client = 'grpc_client_handled_total{grpc_code="OK",grpc_method="CreateGeneration"'
        assert client in pages["gateway"]

    def test_the_page_in_the_docs_lists_them_all(self, families: dict[str, Family]) -> None:
        described = {
            tuple(cell.strip(" `") for cell in row.strip("|").split("|"))
            for row in (ROOT / "docs/observability.md").read_text().splitlines()
            if row.startswith("| `") and row.startswith(tuple(f"| `{prefix}" for prefix in OWN_PREFIXES))
        }
        shown = {
            (family.name, family.type, ", ".join(sorted(family.labels)), family.help)
            for family in families.values()
            if family.name.startswith(OWN_PREFIXES)
        }
        assert described == shown


class TestDashboard:
    """deploy/grafana: whether what the panels query exists."""

    @pytest.mark.parametrize("query", read_queries(DASHBOARD), ids=lambda query: f"{query.panel}: {query.legend}")
    def test_each_query_finds_metrics_and_labels(self, query: Query, families: dict[str, Family]) -> None:
        assert query.selectors
        assert find_missing(query, families) == []

    def test_all_metrics_of_the_services_are_on_it(self, families: dict[str, Family]) -> None:
        queried = {name for query in read_queries(DASHBOARD) for name, _ in query.selectors}
        own = {name for name in families if name.startswith("dgx_music_")}
        unused = {
            name for name in own if not any(re.fullmatch(f"{name}(_bucket|_sum|_count)?", one) for one in queried)
        }
        assert unused == set()

    def test_prometheus_scrapes_loopback(self) -> None:
        configuration = yaml.safe_load((ROOT / "deploy/grafana/prometheus.yml").read_text())
        targets = [
            target
            for job in configuration["scrape_configs"]
            for static in job["static_configs"]
            for target in static["targets"]
        ]
        assert len(targets) == len(set(targets)) == 1 + len(SERVICES)
        assert all(target.startswith("127.0.0.1:") for target in targets)

    def test_a_query_of_what_does_not_exist_is_found(self, families: dict[str, Family]) -> None:
        handled = 'grpc_server_handled_total{grpc_type="twoway", size!="1"}'
        wrong = f"sum by (grpc_code, colour) (rate({handled}[5m])) / absent_total"
        assert find_missing(Query("", wrong, "{{shape}}"), families) == [
            "value 'twoway' of label grpc_type of grpc_server_handled_total",
            "label size of grpc_server_handled_total",
            "metric absent_total",
            "label colour to group by",
            "label shape of the legend",
        ]
