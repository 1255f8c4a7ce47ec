"""The running product for end-to-end tests: a real `viewmeter up` in a folder and on a port of its own.

In: nothing. Out: the session-wide `product` (shared: use channel ids of your own) and `start_product` for a
test that wants to break its own one. Promised: every process that was started here is gone afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from collecting import shared_server, start_server  # noqa: F401 - fixtures
from running import Product, StartProduct, spawn, viewmeter


@pytest.fixture(scope="session")
def _products(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProduct]:
    started: list[Product] = []

    def start(
        *options: str,
        env: Mapping[str, str] | None = None,
        data: Path | None = None,
        ready: bool = True,
        init: bool = True,
    ) -> Product:
        folder = data or tmp_path_factory.mktemp("product") / "data"
        keys = {"ingest_key": "", "secret_key": ""}
        if init:
            prepared = viewmeter("init", "--data", folder, "--tenant", "Acme", "--json")
            assert prepared.returncode == 0, prepared.stderr
            keys = json.loads(prepared.stdout)
        product = Product(
            data=folder,
            ingest_key=keys["ingest_key"],
            secret_key=keys["secret_key"],
            process=spawn(folder, options, env or {}),
            env=dict(env or {}),
            options=options,
        )
        started.append(product)
        if ready:
            product.wait_ready()
        return product

    yield start
    for product in started:
        product.stop(timeout_s=15)


@pytest.fixture(scope="session")
def product(_products: StartProduct) -> Product:
    """One running product for all tests of a session (with xdist: of a test process)."""
    return _products("--workers", "2")


@pytest.fixture
def start_product(_products: StartProduct) -> Iterator[StartProduct]:
    """Return a starter of products that belong to one test alone and end with it."""
    mine: list[Product] = []

    def start(*options: str, **settings: object) -> Product:
        made = _products(*options, **settings)
        mine.append(made)
        return made

    yield start
    for made in mine:
        made.stop(timeout_s=15)
