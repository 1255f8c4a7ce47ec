"""The command line: JSON alone on stdout, one sentence on stderr, a code that is 0 only when it worked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import Product, clean_environment, viewmeter

from viewmeter.cli import reference


def said(*arguments: str | Path, env: dict[str, str] | None = None) -> Any:
    """Return the JSON that a command printed, after asserting that it printed nothing else."""
    answer = viewmeter(*arguments, "--json", env=env)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def refused(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Return the one sentence of a command that did not work."""
    answer = viewmeter(*arguments, env=env)
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr


def test_init_prints_the_tenant_and_two_keys_once(tmp_path: Path) -> None:
    made = said("init", "--data", tmp_path, "--tenant", "Acme Films")  # an empty folder that is there is fine
    assert made.keys() == {"tenant", "ingest_key", "secret_key"}
    assert made["ingest_key"].startswith("pk_")
    assert made["secret_key"].startswith("sk_")
    assert "only once" in refused("init", "--data", tmp_path, "--tenant", "Acme Films")


def test_init_leaves_a_folder_of_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    assert "holds other files" in refused("init", "--data", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_command_on_a_folder_that_was_not_prepared_says_what_to_run(tmp_path: Path) -> None:
    assert "viewmeter init" in refused("keys", "list", "--data", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("foo",), "foo"),
        (("keys", "create", "--tenant", "t"), "--scope"),
        (("keys", "create", "--tenant", "t", "--scope", "reed"), "read"),
        (("up", "--wrokers", "2"), "--workers"),
        (("bench", "everything"), "ingest"),
        (("simulate", "--to", "http://127.0.0.1:9", "--key", "pk_x", "--seed", "1", "--viewers", "0"), "--viewers"),
        (
            ("simulate", "--to", "http://127.0.0.1:9", "--key", "pk_x", "--seed", "1", "--viewers", "3", "--fast"),
            "nobody",
        ),
        (("config", "show", "--config", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_what_is_right(arguments: tuple[str, ...], word: str) -> None:
    assert word in refused(*arguments)


@pytest.mark.parametrize(
    "command",
    ["", "up", "demo", "init", "keys", "keys create", "keys list", "keys revoke", "tenants list",
     "tenants set", "signin", "simulate", "replay", "bench", "doctor", "config", "config show", "version"],
)  # fmt: skip
def test_every_command_has_help(command: str) -> None:
    answer = viewmeter(*command.split(), "--help")
    assert answer.returncode == 0
    assert "Usage: viewmeter" in answer.stdout


def test_version_names_itself_and_what_it_stands_on() -> None:
    told = said("version")
    assert told.keys() == {"version", "python", "decoder", "libraries"}
    assert told["decoder"] in ("compiled", "python")
    assert viewmeter("--version").stdout.strip() == told["version"]


def test_a_bench_prints_its_figures_alone() -> None:
    told = said("bench", "idle", "--seconds", "0.5")  # starts a product of its own, and ends it
    assert 0 < told["pss_mb_total"] < told["bar_mb"]


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    said("init", "--data", tmp_path)
    answer = subprocess.run(
        ["bash", "-c", '"$0" -m viewmeter.cli config show --data "$1" | head -1', sys.executable, str(tmp_path)],
        capture_output=True, text=True, env=clean_environment(), check=False,
    )  # fmt: skip
    assert (answer.stderr, answer.stdout.count("\n")) == ("", 1)


def test_a_key_works_at_once_and_no_longer_once_revoked(product: Product) -> None:
    data = product.data
    made = said("keys", "create", "--data", data, "--tenant", "Acme", "--scope", "read", "--channel", "cli-1")
    assert made.keys() >= {"id", "key", "tenant", "scope", "channels"}
    assert (made["tenant"], made["scope"], made["channels"]) == ("acme", "read", ["cli-1"])
    ask = {"url": f"{product.base_url}/api/v1/analytics/metrics", "headers": {"Authorization": f"Bearer {made['key']}"}}
    assert httpx.get(**ask).status_code == 200
    listed = said("keys", "list", "--data", data)["keys"]
    assert [key["channels"] for key in listed if key["id"] == made["id"]] == [["cli-1"]]
    assert made["key"] not in json.dumps(listed)
    said("keys", "revoke", made["id"], "--data", data)
    statuses = {httpx.get(**ask).status_code for _ in range(1)}
    while statuses == {200}:  # within 2 s, by contract; here it only has to happen
        statuses = {httpx.get(**ask).status_code}
    assert statuses == {401}
    assert "no valid key" in refused("keys", "revoke", made["id"], "--data", data)


def test_a_key_may_be_made_for_a_tenant_that_is_not_there_yet(product: Product) -> None:
    made = said("keys", "create", "--data", product.data, "--tenant", "Newcomer", "--scope", "ingest")
    assert made["key"].startswith("pk_")
    event = {"type": "play", "ts": 1, "view_id": "v", "seq": 0, "video_id": "v", "channel_id": "c"}
    answer = httpx.post(f"{product.base_url}/api/v1/events/beacon", params={"key": made["key"]}, json=[event])
    assert answer.status_code == 422  # the key is right; the time is not


def test_a_tenant_reports_in_the_zone_that_was_set(tmp_path: Path) -> None:
    data = tmp_path / "data"
    said("init", "--data", data, "--tenant", "Acme")
    assert said("tenants", "list", "--data", data)["tenants"] == [{"id": "acme", "name": "Acme", "time_zone": "UTC"}]
    changed = said("tenants", "set", "Acme", "--zone", "Asia/Kolkata", "--data", data)
    assert said("tenants", "list", "--data", data)["tenants"] == [changed]
    assert changed["time_zone"] == "Asia/Kolkata"
    assert "IANA" in refused("tenants", "set", "Acme", "--zone", "Berlin", "--data", data)
    assert "tenants list" in refused("tenants", "set", "nobody", "--zone", "UTC", "--data", data)


def test_signin_prints_a_link_that_works_once(product: Product) -> None:
    link = said("signin", "--data", product.data, "--tenant", "Acme")["url"]
    assert link.startswith(f"{product.base_url}/signin?token=")
    with httpx.Client(base_url=product.base_url) as browser:
        assert browser.get(link, follow_redirects=False).is_redirect
        assert browser.get("/api/v1/session").status_code == 200
    assert httpx.get(link, follow_redirects=False).status_code == 401


def test_config_show_tells_every_setting_and_its_origin_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "viewmeter.toml").write_text("[server]\nport = 9999\n")
    env = {"VIEWMETER_SMTP__URL": "smtp://me:hush@mail:25", "VIEWMETER_ALERTS__EVALUATE_EVERY_S": "2"}
    answer = viewmeter("config", "show", "--data", tmp_path, "--json", env=env)
    found = {f"{item['section']}.{item['name']}": item for item in json.loads(answer.stdout)["settings"]}
    assert found["server.port"]["value"] == 9999
    assert found["server.port"]["origin"].startswith("file ")
    assert found["alerts.evaluate_every_s"] | {"origin": ""} == {
        "section": "alerts", "name": "evaluate_every_s", "value": 2.0, "origin": "",
        "env": "VIEWMETER_ALERTS__EVALUATE_EVERY_S",
    }  # fmt: skip
    assert found["alerts.allow_private_webhooks"]["origin"] == "default"
    assert "collector.trusted_proxies" in found
    assert "hush" not in answer.stdout


def test_doctor_of_a_running_product_finds_nothing_wrong(product: Product) -> None:
    found = said("doctor", "--data", product.data)
    assert found["ok"] is True
    assert {item["check"] for item in found["findings"]} >= {"data folder", "durable commit", "event log", "product"}


def test_doctor_says_when_a_folder_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    answer = viewmeter("doctor", "--data", file, "--json")
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["ok"] is False


def test_simulate_writes_the_truth_and_sends_it(product: Product, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    sent = said(
        *("simulate", "--to", product.base_url, "--key", product.ingest_key, "--seed", "7", "--viewers", "20"),
        *("--minutes", "2", "--fast", "--truth", truth),
    )
    assert sent["unanswered"] == 0
    assert set(sent["statuses"]) == {"204"}
    assert json.loads(truth.read_text())["videos"]


def test_simulate_with_a_wrong_key_says_so(product: Product) -> None:
    told = refused(
        *("simulate", "--to", product.base_url, "--key", "pk_wrong", "--seed", "7", "--viewers", "5"),
        *("--minutes", "1", "--fast"),
    )
    assert "give an ingest key" in told


def test_replay_posts_a_recording(product: Product, tmp_path: Path) -> None:
    recording = tmp_path / "one.jsonl"
    event = {"type": "play", "ts": 1_000, "view_id": "replayed", "seq": 0, "video_id": "v", "channel_id": "replays"}
    recording.write_text(json.dumps({"received_at_ms": 1_000, "t": 1_000, "body": [event]}) + "\n")
    sent = said(
        *("replay", recording, "--to", product.base_url, "--key", product.ingest_key, "--fast", "--shift-to-now")
    )
    assert (sent["posts"], sent["statuses"]) == (1, {"204": 1})
    product.flush()
    rows = product.query(channel_id="replays", time_range="24h", granularity="total", metrics=["plays"])
    assert rows[0]["plays"] == 1


@pytest.mark.parametrize("page", ["cli.md", "settings.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    written = (reference.FOLDER / page).read_text(encoding="utf-8")
    assert written == reference.pages()[page], "run `make docs`"


def test_every_setting_says_what_it_means() -> None:
    silent = [
        line for line in reference.settings_page().splitlines() if line.startswith("| `") and line.endswith("|  |")
    ]
    assert silent == []
