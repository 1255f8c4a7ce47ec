"""The types of the compiled decoder (compiled/*.c)."""

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
