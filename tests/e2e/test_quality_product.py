"""What players send is seen on the running product."""

from __future__ import annotations

import time
from typing import Any

import httpx
from running import StartProduct, wait_until


def test_what_a_player_sends_is_seen_over_all_workers(start_product: StartProduct) -> None:
    product = start_product("--workers", "2", env={"VIEWMETER_COLLECTOR__QUALITY_SAMPLE_RATIO": "1"})
    for n in range(12):
        now = time.time_ns() // 1_000_000
        event = {"type": "play", "ts": now, "view_id": f"v{n}", "seq": 0, "video_id": "v", "channel_id": "c"}
        assert product.post([{**event, "player": "web-2.1", "bitrate_kbps": 900 + n}]).status_code == 204

    def seen() -> list[dict[str, Any]]:
        url = f"{product.base_url}/api/v1/admin/quality"
        answer = httpx.get(url, headers=product.headers, timeout=30)
        assert answer.status_code == 200, answer.text
        return [row for row in answer.json()["players"] if row["events"] == 12]

    wait_until("all events to be in the figures", lambda: bool(seen()))
    (row,) = seen()
    assert (row["player"], row["version"], row["filled_ratio"]["bitrate_kbps"]) == ("web", "2.1", 1)
    assert (row["values"]["bitrate_kbps"]["min"], row["values"]["bitrate_kbps"]["max"]) == (900, 911)
    assert -5_000 < row["clock_skew_ms"]["median"] < 60_000
    figures = httpx.get(f"{product.base_url}/metrics", timeout=30).text
    assert 'viewmeter_quality_filled_total{field="bitrate_kbps"} 12.0' in figures


def test_a_known_quirk_of_a_player_is_counted(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    url = f"{product.base_url}/api/v1/events/cmcd"
    now = time.time_ns() // 1_000_000
    good = f'cid="v",e=e,ec=27,sid="s",sn=3,sta=p,ts={now},v=2'
    answer = httpx.post(
        url, params={"key": product.ingest_key, "channel_id": "c"}, content=f"{good}\ne=t,ts={now},v=2\n"
    )
    assert answer.status_code == 204

    def counted() -> bool:
        figures = httpx.get(f"{product.base_url}/metrics", timeout=30).text
        wanted = [f'viewmeter_cmcd_quirks_total{{quirk="{name}"}} 1.0' for name in ("bare_list", "default_keys")]
        return all(line in figures for line in wanted)

    wait_until("the quirks to be counted", counted)
