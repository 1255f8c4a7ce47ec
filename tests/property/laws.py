"""How many examples a law is tried on: `make proofs` takes all, `make test`, which is run far more often, two of five.

`VIEWMETER_TEST_LAWS` is the share. The examples are drawn anew in each run, so what one does not meet a later one may.
"""

from __future__ import annotations

import os

_SHARE = float(os.environ.get("VIEWMETER_TEST_LAWS") or 0.4)


def examples(all_of_them: int) -> int:
    """Return how many to try."""
    return max(1, round(_SHARE * all_of_them))
