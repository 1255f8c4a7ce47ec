"""Secret texts (keys, sign-in tokens, session cookies): how they are made, recognised, hashed.

Promised: 190 bits of randomness behind a prefix that says what it is. With that much, a plain SHA-256 is a
safe store (there is nothing to guess, so slowness adds nothing), and a look-up costs under a microsecond.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from typing import Final

INGEST_PREFIX: Final = "pk_"
SECRET_PREFIX: Final = "sk_"
SIGNIN_PREFIX: Final = "st_"
SESSION_PREFIX: Final = "ss_"

SHOWN_CHARS: Final = 9
"""How much of a key is kept readable to tell keys apart: the prefix and 6 characters (155 bits stay
secret)."""

_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 32
_SHAPE: Final = re.compile(rf"(?:pk|sk|st|ss)_[A-Za-z0-9]{{{_LENGTH}}}", re.ASCII)


def random_text(prefix: str, length: int = _LENGTH) -> str:
    """Return `prefix` and random letters and digits (no `-`: a double click selects it whole)."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def looks_real(text: str) -> bool:
    """Say whether the text has the shape of our secrets: what has not needs no look-up."""
    return _SHAPE.fullmatch(text) is not None


def digest(text: str) -> bytes:
    """Return the SHA-256 under which a secret is stored and looked up."""
    return hashlib.sha256(text.encode()).digest()
