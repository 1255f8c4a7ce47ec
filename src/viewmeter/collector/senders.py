"""What the server knows about who sent a beacon, found once and remembered for an hour.

In: an address, a user agent and client hints. Out: `Sender`: place, device, and a salted digest of address and user
agent that stands in for both from here on. Promised: the address itself goes no further than this file, is in memory
until the hour of its last use is over (a timer calls `tidy`, no beacon is needed), never on disk, never in a log line.
Of who asked not to be followed (DNT, GPC, where the settings honour them) only the country is kept of the place.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, Protocol

from viewmeter.collector import agents
from viewmeter.collector.places import Place, Places
from viewmeter.collector.recent import Recent
from viewmeter.collector.viewers import DailySalt, keyed_hash
from viewmeter.model.time import HOUR_MS, SECOND_MS

_PLACES_LOOKED_AT_EVERY_MS: Final = 10 * SECOND_MS


class Sender:
    """Place and device of a sender; one object for all its beacons, compared by identity.

    anonymous: it asked not to be followed, so that its viewers are known by view alone.
    """

    __slots__ = ("agent", "anonymous", "daily", "place")

    def __init__(
        self, place: tuple[str, str, str, str], agent: agents.Agent, daily: bytes, anonymous: bool = False
    ) -> None:
        self.place = place
        self.agent = agent
        self.daily = daily
        self.anonymous = anonymous

    def viewer_hash(self, tenant_id: str) -> int:
        """Return today's hash of a viewer who has no `viewer_id`; another one in each tenant."""
        return keyed_hash(self.daily, tenant_id)

    def known(self, tenant_id: str) -> Known:
        """Return what may be kept of it."""
        return Known(self.place, self.agent, self.viewer_hash(tenant_id), self.anonymous)


class Known(NamedTuple):
    """What may be kept of a sender with an event that was rejected: what the log would hold, and no more."""

    place: tuple[str, str, str, str]
    agent: agents.Agent
    viewer_hash: int
    anonymous: bool


class KnownSender(Sender):
    """A sender as it was known when its event was rejected."""

    __slots__ = ("_viewer_hash",)

    def __init__(self, known: Known) -> None:
        super().__init__(known.place, known.agent, b"", known.anonymous)
        self._viewer_hash = known.viewer_hash

    def viewer_hash(self, tenant_id: str) -> int:  # noqa: ARG002  known for one tenant only
        """Return the hash of that day, whose salt may be gone by now."""
        return self._viewer_hash


class Asker(Protocol):
    """A request that somebody sent; `sender` and `period` are for `Senders.of` to remember."""

    address: str
    user_agent: str
    hints: agents.Hints
    anonymous: bool
    sender: Sender | None
    period: object


class Senders:
    """Finds senders; bounded by `size`.

    period: another object once addresses were forgotten, since the hour was over or the place files are new ones.
    """

    def __init__(self, places: Places, salt: DailySalt, size: int) -> None:
        self._lookup = places
        self._salt = salt
        self._hour = -1
        self.period: object = object()
        self._now_ms = 0
        self._looked_at_ms = 0
        self._places = Recent(places.find, size)
        self._agents: Recent[tuple[str, agents.Hints], agents.Agent] = Recent(lambda key: agents.parse(*key), size)
        self._senders: Recent[tuple[str, str, agents.Hints, bool], Sender] = Recent(self._make, size)

    def find(
        self,
        address: str,
        user_agent: str,
        now_ms: int,
        hints: agents.Hints = agents.NO_HINTS,
        anonymous: bool = False,
    ) -> Sender:
        """Return the sender. Its digest is of the UTC day that holds `now_ms`."""
        if now_ms // HOUR_MS != self._hour:
            self._forget(now_ms)  # a new hour may be a new day, whose salt is another
        self._now_ms = now_ms
        return self._senders[(address, user_agent[: agents.MAX_AGENT_CHARS], hints, anonymous)]

    def of(self, asker: Asker, now_ms: int) -> Sender:
        """Return the sender of a request, which keeps it while `period` lasts."""
        sender = asker.sender
        if sender is None or asker.period is not self.period or now_ms // HOUR_MS != self._hour:
            sender = asker.sender = self.find(asker.address, asker.user_agent, now_ms, asker.hints, asker.anonymous)
            asker.period = self.period  # that of `find`, which begins a new one with the hour
        return sender

    def tidy(self, now_ms: int) -> None:
        """Forget addresses whose hour is over, destroy salts whose day is, and open place files that were replaced.

        Cheap: call it every second or so.
        """
        if now_ms // HOUR_MS != self._hour:
            self._forget(now_ms)
        self._salt.expire(now_ms)
        if not 0 <= now_ms - self._looked_at_ms < _PLACES_LOOKED_AT_EVERY_MS:
            self._looked_at_ms = now_ms
            if self._lookup.refresh():
                self._forget(now_ms)

    def _forget(self, now_ms: int) -> None:
        self._hour = now_ms // HOUR_MS
        self.period = object()
        self._places.clear()
        self._senders.clear()

    def _make(self, key: tuple[str, str, agents.Hints, bool]) -> Sender:
        address, user_agent, hints, anonymous = key
        salt = self._salt.at(self._now_ms)
        daily = hashlib.blake2b(f"{address}\0{user_agent}".encode("utf-8", "replace"), key=salt, digest_size=16)
        place = self._places[address]
        if anonymous:
            place = Place(place.country)
        return Sender(place, self._agents[(user_agent, hints)], daily.digest(), anonymous)
