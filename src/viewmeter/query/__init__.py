"""The query room: a question in, rows of finished metrics out.

parse (raw JSON or parameters -> `Query`), plan (which rollups cover it), scan and merge (the store's sums by group and
bucket), and only then compute. What a key may see enters in one place, `plan()`. Not done here: HTTP and the store.
"""

from viewmeter.query.analytics import Analytics
from viewmeter.query.answer import Answer
from viewmeter.query.parse import parse_query, query_from_params
from viewmeter.query.plan import Plan, plan
from viewmeter.query.problems import QueryProblem
from viewmeter.query.question import Query
from viewmeter.query.settings import QuerySettings

__all__ = [
    "Analytics",
    "Answer",
    "Plan",
    "Query",
    "QueryProblem",
    "QuerySettings",
    "parse_query",
    "plan",
    "query_from_params",
]
