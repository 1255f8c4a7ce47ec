"""`viewmeter up`: starts, holds its folder and its port, keeps its processes alive, drains."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from pathlib import Path

import httpx
import psutil
import pytest
from load import Load, beacon
from running import Product, StartProduct, children, viewmeter, wait_until

AGE_OF_ANSWERS_S = 'viewmeter_watermark_age_seconds{job="qoe"}'


def ready(product: Product) -> bool:
    try:
        return httpx.get(f"{product.base_url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_it_is_ready_and_its_processes_stay_in_one_group(product: Product) -> None:
    assert ready(product)
    supervisor = psutil.Process(product.process.pid)
    groups = {os.getpgid(process.pid) for process in (supervisor, *supervisor.children(recursive=True))}
    assert groups == {product.process.pid}
    assert len(supervisor.children()) == 3  # the engine and two collectors


def test_a_second_product_on_the_folder_is_refused_with_one_sentence(product: Product) -> None:
    second = viewmeter("up", "--data", product.data, "--port", "0")
    assert second.returncode == 1
    assert re.fullmatch(r"viewmeter: .* is in use by process \d+: stop it first, .*\n", second.stderr)
    assert second.stdout == ""


def test_a_second_product_on_the_port_is_refused_with_one_sentence(product: Product, tmp_path: Path) -> None:
    port = product.base_url.rpartition(":")[2]
    second = viewmeter("up", "--data", tmp_path / "other", "--port", port)
    assert second.returncode == 1
    assert re.fullmatch(rf"viewmeter: port {port} of 127.0.0.1 is in use: .*\n", second.stderr)


def test_the_first_run_prints_a_sign_in_link_and_the_two_keys_once(start_product: StartProduct, tmp_path: Path) -> None:
    product = start_product("--workers", "1", data=tmp_path / "new", init=False)
    said = product.log
    link = re.search(r"http://\S+/signin\?token=\S+", said)
    assert link is not None
    assert len(re.findall(r"\bpk_\w+", said)) == 1
    assert len(re.findall(r"\bsk_\w+", said)) == 1
    with httpx.Client() as browser:
        assert browser.get(link.group(), follow_redirects=False).status_code in (302, 303)
        assert browser.get(f"{product.base_url}/api/v1/session").status_code == 200
    assert httpx.get(link.group(), follow_redirects=False).status_code == 401
    product.stop()
    product.restart()
    assert len(re.findall(r"\bsk_\w+", product.log)) == 1


def test_sigterm_finishes_answers_and_loses_nothing(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    load = Load(product, "drained").start()
    wait_until("some acknowledged beacons", lambda: len(load.acknowledged) > 50)
    family = psutil.Process(product.process.pid).children()
    assert product.stop() == 0, product.log[-3000:]
    load.stop()
    assert not [process for process in family if process.is_running()]
    product.restart()
    product.flush()
    load.check()


def test_a_collector_that_dies_is_started_again(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    before = children(product)["worker"]
    before.kill()
    wait_until(
        "another collector",
        lambda: children(product).get("worker", before).pid != before.pid and ready(product),
    )
    assert product.post(beacon("c1", "after")).status_code == 204


def test_while_the_engine_is_down_beacons_are_taken_and_the_rest_is_told_to_come_again(
    start_product: StartProduct,
) -> None:
    product = start_product("--workers", "1", env={"VIEWMETER_SERVER__MAX_RESTART_DELAY_S": "0.5"})
    engine = children(product)["engine"]
    engine.suspend()  # so that nothing can start again before the questions are asked
    engine.kill()
    answers = [product.post(beacon("c1", f"v{i}")).status_code for i in range(20)]
    away = httpx.get(f"{product.base_url}/version")
    assert answers == [204] * 20
    assert away.status_code in (200, 503)  # 200: it was quicker than this test
    if away.status_code == 503:
        assert away.headers["content-type"] == "application/problem+json"
        assert int(away.headers["retry-after"]) >= 1
        assert away.json()["code"] == "engine_unavailable"
    wait_until("the engine to be back", lambda: ready(product))
    product.flush()
    rows = product.query(channel_id="c1", time_range="24h", granularity="total", metrics=["plays", "events"])
    assert rows == [rows[0] | {"plays": 20, "events": 100}]


def test_no_child_outlives_a_supervisor_that_was_killed_alone(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    family = psutil.Process(product.process.pid).children()
    assert product.post(beacon("c1", "v1")).status_code == 204
    os.kill(product.process.pid, signal.SIGKILL)
    product.process.wait(10)
    product.restart()  # waits for the orphans by itself
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    product.flush()
    assert product.query(channel_id="c1", time_range="24h", granularity="total", metrics=["events"])[0]["events"] == 5


def test_a_full_disk_is_a_503_and_heals_by_itself(start_product: StartProduct) -> None:
    product = start_product("--workers", "1")
    collector = children(product)["worker"].pid
    assert product.post(beacon("c1", "before")).status_code == 204
    # No file of this process may grow: what a full disk is to a writer, without filling one.
    resource.prlimit(collector, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    refused = product.post(beacon("c1", "full"))
    assert refused.status_code == 503
    assert refused.json()["code"] == "log_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    resource.prlimit(collector, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert product.post(beacon("c1", "after")).status_code == 204
    product.flush()
    load = Load(product, "c1")
    assert set(load.counted()) == {"before", "after"}


def test_a_full_disk_under_the_engine_loses_nothing(start_product: StartProduct) -> None:
    product = start_product("--workers", "1", env={"VIEWMETER_SERVER__MAX_RESTART_DELAY_S": "0.2"})
    engine = children(product)["engine"].pid
    # Not a byte more, not even a line of its log, which lies on the same disk.
    resource.prlimit(engine, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    load = Load(product, "c1", threads=1).start()
    wait_until("beacons taken while the engine cannot write", lambda: len(load.acknowledged) > 50)
    load.stop()
    wait_until("the engine to notice", lambda: not psutil.pid_exists(engine) or product.metric(AGE_OF_ANSWERS_S) > 2)
    with contextlib.suppress(ProcessLookupError):  # it may have chosen to start anew, which is fine
        resource.prlimit(engine, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until("the engine to be well", lambda: ready(product))
    product.flush()
    load.check()


def test_the_answer_to_a_bad_port_is_one_sentence(tmp_path: Path) -> None:
    answer = viewmeter("up", "--data", tmp_path / "d", "--port", "high")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "--port" in answer.stderr


@pytest.mark.parametrize("name", ["VIEWMETER_SERVER__PROT", "VIEWMETER_COLECTOR__TRUSTED_PROXIES"])
def test_an_unknown_setting_stops_the_start(name: str, tmp_path: Path) -> None:
    answer = viewmeter("up", "--data", tmp_path / "d", env={name: "1"})
    assert answer.returncode == 1
    assert "did you mean" in answer.stderr
    assert not (tmp_path / "d").exists()


def test_a_folder_whose_path_is_too_long_for_a_socket_works_all_the_same(
    start_product: StartProduct, tmp_path: Path
) -> None:
    long = tmp_path / ("l" * 60) / ("m" * 60)
    long.mkdir(parents=True)
    product = start_product("--workers", "1", data=long / "data", env={"TMPDIR": str(long)})
    assert product.post(beacon("c1", "v1")).status_code == 204
    product.flush()
    assert product.stop() == 0
    assert {entry.name for entry in long.iterdir()} == {"data", "data.stderr"}
