"""Verifies tokens by asking the storage service, which has them."""

from __future__ import annotations

import grpc
import grpc.aio

from dgx_music.access.v1 import access_pb2
from dgx_music.error_status import read_error_details
from dgx_music.errors import ServiceError, Unauthenticated, Unavailable
from service_runtime.access.authentication import TOKEN_REQUIRED
from service_runtime.access.service_channel import connect_service
from service_runtime.access.token_format import MALFORMED_TOKEN
from service_runtime.settings import Settings

METHOD = "/dgx_music.storage.v1.StorageService/VerifyToken"
"""Called without storage's stubs, because not every service knows storage."""
TIMEOUT_SECONDS = 5.0


class RemoteTokenVerifier:
    """Asks storage. Connects at the first question; `close` ends that."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None

    async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
        """Implements `TokenVerifier`."""
        if self._channel is None:
            self._channel = connect_service(self._settings.storage_address, self._settings)
            self._method = self._channel.unary_unary(
                METHOD,
                request_serializer=access_pb2.VerifyTokenRequest.SerializeToString,
                response_deserializer=access_pb2.VerifyTokenResponse.FromString,
            )
        request = access_pb2.VerifyTokenRequest(id=token_id, secret_sha256=secret_sha256)
        try:
            response: access_pb2.VerifyTokenResponse = await self._method(request, timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._translate_error(error) from error
        return response.token

    def _translate_error(self, error: grpc.aio.AioRpcError) -> ServiceError:
        details = read_error_details(error)
        refuses_us = details.reason in (TOKEN_REQUIRED, MALFORMED_TOKEN)
        match error.code():
            case grpc.StatusCode.UNAUTHENTICATED if not refuses_us:
                return Unauthenticated(details.message, reason=details.reason, metadata=details.metadata)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                problem = "the storage service does not accept this server as a service; set the same "
                problem += "DGX_MUSIC_SERVICE_TOKEN for all services"
            case _:
                problem = f"the storage service does not answer: {details.message}"
        return Unavailable(
            f"the token can't be verified: {problem}",
            reason="TOKENS_UNAVAILABLE",
            metadata={"address": self._settings.storage_address},
            retry_after_seconds=1.0,
        )

    async def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._channel is not None:
            await self._channel.close()
