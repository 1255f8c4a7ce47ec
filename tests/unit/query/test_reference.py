"""The reference page says what the catalogue says."""

from pathlib import Path

from viewmeter.model.catalogue import DIMENSIONS, MEASURES, METRICS, ROLLUPS
from viewmeter.query.reference import reference_page

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"


def test_the_page_in_the_repository_is_the_one_that_the_catalogue_writes() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference_page(), "run: python -m viewmeter.query.reference docs/reference/metrics.md"


def test_every_metric_measure_dimension_and_rollup_is_on_the_page() -> None:
    page = reference_page()
    for name in (*METRICS, *MEASURES, *DIMENSIONS, *ROLLUPS):
        assert f"`{name}`" in page
