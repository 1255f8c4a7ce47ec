"""Dimensions: the attributes to group and filter by. Adding one: a line here and its place in a rollup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Dimension:
    """An attribute of a view (or, where `of_interval`, of the interval's first event)."""

    name: str
    label: str
    doc: str
    of_interval: bool = False


_ALL: Final = (
    Dimension("video_id", "Video", "One piece of content of a channel."),
    Dimension("channel_id", "Channel", "A creator's channel."),
    Dimension("country", "Country", "ISO 3166-1 alpha-2, from the address; the address is then dropped."),
    Dimension("region", "Region", "Subdivision, where a city database is set up."),
    Dimension("city", "City", "City, where a city database is set up."),
    Dimension("asn", "Network", "Autonomous system number, where an ASN database is set up."),
    Dimension("device_type", "Device", "desktop, phone, tablet, tv, console, bot or other."),
    Dimension("os", "Operating system", "Family, from the user agent."),
    Dimension("browser", "Browser", "Family, from the user agent."),
    Dimension("player", "Player", "Player software, as it names itself."),
    Dimension("cdn", "CDN", "Delivery network of the interval's first event.", of_interval=True),
    Dimension("stream_type", "Stream type", "vod or live, as the player says."),
    Dimension("bitrate_bucket", "Bitrate", "kbps of the interval's first event, from_to.", of_interval=True),
    Dimension("is_bot", "Bot", "true or false. Bots are excluded unless a filter or grouping asks for them."),
)

DIMENSIONS: Final[dict[str, Dimension]] = {d.name: d for d in _ALL}
