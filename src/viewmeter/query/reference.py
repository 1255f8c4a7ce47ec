"""The reference page of metrics, written from the catalogue: `python -m viewmeter.query.reference FILE`.

In: the catalogue. Out: Markdown. Promised: nothing in it is written by hand, so it cannot say anything else than the
product does; a test fails where the page in the repository differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from viewmeter.model.catalogue import CURVES, DIMENSIONS, MEASURES, METRICS, ROLLUPS, Metric
from viewmeter.query.listing import approximation
from viewmeter.query.plan import rollups_of

HEAD = """\
# Metrics, measures, dimensions and rollups

Written from the catalogue by `python -m viewmeter.query.reference docs/reference/metrics.md`; do not edit it.

A *measure* is stored and merges (sums, sketches, samples). A *metric* is computed from merged measures, last, and is
never stored or averaged. A value over nothing is null. Units end names: `_ms` milliseconds, `_kbps` kilobits per
second; ratios go from 0 to 1.
"""


def reference_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD, *_metrics(), *_dimensions(), *_rollups(), *_measures()]
    return "\n".join(parts)


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "| metric | unit | kind | better | formula | what it says |"
    yield "|---|---|---|---|---|---|"
    parts: dict[str, str] = {}
    for m in (*METRICS.values(), *CURVES.values()):
        layer = " From closed hours." if m.batch_only else ""
        yield _row((f"`{m.name}`", m.unit, _kind(m), m.better, f"`{m.formula()}`", m.doc + layer))
        parts |= m.parts()
    yield ""
    yield "Where a formula calls a part by its name:\n"
    yield from (f"- `{name}` = `{formula}`" for name, formula in parts.items() if name not in METRICS)
    yield ""
    yield "`known(x)` is 1 where x has a value, else 0; `or_zero(x)` is 0 where it has none.\n"
    for m in METRICS.values():
        if error := approximation(m):
            (name, value), *_ = error.items()
            yield f"- `{m.name}` is approximate: {name.replace('_', ' ')} {value:g}; every answer carries it."
    yield ""


def _kind(metric: Metric) -> str:
    return metric.kind if metric.version is None else f"{metric.kind} ({metric.version})"


def _dimensions() -> Iterator[str]:
    yield "## Dimensions\n"
    yield "| dimension | label | what it is | rollups |"
    yield "|---|---|---|---|"
    for d in DIMENSIONS.values():
        having = [f"`{r.name}`" for r in ROLLUPS.values() if d.name in r.dimensions]
        yield _row((f"`{d.name}`", d.label, d.doc, ", ".join(having)))
    yield ""


def _rollups() -> Iterator[str]:
    yield "## Rollups\n"
    yield "A query is answered from the smallest rollup that has its dimensions, filters and measures.\n"
    yield "| rollup | grain | tiers | layers | dimensions | metrics |"
    yield "|---|---|---|---|---|---|"
    for r in ROLLUPS.values():
        having = [m.name for m in (*METRICS.values(), *CURVES.values()) if r.name in rollups_of(m)]
        few = len(having) <= 5
        shown = ", ".join(f"`{name}`" for name in having) if few else f"{len(having)}: all but gauges and exact counts"
        layers = "batch" if r.batch_only else "speed, batch"
        words = (f"`{r.name}`", f"{r.grain_ms // 1000} s", ", ".join(r.tiers), layers)
        yield _row((*words, ", ".join(f"`{d}`" for d in r.dimensions), shown))
    yield ""


def _measures() -> Iterator[str]:
    yield "## Measures\n"
    yield "| measure | merges as | unit | what it counts |"
    yield "|---|---|---|---|"
    for m in MEASURES.values():
        yield _row((f"`{m.name}`", m.kind.value, m.unit, m.doc + (" Batch layer." if m.batch_only else "")))
    yield ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference_page(), encoding="utf-8")
