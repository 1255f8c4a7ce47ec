"""`viewmeter privacy erase`: one viewer out of everything, while the product runs or not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from viewmeter import wiring
from viewmeter.cli import folder, raw, whose
from viewmeter.cli.access import Flag
from viewmeter.cli.output import CommandError, result
from viewmeter.cli.progress import progress
from viewmeter.cli.upkeep import alone_or_asked
from viewmeter.eventlog.protocol import LogUnavailableError


def erase(
    *,
    viewer: str | None = None,
    viewer_hash: int | None = None,
    data: Path = folder.DEFAULT_DATA,
    tenant: str | None = None,
    config: Path | None = None,
    json: Flag = False,
) -> None:
    """Erase a viewer: every event, rejected event and row that names him, freed pages of files too.

    Works on a stopped product and on a running one, whose engine starts anew for it (players notice nothing; the
    dashboard and the API are away for some seconds, longer with a large store). Hours whose raw events are still kept
    are counted anew without the viewer. Older sums stay: they name nobody, nor do sketches, which hold fragments of
    hashes only. Backups and exports are yours to erase.

    A viewer_id is stored as a hash keyed with the tenant's permanent secret, which this command computes. A viewer
    without an id is stored as a hash that changes daily; its salt is destroyed at the end of the day, so nobody can
    compute it again, and it cannot be found by who it was. Where the hash is known (from an export), give it as
    --viewer-hash.

    Parameters
    ----------
    viewer
        The viewer's id as the player sends it.
    viewer_hash
        The hash instead, as an export shows it.
    data
        The data folder.
    tenant
        Whose viewer (default: the only tenant there is).
    config
        Settings file (TOML).
    json
        Print JSON alone.
    """
    from viewmeter.collector.viewers import keyed_hash
    from viewmeter.upkeep import erase as erasing

    if (viewer is None) == (viewer_hash is None):
        raise CommandError("say whom to erase: --viewer ID, or --viewer-hash NUMBER")
    loaded = folder.settings(data, config)
    with folder.open_metadata(data, loaded) as metadata:
        owner = whose.owner(metadata, tenant)
    number = keyed_hash(owner.viewer_secret, viewer) if viewer is not None else int(viewer_hash or 0)

    def beside() -> erasing.Erased:
        with raw.archive(data, loaded) as archive:
            return erasing.from_events(data, archive, owner.id, number, viewer)

    def alone() -> dict[str, Any]:
        return asdict(erasing.from_state(data, lambda: wiring.store(loaded.config, data), owner.id, number))

    try:
        with progress("erasing"):
            gone = beside()
            state = alone_or_asked(data, "erase", {"tenant": owner.id, "viewer_hash": str(number)}, alone)
            # What the viewer sent meanwhile, and what the engine had not let go of yet.
            again = beside()
    except LogUnavailableError as problem:
        raise CommandError(f"{problem}; run the same command again") from None
    answer = {"tenant": owner.id, "viewer_hash": str(number), **_sum(asdict(gone), asdict(again), state)}
    text = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in answer.items() if isinstance(count, int))
    result(
        answer, f"erased: {text}\nsums and sketches hold no id and stay; backups and exports are yours to erase", json
    )


def _sum(*parts: dict[str, Any]) -> dict[str, int]:
    names = parts[0].keys()
    return {name: sum(int(part.get(name, 0)) for part in parts) for name in names}
