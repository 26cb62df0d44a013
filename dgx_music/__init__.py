"""The client distribution of DGX Music: what another program needs to call the services, without running them.

- `Client`, and `AsyncClient` for asyncio: start here. Everything else is for what they do not cover.
- `dgx_music.errors`: the exceptions of the client and of the services, one class per gRPC status code.
- `dgx_music.{gateway,generation,storage,export,audio,access}.v1`: the stubs and messages generated from `protos/`.
- `dgx_music.channel`: a gRPC channel with the retries and the keepalive that the servers expect.
- `dgx_music.credentials`: a token, and certificates for TLS.
- `dgx_music.address`: checks an address and says how to write it.
- `dgx_music.pcm`: reads and writes streams of PCM audio, with checksums.
- `dgx_music.error_status`: reads reason, metadata, field violations and retry delay from a failed call.
- `dgx_music.limits`: the limits of the public contract as constants.

It imports none of the services, and needs only grpcio, protobuf, googleapis-common-protos, google-crc32c and
platformdirs; samples as arrays need the extra `numpy`.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgx_music.client.async_client import AsyncClient as AsyncClient
    from dgx_music.client.async_generation import AsyncAudioStream as AsyncAudioStream
    from dgx_music.client.async_generation import AsyncGeneration as AsyncGeneration
    from dgx_music.client.audio_listening import AudioChunk as AudioChunk
    from dgx_music.client.blocking.sync_client import Client as Client
    from dgx_music.client.blocking.sync_generation import AudioStream as AudioStream
    from dgx_music.client.blocking.sync_generation import Generation as Generation

# Services import this package too, and do not need the client.
_HOMES = {
    "Client": "blocking.sync_client",
    "Generation": "blocking.sync_generation",
    "AudioStream": "blocking.sync_generation",
    "AsyncClient": "async_client",
    "AsyncGeneration": "async_generation",
    "AsyncAudioStream": "async_generation",
    "AudioChunk": "audio_listening",
}
__all__ = list(_HOMES)

if not TYPE_CHECKING:  # Else every name would be valid for the type checker.

    def __getattr__(name: str) -> object:
        if name in _HOMES:
            return getattr(importlib.import_module(f"dgx_music.client.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*globals(), *_HOMES]
