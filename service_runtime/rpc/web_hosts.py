"""Which host names a web server answers to, to keep out web pages whose own host name leads here (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from service_runtime.settings import Settings

LOCALHOST = "localhost"


class WebHosts:
    """IP addresses, localhost, the machine's own names and those of the setting `allowed_hosts`.

    A page that was loaded from a name of its own can't call an IP address by that name: it is safe to answer to all.
    """

    def __init__(self, settings: Settings) -> None:
        own = socket.gethostname(), socket.getfqdn()
        configured = settings.allowed_hosts.split(",")
        self._names = {LOCALHOST, *(name.strip().lower().rstrip(".") for name in (*own, *configured))} - {""}

    def accept_host(self, host: str) -> bool:
        """Returns whether the value of a Host header, `name` or `name:port`, is one of them."""
        with suppress(ValueError):
            return self._accepts(urlsplit(f"//{host}").hostname)
        return False

    def accept_origin(self, origin: str | None) -> bool:
        """Returns whether the value of an Origin header is that of a page on one of them; True if there is none."""
        if origin is None:
            return True
        with suppress(ValueError):
            return self._accepts(urlsplit(origin).hostname)
        return False

    def explain(self, name: str) -> str:
        """Returns why a request for another name is refused, and the way out."""
        return (
            f"this server does not answer to {name[:200]!r}; call it by its IP address, or add the name to "
            "DGX_MUSIC_ALLOWED_HOSTS"
        )

    def _accepts(self, name: str | None) -> bool:
        if not name:
            return False
        with suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return name.rstrip(".") in self._names
