"""What the web room needs from the others, as one value that wiring fills in.

In: the running pieces. Out: `Services`. Nothing here starts or stops anything: whoever made a piece also ends
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from viewmeter.eventlog.protocol import LogReader
from viewmeter.live.protocol import LiveStore
from viewmeter.metadata.store import Directory, Metadata
from viewmeter.olap.protocol import TimeSeriesStore
from viewmeter.stream.protocol import StreamJobs
from viewmeter.web.settings import WebSettings

if TYPE_CHECKING:
    from viewmeter.archive.protocol import Archive
    from viewmeter.batch.protocol import BatchJobs
    from viewmeter.collector.deadletters import DeadLetter, DeadLetters
    from viewmeter.collector.quality.store import FiguresReader
    from viewmeter.query import Analytics

STATIC: Final = Path(__file__).parent / "static"

Check = Callable[[], str | None]
"""A part's readiness: None when it is ready, else what is missing. Called in a thread."""

Resubmit = Callable[[Sequence["DeadLetter"]], Mapping[str, int]]
"""Sends dead letters in again: `{"accepted": n, "rejected": n}`; see `replay.Resubmitter`. Called in a
thread."""


@dataclass(frozen=True)
class Services:
    """The running pieces that the API answers from."""

    analytics: Analytics
    stream: StreamJobs
    log: LogReader
    live: LiveStore
    store: TimeSeriesStore
    metadata: Metadata
    directory: Directory
    clock: Callable[[], int]  # ms since the epoch
    version: str
    archive: Archive | None = None
    batch: BatchJobs | None = None
    dead_letters: DeadLetters | None = None
    quality: FiguresReader | None = None
    resubmit: Resubmit | None = None
    settings: WebSettings = field(default_factory=WebSettings)
    checks: Mapping[str, Check] = field(default_factory=dict)  # more parts of /readyz
    static: Path = STATIC  # the built dashboard

    def watermark_ms(self) -> int | None:
        """Return the `received_at` up to which every job has applied everything; None: nothing yet."""
        marks = self.stream.watermarks().values()
        known = [mark for mark in marks if mark is not None]
        return min(known) if known and len(known) == len(marks) else None
