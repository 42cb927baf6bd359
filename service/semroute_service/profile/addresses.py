"""Where a backend is reached: addresses completed and checked."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from semroute_service.profile.providers import Provider

_NO_ADDRESS = "is no http or https address, such as http://localhost:8000/v1"


def fault_of(url: str, provider: Provider) -> str:
    """What is wrong with an address, without repeating it, as it may hold a secret."""
    if not url:
        return f"is no address: {provider.name} has none of its own; declare a backend with a url"
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return _NO_ADDRESS
    if "@" in parts.netloc:
        return "must not hold a user or a password; keys come from the environment"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return _NO_ADDRESS
    if parts.query or parts.fragment:
        return "must end with its path; what is sent goes below it"
    if not provider.local and parts.scheme == "http" and not _is_loopback(parts.hostname):
        return f"{provider.name} gets its key over https or loopback only"
    return ""


def completed(written: str, default_url: str) -> str:
    """OLLAMA_HOST and its like: a host, a host and port, or a whole address, as Ollama reads it.

    What cannot be read is returned as it is, for ``fault_of`` to find.
    """
    default = urlsplit(default_url)
    bare = "://" not in written
    try:
        parts = urlsplit(f"http://{written}" if bare else written)
        port = parts.port or (default.port if bare else None)
    except ValueError:
        return written
    # A server that listens everywhere is reached on this machine.
    host = "127.0.0.1" if parts.hostname in {None, "0.0.0.0", "::"} else parts.hostname  # noqa: S104
    host = f"[{host}]" if host and ":" in host else host
    path = parts.path.rstrip("/").removesuffix(default.path) + default.path
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
