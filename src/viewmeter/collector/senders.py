"""What the server knows about who sent a beacon, found once and remembered for an hour.

In: an address and a user agent. Out: `Sender`: place, device, and a salted digest of both that stands in for the
address from here on. Promised: the address itself goes no further than this file, and is in memory for an hour at
most beyond its last use; never on disk, never in a log line.
"""

from __future__ import annotations

import hashlib

from viewmeter.collector import agents
from viewmeter.collector.places import Places
from viewmeter.collector.recent import Recent
from viewmeter.collector.viewers import DailySalt, keyed_hash
from viewmeter.model.time import HOUR_MS


class Sender:
    """Place and device of a sender; one object for all its beacons, compared by identity."""

    __slots__ = ("agent", "daily", "place")

    def __init__(self, place: tuple[str, str, str, str], agent: agents.Agent, daily: bytes) -> None:
        self.place = place
        self.agent = agent
        self.daily = daily

    def viewer_hash(self, tenant_id: str) -> int:
        """Return today's hash of a viewer who has no `viewer_id`; another one in each tenant."""
        return keyed_hash(self.daily, tenant_id)


class Senders:
    """Finds senders; bounded by `size`."""

    def __init__(self, places: Places, salt: DailySalt, size: int) -> None:
        self._salt = salt
        self._hour = -1
        self._now_ms = 0
        self._places = Recent(places.find, size)
        self._agents = Recent(agents.parse, size)
        self._senders: Recent[tuple[str, str], Sender] = Recent(self._make, size)

    def find(self, address: str, user_agent: str, now_ms: int) -> Sender:
        """Return the sender. Its digest is of the UTC day that holds `now_ms`."""
        if now_ms // HOUR_MS != self._hour:
            # A new hour may be a new day, whose salt is another; and no address stays for longer than this.
            self._hour = now_ms // HOUR_MS
            self._places.clear()
            self._senders.clear()
        self._now_ms = now_ms
        return self._senders[(address, user_agent[: agents.MAX_AGENT_CHARS])]

    def _make(self, key: tuple[str, str]) -> Sender:
        address, user_agent = key
        salt = self._salt.at(self._now_ms)
        daily = hashlib.blake2b(f"{address}\0{user_agent}".encode("utf-8", "replace"), key=salt, digest_size=16)
        return Sender(self._places[address], self._agents[user_agent], daily.digest())
