"""What Prometheus sees of the collector. No label holds a tenant, a video or anything else without a bound.

Works with several workers when PROMETHEUS_MULTIPROC_DIR is set before the first import. Counting a beacon costs one
dict access: `Tally` keeps the numbers and hands them over twice a second.
"""

from __future__ import annotations

from collections import Counter as Count
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

BEACONS: Final = Counter("viewmeter_beacons", "Answers to beacons, by status.", ["status"])
ACCEPTED: Final = Counter("viewmeter_events_accepted", "Events that are durable.")
REJECTED: Final = Counter("viewmeter_events_rejected", "Events rejected, by reason.", ["code"])
REFUSED: Final = Counter("viewmeter_beacons_refused", "Beacons refused as a whole, by problem code.", ["code"])
IGNORED_FIELDS: Final = Counter("viewmeter_fields_ignored", "Unknown fields and malformed values that were skipped.")
QUIRKS: Final = Counter("viewmeter_cmcd_quirks", "CMCD records with a known quirk of a player, by quirk.", ["quirk"])
CLOCK_CORRECTED: Final = Counter("viewmeter_beacons_clock_corrected", "Beacons whose sender's clock was corrected.")
DEAD_LETTERS_DROPPED: Final = Counter("viewmeter_dead_letters_dropped", "Rejected events that were not kept.")
LOG_ERRORS: Final = Counter("viewmeter_log_append_errors", "Batches that the event log could not take.")
PENDING_EVENTS: Final = Gauge("viewmeter_pending_events", "Events waiting for the disk.", multiprocess_mode="livesum")
CONNECTIONS: Final = Gauge(
    "viewmeter_connections", "Open connections of collectors, those to the engine too.", multiprocess_mode="livesum"
)
CONNECTIONS_SHED: Final = Counter("viewmeter_connections_shed", "Connections closed to make room for others.")
PLACES_BUILT: Final = Gauge(
    "viewmeter_places_built_seconds",
    "When the open city or ASN file was made (seconds since the epoch), by setting.",
    ["setting"],
    multiprocess_mode="livemin",
)
PLACES_REFUSED: Final = Counter(
    "viewmeter_places_refused", "City or ASN files that could not be read and were not used, by setting.", ["setting"]
)
QUALITY_SAMPLED: Final = Counter("viewmeter_quality_events", "Accepted events in the quality sample.")
QUALITY_LEFT_OUT: Final = Counter("viewmeter_quality_left_out", "Sampled events that found no room in the figures.")
QUALITY_FILLED: Final = Counter("viewmeter_quality_filled", "Sampled events that have a field, by field.", ["field"])
QUALITY_SKEW: Final = Histogram(
    "viewmeter_quality_clock_skew_seconds",
    "Receipt minus the event's time after correction, of sampled events.",
    buckets=(-60, -10, -1, -0.1, 0, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600, 86_400),
)
COMMIT_SECONDS: Final = Histogram(
    "viewmeter_commit_seconds",
    "Time from a full batch to its durability.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2),
)
COMMIT_EVENTS: Final = Histogram(
    "viewmeter_commit_events", "Events per commit.", buckets=(1, 10, 50, 100, 500, 1000, 2000, 5000, 10000, 20000)
)


class Tally:
    """Counts since the last `flush`."""

    def __init__(self) -> None:
        self.statuses: Count[int] = Count()
        self.refused: Count[str] = Count()
        self.rejected: Count[str] = Count()
        self.quirks: Count[str] = Count()
        self.no_content = 0  # the answer 204, which is the one that must cost nothing
        self.accepted = 0
        self.ignored_fields = 0
        self.clock_corrected = 0

    def flush(self) -> None:
        """Hand the numbers over to Prometheus."""
        if self.no_content:
            self.statuses[204] += self.no_content
        for status, count in self.statuses.items():
            BEACONS.labels(str(status)).inc(count)
        for code, count in self.refused.items():
            REFUSED.labels(code).inc(count)
        for code, count in self.rejected.items():
            REJECTED.labels(code).inc(count)
        for quirk, count in self.quirks.items():
            QUIRKS.labels(quirk).inc(count)
        ACCEPTED.inc(self.accepted)
        IGNORED_FIELDS.inc(self.ignored_fields)
        CLOCK_CORRECTED.inc(self.clock_corrected)
        self.__init__()  # type: ignore[misc]
