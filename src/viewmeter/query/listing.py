"""The catalogue as the API lists it: every metric and dimension, in words and with the rollups that have it."""

from __future__ import annotations

from typing import Any

from viewmeter.model.catalogue import CURVES, DIMENSIONS, METRICS, ROLLUPS, Metric
from viewmeter.model.catalogue.metrics import Curve, Distinct, Quantile
from viewmeter.query.plan import rollups_of


def metrics_catalogue() -> list[dict[str, Any]]:
    """Return the metrics and curves. `error`: relative standard error (distinct counts) or rank error (quantiles).

    `parts` are what the formula calls by name; `batch_only`: of hours that are not closed yet it says nothing;
    `address`: where a curve is, since a query does not take it.
    """
    return [
        {
            "name": metric.name,
            "label": metric.label,
            "unit": metric.unit,
            "kind": metric.kind,
            "formula": metric.formula(),
            "parts": metric.parts(),
            "doc": metric.doc,
            "better": metric.better,
            "error": next(iter(approximation(metric).values()), None),
            "version": metric.version,
            "batch_only": metric.batch_only,
            "address": metric.address if isinstance(metric, Curve) else None,
            "rollups": rollups_of(metric),
        }
        for metric in (*METRICS.values(), *CURVES.values())
    ]


def dimensions_catalogue() -> list[dict[str, Any]]:
    """Return the dimensions."""
    return [
        {
            "name": dimension.name,
            "label": dimension.label,
            "doc": dimension.doc,
            "rollups": [r.name for r in ROLLUPS.values() if dimension.name in r.dimensions],
        }
        for dimension in DIMENSIONS.values()
    ]


def approximation(metric: Metric) -> dict[str, float]:
    """Return how wrong the metric may be; {} where it is exact."""
    if isinstance(metric, Distinct):
        return {"relative_standard_error": metric.relative_standard_error}
    if isinstance(metric, Quantile):
        return {"rank_error": metric.rank_error}
    return {}
