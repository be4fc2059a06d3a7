"""Where a server is, and by which way it is reached."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gcache.environment import certificates, proxies
from gcache.errors import ConfigError
from gcache.llm.api.secrets import holds, masked

logger = logging.getLogger(__name__)

#: The only parameter that an address may have: Azure's version. Any other is likely a key, and addresses are recorded.
VERSION = "api-version"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)


def checked_address(base_url: str, key: str = "") -> str:
    """An address that can be asked, without white space around it.

    Raises:
        ConfigError: what is wrong with it, or it holds a key.
    """
    import httpx2

    base_url = base_url.strip()
    shown = masked(base_url)[:120]
    if key and holds(base_url, key):
        raise ConfigError("base_url must not hold the key; pass it by API_KEY")
    if not base_url.lower().startswith(("http://", "https://")):
        raise ConfigError(f"base_url must begin with http:// or https://, got {shown!a}")
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConfigError(f"base_url {shown!a} is no address ({masked(str(error))[:120]!a})") from None
    if url.userinfo:
        raise ConfigError("base_url must not hold a user name or a password; pass a key by API_KEY")
    if wrong := _wrong_host(url):
        raise ConfigError(f"base_url {shown!a} is no address: {wrong}")
    if url.fragment or set(url.params) - {VERSION}:
        raise ConfigError(
            f"base_url must end with its path: of parameters it may have {VERSION} alone; pass a key by API_KEY"
        )
    return base_url


def endpoint(base_url: str, path: str) -> str:
    """The address of an endpoint; what the base has behind its path stays behind."""
    import httpx2

    url = httpx2.URL(base_url)
    before, mark, behind = url.raw_path.partition(b"?")
    return str(url.copy_with(raw_path=before.rstrip(b"/") + path.encode() + mark + behind))


def _wrong_host(url: Any) -> str:
    """Why no name server could know this host, or no computer this port; "" where one may."""
    host = url.raw_host.decode("ascii")
    if url.port is not None and not 0 < url.port < 65536:
        return f"a port is a number from 1 to 65535, got {url.port}"
    if not host:
        return "it names no host"
    if ":" in host:
        return ""  # of IPv6; what is none was refused before
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "a host is named by letters, digits and hyphens, at most 63 between two dots"
    return ""


@dataclass(frozen=True)
class Way:
    """How a server is reached.

    Attributes:
        proxy: the proxy's address, with its password; None for none. `variable` named it.
        trust: certificates to trust; None for the system's.
    """

    proxy: str | None = field(default=None, repr=False)
    variable: str = ""
    trust: ssl.SSLContext | None = field(default=None, repr=False)


def way_to(base_url: str) -> Way:
    """The way that the surroundings name.

    Raises:
        ConfigError: a variable that names no proxy, one that cannot be used, or certificates that are not there.
    """
    import httpx2

    url = httpx2.URL(base_url)
    trust, named = _trusted(), proxies()
    without = named.pop("no", ("NO_PROXY", ""))
    ways = {scheme: found for scheme, found in named.items() if scheme in ("http", "https", "all")}
    if not ways or _goes_without(url, *without):
        return Way(trust=trust)
    checked = {scheme: (name, _checked_proxy(name, value)) for scheme, (name, value) in ways.items()}
    name, proxy = checked.get(url.scheme) or checked.get("all") or ("", None)
    if proxy and proxy.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigError(
            f"{name} names a SOCKS proxy, which needs the package socksio: pip install socksio, unset {name}, or set "
            f"NO_PROXY={url.host}"
        )
    return Way(proxy, name, trust)


def _checked_proxy(name: str, value: str) -> str:
    """The proxy's address, with its scheme. What is wrong is not shown: it may hold a password."""
    import httpx2

    value = value if "://" in value else f"http://{value}"
    try:
        proxy = httpx2.Proxy(value).url
        wrong = _wrong_host(proxy)
    except (httpx2.InvalidURL, ValueError):
        wrong = "it cannot be read"
    if wrong:
        raise ConfigError(f"{name} names no proxy ({wrong}); it looks like http://host:port; mend it or unset {name}")
    return value


def _goes_without(url: Any, name: str, value: str) -> bool:
    """Whether NO_PROXY exempts a server: by name, by a domain it is in, or by a network of addresses."""
    host, port = url.host.lower(), url.port or {"http": 80, "https": 443}.get(url.scheme)
    for entry in filter(None, (part.strip().lower() for part in value.split(","))):
        bare = entry.partition("://")[2] or entry
        try:
            if "/" in bare or (bare.count(":") > 1 and not bare.startswith("[")):
                if ipaddress.ip_address(host) in ipaddress.ip_network(bare, strict=False):
                    return True
                continue
        except ValueError:
            if not _is_network(bare):
                logger.warning("%s has an entry that names no host, %a; it is passed over", name, masked(entry)[:60])
            continue
        bare, _, only = bare.rpartition(":") if re.search(r":\d+$", bare) else (bare, "", "")
        bare = bare.strip("[]").removeprefix("*").removeprefix(".")
        inside = bare and host.endswith(f".{bare}") and not _is_network(host)
        if (entry == "*" or host == bare or inside) and only in ("", str(port)):
            return True
    return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _trusted() -> ssl.SSLContext | None:
    """The certificates that a variable names."""
    named = certificates()
    if named is None:
        return None
    name, path = named
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if name == "SSL_CERT_DIR":
            next(Path(path).iterdir())  # OpenSSL says nothing of a folder that is not there, or is empty
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ValueError, StopIteration) as error:  # an SSLError is an OSError
        wrong = "there is no such file" if isinstance(error, FileNotFoundError) else "it holds no certificates"
        raise ConfigError(f"{name} names {path!a}, but {wrong}; mend it, or unset {name}") from None
    return context
