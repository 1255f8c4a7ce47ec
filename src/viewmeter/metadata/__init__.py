"""Metadata: tenants, keys, sign-ins.

`keys` is what other rooms see; `store` is the database behind it, `directory` its cache, `settings` its
settings. This page imports nothing, so that a room which only needs the words does not load a database
library.
"""
