"""The part of the collector that is compiled, if it is there.

In: `_compiled`, built from compiled/*.c at installation. Out: its types, or None. Promised: without it everything works
and answers the same. It is not there where there was no C compiler, or where its bounds are those of another version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, Literal

from viewmeter.collector import dialects
from viewmeter.model.events import EVENT_SCHEMA, EVENT_TYPES, MAX_ID_CHARS, MAX_SEQ, MAX_TEXT_CHARS

if TYPE_CHECKING:
    from viewmeter.collector import _compiled

BOUNDS: Final = (
    EVENT_TYPES,
    tuple(EVENT_SCHEMA.names),
    dialects.MAX_EVENTS,
    MAX_ID_CHARS,
    MAX_TEXT_CHARS,
    MAX_SEQ,
    dialects.MAX_TS_MS,
    dialects.MAX_MS,
    dialects.MAX_COUNT,
    dialects.MAX_KBPS,
    dialects.MAX_PLAYBACK_RATE,
)
"""What the compiled decoder was built with must be the same."""


def _load() -> tuple[type[_compiled.Rows] | None, type[_compiled.Turnstile] | None, str]:
    """Return the store and the turnstile, or why there are none."""
    try:
        built = importlib.import_module("viewmeter.collector._compiled")
        if built.BOUNDS == BOUNDS:
            return built.Rows, built.Turnstile, ""
    except ImportError:
        return None, None, "was not built"
    except AttributeError:
        pass  # an older one
    return None, None, "was built for another version"


CompiledRows, CompiledTurnstile, _why_not = _load()
"""The compiled store (columns.py), and what lets known senders through (request.py); or None."""


def decoder() -> tuple[Literal["compiled", "python"], str]:
    """Return which decoder is there, and in a sentence what that means."""
    if CompiledRows is not None:
        return "compiled", "beacons go through the compiled decoder, and what it leaves through msgspec"
    return "python", (
        f"the compiled decoder {_why_not}, so beacons take 1.6 times the time: install a C compiler and Python's "
        "headers (Debian: gcc, python3-dev), then install viewmeter again"
    )
