"""A bounded number of seats, of which nobody takes all.

In: who asks for one. Out: whether there is one. Promised: at most `total` are taken, and at most `each` of them by one
name, so that others find room whatever one of them does.
"""

from __future__ import annotations


class Seats:
    """`total` seats, at most `each` a name."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._taken: dict[str, int] = {}
        self.count = 0

    def take(self, name: str) -> bool:
        """Take a seat, unless all are taken or the name has its share."""
        mine = self._taken.get(name, 0)
        if self.count >= self._total or mine >= self._each:
            return False
        self._taken[name] = mine + 1
        self.count += 1
        return True

    def leave(self, name: str) -> None:
        """Give back a seat that was taken."""
        self.count -= 1
        if self._taken[name] == 1:
            del self._taken[name]
        else:
            self._taken[name] -= 1
