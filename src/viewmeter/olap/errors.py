"""What a time-series store may refuse, whichever it is."""

from __future__ import annotations


class ScanTooLargeError(Exception):
    """A scan would answer more groups than the store hands out. Ask for fewer groups or a coarser granularity."""

    def __init__(self, row_limit: int) -> None:
        super().__init__(f"more than {row_limit:,} groups: narrow the range, the filters or the dimensions")
        self.row_limit = row_limit


class StoreBrokenError(Exception):
    """The store takes nothing any more until its process starts again: a write or sync to its disk has failed."""
