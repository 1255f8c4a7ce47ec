"""What raw events are asked for: the pieces of a range that no rollup keeps in the dimensions asked for.

Implementations: the batch layer, over the archive. Not done here: reading anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from viewmeter.model.time import Interval
from viewmeter.olap.protocol import Scan


class RawEvents(Protocol):
    """The interval rule over archived events, for one question."""

    def events(self, pieces: Sequence[Interval]) -> int:
        """Return about how many events would have to be read for the pieces; what is read beside them included."""
        ...

    def reach_ms(self) -> int:
        """Return from when on the archive holds events; 0: nothing was dropped yet."""
        ...

    def scan(self, question: Scan, pieces: Sequence[Interval]) -> pa.Table:
        """Answer as `TimeSeriesStore.scan` does, of the events whose instant lies in the pieces (disjoint).

        The question's `rollup` and `parts` mean nothing here; its edges may lie anywhere.
        """
        ...
