"""Traffic at a steady rate, from its own process: `python -m viewmeter.bench.traffic URL KEY EVENTS_PER_S SECONDS`.

Raw sockets and bodies made by formatting bytes, so that most of a shared machine is left to the product: beacons of ten
events of about 500 bytes, of views that each send one every 30 s. Prints one line of JSON at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

CONNECTIONS: Final = 64
EVENTS_A_BEACON: Final = 10
BEACON_EVERY_S: Final = 30
_PAD: Final = b"x" * 190
_EVENT: Final = (
    b'{"type":"heartbeat","ts":%d,"view_id":"%b","seq":%d,"video_id":"video-%d","channel_id":"channel-%d",'
    b'"viewer_id":"viewer-of-%b","position_ms":%d,"duration_ms":3600000,"played_ms":%d,"rebuffered_ms":%d,'
    b'"rebuffer_count":0,"bitrate_kbps":2400,"player":"bench","cdn":"cdn-a","stream_type":"vod","extra":"'
    + _PAD
    + b'"}'
)


def beacon(view: int, turn: int, now_ms: int) -> bytes:
    """Return the body of a view's beacon number `turn`: its next ten events."""
    name = b"bench-%d" % view
    parts = []
    for i in range(EVENTS_A_BEACON):
        seq = turn * EVENTS_A_BEACON + i
        played = seq * 3_000
        ts = now_ms - (EVENTS_A_BEACON - i) * 100
        parts.append(_EVENT % (ts, name, seq, view % 500, view % 50, name, played, played, seq))
    return b"[" + b",".join(parts) + b"]"


async def drive(url: str, key: str, events_per_s: float, seconds: float) -> dict[str, object]:
    """Send at the rate; return what was sent, how it was answered, and how far the sender fell behind."""
    parts = urlsplit(url)
    head = (
        f"POST /api/v1/events/beacon?key={key} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    ).encode()
    views = max(CONNECTIONS, round(events_per_s / EVENTS_A_BEACON * BEACON_EVERY_S))
    interval_s = CONNECTIONS * EVENTS_A_BEACON / events_per_s
    statuses: Counter[int] = Counter()
    behind: list[float] = []
    begun = time.monotonic()

    async def lane(number: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        view, turn, due = number, 0, begun + number / CONNECTIONS * interval_s
        while (now := time.monotonic()) < begun + seconds:
            if due > now:
                await asyncio.sleep(due - now)
            behind.append(max(0.0, time.monotonic() - due))
            body = beacon(view, turn, time.time_ns() // 1_000_000)
            writer.write(head % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer[9:12])
            statuses[status] += 1
            if status != 204:
                length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
            view += CONNECTIONS
            if view >= views:
                view, turn = number, turn + 1
            due += interval_s
        writer.close()

    await asyncio.gather(*(lane(number) for number in range(CONNECTIONS)))
    took_s = time.monotonic() - begun
    return {
        "events_per_s": statuses[204] * EVENTS_A_BEACON / took_s,
        "statuses": {str(status): count for status, count in statuses.items()},
        "behind_s_max": max(behind, default=0.0),
    }


if __name__ == "__main__":
    asked = sys.argv[1:]
    print(json.dumps(asyncio.run(drive(asked[0], asked[1], float(asked[2]), float(asked[3])))))  # noqa: T201
