"""The line of `buf curl` that makes a request."""

from __future__ import annotations

import shlex

from google.protobuf import json_format

from dgx_music.address import UNIX_PREFIX
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.studio.repeating.repeat_request import GatewayAccess

METHOD = "dgx_music.gateway.v1.MusicService/CreateGeneration"


def buf_line(request: CreateGenerationRequest, access: GatewayAccess) -> str:
    """Returns the line for a POSIX shell. It queues the generation and returns at once. A token and a certificate
    authority are taken from the environment, where the command line takes them from too."""
    words = ["buf", "curl", "--protocol", "grpc"]
    variables = []
    if access.requires_token:
        # Where tokens are needed, a server describes its contract to nobody: it comes from a copy of protos/.
        words += ["--schema", "protos"]
        variables += ["--header", '"Authorization: Bearer $DGX_MUSIC_TOKEN"']
    if access.has_own_ca:
        variables += ["--cacert", '"$DGX_MUSIC_TLS_CA"']
    words += ["--data", json_format.MessageToJson(request, indent=None, ensure_ascii=False)]
    if access.address.startswith(UNIX_PREFIX):
        words += ["--unix-socket", access.address.removeprefix(UNIX_PREFIX)]
        url = f"http://localhost/{METHOD}"
    else:
        url = f"{'https' if access.uses_tls else 'http'}://{access.address}/{METHOD}"
    line = " ".join([shlex.join(words), *variables])
    if not access.address:
        scheme = "https" if access.uses_tls else "http"
        return f'{line} "{scheme}://$DGX_MUSIC_GATEWAY_ADDRESS/{METHOD}"'
    return f"{line} {shlex.quote(url)}"
