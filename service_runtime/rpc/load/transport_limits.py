"""What gRPC bounds by itself, before any code of ours sees a call: connections, streams of a connection, idle time."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from dgx_music.address import UNIX_PREFIX
from dgx_music.errors import ResourceExhausted
from service_runtime.settings import Settings

HANDSHAKE_SECONDS = 10
"""A connection that has not said by then that it speaks HTTP/2, over TLS if the address has it, is closed."""
IDLE_SECONDS = 600
"""A connection without calls is closed after so long. Clients connect again at their next call."""
CONNECTION_AGE_SECONDS = 300
"""After so long, a client is asked to connect anew, and its calls end on the old connection: a client that knows its
servers by a DNS name looks it up only then, and finds servers that have come since."""
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 60, 20
"""A client that has vanished, e.g. without power, is pinged after so long, and its calls end if it does not answer."""
MAX_PENDING_CALLS = 16_384
"""While more calls than this have not been looked at, gRPC cancels calls at random, also those of others; twice as many
are the most there can be. Each takes about 27 kB. By default, one connection may bring that about."""
MAX_METADATA_BYTES = 16_384
"""Of a call. gRPC's own limit is the same, but counts a field that HPACK repeats by its index as a few bytes: 4 kB on
the wire may become 2 MB of metadata."""
FIELD_OVERHEAD_BYTES = 32
"""What each field counts besides its name and value (RFC 9113, section 10.5.1)."""
MAX_OPEN_FILES = 65_536


def build_transport_options(settings: Settings, address: str, max_streams: int) -> Sequence[tuple[str, int]]:
    """Returns options of a server at the address, of which one connection may have `max_streams` calls at once. What a
    client begins beyond that is refused by gRPC before it costs anything; clients that keep to the rules wait."""
    ages = [] if address.startswith(UNIX_PREFIX) else [("grpc.max_connection_age_ms", CONNECTION_AGE_SECONDS * 1000)]
    return (
        *ages,
        ("grpc.max_concurrent_streams", max_streams),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    )


def require_small_metadata(metadata: Sequence[tuple[str, str | bytes]]) -> None:
    """Raises ResourceExhausted if the metadata of a call is larger than `MAX_METADATA_BYTES`."""
    size = sum(len(name) + len(value) + FIELD_OVERHEAD_BYTES for name, value in metadata)
    if size > MAX_METADATA_BYTES:
        raise ResourceExhausted(
            f"the metadata of a call may have {MAX_METADATA_BYTES} bytes; this has {size}", reason="METADATA_TOO_LARGE"
        )


def raise_file_limit() -> None:
    """Lets the process open as many files and connections as the system allows it, up to `MAX_OPEN_FILES`. Many systems
    allow 1,024 only, unless a program asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
