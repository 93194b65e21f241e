"""The door of the app: sizes, hosts, origins, passwords, cookies and headers, checked before anything else."""

import base64
import binascii
import hmac
import html
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from stableflow.app.desk import Busy
from stableflow.app.limits import Limits
from stableflow.app.visitors import Visitor, Visitors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "stableflow_visitor"
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
OPEN = {"/health"}  # answered without a password: monitors ask it
PROGRAMS = ("/v1/", "/mcp")  # who comes there without a cookie is known by address and key
FOR_ALL_OF_AN_ADDRESS = 10  # visitors behind one address
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors {frames}"
)


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Args:
        hosts: Names in the Host header that are answered; every one when empty. Guards a local app against pages of
            other sites whose name is made to lead here.
        users: Passwords by user; everybody may come in when empty. A password alone is a program's key.
        frames: Sites that may show the app in a frame.
    """

    hosts: Sequence[str] = ()
    users: tuple[tuple[str, str], ...] = ()
    frames: str = "'none'"


class Guard:
    """ASGI middleware; puts the visitor into `scope["state"]`.

    Args:
        app: What is guarded.
        door: Who may come in.
        visitors: By their cookies.
        limits: Of bodies and pace.
    """

    def __init__(self, app: App, *, door: Door, visitors: Visitors, limits: Limits):
        self._app, self._door, self._visitors, self._limits = app, door, visitors, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
            visitor, cookie = self._visitor(scope, headers)
        except Refused as refused:
            await refused.answer(send, wants_page(headers.get("accept", "")))
            return
        scope.setdefault("state", {})["visitor"] = visitor
        reading = _Measured(receive, self._limits.upload_bytes + 2**16)
        try:
            await self._app(scope, reading, self._dressed(send, scope, cookie))
        except TooLarge:
            await _too_large(self._limits).answer(send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._door.hosts and _name(host) not in self._door.hosts:
            raise Refused(421, "This app is not known under this name. Start it with --allow-host NAME.")
        origin = headers.get("origin")
        if scope["method"] in UNSAFE and origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, "Requests from pages of other sites are refused.")
        if scope["method"] in UNSAFE and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refused(403, "Requests from pages of other sites are refused.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.upload_bytes + 2**16:
            raise _too_large(self._limits)
        if self._door.users and scope["path"] not in OPEN and not self._known(headers.get("authorization", "")):
            raise Refused(
                401, "A user name and a password are needed.", {"www-authenticate": 'Basic realm="stableflow"'}
            )

    def _known(self, given: str) -> bool:
        kind, _, secret = given.partition(" ")
        if kind.lower() == "bearer":
            return any([hmac.compare_digest(secret.encode(), password.encode()) for _, password in self._door.users])
        try:
            text = base64.b64decode(secret, validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            return False
        return any([hmac.compare_digest(text, f"{user}:{password}".encode()) for user, password in self._door.users])

    def _visitor(self, scope: Scope, headers: dict[str, str]) -> tuple[Visitor, str | None]:
        """Who asks, and the token of a new visitor; each request that makes work is counted."""
        address = (scope.get("client") or ("unknown",))[0]
        known = self._visitors.of(_cookie(headers.get("cookie", "")))
        if known is None and scope["path"].startswith(PROGRAMS):
            known = self._visitors.of_program(address, headers.get("authorization", ""))
        new = None if known is not None else self._visitors.new_token()
        visitor = known or self._visitors.of(new)
        assert visitor is not None
        if scope["method"] in UNSAFE:
            try:
                self._visitors.count_request(f"address {address}", self._limits.rate * FOR_ALL_OF_AN_ADDRESS)
                self._visitors.count_request(visitor.key, self._limits.rate)
            except Busy as busy:
                raise Refused(429, str(busy), {"retry-after": str(busy.retry_after)}) from busy
        return visitor, new

    def _dressed(self, send: Send, scope: Scope, cookie: str | None) -> Send:
        """Add the headers that every answer has, and the cookie of a new visitor."""
        extra = [
            (b"content-security-policy", POLICY.format(frames=self._door.frames).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if cookie is not None:
            framed = self._door.frames != "'none'"  # a browser keeps a frame's cookies for https alone, and apart
            rest = "SameSite=None; Secure; Partitioned" if framed else "SameSite=Strict"
            rest += "; Secure" if scope.get("scheme") == "https" and not framed else ""
            age = round(self._limits.keep_days * 86_400)
            whole = f"{COOKIE}={cookie}; Path=/; HttpOnly; Max-Age={age}; {rest}"
            extra.append((b"set-cookie", whole.encode()))

        async def dressed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [*message.get("headers", []), *extra]
                if b"cache-control" not in names:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        return dressed


class TooLarge(Exception):
    """More bytes came than a body may have."""


class Refused(Exception):
    """A request that is not let in."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}

    async def answer(self, send: Send, page: bool = False) -> None:
        """Send the refusal, as a page or as JSON."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        kind = b"text/html; charset=utf-8" if page else b"application/json"
        headers += [(b"content-type", kind), (b"connection", b"close"), (b"x-content-type-options", b"nosniff")]
        body = fault_page(self.message) if page else json.dumps(fault(self.message, self.status))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


def fault(message: str, status: int) -> dict[str, Any]:
    """Return an error as OpenAI's API and this app's page read it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
    return {
        "error": {"message": message, "type": kinds.get(status, "invalid_request_error"), "param": None, "code": status}
    }


def wants_page(accept: str) -> bool:
    """Whether whoever asks is a browser that opens an address, and not a program."""
    return "text/html" in accept


def fault_page(message: str) -> str:
    """Return an error as a page."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<title>stableflow</title><link rel="stylesheet" href="/static/style.css"><main class="page">'
        f"<h1>This did not work</h1><p>{html.escape(message)}</p>"
        '<p><a href="/">Back to the app</a></p></main></html>'
    )


class _Measured:
    """Counts the bytes of a body as they come."""

    def __init__(self, receive: Receive, most: int):
        self._receive, self._left = receive, most

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge
        return message


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"That is too large: up to {limits.upload_bytes / 2**20:.0f} MB are taken.")


def _name(host: str) -> str:
    return host.rsplit(":", 1)[0].lower() if not host.endswith("]") else host.lower()


def _cookie(header: str) -> str | None:
    try:
        morsel = SimpleCookie(header[:4096]).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value
