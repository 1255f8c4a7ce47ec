"""Every case of the players' own CMCD library (common-media-library) that is beside the checkout.

Three things are asked of each, as far as it has them: a text is read as the RFC says (a second reader, http-sf, is
asked too) and as the library decodes it; a key is of the modes and versions that the library says; and what the library
calls wrong changes nothing: it is ignored by itself, or its record is rejected with the reason that names it.
"""

from __future__ import annotations

import decimal
import math
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import http_sf
import pytest

from viewmeter.collector.dialects import EVENT_CODES, Decoded, UndecodableError
from viewmeter.collector.dialects.cmcd import decode
from viewmeter.collector.dialects.cmcd_keys import KEYS, fits, is_custom
from viewmeter.collector.dialects.cmcd_records import read_record

Vector = dict[str, Any]
T0 = 1_795_569_168_892
LENIENT = {"sid": "64 characters", "com.example-key": "a custom value of any type and length"}
"""Keys whose errors in `validateCmcdValues` we do not call errors, and what we are lenient about."""


def test_a_vector(vector: Vector) -> None:
    fn = vector["fn"]
    if fn in TEXTS:
        for text, wanted in TEXTS[fn](vector):
            check_text(text, wanted)
            check_decode(text)
    elif fn in KEY_TESTS:
        assert KEY_TESTS[fn](vector["args"][0]) == vector["result"]
    elif fn in DATA:
        DATA[fn](vector)
    else:
        pytest.fail(f"{fn} is a function that no test here knows")


# Texts


def check_text(text: str, wanted: Any) -> None:
    read = read_record(text)
    assert read.malformed == 0
    assert plain(read.members) == second_opinion(text)
    if wanted is not None:
        assert plain(read.members) == plain_vector(wanted)


def check_decode(text: str) -> None:
    """A record is an event or a rejection with a known reason; one with all of the identity is an event."""
    if not text:
        with pytest.raises(UndecodableError) as caught:
            decode(b"", channel_id="c")
        assert caught.value.code == "empty_beacon"
        return
    result = decode(text.encode(), channel_id="c")
    assert len(result.events) + len(result.rejected) == 1
    assert all(rejected.code in EVENT_CODES for rejected in result.rejected)
    members = second_opinion(text)
    if members.get("v") == 2 and all(key in members for key in ("sid", "sn", "cid", "ts")):
        (event,) = result.events
        said = (members["sid"], members["sn"], members["cid"], members["ts"])
        assert (event.view_id, event.seq, event.video_id, event.ts) == said


def second_opinion(text: str) -> dict[str, Any]:
    parsed: Any = http_sf.parse(text.encode(), tltype="dictionary") if text else {}
    return {key: opinion(value) for key, (value, _) in parsed.items()}


def opinion(value: Any) -> Any:
    if isinstance(value, list):
        return [opinion(item) for item, _ in value]
    if isinstance(value, http_sf.Token):
        return str(value)
    return float(value) if isinstance(value, decimal.Decimal) else value


def plain(members: dict[str, Any]) -> dict[str, Any]:
    return {k: [i.value for i in v] if isinstance(v, tuple) else v for k, v in members.items()}


def plain_vector(value: Any) -> Any:
    """Strip parameters and the mark of tokens, which the reader does not keep."""
    if isinstance(value, list):
        return [plain_vector(item) for item in value]
    if isinstance(value, dict):
        for mark in ("$item", "$token"):
            if mark in value:
                return plain_vector(value[mark])
        return {k: plain_vector(v) for k, v in value.items()}
    return value


def as_text(data: dict[str, Any]) -> str:
    """Write data of the library as a record; what cannot be written is the word that JavaScript would make of it."""
    parts = []
    for key, value in data.items():
        if isinstance(value, dict) and "$number" in value:
            parts.append(f"{key}={value['$number']}")
        else:
            parts.append(http_sf.ser({key: revived(value)}))
    return ",".join(parts)


def revived(value: Any) -> Any:
    if isinstance(value, dict) and "$token" in value:
        return http_sf.Token(value["$token"])
    if isinstance(value, dict) and "$item" in value:
        item = revived(value["$item"])
        params = {k: revived(v) for k, v in value["params"].items()}
        return (item[0], params) if isinstance(item, tuple) else (item, params)
    if isinstance(value, list):
        items = [item if isinstance(item, tuple) else (item, {}) for item in map(revived, value)]
        return (items, {})
    if isinstance(value, float):
        return int(value) if value.is_integer() else decimal.Decimal(str(value))
    return value


def of_query(query: str) -> str:
    return parse_qs(query, strict_parsing=True)["CMCD"][0] if query else ""


def of_headers(headers: dict[str, str]) -> str:
    return ",".join(value for name, value in headers.items() if name.lower().startswith("cmcd-"))


def of_request(vector: Vector) -> str:
    request = vector["args"][0]
    if not request:  # an object of the browser, which JSON does not hold: what the library read from it
        return as_text(vector["result"]["data"])
    return of_headers(request.get("headers", {})) or of_query(urlsplit(request["url"]).query)


def lines(body: str, wanted: list[Any]) -> list[tuple[str, Any]]:
    found = [line for line in body.split("\n") if line]
    assert len(found) == len(wanted)
    return list(zip(found, wanted, strict=True)) or [("", None)]


def unless_converted(vector: Vector) -> Any:
    converted = any(isinstance(arg, dict) and arg.get("convertToLatest") for arg in vector["args"][1:])
    return None if converted else vector["result"]


TEXTS = {
    "reporterSends": lambda v: lines(v["args"]["body"], v["result"]),
    "validateCmcdEventReport": lambda v: lines(body_of(v["args"][0]), v["result"]["data"]),
    "validateCmcdEvents": lambda v: lines(v["args"][0], v["result"]["data"]),
    "decodeCmcd": lambda v: [(v["args"][0] or "", unless_converted(v))],
    "encodeCmcd": lambda v: [(v["result"], None)],
    "toCmcdQuery": lambda v: [(of_query(v["result"]), None)],
    "appendCmcdQuery": lambda v: [(of_query(urlsplit(v["result"]).query), None)],
    "fromCmcdQuery": lambda v: [(of_query(v["args"][0]), unless_converted(v))],
    "fromCmcdUrl": lambda v: [(unquote(v["args"][0]), unless_converted(v))],
    "toCmcdHeaders": lambda v: [(of_headers(v["result"]), None)],
    "appendCmcdHeaders": lambda v: [(of_headers(v["result"]), None)],
    "fromCmcdHeaders": lambda v: [(of_headers(v["args"][0]), unless_converted(v))],
    "validateCmcdHeaders": lambda v: [(of_headers(v["args"][0]), v["result"]["data"])],
    "validateCmcdRequest": lambda v: [(of_request(v), v["result"]["data"])],
    "prepareCmcdData": lambda v: [(as_text(v["result"]), v["result"])],
    "toCmcdValue": lambda v: [(as_text({"nor": [v["result"]]}), {"nor": [v["result"]]})],
}


def body_of(report: Any) -> str:
    return report if isinstance(report, str) else report.get("body") or ""


# Keys

KEY_TESTS = {
    "isCmcdCustomKey": is_custom,
    "isCmcdEventKey": lambda key: is_custom(key) or (key in KEYS),
    "isCmcdRequestKey": lambda key: is_custom(key) or (key in KEYS and KEYS[key].where == "any"),
    "isCmcdResponseReceivedKey": lambda key: key in KEYS and KEYS[key].where == "response",
    "isCmcdV1Key": lambda key: key == "nrr" or is_custom(key) or (key in KEYS and KEYS[key].in_v1),
}


# Data: what the library calls wrong changes nothing here


def errors(vector: Vector) -> list[str]:
    return [issue["key"] for issue in vector["result"]["issues"] if issue["severity"] == "error"]


def value_of(data: dict[str, Any], key: str) -> Any:
    return read_record(as_text({key: data[key]})).members[key]


def version_data(vector: Vector) -> None:
    """Version 2 is taken, version 1 (or none) is refused, as the library tells them apart."""
    data = vector["args"][0]
    result = identified(data, version=data.get("v"))
    is_v2 = vector["result"] == (vector["fn"] == "isCmcdV2Data")
    assert [r.code for r in result.rejected] == ([] if is_v2 else ["unsupported_version"])


def wrong_keys(vector: Vector) -> None:
    data = vector["args"][0]
    version = data.get("v", 1)
    wrong = [key for key in data if not is_custom(key) and (key not in KEYS or (version == 1 and not KEYS[key].in_v1))]
    assert wrong == errors(vector)


def wrong_values(vector: Vector) -> None:
    """A value that the library calls wrong does not fit, and without it the record is the same event."""
    data, wrong = vector["args"][0], errors(vector)
    for key in data:
        if key == "v" or (key in LENIENT and key in wrong):
            continue
        assert fits(key, value_of(data, key)) == (key not in wrong or key not in KEYS), key
    rest = {key: value for key, value in data.items() if (key not in wrong or key in LENIENT) and key != "v"}
    assert identified(data, version=data.get("v", 2)).events == identified(rest, version=data.get("v", 2)).events


def wrong_structure(vector: Vector) -> None:
    data, wrong = vector["args"][0], [issue["key"] for issue in vector["result"]["issues"]]
    version = data.get("v") if "v" in wrong else 2
    result = identified(data, version=version, leave_out=tuple(key for key in ("cid", "ts") if key in wrong))
    if "v" in wrong:
        assert [r.code for r in result.rejected] == ["unsupported_version"]
        return
    absent = [key for key in wrong if key in ("cid", "ts") and key not in data]
    if absent:
        assert [r.code for r in result.rejected] == ["missing_field"]
        assert absent[0] in result.rejected[0].detail
        return
    (event,) = result.events
    told = {"e": "error", "bc": "quality_change", "ps": "play"}
    assert event.type == told.get(data.get("e", ""), "other")
    responses = [key for key in wrong if key in data and KEYS[key].where == "response"]
    without = {key: value for key, value in data.items() if key not in responses}
    assert identified(without, version=2).events == result.events


def everything(vector: Vector) -> None:
    data, wrong = vector["args"][0], errors(vector)
    values = [key for key in data if key in KEYS and not fits(key, value_of(data, key))]
    assert set(values) <= set(wrong)
    assert all(key in KEYS or is_custom(key) or key in wrong for key in data)
    assert all(math.isfinite(event.ts) for event in identified(data, version=2).events)


DATA = {
    "isCmcdV1Data": version_data,
    "isCmcdV2Data": version_data,
    "validateCmcdKeys": wrong_keys,
    "validateCmcdValues": wrong_values,
    "validateCmcdStructure": wrong_structure,
    "validateCmcd": everything,
}


def identified(data: dict[str, Any], version: int | None, leave_out: tuple[str, ...] = ()) -> Decoded:
    """Decode the data as a record in mid-view, with all that names the view."""
    identity = {"sid": "s1", "sn": 5, "cid": "film", "ts": T0}
    whole = {**{k: v for k, v in identity.items() if k not in leave_out}, **{k: v for k, v in data.items() if k != "v"}}
    if version is not None:
        whole["v"] = version
    return decode(as_text(whole).encode(), channel_id="c")
