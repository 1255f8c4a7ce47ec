"""The types of the compiled decoder (compiled/*.c)."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt

BOUNDS: tuple[Any, ...]

@final
class Rows:
    """Events as columns that grow. words: five dicts, word to code. lists: code to word. texts: notes of errors."""

    def __new__(cls, words: tuple[dict[Any, int], ...], lists: tuple[list[str], ...], texts: list[Any], /) -> Rows: ...
    @property
    def events(self) -> int: ...
    def take(
        self,
        body: bytes,
        most: int,
        oldest: int,
        newest: int,
        shift_ms: int,
        own: str | None,
        channels: tuple[str, ...] | None,
        views: Mapping[str, int],
        viewers: Mapping[str, int],
        sender: Any,
        tenant_id: str,
        anonymous: bool,
        tenant: int,
        sender_code: int,
        received_at: int,
        /,
    ) -> tuple[int, int] | None: ...
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
