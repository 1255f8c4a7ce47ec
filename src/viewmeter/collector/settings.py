"""The collector's settings, with their defaults. Sizes in bytes, times in the unit that ends their name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from viewmeter.model.time import HOUR_MS, MINUTE_MS, SECOND_MS


@dataclass(frozen=True)
class CollectorSettings:
    """What an operator may change. The rates hold over all workers of a machine, every other limit for each of them."""

    max_body_bytes: int = 1 << 20
    """Largest body, before and after decompression."""

    max_reading_bytes: int = 64 << 20
    """Bytes of bodies larger than 32 KiB, or without a length, that are being read at once; beyond it 503."""

    max_age_ms: int = 72 * HOUR_MS
    """Events older than this, after clock correction, are rejected: `import` takes them."""

    max_ahead_ms: int = 5 * MINUTE_MS
    """Events further ahead than this, after clock correction, are rejected."""

    skew_tolerance_ms: int = 10 * SECOND_MS
    """A sender's clock that differs by more than this is corrected."""

    requests_per_second_per_key: int = 100_000
    """Requests a second that one key may send."""

    requests_per_second_per_address: int = 20_000
    """Requests a second from one network of clients: a /24, or a /64 of IPv6. Thousands may share one address (NAT)."""

    rate_burst_seconds: float = 2.0
    """How much unused allowance may be saved up, in seconds of the rate."""

    trusted_proxies: tuple[str, ...] = ()
    """CIDRs of proxies whose X-Forwarded-For is believed (`Forwarded` is not read). Empty: the socket's peer counts."""

    city_database: Path | None = None
    """A city file (.mmdb) for country, region and city: GeoLite2, GeoIP2, DB-IP, or flat (`country_code`, `city`,
    `state1`). Opened anew when it is replaced; replace it by renaming. None: country only, from iptocc."""

    asn_database: Path | None = None
    """An ASN file (.mmdb) of MaxMind, DB-IP or flat (`asn`). None: `asn` stays unknown."""

    respect_gpc: bool = True
    """Who sends `Sec-GPC: 1` (Global Privacy Control) counts, but is not followed: a viewer of this one view only,
    and of the place only the country is kept."""

    respect_dnt: bool = True
    """The same for `DNT: 1` (Do Not Track)."""

    compiled_decoder: bool = True
    """Decode beacons with the compiled decoder where it was built. False: msgspec alone, in 1.6 times the time."""

    max_pending_events: int = 200_000
    """Events that may wait for the disk. From 500 less on, requests are answered 503 before their body is read."""

    max_batch_events: int = 20_000
    """Largest batch of one commit."""

    linger_ms: int = 10
    """How far apart commits begin at least. What comes after a pause is written at once."""

    retry_after_s: int = 2
    """What 503 answers tell the client to wait."""

    body_timeout_s: float = 30.0
    """A sender that needs longer for its body is answered 408 and cut off."""

    header_timeout_s: float = 10.0
    """A connection that takes longer for the headers of a request, or is idle for longer between two, is closed."""

    unacknowledged_s: float = 60.0
    """A connection whose client acknowledges nothing, or reads nothing, for so long is dropped (Linux)."""

    max_connections: int = 12_288
    """Connections of one worker, as far as the limit of open files goes. From 7/8 on, idle ones are closed (Linux)."""

    drain_s: float = 20.0
    """How long a stop waits for answers that are under way."""

    cached_senders: int = 50_000
    """Enriched senders (address and user agent) kept in memory, for an hour at most."""

    cached_views: int = 200_000
    """Hashes of views and viewers kept in memory, per tenant."""

    max_dead_letters: int = 100_000
    """Rejected events kept per worker. Beyond it the oldest go, and are counted."""

    keep_dead_letters_days: float = 30.0
    """Rejected events older than this go."""

    quality_sample_ratio: float = 0.01
    """Share of the views whose accepted events the quality monitor looks at: 0 (none) to 1 (all)."""

    max_dead_letter_bytes: int = 4_096
    """Bytes kept of one rejected event."""
