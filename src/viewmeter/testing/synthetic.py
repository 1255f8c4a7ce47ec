"""Events by the million, as Arrow batches of EVENT_SCHEMA: for benchmarks.

In: sizes and a seed. Out: an endless stream of batches, in the order of time. Promised: `active` views at every
instant, each with an event every 30 s (mostly heartbeats with counters), views that end and are replaced by new ones,
real `view_key`s, and the same bytes for the same seed. The crowd is met in mid-life, so the first event of a first
view leaves a hole in `seq` before it. Not done: truth. Use the simulator for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from viewmeter.model.events import EVENT_SCHEMA, UNKNOWN, WORD_COLUMNS, EventType, view_key
from viewmeter.testing.world import CDNS, COUNTRIES, DEVICES, LADDER_KBPS

ROUND_MS: Final = 30_000
MIX: Final = (
    (EventType.HEARTBEAT, 0.86),
    (EventType.BUFFER, 0.03),
    (EventType.PLAY, 0.04),
    (EventType.QUALITY_CHANGE, 0.04),
    (EventType.SEEK, 0.015),
    (EventType.PAUSE, 0.015),
)
"""What a view in mid-life says. Its first two events are a request and a play, its last an exit or a complete."""

Ints = npt.NDArray[np.int64]


class Synthetic:
    """A crowd of `active` slots; in each a view lives for some rounds of 30 s, then another one.

    `mean_events` a view; `videos` and `channels` are drawn by a Zipf-like law.
    """

    def __init__(
        self,
        seed: int,
        start_ms: int,
        active: int = 100_000,
        videos: int = 1_000,
        channels: int = 100,
        mean_events: int = 20,
        tenant_id: str = "bench",
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._start_ms, self._active, self._tenant_id = start_ms, active, tenant_id
        self._videos, self._mean_events = videos, mean_events
        self._seed, self._round = seed, 0
        words = _words(tenant_id, videos, channels)
        unique = {name: list(dict.fromkeys(values)) for name, values in words.items()}
        self._words = {name: pa.array(values, pa.string()) for name, values in unique.items()}
        places = {name: {word: i for i, word in enumerate(values)} for name, values in unique.items()}
        self._place = {
            name: np.array([places[name][word] for word in values], np.int32) for name, values in words.items()
        }
        self._channels = channels
        self._ids = np.zeros(active, np.int64)  # which view lives in the slot
        self._next_id = 0
        self._age = np.zeros(active, np.int64)
        self._life = np.zeros(active, np.int64)
        self._keys = np.zeros(active, np.int64)
        self._viewers = np.zeros(active, np.int64)
        self._codes = {name: np.zeros(active, np.int32) for name in WORD_COLUMNS}
        self._born(np.arange(active))
        self._age[:] = self._rng.integers(0, self._life)  # the crowd is met in the middle of its life

    def _born(self, slots: Ints) -> None:
        """Put new views into these slots."""
        rng, n = self._rng, len(slots)
        ids = np.arange(self._next_id, self._next_id + n)
        self._next_id += n
        self._ids[slots] = ids
        self._age[slots] = 0
        self._life[slots] = 3 + rng.geometric(1 / max(1, self._mean_events - 3), n)
        self._keys[slots] = [view_key(self._tenant_id, f"{self._seed}-{i}") for i in ids.tolist()]
        self._viewers[slots] = rng.integers(-(2**63), 2**63 - 1, n)
        video = np.minimum((rng.pareto(0.8, n) * 2).astype(np.int64), self._videos - 1)
        country = rng.choice(len(COUNTRIES), n, p=_shares([c.weight for c in COUNTRIES]))
        device = rng.choice(len(DEVICES), n, p=_shares([d.weight for d in DEVICES]))
        city = rng.integers(0, 2, n)
        drawn: dict[str, Ints] = {
            "video_id": video,
            "channel_id": video % self._channels,
            "cdn": rng.integers(0, len(CDNS), n),
            "stream_type": (video % 10 == 9).astype(np.int64),
            **dict.fromkeys(("country", "asn"), country),
            **dict.fromkeys(("region", "city"), 2 * country + city),
            **dict.fromkeys(("device_type", "os", "browser", "player"), device),
        }
        for name, which in drawn.items():
            self._codes[name][slots] = self._place[name][which]

    def batches(self, events: int, batch_rows: int = 50_000) -> Iterator[pa.RecordBatch]:
        """Yield `events` more events; going on later continues the same crowd."""
        left, first = events, 0
        while left > 0:
            rows = min(batch_rows, left, self._active - first)
            yield self._batch(first, rows)
            left -= rows
            first += rows
            if first == self._active:
                first = 0
                self._round += 1

    def _batch(self, first: int, rows: int) -> pa.RecordBatch:
        here = slice(first, first + rows)
        rng, age, life = self._rng, self._age[here].copy(), self._life[here]
        kinds = rng.choice([int(k) for k, _ in MIX], rows, p=_shares([share for _, share in MIX])).astype(np.uint8)
        kinds[age == 0] = EventType.REQUEST
        kinds[age == 1] = EventType.PLAY
        last = age == life - 1
        kinds[last] = np.where(rng.random(int(last.sum())) < 0.4, EventType.COMPLETE, EventType.EXIT)
        slots = np.arange(first, first + rows)
        ts = self._start_ms + self._round * ROUND_MS + slots * ROUND_MS // self._active
        playing = np.maximum(age - 1, 0) * (ROUND_MS - 300)
        bitrates = np.array(LADDER_KBPS)[rng.integers(0, len(LADDER_KBPS), rows)]
        tells = (kinds == EventType.PLAY) | (kinds == EventType.QUALITY_CHANGE)
        absent = np.full(rows, -1, np.int64)
        no, empty = np.zeros(rows, bool), pa.array(np.full(rows, "", dtype=object), pa.string())
        ids = pc.cast(pa.array(self._ids[here]), pa.string())
        columns: dict[str, Any] = {
            "view_id": pc.binary_join_element_wise(str(self._seed), ids, "-"),
            "view_key": self._keys[here].copy(),
            "viewer_hash": self._viewers[here].copy(),
            "seq": age,
            "type": kinds,
            "ts": ts,
            "received_at": ts + rng.integers(40, 400, rows),
            "position_ms": playing,
            "duration_ms": np.where(self._codes["stream_type"][here] == 1, 0, 600_000),
            "played_ms": playing,
            "rebuffered_ms": np.maximum(age - 1, 0) // 8 * 1_500,
            "rebuffer_count": np.maximum(age - 1, 0) // 8,
            "startup_ms": np.where(age == 1, 200 + rng.integers(0, 3_000, rows), -1),
            "bitrate_kbps": np.where(tells, bitrates, absent),
            "playback_rate": np.full(rows, -1.0),
            "fatal": absent.astype(np.int8),
            "blind": no,
            "is_bot": no,
            "error_code": empty,
            "error_message": empty,
        }
        for name, words in self._words.items():
            columns[name] = pa.DictionaryArray.from_arrays(pa.array(self._codes[name][here].copy()), words)
        self._age[here] += 1
        self._born(slots[last])
        arrays = [
            value if isinstance(value, (pa.Array, pa.ChunkedArray)) else pa.array(value, EVENT_SCHEMA.field(name).type)
            for name, value in ((name, columns[name]) for name in EVENT_SCHEMA.names)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


def _shares(weights: list[float]) -> npt.NDArray[np.float64]:
    return np.array(weights) / sum(weights)


def _words(tenant_id: str, videos: int, channels: int) -> dict[str, list[str]]:
    """Return what each dictionary column can say, in the order of the tables that are drawn from."""
    cities = [pair for country in COUNTRIES for pair in country.cities]
    return {name: [UNKNOWN] for name in WORD_COLUMNS} | {
        "tenant_id": [tenant_id],
        "video_id": [f"video-{i}" for i in range(videos)],
        "channel_id": [f"channel-{i}" for i in range(channels)],
        "country": [country.code for country in COUNTRIES],
        "asn": [f"AS{64512 + i}" for i in range(len(COUNTRIES))],
        "region": [region for region, _ in cities],
        "city": [city for _, city in cities],
        "device_type": [device.device_type for device in DEVICES],
        "os": [device.os for device in DEVICES],
        "browser": [device.browser for device in DEVICES],
        "player": [device.player for device in DEVICES],
        "cdn": [cdn for cdn, _ in CDNS],
        "stream_type": ["vod", "live"],
    }
