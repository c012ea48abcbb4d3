"""How full an evaluation keeps a server: `python benchmarks/serving.py [--pictures 250 --width 640 --kind figure]`.

A server in a process of its own takes half a second a request and works at 256 at a time. The share is the
request-seconds that it held over 256 times the seconds from its first request to its last reply. `ms` are the client's
CPU milliseconds a request, pictures included: the figure that other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque

import numpy as np
from PIL import Image, ImageDraw

from vold.engines.chat_api import EndpointSampler
from vold.run.recipe import Endpoint
from vold.types import Message, SamplingParams

MESSAGE = {"message": {"role": "assistant", "content": "So it is (B)."}, "finish_reason": "stop"}
BODY = json.dumps({"choices": [MESSAGE], "usage": {"completion_tokens": 6}}).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Server:
    """Counts what it holds; it says so on standard output when its standard input closes."""

    def __init__(self, places: int, seconds: float) -> None:
        self.places, self.seconds = places, seconds
        self.busy = self.peak = 0
        self.held = self.first = self.last = 0.0
        self.waiting: deque[asyncio.Transport] = deque()

    def begin(self, connection: asyncio.Transport) -> None:
        if self.busy == self.places:
            self.waiting.append(connection)
            return
        now = time.monotonic()
        self.busy, self.first = self.busy + 1, self.first or now
        self.peak = max(self.peak, self.busy)
        asyncio.get_running_loop().call_later(self.seconds, self.end, connection, now)

    def end(self, connection: asyncio.Transport, began: float) -> None:
        self.last = time.monotonic()
        self.busy, self.held = self.busy - 1, self.held + self.last - began
        connection.write(REPLY)
        if self.waiting:
            self.begin(self.waiting.popleft())

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=2 * self.places)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        share = self.held / self.places / (self.last - self.first)
        print(json.dumps({"share": share, "peak": self.peak, "seconds": self.last - self.first}))


class Connection(asyncio.Protocol):
    """One request after another; bodies are counted and not kept."""

    def __init__(self, server: Server) -> None:
        self.server, self.head, self.left = server, b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.left:
            self.head += data
            head, end, data = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, length = b"", head.lower().split(b"content-length:")[1]
            self.left = int(length.split(b"\r\n")[0])
        self.left -= len(data)
        if not self.left:
            self.server.begin(self.transport)


def picture(kind: str, width: int, draw: np.random.Generator) -> Image.Image:
    """Lines on white, or a smooth scene with grain, three by four."""
    size = (width, width * 3 // 4)
    if kind == "figure":
        image = Image.new("RGB", size, "white")
        for _ in range(30):
            ends = draw.integers(0, width, 4).tolist()
            ImageDraw.Draw(image).line(ends, fill="black", width=2)
        return image
    scene = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size)
    grain = np.asarray(scene).astype(int) + draw.integers(-8, 9, (size[1], size[0], 3))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def measure(kind: str, width: int, pictures: int, requests: int, places: int, seconds: float) -> dict[str, float]:
    """The share of places filled, and what it cost the client."""
    draw, n = np.random.default_rng(0), requests // pictures
    asked = [(Message("user", f"{i}: which is it?", (picture(kind, width, draw),)),) for i in range(pictures)]
    command = [sys.executable, __file__, "--server", str(places), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        endpoint = EndpointSampler(Endpoint(urls=(url,), model="model", concurrency=places))
        prompts, began = [a for a in asked for _ in range(n)], time.process_time()
        batches = endpoint.answer(prompts, SamplingParams(16), [*range(n)] * pictures)
        answered = sum(map(len, batches))
        spent = time.process_time() - began
        server.stdin.close()
        return {"answered": answered, "ms": 1000 * spent / answered, **json.loads(server.stdout.readline())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", nargs=2, metavar=("PLACES", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=("figure", "photo"), default="figure")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--pictures", type=int, default=250, help="each is asked about requests / pictures times")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--places", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=0.5)
    a = parser.parse_args()
    if a.server:
        asyncio.run(Server(int(a.server[0]), float(a.server[1])).run())
        return
    found = measure(a.kind, a.width, a.pictures, a.requests, a.places, a.seconds)
    what = f"{a.pictures} {a.kind}s {a.width} pixels wide, {found['answered']:.0f} requests"
    print(f"{what}: {found['share']:.1%} of {a.places} places filled in {found['seconds']:.2f} s, {found['ms']:.2f} ms")
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
