"""`viewmeter config show` and `viewmeter version`."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Final

import msgspec

from viewmeter import __version__
from viewmeter import config as settings
from viewmeter.cli import folder
from viewmeter.cli.access import Flag
from viewmeter.cli.output import result, table
from viewmeter.collector.decoder import decoder

LIBRARIES: Final = ("duckdb", "granian", "litestar", "numpy", "pyarrow", "datasketches")


def show(*, data: Path = folder.DEFAULT_DATA, config: Path | None = None, json: Flag = False) -> None:
    """Print every setting, its value (secrets masked) and where it came from.

    Parameters
    ----------
    data
        The data folder, whose `viewmeter.toml` is read where there is one.
    config
        Settings file (TOML), instead of that one.
    json
        Print JSON alone.
    """
    described = settings.describe(folder.settings(data, config))
    rows = [
        (f"{item['section']}.{item['name']}", msgspec.json.encode(item["value"]).decode(), item["origin"])
        for item in described
    ]
    result({"settings": described}, table(("SETTING", "VALUE", "FROM"), rows), json)


def version(*, json: Flag = False) -> None:
    """Print the version of Viewmeter and of what it stands on.

    Parameters
    ----------
    json
        Print JSON alone.
    """
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    used = decoder()[0]
    answer = {"version": __version__, "python": platform.python_version(), "decoder": used, "libraries": libraries}
    lines = [f"viewmeter {__version__}", f"python {platform.python_version()}", f"decoder {used}"]
    result(answer, "\n".join([*lines, *(f"{name} {text}" for name, text in libraries.items())]), json)
