"""Faults on purpose: power cuts, full and failing disks, and clocks that jump, for processes that know nothing of it.

In: a folder, and processes that are started with `Shim.environment()`. Out: a journal of all that they did to files
below the folder (`journal.py`), from which the folder after a power cut at any moment is made (`disk.py`); switches
for errors of the disk and for the clock (`shim.py`). Promised: what a program synced is in every such folder, and what
it did not sync is kept or lost by dice alone. Linux with a C compiler; no privileges. Not modelled: a disk that lies
about syncs, bits that rot, writes through mmap.
"""

from viewmeter.testing.faults.disk import CUTS, Cut, Disk
from viewmeter.testing.faults.shim import Shim, ShimUnavailableError

__all__ = ["CUTS", "Cut", "Disk", "Shim", "ShimUnavailableError"]
