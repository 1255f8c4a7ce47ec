"""What the collector's tests share: a tenant, its hashes, a sender, and beacons of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from beacons_of_tests import T0

from viewmeter.collector.agents import Agent
from viewmeter.collector.columns import Beacon, transposed
from viewmeter.collector.senders import Sender
from viewmeter.collector.viewers import TenantHashes
from viewmeter.metadata.keys import Tenant
from viewmeter.model.events import WireEvent


@pytest.fixture
def acme() -> TenantHashes:
    return TenantHashes(Tenant("acme", "Acme", b"acme's secret"), 1000)


@pytest.fixture
def sender() -> Sender:
    return Sender(("DE", "BE", "Berlin", "AS1"), Agent("phone", "iOS", "Safari"), b"today")


@pytest.fixture
def beacon(acme: TenantHashes, sender: Sender) -> Callable[..., Beacon]:
    def make(*events: WireEvent, received_at: int = T0, shift_ms: int = 0, **parts: Any) -> Beacon:
        return Beacon(
            parts.get("hashes", acme), parts.get("sender", sender), received_at, shift_ms, transposed(list(events))
        )

    return make
