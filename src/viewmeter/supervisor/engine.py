"""The engine process: log reader, stream jobs, store, query and the web API behind a unix socket."""

from __future__ import annotations

import structlog

from viewmeter import config, wiring
from viewmeter.supervisor import assignment, logs


def main() -> None:
    """Run until SIGTERM."""
    mine = assignment.receive()
    logs.configure(mine.server, "engine")
    log = structlog.get_logger(__name__)
    try:
        engine = wiring.embedded_engine(config.parse(bytes(mine.config)), mine.data)
        try:
            engine.serve(mine.socket)
        finally:
            engine.close()
    except Exception as problem:
        log.exception("engine failed", reason=str(problem))
        raise SystemExit(1) from None
    log.info("engine stopped")


if __name__ == "__main__":
    main()
