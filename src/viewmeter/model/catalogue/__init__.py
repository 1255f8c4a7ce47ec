"""The catalogue: measures, metrics, dimensions and rollups as data. The only place that states a metric.

From here come the store's columns and SQL, API validation, dashboard labels and units, and the reference page.
"""

from viewmeter.model.catalogue.dimensions import DIMENSIONS, Dimension
from viewmeter.model.catalogue.measures import MEASURES, Kind, Measure
from viewmeter.model.catalogue.metrics import CURVES, METRICS, Metric
from viewmeter.model.catalogue.rollups import ROLLUPS, SPEED_ROLLUPS, TIERS, Rollup, Tier

__all__ = [
    "CURVES", "DIMENSIONS", "MEASURES", "METRICS", "ROLLUPS", "SPEED_ROLLUPS", "TIERS",
    "Dimension", "Kind", "Measure", "Metric", "Rollup", "Tier",
]  # fmt: skip
