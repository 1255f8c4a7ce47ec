"""Who is present, as the live store takes it: one row for each view with an active event in the last minute."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from viewmeter.model.views import INTERVAL_CAP_MS, NEVER
from viewmeter.stream.core import Core

_FROM = {"tenant_id": "video", "channel_id": "video", "video_id": "video", "is_bot": "video", "country": "audience"}


def present(core: Core, now_ms: int) -> pa.Table:
    """Return the views that are present at `now_ms`, or will be if their clock is a little ahead."""
    states = core.states
    rows = np.flatnonzero(states.seen & (states.last_active != NEVER) & (states.last_active > now_ms - INTERVAL_CAP_MS))
    columns = {name: _encoded(core, name, rollup, rows) for name, rollup in _FROM.items()}
    return pa.table(
        {
            **columns,
            "viewer_hash": core.viewer[rows],
            "last_active_ms": states.last_active[rows],
            "played_ms": np.where(states.blind[rows], -1, states.played_ms[rows]),
        }
    )


def _encoded(core: Core, name: str, rollup: str, rows: np.ndarray) -> pa.Array:
    groups = core.groups[rollup]
    words = groups.words(name, np.arange(len(groups)))
    numbers = core.group[rollup][rows]
    if name == "is_bot":
        return words.take(pa.array(numbers))
    encoded = words.dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(numbers)), encoded.dictionary)
