"""What is counted of sampled events: how often each field is filled, ranges of values, the clock; by tenant and player.

In: a record batch of `EVENT_SCHEMA`. Out: `Figures` by (tenant, player), which merge, and numbers read from them.
Promised: columns all the way, one pass a group; quantiles are KLL (k 200, 1.65 % rank error), ends are exact. Not done:
anything by view or viewer; a group is a player of a tenant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from viewmeter.model.events import EVENT_TYPES, UNKNOWN
from viewmeter.model.sketches import kll_from_values, kll_quantile, merge_kll

Group = tuple[str, str]
"""(tenant, player)."""

NUMBERS: Final = (
    *("position_ms", "duration_ms", "played_ms", "rebuffered_ms", "rebuffer_count", "startup_ms"),
    *("bitrate_kbps", "playback_rate"),
)
WORDS: Final = (
    *("country", "region", "city", "asn", "device_type", "os", "browser"),
    *("player", "cdn", "stream_type"),
)
TEXTS: Final = ("error_code", "error_message")
FIELDS: Final = (*NUMBERS, *TEXTS, *WORDS)
"""Fields that an event may lack."""

SKEW: Final = "clock_skew_ms"
"""`received_at` - `ts` after correction: the way, the wait for a batch, and what is left of the clock's error."""

_VERSION: Final = re.compile(r"(?P<name>.*?\S)[-/ _]v?(?P<version>\d+(?:\.\d+)*(?:[-+.]\w+)*)")


class Figures(msgspec.Struct):
    """The figures of one group. `sketches`: KLL by number, and of the clock."""

    events: int = 0
    types: dict[str, int] = {}
    filled: dict[str, int] = {}
    sketches: dict[str, bytes] = {}


def figures_of(batch: pa.RecordBatch) -> dict[Group, Figures]:
    """Return the figures of a batch by group."""
    tenants, players = batch.column("tenant_id"), batch.column("player")
    tenant_names, player_names = tenants.dictionary.to_pylist(), players.dictionary.to_pylist()
    codes = tenants.indices.to_numpy().astype(np.int64) * len(player_names) + players.indices.to_numpy()
    columns: dict[str, npt.NDArray[Any]] = {name: batch.column(name).to_numpy() for name in NUMBERS}
    filled = {name: column >= 0 for name, column in columns.items()}
    filled |= {name: _not(batch.column(name), UNKNOWN) for name in WORDS}
    filled |= {name: np.array([bool(text) for text in batch.column(name).to_pylist()], np.bool_) for name in TEXTS}
    skew = batch.column("received_at").to_numpy() - batch.column("ts").to_numpy()
    types = batch.column("type").to_numpy()
    found: dict[Group, Figures] = {}
    for code in np.unique(codes).tolist():
        rows = codes == code
        figures = Figures(int(rows.sum()), _types(types[rows]))
        figures.filled = {name: count for name in FIELDS if (count := int(filled[name][rows].sum()))}
        values = {name: columns[name][rows & filled[name]] for name in NUMBERS} | {SKEW: skew[rows]}
        sketches = {name: kll_from_values(some.astype(np.float64)) for name, some in values.items()}
        figures.sketches = {name: sketch for name, sketch in sketches.items() if sketch is not None}
        found[(tenant_names[code // len(player_names)], player_names[code % len(player_names)])] = figures
    return found


def _not(column: pa.DictionaryArray, word: str) -> npt.NDArray[np.bool_]:
    known = np.array([name != word for name in column.dictionary.to_pylist()], np.bool_)
    filled: npt.NDArray[np.bool_] = known[column.indices.to_numpy()]
    return filled


def _types(types: npt.NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(types, minlength=len(EVENT_TYPES)).tolist()
    return {kind: count for kind, count in zip(EVENT_TYPES, counts, strict=True) if count}


def merged(parts: Iterable[Figures]) -> Figures:
    """Return the figures of all parts together."""
    several = list(parts)
    if len(several) == 1:
        return several[0]
    types: Counter[str] = Counter()
    filled: Counter[str] = Counter()
    for part in several:
        types.update(part.types)
        filled.update(part.filled)
    sketches: dict[str, bytes] = {}
    for name in (*NUMBERS, SKEW):
        sketch = merge_kll(part.sketches[name] for part in several if name in part.sketches)
        if sketch is not None:
            sketches[name] = sketch
    return Figures(sum(part.events for part in several), dict(types), dict(filled), sketches)


def shown(group: Group, figures: Figures) -> dict[str, object]:
    """Return a group as the API shows it."""
    tenant, player = group
    named = _VERSION.fullmatch(player)
    return {
        "tenant": tenant,
        "player": named["name"] if named else player,
        "version": named["version"] if named else None,
        "events": figures.events,
        "types": figures.types,
        "filled_ratio": {name: figures.filled.get(name, 0) / figures.events for name in FIELDS},
        "values": {name: _range(figures.sketches[name]) for name in NUMBERS if name in figures.sketches},
        SKEW: _range(figures.sketches[SKEW]),
    }


def _range(sketch: bytes) -> dict[str, float | None]:
    ranks = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: kll_quantile(sketch, rank) for name, rank in ranks.items()}
