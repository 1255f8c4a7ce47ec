"""The tolerant reader of structured fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewmeter.collector.dialects.cmcd_keys import fits
from viewmeter.collector.dialects.cmcd_records import (
    MAX_ITEMS,
    MAX_MEMBERS,
    MAX_RECORD_CHARS,
    InnerItem,
    Known,
    read_record,
)

GOOD = 'a=1,sid="x",sn=7'


def read(text: str) -> dict[str, Any]:
    record = read_record(text)
    assert record.malformed == 0
    return record.members


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=5", 5),
        ("k=-5", -5),
        ("k=1.5", 1.5),
        ("k=999999999999999", 999_999_999_999_999),
        ("k", True),
        ("k=?1", True),
        ("k=?0", False),
        ("k=ps", "ps"),
        ("k=*a/b:c", "*a/b:c"),
        ('k="a b"', "a b"),
        ('k=""', ""),
        (r'k="a\"b\\c"', 'a"b\\c'),
        ('k="a,b=1"', "a,b=1"),
        ('k="Küche 台所"', "Küche 台所"),
        ("k=:aGk=:", ":aGk=:"),
        ("k=@1659578233", "@1659578233"),
        ('k=%"f%c3%bc"', '%"f%c3%bc"'),
        ("k=()", ()),
        ("k=( 1  2 )", (InnerItem(1, ()), InnerItem(2, ()))),
        ("k=(900;v 32;a)", (InnerItem(900, ("v",)), InnerItem(32, ("a",)))),
        ('k=("E1" e2 3);p', (InnerItem("E1", ()), InnerItem("e2", ()), InnerItem(3, ()))),
        ("k=(5000;v=?0;w=2)", (InnerItem(5000, ("w",)),)),
        ("k=1;p=2;q", 1),
        ("  k=1  ", 1),
    ],
)
def test_each_type_of_value_is_read(text: str, value: object) -> None:
    members = read(text)
    assert members == {"k": value}
    assert type(members["k"]) is type(value)


def test_members_may_have_blanks_around_their_commas() -> None:
    assert read("a=1 ,\tb , c=x") == {"a": 1, "b": True, "c": "x"}


def test_of_a_repeated_key_the_last_value_stands() -> None:
    assert read("a=1,b=2,a=3") == {"a": 3, "b": 2}


def test_empty_members_and_a_trailing_comma_harm_nobody() -> None:
    assert read("a=1,,b=2,") == {"a": 1, "b": 2}


def test_keys_that_nobody_wants_are_read_over() -> None:
    assert read_record('url="x",a=1,b=(2 3),c', frozenset("a")).members == {"a": 1}


@pytest.mark.parametrize(
    "bad",
    [
        'x="never closed',
        'x="a"b',
        r'x="bad \escape"',
        'x="tab\there"',
        'x="\ufffd"',
        "x=",
        "x=1.",
        "x=1.2345",
        "x=1e5",
        "x=1234567890123456",
        "x=--1",
        "x=?2",
        "x=(1 2",
        "x=(1,2)",
        "x=((1))",
        "x=1)",
        "x=NaN(",
        "X=1",
        "x =1",
        "x= 1",
        "x=a b",
        "=1",
        "x=1;P",
        "x=[object Object]",
    ],
)
def test_a_malformed_value_is_skipped_by_itself(bad: str) -> None:
    good = {"a": 1, "sid": "x", "sn": 7}
    for text in (f"{bad},{GOOD}", f"{GOOD},{bad}", f'a=1,{bad},sid="x",sn=7'):
        record = read_record(text)
        assert {k: v for k, v in record.members.items() if k in good} == good, text
        assert record.malformed >= 1
        assert "x" not in record.members


def test_what_comes_after_too_many_members_is_not_read() -> None:
    assert len(read_record(",".join(f"k{i}=1" for i in range(MAX_MEMBERS + 5))).members) == MAX_MEMBERS
    assert read_record("," * (MAX_RECORD_CHARS - 3) + "a=1").members == {}


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    read_record(text)


@given(
    st.text(st.characters(exclude_characters='",', codec="utf-8"), max_size=40).filter(
        lambda text: text.split("=")[0].strip(" \t").split(";")[0] not in ("a", "sid", "sn")
    )
)
def test_no_neighbour_without_quotes_and_commas_spoils_the_others(noise: str) -> None:
    members = read_record(f'a=1,{noise},sid="x",sn=7').members
    assert (members["a"], members["sid"], members["sn"]) == (1, "x", 7)


PIECES = [
    "br=(3000;v 128;a)",
    "br=(3000)",
    'cid="a,b"',
    'cid="a',
    "sid=x",
    "sn=4",
    "sn=?1",
    "sta",
    "",
    " ",
    "v=2",
    "=",
    "@",
    "url=1",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map(",".join), max_size=8))
def test_what_was_read_before_is_read_the_same_again(records: list[str]) -> None:
    wanted = frozenset({"br", "cid", "sid", "sn", "sta"})
    known: dict[str, Known] = {}
    for text in records:
        alone = read_record(text, wanted, fits)
        assert read_record(text, wanted, fits, known) == alone
        unchecked = read_record(text, wanted)
        misfits = sum(not fits(key, value) for key, value in unchecked.members.items())
        assert (alone.members, alone.malformed) == (unchecked.members, unchecked.malformed + misfits)


def test_a_list_longer_than_any_real_one_is_malformed() -> None:
    items = [str(number) for number in range(MAX_ITEMS + 1)]
    assert len(read(f"br=({' '.join(items[:-1])})")["br"]) == MAX_ITEMS
    record = read_record(f"a=1,br=({' '.join(items)}),b=2")
    assert (record.members, record.malformed) == ({"a": 1, "b": 2}, 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["1", "2.5", "tok", '"a b"', "?0"]),
            st.sampled_from(["", ";v", ";v;a", "; v", ";v=2", ";v=?0"]),
        ),
        max_size=5,
    )
)
def test_a_list_is_read_the_same_in_either_way(items: list[tuple[str, str]]) -> None:
    text = f"({'  '.join(value + params for value, params in items)})"
    slowly = tuple(
        InnerItem(
            read(f"k={value}")["k"], tuple(name for name in params.replace(" ", "").split(";")[1:] if name != "v=?0")
        )
        for value, params in items
    )
    wanted = tuple(item._replace(params=tuple(name.partition("=")[0] for name in item.params)) for item in slowly)
    assert read(f"k={text}")["k"] == wanted
