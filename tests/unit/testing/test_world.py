"""The synthetic world is where it says it is."""

from __future__ import annotations

import iptocc
import ua_parser

from viewmeter.testing.world import COUNTRIES, DEVICES, TITLES


def test_every_network_lies_in_its_country() -> None:
    for country in COUNTRIES:
        for network in country.networks:
            for host in (1, 254):
                assert iptocc.country_code(f"{network}.{host}") == country.code, network


def test_every_user_agent_is_what_its_device_says() -> None:
    for device in DEVICES:
        parsed = ua_parser.parse(device.user_agent)
        assert parsed.user_agent is not None
        assert parsed.os is not None
        assert (parsed.user_agent.family, parsed.os.family) == (device.browser, device.os), device


def test_every_title_is_the_title_of_one_video() -> None:
    titles = [title for channel in TITLES.values() for title in channel]
    assert len(set(titles)) == len(titles) == 40
