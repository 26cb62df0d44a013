"""The client distribution of DGX Music: what another tool needs to call the services, without running them.

- `dgx_music.client`: `connect()` gives a stub of the gateway's `MusicService`; start here.
- `dgx_music.{gateway,generation,storage,export,audio}.v1`: the stubs and messages generated from `protos/`.
- `dgx_music.channel`: a gRPC channel with the retries and the keepalive that the servers expect.
- `dgx_music.address`: checks an address and says how to write it.
- `dgx_music.pcm`: reads and writes streams of PCM audio, with checksums.
- `dgx_music.errors`: the exceptions of the services, one class per gRPC status code.
- `dgx_music.error_status`: reads reason, metadata, field violations and retry delay from a failed call.
- `dgx_music.limits`: the limits of the public contract as constants.

It imports none of the services, and needs only grpcio, protobuf, googleapis-common-protos and google-crc32c.
"""
