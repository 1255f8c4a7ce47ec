"""Settings of the batch layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSettings:
    """When hours are closed, and how much memory and time a run may take."""

    look_every_s: float = 5.0
    """How often the batch jobs look for hours to run."""

    close_after_s: int = 600
    """An hour is closed when it has been over for this long. At least 300: what was sent in the last minutes of the
    hour may come that late, and a view that fell silent has ended by then."""

    part_events: int = 500_000
    """Events that are computed at once (about 700 bytes each while they are); larger hours are cut by views."""

    processes: int = 2
    """Processes that compute a large hour, each a part at a time (2.1 GB in all at 20 million events)."""

    remember_h: int = 72
    """Hours that a view is remembered after its end, for what comes late and for players that wake up."""

    rerun_after_s: int = 30
    """A closed hour that late events keep changing runs again at most this often (a flush does not wait for it)."""

    run_timeout_s: int = 3_600
    """A run that takes longer is ended and counts as failed."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.close_after_s < 300:
            raise ValueError("`close_after_s` is at least 300: a view ends after 5 minutes of silence")
        if min(self.part_events, self.processes, self.remember_h) < 1:
            raise ValueError("`part_events`, `processes` and `remember_h` are at least 1")
