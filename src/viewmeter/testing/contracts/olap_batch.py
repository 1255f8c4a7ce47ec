"""What every time-series store holds on its batch side (olap/protocol.py, O5 to O12).

A suite for one implementation subclasses `BatchTablesContract` and gives three fixtures: `store`, an empty one,
`fresh_store`, a function that makes more of them, and `reopened`, a function that opens what is durable of `store` as
after kill -9. The store under test keeps minutes 24 hours, hours 30 days and exact viewers 62 days (the defaults).
"""

from __future__ import annotations

from viewmeter.testing.contracts.olap_hours import ClosedHoursContract
from viewmeter.testing.contracts.olap_tiers import TiersContract
from viewmeter.testing.contracts.olap_viewers import ViewersContract


class BatchTablesContract(ClosedHoursContract, TiersContract, ViewersContract):
    """All promises of the batch side as tests."""
