"""The middleware of every answer: the bearer token, ETag and 304, gzip, and HEAD."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Smaller answers are not worth compressing.
_GZIP_FROM_BYTES = 1000
_GZIP_LEVEL = 5


class _BearerToken:
    """Middleware that answers requests with the token (RFC 6750) and sends a 401 to the others."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self.token):
            await self.app(scope, receive, send)
            return
        challenge = 'Bearer realm="trafficcast"' + (', error="invalid_token"' if given else "")
        sentence = "the token is not the right one" if given else "send the header Authorization: Bearer TOKEN"
        headers = {"WWW-Authenticate": challenge, "Cache-Control": "no-store"}
        await JSONResponse({"error": sentence}, 401, headers)(scope, receive, send)


class _Conditional:
    """Middleware that gives every answer an ETag, compresses it with gzip, and answers 304 and HEAD.

    The ETag (RFC 9110) is strong: a hash of the content, with a suffix where the content is compressed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app({**scope, "method": "GET"}, receive, collect)
        request, headers = Headers(scope=scope), MutableHeaders(raw=start["headers"])
        body = b"".join(parts)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Cache-Control"] = "no-cache"
        headers.add_vary_header("Accept-Encoding")
        if start["status"] == 200:
            packed = len(body) >= _GZIP_FROM_BYTES and _accepts_gzip(request.get("accept-encoding", ""))
            body, tag = await run_in_threadpool(_encode, body, packed)
            if packed:
                headers["Content-Encoding"] = "gzip"
            headers["ETag"] = tag
            if _matches(request.get("if-none-match", ""), tag):
                start["status"], body = 304, b""
                del headers["Content-Type"], headers["Content-Encoding"]
        if start["status"] == 304:
            del headers["Content-Length"]
        else:
            headers["Content-Length"] = str(len(body))
        await send(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header names gzip with a weight above 0."""
    for coding in accept_encoding.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def _matches(if_none_match: str, tag: str) -> bool:
    """Whether an If-None-Match header names the tag; weak tags count as well (RFC 9110)."""
    given = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return "*" in given or tag in given


def _encode(body: bytes, packed: bool) -> tuple[bytes, str]:
    """Return the body as it is sent, and its tag."""
    content = hashlib.sha256(body).hexdigest()[:32]
    return (gzip.compress(body, _GZIP_LEVEL, mtime=0), f'"{content}-gzip"') if packed else (body, f'"{content}"')
