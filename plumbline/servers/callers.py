"""Who may ask a server of ours over HTTP: no web page of another site.

A page can send a form to loopback, and a stranger's DNS name can be made to point there ("rebinding"). The first names
its site in `Origin`, the second in `Host`. A name without a dot and an address are no stranger's: DNS gives neither.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from plumbline.errors import PlumblineError


class Foreign(PlumblineError):
    """A request that a web page of another site may have sent."""


def check(hosts: Iterable[str], origins: Iterable[str], names: Collection[str]) -> None:
    """Raises Foreign for a foreign `Host`, and for an `Origin` that is not the host itself.

    `names` are the names with a dot by which the server is asked; `.example.com` stands for all below it.
    """
    hosts = list(hosts)
    for host in hosts:
        if not _is_ours(_name(host), names):
            raise Foreign(
                f"Host {host[:80]!a} is not one of this server's: ask by address, or name it in PLUMBLINE_SERVING_HOSTS"
            )
    for origin in origins:
        site = _name(origin.partition("://")[2])
        if origin.partition("://")[2] not in hosts and not _is_listed(site, names):
            raise Foreign(f"Origin {origin[:80]!a}: web pages of other sites may not ask this server")


def _name(authority: str) -> str:
    """A host's name or address, without its port; empty for what is none."""
    if any(character in authority for character in "@/?#\\"):
        return ""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_ours(name: str, names: Collection[str]) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(".localhost") or _is_listed(name, names))
    return True


def _is_listed(name: str, names: Collection[str]) -> bool:
    return bool(name) and any(name == one or (one.startswith(".") and name.endswith(one)) for one in names)
