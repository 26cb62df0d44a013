"""The request that makes the same samples again, and how to reach the gateway from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgx_music.address import first_of_list
from dgx_music.credentials import SYSTEM_CA
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation
from gateway.config import GatewaySettings
from service_runtime.rpc.binding import is_local


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """How a command of the user's reaches the gateway that the Studio calls."""

    address: str
    """HOST:PORT or unix:PATH; empty if it can't be reached, or only the user knows how."""
    data_dir: Path | None = None
    """The data directory whose services a command on this machine joins; None if it needs `address` or is elsewhere."""
    uses_tls: bool = False
    has_own_ca: bool = False
    """Whether its certificate is from an authority that the system does not know."""
    requires_token: bool = False


def find_access(gateway_address: str, settings: GatewaySettings, *, is_for_strangers: bool) -> GatewayAccess:
    """Returns how a command reaches the gateway that the Studio calls at this address. Users of a Studio that requires
    tokens are at other machines: addresses and folders of this one mean nothing to them."""
    if settings.gateway_address is None and not is_for_strangers:
        return GatewayAccess(gateway_address, data_dir=settings.data_dir.expanduser().absolute())
    credentials = settings.credentials()
    address = first_of_list(gateway_address) or gateway_address
    if is_for_strangers and is_local(address):
        address = ""
    return GatewayAccess(
        address,
        uses_tls=credentials.ca is not None,
        has_own_ca=credentials.ca not in (None, SYSTEM_CA),
        requires_token=is_for_strangers or credentials.token is not None or credentials.token_file is not None,
    )


def repeat_request(generation: Generation) -> CreateGenerationRequest:
    """Returns a request for the same music: same model, texts, seed, edits and file. It has no request_id."""
    request = CreateGenerationRequest(prompt=generation.prompt, model_name=generation.model_name, seed=generation.seed)
    for name in ("output", "sampling", "continuation", "conditioning", "edit", "loop"):
        if generation.HasField(name):
            getattr(request, name).CopyFrom(getattr(generation, name))
    if not generation.HasField("edit") and not generation.HasField("loop"):  # Those have the length that they need.
        request.duration_seconds = generation.duration_seconds
    return request
