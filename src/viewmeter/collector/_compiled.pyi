"""The types of the compiled decoder (compiled/*.c)."""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

BOUNDS: tuple[Any, ...]

@final
class Rows:
    """Events as columns that grow.

    words: five dicts, word to code. lists: code to word. tenants, senders: to their codes. texts: notes of errors.
    """

    def __new__(
        cls,
        words: tuple[dict[Any, int], ...],
        lists: tuple[list[str], ...],
        tenants: dict[str, int],
        senders: dict[Any, int],
        texts: list[Any],
        /,
    ) -> Rows: ...
    @property
    def events(self) -> int: ...
    def take(
        self, body: bytes, terms: tuple[Any, ...], sent_at: str | None, received_at: int, most: int, /
    ) -> tuple[int, int, bool] | None: ...
    def extend(
        self,
        numbers: npt.NDArray[np.float64],
        types: bytes,
        fatal: bytes,
        blind: bytes,
        runs: list[Any],
        shift_ms: int,
        tenant: int,
        sender: int,
        received_at: int,
        /,
    ) -> None: ...
    def columns(self) -> dict[str, bytes]: ...
    def batch(self, words: tuple[list[str], ...], bots: bytes, codes: bytes, /) -> int: ...

_Limit = tuple[dict[str, tuple[int, int]], memoryview[int], memoryview[float], float, float]

@final
class Turnstile:
    """Lets senders through that were admitted before (request.py).

    known: a `Recent` of them. said: header names. The limits are `RateLimit.parts`. small: bytes of a body.
    """

    def __new__(
        cls,
        known: Any,
        said: tuple[str, ...],
        keys: Any,
        is_full: Callable[[], bool],
        monotonic_s: Callable[[], float],
        address_of: Callable[[Any, Any], str],
        apart_from_time: Callable[[str], tuple[str, str | None]],
        of_address: _Limit,
        of_key: _Limit,
        small: int,
        longest_query: int,
        is_direct: bool,
        /,
    ) -> Turnstile: ...
    def admit(self, scope: Any, /) -> tuple[Any, str | None] | None: ...
