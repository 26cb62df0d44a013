"""gRPC channels to the services, with retries, keepalive and flow control configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import grpc.aio

from dgx_music.address import UNIX_PREFIX, check_address, first_of_list, names_several
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from dgx_music.renewing_channel import RenewingChannel
from dgx_music.trace_context import is_tracing_loaded, trace_metadata
from dgx_music.wrapping_channel import Metadata, MetadataChannel

KEEPALIVE_SECONDS = 30
"""Interval of a client's keepalive pings; `service_runtime/rpc/server.py` permits it."""

IDEMPOTENT_METHODS = {
    "dgx_music.storage.v1.StorageService": (
        "GetGeneration",
        "ListGenerations",
        "RenewLease",
        "CompleteGeneration",
        "RateGeneration",
        "UpdateFile",
        "GetPrompt",
        "ListPrompts",
        "GetStatistics",
        "ListComparisons",
        "ListTokens",
        "RevokeToken",
        "VerifyToken",
    ),
    "dgx_music.export.v1.ExportService": (
        "CheckOutput",
        "GetDownloadUrl",
        "GetWaveform",
        "GetBeatGrid",
        "GetLoudnessCurve",
        "EditTags",
        "ListFiles",
        "GetLibraryStatistics",
    ),
    "dgx_music.generation.v1.GenerationService": ("ListModels", "GetModel", "GetMidi", "GetEngineStatus"),
    "dgx_music.gateway.v1.MusicService": (
        "GetGeneration",
        "ListGenerations",
        "RateGeneration",
        "GetDownloadUrl",
        "GetWaveform",
        "GetBeatGrid",
        "GetLoudnessCurve",
        "EditTags",
        "ListFiles",
        "GetLibraryStatistics",
        "ListModels",
        "ListPrompts",
        "GetStatistics",
        "GetMidi",
        "ListComparisons",
        "ListTokens",
        "RevokeToken",
    ),
}
"""Unary methods that are safe to repeat: only these are retried, and only on UNAVAILABLE (AIP-194)."""

SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method}
                for service, methods in IDEMPOTENT_METHODS.items()
                for method in methods
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
LOAD_BALANCING = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
"""Of several servers: each call goes to the next one that reports SERVING (grpc.health.v1), a retry to another one."""

CHANNEL_OPTIONS: Sequence[tuple[str, str | int]] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    # Both: gRPC waits for the longer of them, and the second is a minute by default.
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # With bandwidth probing a server sends megabytes to a client that has stopped reading; without it, 128 kB.
    ("grpc.http2.bdp_probe", 0),
    # Reconnects to a restarted server within a second; gRPC's default backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # gRPC's name for how long a connection may take: a program that accepts it and says nothing is none of ours.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # Servers are on loopback, a Unix socket or a trusted network: never connect through an HTTP proxy.
    ("grpc.enable_http_proxy", 0),
)
RESOLUTION_SECONDS = 2
"""How often a DNS name is resolved at most. That happens when a connection ends, which servers see to from time to
time: `service_runtime/rpc/load/transport_limits.py`."""
SEVERAL_SERVERS_OPTIONS: Sequence[tuple[str, str | int]] = (
    *CHANNEL_OPTIONS[1:],
    ("grpc.service_config", json.dumps(SERVICE_CONFIG | LOAD_BALANCING)),
    ("grpc.dns_min_time_between_resolutions_ms", RESOLUTION_SECONDS * 1000),
)


def channel_options(address: str) -> Sequence[tuple[str, str | int]]:
    """Returns the options of a channel to one server, or to several of which each takes its share of the calls."""
    if not names_several(address):
        return CHANNEL_OPTIONS
    # By TLS, gRPC would look for the whole list in the certificate.
    authority = [] if (first := first_of_list(address)) is None else [("grpc.default_authority", first)]
    return (*SEVERAL_SERVERS_OPTIONS, *authority)


def connect(
    address: str, credentials: Credentials = NO_CREDENTIALS, metadata: Callable[[], Metadata] | None = None
) -> grpc.aio.Channel:
    """Returns a channel to the server at `host:port` or `unix:/path`, or to several: `dns:///name:port` for all that
    the name has, or a list, `ipv4:10.0.0.1:50052,10.0.0.2:50052`. By TLS, the certificate of each has to be for the
    name, or for the first address of the list. Raises ValueError if the address is none of these.

    It connects on the first call. The caller closes it. `metadata` is asked at each call for what that carries; by
    default it is what the credentials say. Certificates and tokens that are renewed in their files are used from then
    on. If the program traces with OpenTelemetry, calls also carry the current trace context. Raises OSError if a file
    of the credentials can't be read.
    """
    options = channel_options(check_address(address))
    channel: grpc.aio.Channel
    if credentials.ca is None or address.startswith(UNIX_PREFIX):
        channel = grpc.aio.insecure_channel(address, options=options)
    else:

        def build() -> grpc.aio.Channel:
            secure = credentials.channel_credentials()
            assert secure is not None  # There is a certificate authority.
            return grpc.aio.secure_channel(address, secure, options=options)

        channel = RenewingChannel(build, credentials.file_versions)
    call_metadata = metadata or credentials.metadata
    if is_tracing_loaded():
        return MetadataChannel(channel, lambda: (*call_metadata(), *trace_metadata()))
    if metadata is None and not credentials.metadata():
        return channel
    return MetadataChannel(channel, call_metadata)
