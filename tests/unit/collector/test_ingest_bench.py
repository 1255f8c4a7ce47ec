"""The ingest benchmark times every beacon that was due, and says what is missing for its comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from viewmeter.bench import ingest, ingest_nginx, ingest_rate


def test_every_beacon_that_was_due_is_timed_or_counted_as_refused(tmp_path: Path) -> None:
    with ingest.served(tmp_path, ()) as (port, _):
        acks = ingest_rate.measure(port, 100, 0.5, seed=1)
    assert acks.refused == 0
    assert acks.per_second == 100  # 50 beacons in half a second, however long each took
    assert 0 < acks.p50_ms <= acks.p99_ms


def test_a_beacon_that_is_refused_is_no_acknowledgement(tmp_path: Path) -> None:
    with ingest.served(tmp_path, ("--settings", '{"max_body_bytes": 100}')) as (port, _):
        acks = ingest_rate.measure(port, 50, 0.4, seed=1)
    assert (acks.per_second, acks.refused) == (0, 20)


def test_without_nginx_the_comparison_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_nginx.shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="apt-get install nginx"), ingest_nginx.served(tmp_path, 1):
        pass
