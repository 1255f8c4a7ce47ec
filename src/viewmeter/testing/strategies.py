"""Hypothesis strategies: event lists no player would send, and some that players do send.

Out: lists of enriched event dicts in the order of arrival, for `oracle.increments` and, by
`columns.to_table`, for every engine. Promised: all types, holes, duplicates that say something else, `ts`
going backwards, gaps on both sides of 60 s and of 5 min, counters present, absent and decreasing, blind
players, every `fatal`. The only file of the package that needs hypothesis.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from viewmeter.model.events import EVENT_TYPES
from viewmeter.testing.scenario import START_MS
from viewmeter.testing.subject import viewer_hash

GAPS_MS: Final = (
    *(0, 1, 999, 1_000, 2_500, 10_000, 10_000, 29_999, 30_000, 30_000, 30_000, 59_999, 60_000, 60_001),
    *(120_000, 299_999, 300_000, 300_001, 900_000, -1, -1_000, -45_000, -400_000),
)
BITRATES: Final = (
    None,
    None,
    None,
    0,
    1,
    299,
    300,
    799,
    800,
    1_499,
    1_500,
    2_999,
    3_000,
    6_000,
    12_000,
    25_000,
)
USUAL: Final = (
    "play",
    "play",
    "heartbeat",
    "heartbeat",
    "heartbeat",
    "buffer",
    "pause",
    "seek",
    "quality_change",
)

types = st.sampled_from((*EVENT_TYPES, *USUAL))
dimensions = st.fixed_dictionaries(
    {
        "country": st.sampled_from(("DE", "US", "unknown")),
        "region": st.sampled_from(("Berlin", "unknown")),
        "city": st.just("unknown"),
        "asn": st.sampled_from(("AS1", "unknown")),
        "device_type": st.sampled_from(("tv", "mobile")),
        "os": st.sampled_from(("Tizen", "iOS")),
        "browser": st.sampled_from(("Safari", "unknown")),
        "player": st.sampled_from(("shaka", "unknown")),
        "stream_type": st.sampled_from(("vod", "live")),
        "is_bot": st.sampled_from((False, False, False, True)),
    }
)


@st.composite
def fields(draw: st.DrawFn, kind: str, counters: tuple[str, ...], blind: bool) -> dict[str, Any]:
    """Return what one event of this type says beside its identity; counters may fall or be missing."""
    out: dict[str, Any] = {
        "bitrate_kbps": draw(st.sampled_from(BITRATES)),
        "cdn": draw(st.sampled_from(("unknown", "unknown", "alpha", "beta"))),
        "duration_ms": draw(st.sampled_from((None, None, None, 0, 1, 20_000, 59_999, 7_200_000))),
        "position_ms": draw(st.one_of(st.none(), st.integers(0, 100_000))),
        "playback_rate": draw(st.sampled_from((None, None, 1.0, 2.0))),
    }
    for name in counters:
        top = 9 if name == "rebuffer_count" else 90_000
        out[name] = draw(st.one_of(st.integers(0, top), st.integers(0, top), st.none()))
    if kind == "play":
        out["startup_ms"] = draw(st.sampled_from((None, None, 0, 700)))
    if kind == "error":
        out["fatal"] = draw(st.sampled_from((None, True, False)))
        out["halted"] = draw(st.sampled_from((None, None, True)))
    if draw(st.integers(0, 9)) == 0:
        blind = not blind
    return {k: v for k, v in out.items() if v is not None} | {"blind": blind}


@st.composite
def one_view(draw: st.DrawFn, view_id: str, tenant_id: str = "t1", max_events: int = 20) -> list[dict[str, Any]]:
    """Return a view's events in the order of `seq`, holes and duplicates among them, without arrival."""
    names = ("played_ms", "rebuffered_ms", "rebuffer_count")
    counters = draw(st.sampled_from((names, names, (), (), ("played_ms",), ("rebuffered_ms", "rebuffer_count"))))
    blind = draw(st.sampled_from((False, False, False, True)))
    own = draw(dimensions)
    where = {"channel_id": draw(st.sampled_from(("c1", "c2"))), "video_id": draw(st.sampled_from(("a", "b")))}
    viewer = viewer_hash(tenant_id, draw(st.sampled_from(("ann", "bob", "eve"))))
    identity = {"tenant_id": tenant_id, **where, "view_id": view_id, "viewer_hash": viewer}
    ts = START_MS + draw(st.integers(0, 600_000))
    seq = draw(st.sampled_from((0, 0, 0, 0, 1, 4)))
    out: list[dict[str, Any]] = []
    for place in range(draw(st.integers(1, max_events))):
        kind = draw(st.sampled_from(("request", "play", "heartbeat")) | types) if place == 0 else draw(types)
        ts += draw(st.sampled_from(GAPS_MS)) if place else 0
        dims = own if draw(st.integers(0, 5)) else draw(dimensions)
        event = {
            **identity,
            **dims,
            **draw(fields(kind, counters, blind)),
            "seq": seq,
            "type": kind,
            "ts": ts,
        }
        out.append(event)
        if draw(st.integers(0, 9)) == 0:
            again = draw(types)
            out.append(event if draw(st.booleans()) else {**event, "type": again, "ts": ts + 1_000})
        seq += draw(st.sampled_from((1, 1, 1, 1, 1, 1, 1, 2, 5)))
    return out


@st.composite
def event_lists(
    draw: st.DrawFn, max_views: int = 3, max_events: int = 20, ordered: bool = False
) -> list[dict[str, Any]]:
    """Return events of several views and tenants in the order of arrival.

    `received_at` are distinct. `ordered`: every view arrives in the order of `seq` (views interleaved), as
    the exact paths of an engine see it; otherwise everything arrives shuffled.
    """
    count = draw(st.integers(1, max_views))
    names = [(("t1", "t2")[i % 2], f"v{i // 2}") for i in range(count)]  # one id in two tenants: two views
    views = [draw(one_view(name, tenant, max_events)) for tenant, name in names]
    random = draw(st.randoms(use_true_random=False))
    if ordered:
        turns = [i for i, view in enumerate(views) for _ in view]
        random.shuffle(turns)
        rest = [iter(view) for view in views]
        arrived = [next(rest[i]) for i in turns]
    else:
        arrived = [event for view in views for event in view]
        random.shuffle(arrived)
    return [{**event, "received_at": START_MS + 60_000 + 10 * i} for i, event in enumerate(arrived)]


@st.composite
def later(draw: st.DrawFn, events: list[dict[str, Any]]) -> int:
    """Return a `now_ms` from the last event on: before, at and after the silence that ends views."""
    last = max((event["ts"] for event in events), default=START_MS)
    return last + draw(st.sampled_from((0, 1_000, 299_999, 300_000, 300_001, 3_600_000)))
