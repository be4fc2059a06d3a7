"""One request to a server, from sending to the last byte.

Nothing that others send gets out of here but as a `Reply` or a `Failure`. No other server is asked than the one that
was named: a redirection elsewhere is a failure.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urljoin, urlsplit

from gcache.llm.api.address import Way, endpoint
from gcache.llm.api.outcome import Failure
from gcache.llm.api.reading import Reply
from gcache.llm.api.settings import NO_KEY, ApiSettings

#: Bytes of an answer, unpacked; of an error, so many are enough.
MOST_BYTES, MOST_ERROR_BYTES = 64 * 2**20, 64 * 2**10
#: Redirections that are followed, on the same server.
MOST_REDIRECTS = 3
#: Encodings of bodies that are asked for, and read.
ENCODINGS = ("gzip", "deflate")
#: What OpenSSL says of a server that no later attempt makes another.
_LASTING = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL")


class ApiHttp:
    """Connections to a server, of one event loop.

    Args:
        way: see `gcache.llm.api.address.way_to`.
    """

    def __init__(self, settings: ApiSettings, way: Way) -> None:
        import httpx2

        self.settings, self.way = settings, way
        headers = {
            "Content-Type": "application/json", "Accept": "application/json", "User-Agent": "gcache",
            "Accept-Encoding": ", ".join(ENCODINGS),
        }  # fmt: skip
        if settings.key != NO_KEY:
            headers["Authorization"] = f"Bearer {settings.key}"
        self.client = httpx2.AsyncClient(
            headers=headers, timeout=settings.timeout, follow_redirects=False, trust_env=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            proxy=way.proxy, verify=way.trust or True,
        )  # fmt: skip

    async def close(self) -> None:
        await self.client.aclose()

    async def post(self, path: str, content: bytes) -> Reply | Failure:
        """The server's reply to a body of JSON."""
        address = endpoint(self.settings.base_url, path)
        for _ in range(MOST_REDIRECTS + 1):
            try:
                reply = await self._once(address, content)
            except Exception as error:  # of three libraries and the system; each has classes of its own for it
                return self._failure(error)
            if isinstance(reply, Reply) and reply.status == 407 and self.way.proxy:
                return Failure(self._wants_password(), passing=False, status=407)
            if isinstance(reply, Failure) or not 300 <= reply.status < 400:
                return reply
            elsewhere = _target(address, reply)
            if elsewhere is None or reply.status not in (307, 308) or not _same_server(address, elsewhere):
                return _redirected(reply.status, elsewhere)
            address = elsewhere
        return Failure(f"more than {MOST_REDIRECTS} redirections; check --base_url", passing=False)

    async def _once(self, address: str, content: bytes) -> Reply | Failure:
        async with self.client.stream("POST", address, content=content) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            packed = [part.strip().lower() for part in headers.get("content-encoding", "").split(",")]
            odd = [name for name in packed if name not in ("", "identity", *ENCODINGS)]
            if odd:
                text = f"HTTP {response.status_code}, packed as {odd[0][:40]!r}, which was not asked for"
                return Failure(text, passing=response.status_code >= 500, status=response.status_code)
            good = 200 <= response.status_code < 300
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if not good and len(body) >= MOST_ERROR_BYTES:
                    break
                if len(body) > MOST_BYTES:
                    return Failure(f"an answer of more than {MOST_BYTES // 2**20} MiB", passing=False)
        return Reply(response.status_code, headers, bytes(body))

    def _failure(self, error: Exception) -> Failure:
        """What stands in the way, and whether it may pass."""
        import httpx2

        causes = _causes(error)
        said = next((str(cause) for cause in causes if str(cause)), type(error).__name__)
        if isinstance(error, httpx2.TimeoutException):
            return Failure(f"nothing for {self.settings.timeout:g} s", passing=True)
        if isinstance(error, httpx2.DecodingError):
            return Failure(f"an answer that cannot be unpacked ({said})", passing=False)
        for cause in causes:
            if isinstance(cause, ssl.SSLError) and cause.reason in _LASTING:
                return Failure(
                    f"no safe connection ({cause.reason}); SSL_CERT_FILE may name certificates to trust, and a server "
                    "without TLS has an address with http://",
                    passing=False,
                )
        if isinstance(error, httpx2.ProxyError):
            if said.startswith("407"):
                return Failure(self._wants_password(), passing=False, status=407)
            return Failure(f"the proxy of {self.way.variable} refuses ({said})", passing=True)
        if isinstance(error, (httpx2.TransportError, OSError)) and not isinstance(
            error, (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)
        ):
            through = f" through the proxy of {self.way.variable}" if self.way.proxy else ""
            return Failure(f"no connection{through} ({said})", passing=True)
        odd = f"{type(error).__name__}: {said}"
        return Failure(f"a request that cannot be sent, or an answer that cannot be read ({odd})", passing=False)

    def _wants_password(self) -> str:
        form = "http://user:password@host:port"
        return f"HTTP 407: the proxy of {self.way.variable} wants a user name and a password; give them as {form}"


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it came of."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found and len(found) < 10:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found


def _target(address: str, reply: Reply) -> str | None:
    """Where a redirection leads; None where it says nothing that can be read."""
    try:
        found = urljoin(address, reply.headers["location"])
        parts = urlsplit(found)
        known = parts.hostname and parts.scheme in ("http", "https") and parts.port != 0
        return found if known else None
    except (KeyError, ValueError):
        return None


def _same_server(one: str, other: str) -> bool:
    def place(address: str) -> tuple[Any, ...]:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)

    return place(one) == place(other) and urlsplit(other).username is None


def _redirected(status: int, elsewhere: str | None) -> Failure:
    """The address is shown without what may be secret: a password or parameters."""
    shown = "nowhere"
    if elsewhere is not None:
        parts = urlsplit(elsewhere)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    text = f"HTTP {status}: it redirects to {shown}, which is not followed; name the right address by --base_url"
    return Failure(text, passing=False, status=status)
