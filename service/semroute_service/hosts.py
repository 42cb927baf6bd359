"""Where servers listen, and who can reach them there."""

from __future__ import annotations

import ipaddress


def host_and_port(address: str) -> tuple[str, int] | None:
    """``HOST:PORT`` as both, an IPv6 host without its brackets; None where it is not so."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        return None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """True where only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
