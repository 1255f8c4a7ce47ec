"""The shipped proof kit: independent opinions on every number.

Out: the oracle (what a list of events counts for), scenarios (plain text that any topology must satisfy), the
simulator (viewers whose truth is known before any event exists). Promised: nothing here is needed to serve.
"""
