"""Orders to the engine: carried out once, answered, or withdrawn."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from viewmeter.upkeep import orders


def answered(order: orders.Order) -> dict[str, Any]:
    for _ in range(2_000):
        found = order.answer()
        if found is not None:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("no answer came")


def test_an_order_is_carried_out_once_and_answered_once(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def handle(values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values)
        return {"done": len(seen)}

    order = orders.place(tmp_path, "copy", {"to": "there"})
    assert order.answer() is None
    assert orders.carry_out(tmp_path, {"copy": handle}) == 1
    assert orders.carry_out(tmp_path, {"copy": handle}) == 0
    assert (seen, order.answer(), order.answer()) == ([{"to": "there"}], {"done": 1}, None)
    assert not order.withdraw(), "it was carried out"


def test_an_order_that_fails_tells_why_and_others_go_on(tmp_path: Path) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("the disk is full")

    first = orders.place(tmp_path, "bad", {})
    second = orders.place(tmp_path, "good", {})
    assert orders.carry_out(tmp_path, {"bad": refuse, "good": lambda _: {"ok": True}}) == 2
    with pytest.raises(orders.OrderError, match="the disk is full"):
        first.answer()
    assert second.answer() == {"ok": True}


def test_an_order_that_nobody_knows_or_can_do_now_stays_and_can_be_withdrawn(tmp_path: Path) -> None:
    unknown, later = orders.place(tmp_path, "unknown", {}), orders.place(tmp_path, "later", {})
    assert orders.carry_out(tmp_path, {"later": lambda _: None}) == 0
    assert unknown.withdraw()
    assert orders.carry_out(tmp_path, {"later": lambda _: {"ok": True}}) == 1
    assert later.answer() == {"ok": True}


def test_the_desk_looks_by_itself_and_ends_when_asked(tmp_path: Path) -> None:
    desk = orders.OrderDesk(tmp_path, {"ask": lambda values: {"heard": values["what"]}})
    desk.start()
    try:
        assert answered(orders.place(tmp_path, "ask", {"what": "x"})) == {"heard": "x"}
    finally:
        desk.stop()
    late = orders.place(tmp_path, "ask", {"what": "y"})
    assert orders.carry_out(tmp_path, {}) == 0
    assert late.withdraw()


def test_a_file_that_is_no_order_is_answered_as_a_failure(tmp_path: Path) -> None:
    order = orders.place(tmp_path, "ask", {})
    order.path.write_text("not json")
    assert orders.carry_out(tmp_path, {}) == 1
    with pytest.raises(orders.OrderError):
        order.answer()
