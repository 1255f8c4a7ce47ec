"""From what somebody sent to a `Query`.

In: the raw object (the body of a POST, or of a GET), or the parameters of a GET turned into one. Out: a `Query` whose
range is resolved against `now_ms`. Promised: every error names the field, says what was wrong and what would be
right, and all errors come at once. Not done: whether a rollup covers the query; that is the planner's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from viewmeter.model.catalogue import DIMENSIONS, METRICS
from viewmeter.model.catalogue.metrics import Histogram
from viewmeter.olap.protocol import Filter
from viewmeter.query import question as q
from viewmeter.query.problems import QueryProblem, Refusals, nearest
from viewmeter.query.ranges import parse_range, parse_zone

FIELDS: Final = (
    "metrics", "time_range", "time_zone", "granularity", "dimensions", "filters", "channel_id", "video_id",
    "order_by", "limit", "cursor", "explain",
)  # fmt: skip
_PARAMETERS: Final = (*FIELDS, "start", "end")
_SPACE_FOR_PLUS: Final = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)$")


def parse_query(raw: Mapping[str, object], *, now_ms: int) -> q.Query:
    """Return the question. Raises `QueryProblem` (422) that names everything that is wrong with it."""
    found = Refusals()
    for name in raw:
        if name not in FIELDS:
            found.add(str(name), "invalid_query", f"no such field. {nearest(str(name), FIELDS)}")
    given = {name: value for name, value in raw.items() if value is not None}
    zone = parse_zone(given.get("time_zone", "UTC"), found)
    interval = parse_range(given.get("time_range", "24h"), zone, now_ms, found)
    metrics = _names(given.get("metrics", ()), "metrics", METRICS, "unknown_metric", q.METRICS_MAX, found)
    if not given.get("metrics"):
        found.add("metrics", "invalid_query", 'name at least one metric, like ["plays"]')
    dimensions = _names(
        given.get("dimensions", ()), "dimensions", DIMENSIONS, "unknown_dimension", q.DIMENSIONS_MAX, found
    )
    query = q.Query(
        start_ms=interval.start_ms,
        end_ms=interval.end_ms,
        metrics=metrics,
        granularity=_granularity(given.get("granularity", "total"), found),
        zone=str(given.get("time_zone", "UTC")),
        dimensions=dimensions,
        filters=(*_scope(given, found), *_filters(given.get("filters", ()), found)),
        order_by=_order(given.get("order_by", ()), dimensions, found),
        limit=_limit(given.get("limit", q.LIMIT_DEFAULT), found),
        cursor=_text(given.get("cursor"), "cursor", "invalid_cursor", found),
        explain=_truth(given.get("explain", False), found),
    )
    found.raise_if_any()
    return query


def query_from_params(params: Mapping[str, str]) -> dict[str, object]:
    """Return GET parameters as the raw object of a body: lists are comma-separated, `filters` is JSON.

    `order_by` is `plays:desc,country` or JSON. `start` and `end` stand for `time_range`. Raises `QueryProblem`.
    """
    raw: dict[str, object] = {name: value for name, value in params.items() if value != ""}
    for name in raw:
        if name not in _PARAMETERS:
            detail = f"{name}: no such parameter. {nearest(name, _PARAMETERS)}"
            raise QueryProblem("invalid_query", 422, detail, [{"field": name, "detail": detail}])
    for name in ("metrics", "dimensions"):
        if name in raw:
            raw[name] = _list(params[name], name)
    if "filters" in raw:
        raw["filters"] = _json(params["filters"], "filters", "invalid_filter")
    if "order_by" in raw:
        raw["order_by"] = _order_parameter(params["order_by"])
    if "time_range" in raw and params["time_range"].lstrip().startswith("{"):
        raw["time_range"] = _json(params["time_range"], "time_range", "invalid_time_range")
    ends = {name: _instant(str(raw.pop(name))) for name in ("start", "end") if name in raw}
    if ends and "time_range" in raw:
        raise QueryProblem("invalid_time_range", 422, "give either time_range or start and end, not both")
    if ends:
        raw["time_range"] = ends
    if "limit" in raw and re.fullmatch(r"-?\d{1,9}", params["limit"].strip()):
        raw["limit"] = int(params["limit"])
    if "explain" in raw:
        raw["explain"] = {"true": True, "1": True, "false": False, "0": False}.get(
            params["explain"].lower(), params["explain"]
        )
    return raw


def _list(text: str, name: str) -> object:
    return _json(text, name, "invalid_query") if text.lstrip().startswith("[") else text.split(",")


def _json(text: str, name: str, code: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise QueryProblem(code, 422, f"{name}: as a parameter this is JSON, and it does not parse: {error}") from error


def _order_parameter(text: str) -> object:
    if text.lstrip().startswith("["):
        return _json(text, "order_by", "invalid_query")
    pairs = (part.strip().partition(":") for part in text.split(","))
    return [[name.removeprefix("-"), direction or ("desc" if name.startswith("-") else "asc")]
            for name, _, direction in pairs]  # fmt: skip


def _instant(text: str) -> object:
    text = text.strip()
    if re.fullmatch(r"-?\d{1,15}", text):
        return int(text)
    return _SPACE_FOR_PLUS.sub(r"\1+\2", text)  # a "+" that was not written as %2B arrives as a space


def _names(
    value: object, field: str, known: Mapping[str, object], code: str, most: int, found: Refusals
) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        found.add(field, "invalid_query", f"a list of names, not {_kind(value)}")
        return ()
    names = []
    for index, name in enumerate(value):
        text = name.strip() if isinstance(name, str) else name
        if isinstance(text, str) and text in known:
            names.append(text)
        else:
            found.add(f"{field}[{index}]", code, f"{_shown(name)} is not known. {nearest(str(text), known)}")
    if len(names) > most:
        found.add(field, "invalid_query", f"at most {most}, not {len(names)}; ask twice")
    return tuple(dict.fromkeys(names))


def _granularity(value: object, found: Refusals) -> q.Granularity:
    for known in q.GRANULARITIES:
        if value == known:
            return known
    found.add(
        "granularity", "invalid_granularity", f"{_shown(value)} is not known. {nearest(str(value), q.GRANULARITIES)}"
    )
    return "total"


def _scope(given: Mapping[str, object], found: Refusals) -> list[Filter]:
    filters = []
    for name in ("channel_id", "video_id"):
        value = given.get(name)
        if isinstance(value, str) and 0 < len(value) <= q.VALUE_CHARS_MAX:
            filters.append(Filter(name, (value,)))
        elif value is not None:
            detail = f'one id, as text; for several use filters: [["is", "{name}", […]]]'
            found.add(name, "invalid_query", detail)
    return filters


def _filters(value: object, found: Refusals) -> list[Filter]:
    if not isinstance(value, list | tuple):
        found.add("filters", "invalid_filter", f'a list like [["is", "country", ["DE"]]], not {_kind(value)}')
        return []
    if len(value) > q.FILTERS_MAX:
        found.add("filters", "invalid_filter", f"at most {q.FILTERS_MAX}, not {len(value)}")
        return []
    filters = []
    for index, item in enumerate(value):
        made = _filter(item, f"filters[{index}]", found)
        if made is not None:
            filters.append(made)
    return filters


def _filter(item: object, field: str, found: Refusals) -> Filter | None:
    if not isinstance(item, list | tuple) or len(item) != 3:
        found.add(field, "invalid_filter", 'three parts: ["is" or "is_not", dimension, [values]]')
        return None
    operator, dimension, values = item
    if operator not in ("is", "is_not"):
        found.add(f"{field}[0]", "invalid_filter", f'{_shown(operator)} is not known; use "is" or "is_not"')
    if not isinstance(dimension, str) or dimension not in DIMENSIONS:
        detail = f"{_shown(dimension)} is not known. {nearest(str(dimension), DIMENSIONS)}"
        found.add(f"{field}[1]", "unknown_dimension", detail)
        return None
    listed = values if isinstance(values, list | tuple) else [values]
    words = tuple(dict.fromkeys(_word(v) for v in listed))
    if not listed or len(words) > q.FILTER_VALUES_MAX:
        found.add(f"{field}[2]", "invalid_filter", f"1 to {q.FILTER_VALUES_MAX:,} values, not {len(words)}")
    elif any(w is None for w in words):
        found.add(f"{field}[2]", "invalid_filter", f"values are text of at most {q.VALUE_CHARS_MAX:,} characters")
    elif dimension == "is_bot" and not {*words} <= {"true", "false"}:
        found.add(f"{field}[2]", "invalid_filter", "is_bot is true or false")
    else:
        return Filter(dimension, tuple(w for w in words if w is not None), negate=operator == "is_not")
    return None


def _word(value: object) -> str | None:
    """Return a filter value as text: numbers and truths are taken as they are written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and len(value) <= q.VALUE_CHARS_MAX else None


def _order(value: object, dimensions: tuple[str, ...], found: Refusals) -> tuple[tuple[str, q.Direction], ...]:
    if not isinstance(value, list | tuple):
        found.add("order_by", "invalid_query", f'a list like [["plays", "desc"]], not {_kind(value)}')
        return ()
    if len(value) == 2 and value[1] in ("asc", "desc") and isinstance(value[0], str):
        value = [value]  # one pair without the list around it
    order: list[tuple[str, q.Direction]] = []
    for index, item in enumerate(value[: q.METRICS_MAX]):
        field = f"order_by[{index}]"
        pair = [item, "asc"] if isinstance(item, str) else item
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[1] not in ("asc", "desc"):
            found.add(field, "invalid_query", '[name, "asc"] or [name, "desc"]')
            continue
        name = pair[0]
        metric = METRICS.get(name) if isinstance(name, str) else None
        if isinstance(metric, Histogram):
            found.add(field, "invalid_query", f"{name} is a histogram, which has no order; order by another metric")
        elif metric is None and name not in (*dimensions, "time"):
            known = (*METRICS, *dimensions, "time")
            detail = f"{_shown(name)} is neither a metric nor one of the dimensions. {nearest(str(name), known)}"
            found.add(field, "invalid_query", detail)
        else:
            order.append((str(name), "desc" if pair[1] == "desc" else "asc"))
    return tuple(order)


def _limit(value: object, found: Refusals) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= q.LIMIT_MAX:
        return value
    found.add("limit", "invalid_query", f"a number of groups from 1 to {q.LIMIT_MAX:,}, not {_shown(value)}")
    return q.LIMIT_DEFAULT


def _text(value: object, field: str, code: str, found: Refusals) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= 10_000):
        return value
    found.add(field, code, "text, as the answer before gave it")
    return None


def _truth(value: object, found: Refusals) -> bool:
    if isinstance(value, bool):
        return value
    found.add("explain", "invalid_query", f"true or false, not {_shown(value)}")
    return False


def _kind(value: object) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "a list" if isinstance(value, list | tuple) else "that")


def _shown(value: object) -> str:
    text = f"{value}" if isinstance(value, str | int | float) else _kind(value)
    return repr(text if len(text) <= 60 else text[:60] + "…")
