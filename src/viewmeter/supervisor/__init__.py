"""The process tree of the embedded topology: one engine, N collector workers, and who keeps them alive.

In: settings, a data folder, a port. Out: a product that is ready, and that ends without losing an answer. Promised: one
supervisor a data folder (a lock that its children hold too); what dies is started again with a growing pause; SIGTERM
drains in reverse order within a bound; no child outlives the supervisor. Not done: machines other than this one.
"""
