"""A collector worker process: beacons in, one log partition out, and the gateway to the engine."""

from __future__ import annotations

import structlog

from viewmeter import config, wiring
from viewmeter.supervisor import assignment, logs


def main() -> None:
    """Run until SIGTERM."""
    mine = assignment.receive()
    logs.configure(mine.server, f"collector-{mine.partition}")
    worker = wiring.embedded_worker(config.parse(bytes(mine.config)), mine.data, mine.partition, mine.socket)
    try:
        worker.serve(mine.host, mine.port)
    finally:
        worker.close()
    structlog.get_logger(__name__).info("collector stopped")


if __name__ == "__main__":
    main()
