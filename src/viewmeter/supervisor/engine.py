"""The engine process: log reader, stream jobs, store, query and the web API behind a unix socket."""

from __future__ import annotations

import structlog

from viewmeter import config, wiring
from viewmeter.supervisor import assignment, logs


def main() -> None:
    """Run until SIGTERM."""
    mine = assignment.receive()
    logs.configure(mine.server, "engine")
    engine = wiring.embedded_engine(config.parse(bytes(mine.config)), mine.data)
    try:
        engine.serve(mine.socket)
    finally:
        engine.close()
    structlog.get_logger(__name__).info("engine stopped")


if __name__ == "__main__":
    main()
