"""The quality monitor: what players send, seen on a sample of the accepted events.

`sample.py` picks views of what became durable, `figures.py` is what is counted of them, and `store.py` keeps it by day
where any process can read it.
"""
