"""The collector: a beacon in; decode, validate, enrich, limit, append; an answer out.

In: POSTs of players, as an RSGI application (`app.CollectorApp`), served by `serve.serve`. Out: batches of
`EVENT_SCHEMA` in the event log, rejected events in the dead letters. Promised: API.md section 2, and never a 2xx for
what is not durable. Not done here: anything that reads events.

The way of a beacon: `request` (who sends, may they, the body) → `dialects` (events and rejections) → `intake` (clock,
age, channel) → `commit` (many beacons, one fsync; `columns` makes the batch) → `answers`.
"""
