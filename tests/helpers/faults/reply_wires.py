"""What can happen on the way: statuses, broken bodies, torn connections, servers that are slow, hang or never end."""

from __future__ import annotations

import gzip
import itertools
import time
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from faults.lying import Lie, Wire, send, torn
from vold.engines.chat_api import REFUSES_ONE

WORDS = b'{"error": {"message": "overloaded [/b] queue \\u001b[31m \\u202e"}}'
PAGE = b"<html><head><title>Bad gateway</title></head><body>" + b"x" * 3000 + b"</body></html>"

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 507, 508, 520, 529, 599)
LASTING = (201, 204, 206, 300, 301, 302, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 410, 411, 413, 414, 415, 418,
           422, 426, 428, 431, 451, 499, 501, 999)  # fmt: skip


def wires(about: str) -> Iterator[Lie]:
    """Wire faults of requests about something. Those of the second reply alone pass; the others stay.

    A tested model, or a judge, may refuse single requests: that is kept as an answer that is none.
    """
    single = [f"status {s}" for s in REFUSES_ONE] if about in ("chat", "judge") else []
    for name, wire in _once().items():
        yield Lie(name, about, wire=wire, first=2)
    for name, wire in _for_good().items():
        if name not in single and not (single and "of an error" in name):
            yield Lie(f"{name}, for good", about, wire=wire, first=2, lasting=True)


def _once() -> dict[str, Wire]:
    found: dict[str, Wire] = {f"status {s}": _status(s, WORDS) for s in PASSING}
    found |= {f"Retry-After {v!r}": _status(503, WORDS, Retry_After=v) for v in _delays()}
    found |= {f"a body of {name}": _body(raw) for name, raw in _bodies().items()}
    found |= {f"encoded as {name}": _encoded(coding, raw) for name, (coding, raw) in _encodings().items()}
    for name, raw in _raw().items():
        found[name] = _whole(raw)
    return found | {
        "hung up before a word": _hang_up,
        "reset before a word": lambda handler, body: torn(handler),
        "hung up in the headers": lambda handler, body: _send_raw(handler, b"HTTP/1.1 200 OK\r\nContent-Le"),
        "hung up in the body": lambda handler, body: _send_raw(handler, _head(len(body)) + body[:-9]),
        "reset in the body": _reset_in_body,
        "chunks": _chunks(),
        "chunks without an end": _chunks(end=b""),
        "chunks of no size": _chunks(size=b"zz\r\n"),
        "chunks of a negative size": _chunks(size=b"-5\r\n"),
        "a page of HTML": lambda handler, body: send(handler, PAGE, Content_Type="text/html"),
        "another type": lambda handler, body: send(handler, body, Content_Type="image/png; charset=klingon"),
        "closes after the reply": lambda handler, body: send(handler, body, Connection="close"),
        "closes after the reply unasked": _closes_silently,
        "hangs before a word": _hangs(b""),
        "hangs in the body": _hangs(b"BODY"),
    }


def _for_good() -> dict[str, Wire]:
    found: dict[str, Wire] = {f"status {s}": _status(s, WORDS) for s in LASTING}
    return found | {
        "status 503": _status(503, PAGE),
        "a page of HTML": lambda handler, body: send(handler, PAGE, Content_Type="text/html"),
        "deep JSON": _body(b"[" * 100_000),
        "deep JSON of an error": _status(400, b'{"error":' * 100_000),
        "hangs before a word": _hangs(b""),
        "hangs in the headers": _hangs(b"HTTP/1.1 200 OK\r\n"),
        "hangs in the body": _hangs(b"BODY"),
        "a byte at a time": _trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        "a header a byte at a time": _trickles(b"HTTP/1.1 200 OK\r\nX-A: "),
        "a body without an end": _endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
        "headers without an end": _endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 4096),
        "chunks for ever": _endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n%b\r\n" % (b" " * 4096)
        ),
        "early hints for ever": _endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 64),
    }


def _delays() -> list[str]:
    seconds = ["0", "1", "-1", "1.5", "abc", "", "5, 10", " 1 ", "\u0661", "inf", "nan", "0x10", "9" * 400, "99999999"]
    return [*(s for s in seconds if s.isascii()), formatdate(0, usegmt=True), formatdate(2**31, usegmt=True),
            formatdate(time.time() + 1, usegmt=True), "Wed, 99 Foo 99999 99:99:99 GMT"]  # fmt: skip


def _bodies() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "blanks": b"   \n",
        "null": b"null",
        "true": b"true",
        "a list": b"[]",
        "a string": b'"ok"',
        "an empty object": b"{}",
        "half a word": b"tru",
        "an object without an end": b'{"choices": [{"index": 0',
        "two objects": b'{"choices": []}{"choices": []}',
        "bytes that are no text": b'{"choices": "\xff\xfe\x80"}',
        "zeros": bytes(64),
        "UTF-16": '{"choices": []}'.encode("utf-16"),
        "a number of 5,000 digits": b'{"choices": ' + b"9" * 5000 + b"}",
        "1e999": b'{"choices": 1e999}',
        "deep brackets": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "keys that stand twice": b'{"choices": [], "choices": []}',
        "an event stream": b"data: {}\n\ndata: [DONE]\n\n",
        "five megabytes": b'{"choices": "' + b"x" * 5_000_000 + b'"}',
    }


def _encodings() -> dict[str, tuple[str, bytes]]:
    bomb = gzip.compress(bytes(64 << 20), 9)
    return {
        "gzip": ("gzip", b"BODY"),
        "gzip that is none": ("gzip", b"hello"),
        "gzip that is cut short": ("gzip", gzip.compress(b"{}" * 999)[:-5]),
        "gzip with more behind it": ("gzip", gzip.compress(b"{}") + b"more"),
        "gzip of 64 MB": ("gzip", bomb),
        "gzip of gzip": ("gzip, gzip", gzip.compress(bomb)),
        "deflate of 64 MB": ("deflate", zlib.compress(bytes(64 << 20))),
        "what nobody knows": ("klingon", b"nuqneH"),
        "br": ("br", b"\x0b\x02\x80hello\x03"),
    }


def _raw() -> dict[str, bytes]:
    """Whole responses, byte by byte, after which the connection is closed."""
    return {
        "a body without a length": b"HTTP/1.0 200 OK\r\n\r\nBODY",
        "early hints first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + b"HTTP/1.1 200 OK\r\n\r\nBODY",
        "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/9": b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "a status in words": b"HTTP/1.1 fine OK\r\n\r\n{}",
        "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n{}",
        "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
        "a length in words": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        "a length that is too small": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nBODY",
        "a length that is too large": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nBODY",
        "a header without an end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
        "a header of bytes": b"HTTP/1.1 200 OK\r\nX\xff: \x00\x01\r\n\r\n{}",
        "a redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        "cookies": b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: a=b; Expires=yesterday; Max-Age=x\r\n" * 50 + b"\r\nBODY",
    }


def _status(status: int, words: bytes, **headers: str) -> Wire:
    if 300 <= status < 400:
        headers = {"Location": "http://127.0.0.1:9/elsewhere", **headers}
    if status == 204 or status == 304:
        return lambda handler, body: _send_raw(handler, f"HTTP/1.1 {status} none\r\n\r\n".encode())
    return lambda handler, body: send(handler, words, status, **headers)


def _whole(raw: bytes) -> Wire:
    return lambda handler, body: _send_raw(handler, raw.replace(b"BODY", body))


def _body(raw: bytes) -> Wire:
    return lambda handler, body: send(handler, raw)


def _encoded(coding: str, raw: bytes) -> Wire:
    def wire(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        send(handler, gzip.compress(body) if raw == b"BODY" else raw, Content_Encoding=coding)

    return wire


def _head(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()


def _send_raw(handler: BaseHTTPRequestHandler, raw: bytes) -> None:
    handler.close_connection = True
    handler.wfile.write(raw)
    handler.wfile.flush()


def _hang_up(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.close_connection = True


def _reset_in_body(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.wfile.write(_head(len(body)) + body[:5])
    handler.wfile.flush()
    torn(handler)


def _closes_silently(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body)
    handler.close_connection = True


def _chunks(size: bytes = b"", end: bytes = b"0\r\n\r\n") -> Wire:
    def wire(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        parts = (b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:3], body[3:]))
        _send_raw(handler, CHUNKED + size + b"".join(parts) + end)

    return wire


def _hangs(first: bytes) -> Wire:
    """Sends something, or the start of the right reply, and then nothing until the client leaves."""

    def wire(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        _send_first(handler, _head(len(body)) + body[:5] if first == b"BODY" else first)
        handler.connection.settimeout(30)
        handler.rfile.read(1)

    return wire


def _trickles(first: bytes) -> Wire:
    def wire(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        _send_first(handler, first)
        for _ in range(3000):
            _send_first(handler, b"1")
            time.sleep(0.01)

    return wire


def _endless(first: bytes, again: bytes) -> Wire:
    def wire(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        _send_first(handler, first)
        for _ in itertools.count():
            _send_first(handler, again)

    return wire


def _send_first(handler: BaseHTTPRequestHandler, raw: bytes) -> None:
    handler.close_connection = True
    handler.wfile.write(raw)
    handler.wfile.flush()
