"""Whose data a command is about: one rule and one wording for every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from viewmeter.cli.output import CommandError
from viewmeter.cli.whose import owner
from viewmeter.metadata.store import Metadata


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    made = Metadata(f"sqlite:///{tmp_path / 'meta.db'}", lambda: 1_800_000_000_000)
    yield made
    made.close()


def test_without_a_name_it_is_the_only_tenant_there_is(metadata: Metadata) -> None:
    with pytest.raises(CommandError, match="no tenant yet: run `viewmeter init` first"):
        owner(metadata, None)
    metadata.init("acme")
    assert owner(metadata, None).id == "acme"
    metadata.init("Other Films")
    with pytest.raises(CommandError, match=r"there are several tenants: say which with --tenant \(acme, other-films\)"):
        owner(metadata, None)


def test_a_tenant_is_found_by_its_id_and_by_its_name(metadata: Metadata) -> None:
    metadata.init("acme")
    metadata.init("Other Films")
    assert owner(metadata, "other-films").id == owner(metadata, "Other Films").id == "other-films"
    with pytest.raises(CommandError, match="there is no tenant 'nobody': there is acme, other-films;"):
        owner(metadata, "nobody")


def test_of_many_tenants_the_first_are_named(metadata: Metadata) -> None:
    for number in range(7):
        metadata.ensure_tenant(f"t{number}")
    with pytest.raises(CommandError, match=r"several tenants: .* \(t0, t1, t2, t3, t4, …\)"):
        owner(metadata, None)
    with pytest.raises(CommandError, match="there is t0, t1, t2, t3, t4, …;"):
        owner(metadata, "nobody")
    assert owner(metadata, "t6").id == "t6"
