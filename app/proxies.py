"""Who really calls when a proxy stands in between, and only when it is one that the settings name.

A proxy says whom it speaks for in X-Forwarded-For and -Proto. Anybody can write these headers, so they count only from an address
in `trusted_proxies`; from anywhere else they change nothing. What is left of them is taken off, because Gradio would build addresses
from them; X-Forwarded-For stays, as a mark that the caller is not on this machine. uvicorn's own handling, which trusts every local
process, is switched off by the launcher. Called by the guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import Scope

from core.errors import UserError

Network = IPv4Network | IPv6Network
TAKEN_OFF = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server",
     b"x-forwarded-ssl", b"x-forwarded-user", b"x-real-ip", b"x-remote-user", b"remote-user", b"x-original-url", b"x-rewrite-url"}
)  # fmt: skip


@lru_cache(maxsize=8)
def networks(names: tuple[str, ...]) -> tuple[Network, ...]:
    """Addresses and networks of the setting. Raises UserError("bad_setting")."""
    try:
        return tuple(ip_network(name, strict=False) for name in names)
    except ValueError as error:
        raise UserError("bad_setting", name="trusted_proxies", reason=error) from error


def settle(scope: Scope, trusted: Sequence[str]) -> None:
    """Put the real caller and scheme into `scope`, in place, and take the headers off."""
    known = networks(tuple(trusted))
    peer = scope.get("client")
    if peer and known and _is_in(peer[0], known):
        headers = Headers(scope=scope)
        if caller := _first_stranger(headers.get("x-forwarded-for", ""), known):
            scope["client"] = (caller, 0)
        if headers.get("x-forwarded-proto") == "https":
            scope["scheme"] = "wss" if scope["type"] == "websocket" else "https"
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in TAKEN_OFF]


def _first_stranger(forwarded: str, known: tuple[Network, ...]) -> str | None:
    """From the right: the first address that is no proxy of ours. What stands left of it the caller may have made up."""
    for hop in reversed(forwarded.split(",")):
        try:
            address = str(ip_address(hop.strip()))
        except ValueError:
            return None
        if not _is_in(address, known):
            return address
    return None


def _is_in(address: str, known: tuple[Network, ...]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in known)
