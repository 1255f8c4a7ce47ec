"""The supervisor process itself: `viewmeter up` becomes this by exec, once everything is checked.

Why exec: the command line's libraries (cyclopts, rich, SQLAlchemy for the first keys) would otherwise stay in memory
for the life of the product. In: three inherited file descriptors (the folder's lock, the port, the assignment).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from typing import NoReturn

from viewmeter.supervisor import logs
from viewmeter.supervisor.assignment import Assignment, dump, parse
from viewmeter.supervisor.tree import StartError, Tree


def become(assignment: Assignment, lock: int, port: int) -> NoReturn:
    """Turn this process into the supervisor; process id, group and terminal stay."""
    with tempfile.TemporaryFile(buffering=0) as notes:
        notes.write(dump(assignment))
        notes.seek(0)
        for handle in (lock, port, notes.fileno()):
            os.set_inheritable(handle, True)
        sys.stdout.flush()
        sys.stderr.flush()
        handles = map(str, (lock, port, notes.fileno()))
        os.execv(sys.executable, [sys.executable, "-m", "viewmeter.supervisor", *handles])


def main() -> None:
    """Run the tree of the assignment behind the third file descriptor."""
    lock, _port, notes = map(int, sys.argv[1:4])
    with os.fdopen(notes, "rb") as file:
        assignment = parse(file.read())
    logs.configure(assignment.server, "supervisor")
    address = assignment.run / "url"
    try:
        asyncio.run(Tree(assignment, keep_open=(lock,)).run())
    except StartError as problem:
        raise SystemExit(f"viewmeter: {problem}") from None
    finally:
        address.unlink(missing_ok=True)
        assignment.socket.unlink(missing_ok=True)
        if assignment.socket.parent != assignment.run:  # a folder of its own, where the path would have been too long
            with contextlib.suppress(OSError):
                assignment.socket.parent.rmdir()


if __name__ == "__main__":
    main()
