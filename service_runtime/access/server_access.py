"""What the listeners of a server share to admit calls."""

from __future__ import annotations

from collections.abc import Iterable

from service_runtime.access.access_interceptor import AccessInterceptor
from service_runtime.access.audit import AuditLog
from service_runtime.access.authentication import Authenticator
from service_runtime.access.rate_limit import RateLimiter
from service_runtime.access.remote_verifier import RemoteTokenVerifier
from service_runtime.access.service_token import ServiceToken
from service_runtime.access.token_verifier import TokenCache, TokenVerifier
from service_runtime.settings import Settings


class ServerAccess:
    """Builds the interceptor of each listener. Call `close` at the end."""

    def __init__(self, services: Iterable[object], settings: Settings) -> None:
        """Tokens are verified by the one of `services` that is a `TokenVerifier`, else by storage at its address.

        Raises FailedPrecondition, which names the setting, if the service token or the audit log can't be used.
        """
        self._settings = settings
        self._remote = RemoteTokenVerifier(settings)
        verifier = next((service for service in services if isinstance(service, TokenVerifier)), self._remote)
        self._tokens, self._rate_limiter = TokenCache(verifier), RateLimiter()
        self._service_token = ServiceToken(settings)
        self._audit_log = AuditLog(settings.audit_log)

    def interceptor(self, *, requires_tokens: bool, uses_tls: bool) -> AccessInterceptor:
        """Returns the interceptor of a listener."""
        trusts_certificates = uses_tls and self._settings.tls_client_ca is not None
        authenticator = Authenticator(
            self._tokens, self._service_token, requires_tokens=requires_tokens, trusts_certificates=trusts_certificates
        )
        return AccessInterceptor(authenticator, self._rate_limiter, self._audit_log)

    async def close(self) -> None:
        """Closes the connection to storage, and writes the rest of the audit log."""
        await self._remote.close()
        await self._audit_log.close()
