"""A collector worker process: beacons in, one log partition out, and the gateway to the engine."""

from __future__ import annotations

import structlog

from viewmeter import config, wiring
from viewmeter.supervisor import assignment, logs


def main() -> None:
    """Run until SIGTERM."""
    mine = assignment.receive()
    logs.configure(mine.server, f"collector-{mine.partition}")
    log = structlog.get_logger(__name__)
    try:
        settings = config.parse(bytes(mine.config))
        worker = wiring.embedded_worker(settings, mine.data, mine.partition, mine.socket, mine.buckets)
        try:
            worker.serve(mine.host, mine.port)
        finally:
            worker.close()
    except Exception as problem:
        log.exception("collector failed", reason=str(problem))
        raise SystemExit(1) from None
    log.info("collector stopped")


if __name__ == "__main__":
    main()
