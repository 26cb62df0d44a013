"""The client: `dgx_music.Client`, and `dgx_music.AsyncClient` for asyncio. `connect` gives the bare gRPC stub."""

from dgx_music.client.connection import connect as connect
