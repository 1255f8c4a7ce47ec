r"""Scenarios: documentation, test and bug report in one piece of plain text.

In: text. Out: `parse()` gives a `Scenario`, `run()` plays it on a `Subject` and returns every difference.
Promised: an error names its line, quotes it and says what would be right. Times are relative to the
scenario's start.

    # the first comment is the title
    view v1 video=clip viewer=ann from DE/Berlin/Berlin on tv/Tizen/Samsung cdn=alpha
      0s request | 1s play startup=1000 | 11s buffer | 13s play | 43s complete
      received 50s sent 49s: 44s exit      # one beacon, with its arrival and the sender's clock
    clock 2m                               # the time is 2 min: only what arrived is known, silence up to here
    expect clip: plays 1, watch_time 40s, rebuffer_ratio 0.0476
    expect clip at 20s: concurrent_viewers 1
    expect channel c1 country=DE from 0s to 1m: plays 1
    expect platform minute 0: events 6

An event is `TIME TYPE field=value ...`. `seq` counts up by itself; `lost` and `lost 3` skip numbers, and
`repeat 2` sends number 2 of the view again. `blind`, `fatal` and `halted` alone mean true, `x-anything=1` is a field
nobody knows, `received=20s` delays one event. Fields on a `view` line are sent with each of its events; a
second `view` line of the same name goes on with that view. Without a `clock` (or after `clock afterwards`) an
expectation is asked long after everything has arrived. A number with decimals is compared to half a unit of
the last one, any other exactly; `null` is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final

from viewmeter.model.events import EVENT_TYPES
from viewmeter.testing.subject import (
    ENRICHED,
    KNOWN_METRICS,
    SAID,
    WIRE_FIELDS,
    Beacon,
    Question,
    Subject,
    UnseenError,
)

START_MS: Final = 1_795_608_000_000  # 2026-11-25T12:00:00Z: a whole day, minute and ten seconds begin here
AFTERWARDS_MS: Final = 600_000  # twice the silence that ends a view
UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
SHORT: Final = {
    **{name.removesuffix("_ms"): name for name in WIRE_FIELDS if name.endswith("_ms")},
    "bitrate": "bitrate_kbps",
    "rate": "playback_rate",
    "rebuffers": "rebuffer_count",
    "viewer": "viewer_id",
    "video": "video_id",
    "channel": "channel_id",
    "device": "device_type",
    "tenant": "tenant_id",
}
PLACES: Final = {"from": ("country", "region", "city"), "on": ("device_type", "os", "browser")}
FILTERS: Final = (*ENRICHED, *SAID, "cdn", "bitrate_bucket")
WORDS: Final = (*ENRICHED, *SAID, "cdn", "error_code", "error_message", "viewer_id", "video_id", "channel_id")
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ms|s|m|h|d))+")


class ScenarioError(ValueError):
    """A scenario that cannot be read: says where, what, and what would be right."""


@dataclass(frozen=True)
class Arrival:
    """One event on its way: `beacon` numbers a POST (None: with whatever arrives then)."""

    received_ms: int
    sent_ms: int | None
    tenant_id: str
    event: dict[str, Any]
    beacon: int | None = None


@dataclass(frozen=True)
class Expectation:
    """One number that must come out. `tolerance` 0: exactly."""

    line: int
    text: str
    question: Question
    value: float | None
    tolerance: float


@dataclass(frozen=True)
class Clock:
    """From here on the time is `at_ms`; None: long after everything has arrived."""

    at_ms: int | None


@dataclass
class Scenario:
    """A title, and steps in the order of the text. Times are relative to the start."""

    title: str = ""
    steps: list[Arrival | Clock | Expectation] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        """Whether no event is late: each view's events arrive by `seq`, copies apart.

        Where one is, a speed layer is right only when its batch layer has replaced the hour (DESIGN 3, Order).
        """
        highest: dict[tuple[str, str], tuple[int, int]] = {}
        seen: set[tuple[str, str, int]] = set()
        arrivals = [step for step in self.steps if isinstance(step, Arrival)]
        for arrival in sorted(arrivals, key=lambda a: a.received_ms):  # stable: one instant keeps the text's order
            view, seq = (arrival.tenant_id, arrival.event["view_id"]), arrival.event["seq"]
            if (*view, seq) in seen:
                continue
            seen.add((*view, seq))
            top, when = highest.get(view, (-1, 0))
            if seq < top and arrival.received_ms > when:
                return False
            highest[view] = max(highest.get(view, (-1, 0)), (seq, arrival.received_ms))
        return True


@dataclass(frozen=True)
class Difference:
    """An expectation that did not hold."""

    expectation: Expectation
    got: float | None

    def __str__(self) -> str:
        want = self.expectation
        return f"line {want.line}: {want.text}\n  {want.question.metric}: want {want.value}, got {self.got}"


def duration_ms(text: str) -> int:
    """Return `1m30s`, `250ms` or `-5s` in milliseconds; raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"`{text}` is not a time; write for example `250ms`, `11s`, `1.5s`, `1m30s` or `2h`")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    total = round(sum(float(amount) * UNIT_MS[unit] for amount, unit in parts))
    return -total if text.startswith("-") else total


def parse(text: str) -> Scenario:
    """Read a scenario; raises ScenarioError."""
    return _Parser().read(text)


class _Parser:
    """Reads line by line; remembers the view that indented lines belong to."""

    def __init__(self) -> None:
        self.scenario = Scenario()
        self.views: dict[str, dict[str, Any]] = {}
        self.sent: dict[str, dict[int, dict[str, Any]]] = {}
        self.next_seq: dict[str, int] = {}
        self.latest: dict[str, int] = {}
        self.view: str | None = None
        self.beacons = 0

    def read(self, text: str) -> Scenario:
        for number, line in enumerate(text.splitlines(), start=1):
            body = line.partition("#")[0].rstrip()
            if not self.scenario.title and line.startswith("#"):
                self.scenario.title = line.lstrip("# ").strip()
            try:
                if body:
                    self.line(number, body)
            except ValueError as problem:
                raise ScenarioError(f"line {number}: {problem}\n  {line.strip()}") from None
        if not any(isinstance(step, Expectation) for step in self.scenario.steps):
            raise ScenarioError("a scenario without any `expect` line proves nothing")
        return self.scenario

    def line(self, number: int, body: str) -> None:
        if body[0].isspace():
            self.events(body.strip())
            return
        word, _, rest = body.partition(" ")
        if word == "view":
            self.begin_view(rest.split())
        elif word == "clock":
            at_ms = None if rest.strip() == "afterwards" else duration_ms(rest.strip())
            self.scenario.steps.append(Clock(at_ms))
        elif word == "expect":
            self.scenario.steps += _expectations(number, body, rest)
        else:
            raise ValueError(
                f"`{word}` is no statement; a line begins with `view`, `clock` or `expect`, "
                "and the events of a view are indented below it"
            )

    def begin_view(self, words: list[str]) -> None:
        if not words or "=" in words[0]:
            raise ValueError("a view has a name: `view v1 video=clip`")
        name, *rest = words
        defaults = {"video_id": "clip", "channel_id": "c1", "tenant_id": "t1", "viewer_id": name}
        fields: dict[str, Any] = self.views.get(name, defaults)
        rest_words = iter(rest)
        for word in rest_words:
            if word in PLACES:
                values = next(rest_words, "").split("/")
                if len(values) > 3 or not values[0]:
                    raise ValueError(f"after `{word}` stands {'/'.join(PLACES[word])}, the last two as you like")
                fields = {**fields, **dict(zip(PLACES[word], values, strict=False))}
            elif word == "bot":
                fields = {**fields, "is_bot": True}
            else:
                fields = {**fields, **dict([_assignment(word)])}
        self.view = name
        self.views[name] = fields
        self.sent.setdefault(name, {})
        self.next_seq.setdefault(name, int(fields.get("seq", 0)))

    def events(self, body: str) -> None:
        if self.view is None:
            raise ValueError("events belong below a `view` line")
        received: int | None = None
        sent: int | None = None
        beacon: int | None = None
        if body.startswith("received "):
            head, colon, body = body.partition(":")
            words = head.split()
            if not colon or len(words) not in (2, 4) or words[2:3] not in ([], ["sent"]):
                raise ValueError("write `received 50s: 1s play | ...`, or `received 50s sent 49s: ...`")
            received = duration_ms(words[1])
            sent = duration_ms(words[3]) if len(words) == 4 else None
            self.beacons += 1
            beacon = self.beacons
        for text in body.split("|"):
            self.event(text.split(), received, sent, beacon)

    def event(self, words: list[str], received: int | None, sent: int | None, beacon: int | None) -> None:
        name = self.view or ""
        if not words:
            raise ValueError("there is nothing between two `|`")
        if words[0] == "lost":
            self.next_seq[name] += int(words[1]) if len(words) > 1 else 1
            return
        if words[0] == "repeat":
            event = self.sent[name].get(int(words[1]) if words[1:] else -1)
            if event is None:
                raise ValueError(f"`repeat` names a number that was sent: {sorted(self.sent[name])}")
            rest = words[2:]
        else:
            event, rest = self.fresh(name, words), words[2:]
        fields = dict(_assignment(word) for word in rest)
        delayed = fields.pop("received", None)
        tenant = self.views[name]["tenant_id"]
        event = {**event, **fields}
        if words[0] != "repeat":
            self.sent[name][event["seq"]] = event
            self.next_seq[name] = event["seq"] + 1
        # Unless it says otherwise a player sends at once: an event of an earlier ts comes after what it said before.
        self.latest[name] = max(event["ts"], self.latest.get(name, event["ts"]))
        arrives = next(t for t in (delayed, received, self.latest[name]) if t is not None)
        self.scenario.steps.append(Arrival(arrives, sent, tenant, event, beacon))

    def fresh(self, name: str, words: list[str]) -> dict[str, Any]:
        instant = duration_ms(words[0])
        if len(words) < 2 or words[1] not in EVENT_TYPES:
            raise ValueError(f"after the time stands what happened: {', '.join(EVENT_TYPES)}")
        view = {k: v for k, v in self.views[name].items() if k not in ("tenant_id", "seq")}
        return {**view, "view_id": name, "type": words[1], "ts": instant, "seq": self.next_seq[name]}


def _assignment(word: str) -> tuple[str, Any]:
    """Read `field=value`, or a bare flag."""
    name, equals, value = word.partition("=")
    name = SHORT.get(name, name)
    if not equals and name in ("blind", "fatal", "halted"):
        return name, True
    known = {*WIRE_FIELDS, *ENRICHED, "tenant_id", "received"} - {"type", "ts", "view_id"}
    if name.startswith("x-"):
        return name, value
    if name not in known or not equals:
        raise ValueError(f"`{word}` sets no field; write `name=value` with one of {', '.join(sorted(known))}")
    if value == "null":
        return name, None
    if name in ("blind", "fatal", "halted", "is_bot"):
        if value not in ("true", "false"):
            raise ValueError(f"`{name}` is true or false, or left out")
        return name, value == "true"
    if name in WORDS or name == "tenant_id":
        return name, value
    if name == "received" or _DURATION.fullmatch(value):
        return name, duration_ms(value)
    try:
        return name, float(value) if name == "playback_rate" else int(value)
    except ValueError:
        raise ValueError(f"`{name}` is a number, or a time like `30s`; `{value}` is neither") from None


def _expectations(line: int, text: str, rest: str) -> Iterator[Expectation]:
    head, colon, values = rest.partition(":")
    if not colon:
        raise ValueError("write `expect clip: plays 1, watch_time 40s`")
    question = _scope(head.split())
    for part in values.split(","):
        words = part.split()
        if len(words) != 2:
            raise ValueError(f"`{part.strip()}` is not a metric and its value, such as `plays 1`")
        name, value = words
        metric = next((m for m in (name, f"{name}_ms", f"{name}_kbps") if m in KNOWN_METRICS), None)
        if metric is None:
            near = [m for m in sorted(KNOWN_METRICS) if name.split("_")[0] in m]
            raise ValueError(f"there is no metric `{name}`; near it: {', '.join(near) or 'nothing'}")
        if metric.startswith("concurrent") and question.at_ms is None:
            raise ValueError(f"`{metric}` is asked at an instant: `expect clip at 20s: {metric} 1`")
        yield Expectation(line, text, replace(question, metric=metric), *_value(value))


def _scope(words: list[str]) -> Question:
    rest = iter(words)
    kind = next(rest, "")
    given: dict[str, Any] = {"tenant_id": "t1", "metric": "", "filters": {}}
    if kind == "channel":
        given["channel_id"] = next(rest, None)
    elif kind == "tenant":
        given["tenant_id"] = next(rest, None)
    elif kind == "platform":
        given["tenant_id"] = None
    elif kind:
        given["video_id"] = kind
    else:
        raise ValueError("after `expect` stands a video, `channel NAME`, `tenant NAME` or `platform`")
    for word in rest:
        if word in ("at", "minute", "from", "to"):
            amount = next(rest, "")
            if word == "minute":
                given |= {"start_ms": int(amount) * 60_000, "end_ms": (int(amount) + 1) * 60_000}
            else:
                given[{"at": "at_ms", "from": "start_ms", "to": "end_ms"}[word]] = duration_ms(amount)
            continue
        name, _, value = word.partition("=")
        name = SHORT.get(name, name)
        if name in ("tenant_id", "channel_id", "video_id"):
            given[name] = value
        elif name in FILTERS:
            given["filters"] = {**given["filters"], name: value}
        else:
            raise ValueError(f"`{word}` is no range (`at`, `minute`, `from`, `to`) and no dimension")
    return Question(**given)


def _value(text: str) -> tuple[float | None, float]:
    """Return the value and how far from it is still right."""
    if text == "null":
        return None, 0.0
    if _DURATION.fullmatch(text):
        return duration_ms(text), 0.0
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"`{text}` is no value: write a number, a time like `40s`, or `null`") from None
    decimals = len(text.partition(".")[2])
    return value, 0.5000001 * 10**-decimals if decimals else 1e-9


def run(scenario: Scenario, subject: Subject, start_ms: int = START_MS) -> list[Difference]:
    """Play a scenario on a subject; returns what came out otherwise. `start_ms`: a multiple of a minute."""
    playing = play(scenario, subject, start_ms)
    while True:
        try:
            subject.settle(next(playing))
        except StopIteration as end:
            found: list[Difference] = end.value
            return found


def play(scenario: Scenario, subject: Subject, start_ms: int = START_MS) -> Generator[int, None, list[Difference]]:
    """Play a scenario without settling: yields until when the subject has to be, whenever questions follow."""
    waiting: list[Arrival] = []
    arrived = 0
    fed = False
    clock: int | None = None
    differences: list[Difference] = []
    for step in scenario.steps:
        if isinstance(step, Arrival):
            waiting.append(step)
            fed = False
            continue
        if isinstance(step, Clock):
            clock, fed = step.at_ms, False
            continue
        if not fed:
            due = [a for a in waiting if clock is None or a.received_ms <= clock]
            waiting = [a for a in waiting if clock is not None and a.received_ms > clock]
            arrived = max([arrived, *(a.received_ms for a in due), *(a.event["ts"] for a in due)])
            for beacon in _beacons(due, start_ms):
                subject.feed(beacon)
            yield start_ms + (arrived + AFTERWARDS_MS if clock is None else clock)
            fed = True
        try:
            got = subject.answer(_absolute(step.question, start_ms))
        except UnseenError:
            continue  # subjects that see every ms hold this expectation
        same = (got is None) if step.value is None else (got is not None and _near(got, step))
        if not same:
            differences.append(Difference(step, got))
    return differences


def _near(got: float, want: Expectation) -> bool:
    return abs(got - (want.value or 0)) <= want.tolerance


def _beacons(arrivals: list[Arrival], start_ms: int) -> Iterator[Beacon]:
    def posted(a: Arrival) -> tuple[int, str, int | None, int | None]:
        return a.received_ms, a.tenant_id, a.beacon, a.sent_ms

    in_order = sorted(arrivals, key=lambda a: a.received_ms)
    for (received, tenant, _, sent), group in groupby(in_order, key=posted):
        events = [{**a.event, "ts": a.event["ts"] + start_ms} for a in group]
        yield Beacon(tenant, received + start_ms, events, None if sent is None else sent + start_ms)


def _absolute(question: Question, start_ms: int) -> Question:
    return replace(
        question,
        start_ms=question.start_ms + start_ms,
        end_ms=question.end_ms if question.end_ms == Question.end_ms else question.end_ms + start_ms,
        at_ms=None if question.at_ms is None else question.at_ms + start_ms,
    )
