"""Load at the pace of real talk, in processes of its own: `python tests/loading.py model`, `… clients URL …`.

The model side answers the setup and sends 40 ms of sound for every two messages of 20 ms that it gets. Each sound
carries the number of its conversation, its place, and when it was sent, on the clock that all processes of a
machine share; what comes out in another order, twice or not at all is counted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import struct
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

UP_BYTES, DOWN_BYTES = 640, 1920
PACE_S = 0.02
STAMP = struct.Struct("<IId")  # conversation, place, sent


def stamped(conversation: int, place: int, size: int) -> str:
    return base64.b64encode(STAMP.pack(conversation, place, time.monotonic()).ljust(size, b"\0")).decode()


class Track:
    """One direction of one conversation."""

    def __init__(self) -> None:
        self.expected = 0
        self.wrong = 0
        self.delays: list[float] = []

    def take(self, data: str) -> int:
        conversation, place, sent = STAMP.unpack_from(base64.b64decode(data))
        self.delays.append(time.monotonic() - sent)
        self.wrong += place != self.expected
        self.expected = place + 1
        return int(conversation)


async def model(port: int) -> None:
    """Prints its port; at the end of its input, what it heard."""
    heard: list[Track] = []

    async def talk(socket: ServerConnection) -> None:
        track = Track()
        heard.append(track)
        await socket.recv()
        await socket.send(b'{\n  "setupComplete": {}\n}\n')
        async for frame in socket:
            message = json.loads(frame)
            audio = message.get("realtimeInput", {}).get("audio")
            if audio is None:
                continue
            conversation = track.take(audio["data"])
            if track.expected % 2 == 0:
                data = stamped(conversation, track.expected // 2 - 1, DOWN_BYTES)
                inline = {"mimeType": "audio/pcm;rate=24000", "data": data}
                content = {"serverContent": {"modelTurn": {"parts": [{"inlineData": inline}]}}}
                await socket.send(json.dumps(content, indent=2).encode())

    async with serve(talk, "127.0.0.1", port, compression=None, ping_interval=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
    report(heard)


async def clients(url: str, count: int, seconds: float, direct: bool, ca: str | None = None) -> None:
    """`count` conversations through the gateway at `url`, or straight to a model side. `ca` is trusted for TLS."""
    tls = ssl.create_default_context(cafile=ca) if ca is not None else None
    tracks = [Track() for _ in range(count)]
    messages = int(seconds / PACE_S)

    async def listen(socket: ClientConnection, track: Track) -> None:
        while track.expected < messages // 2:
            frame = json.loads(await socket.recv())
            if direct and "serverContent" in frame:
                track.take(frame["serverContent"]["modelTurn"]["parts"][0]["inlineData"]["data"])
            elif frame.get("type") == "audio":
                track.take(frame["data"]["audio"])

    async def speak(socket: ClientConnection, number: int, start: float) -> None:
        for place in range(messages):
            await asyncio.sleep(start + place * PACE_S - time.monotonic())
            blob = {"data": stamped(number, place, UP_BYTES), "mimeType": "audio/pcm;rate=16000"}
            message = {"realtimeInput": {"audio": blob}} if direct else {"type": "audio", "data": blob}
            await socket.send(json.dumps(message))

    async def talk(number: int, track: Track) -> None:
        async with connect(
            url, ssl=tls, compression=None, proxy=None, max_size=None, ping_interval=None
        ) as socket:
            await socket.send('{"setup": {"model": "models/m"}}' if direct else '{"type": "connect"}')
            ready = b"setupComplete" if direct else b'"CONNECTED"'
            while ready not in await socket.recv(decode=False):
                pass
            start = time.monotonic() + 1.0 + number * PACE_S / count
            listening = asyncio.get_running_loop().create_task(listen(socket, track))
            await speak(socket, number, start)
            try:
                await asyncio.wait_for(listening, 30)
            except TimeoutError:
                pass  # what is missing is counted

    await asyncio.gather(*(talk(number, track) for number, track in enumerate(tracks)))
    report(tracks)


class ProcessorTime(NamedTuple):
    """Seconds that a process ran, and that it could have run but others did; 0 where the system does not say."""

    ran_s: float
    waited_s: float


def processor_time(pid: int | str = "self") -> ProcessorTime:
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return ProcessorTime(0.0, 0.0)
    return ProcessorTime(int(ran) / 1e9, int(waited) / 1e9)


def report(tracks: list[Track]) -> None:
    delays = sorted(delay for track in tracks for delay in track.delays)
    print(
        json.dumps(
            {
                "conversations": len(tracks),
                "messages": len(delays),
                "wrong": sum(track.wrong for track in tracks),
                "waited_s": round(processor_time().waited_s, 3),
                "p50_ms": round(median(delays) * 1000, 3) if delays else None,
                "p99_ms": round(delays[int(len(delays) * 0.99)] * 1000, 3) if delays else None,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1] == "model":
        uvloop.run(model(0))
    else:
        url, count, seconds, way, *ca = sys.argv[2:]
        uvloop.run(clients(url, int(count), float(seconds), way == "direct", *ca))
