"""Builds the compiled decoder (`viewmeter.collector._compiled`) where there is a C compiler, and goes on where not.

In: `src/viewmeter/collector/compiled/*.c`. Out: one shared library beside the package's Python, for an editable install
in `src`, for a wheel inside of it (whose tag then names the platform). Without a compiler the product is complete, and
decodes with msgspec; `viewmeter doctor` says which it is. `VIEWMETER_BUILD=python` leaves the library out on purpose,
`VIEWMETER_BUILD=compiled` makes a failure an error, for those who build wheels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("src/viewmeter/collector")
MODULE = "viewmeter.collector._compiled"


class CompiledDecoder(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles, or says why not."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Build the library before the files of the wheel are collected."""
        wanted = os.environ.get("VIEWMETER_BUILD", "")
        for old in (Path(self.root) / PACKAGE).glob("_compiled.*"):
            if old.suffix in (".so", ".pyd"):
                old.unlink()
        if wanted == "python":
            return
        try:
            library = self._compile()
        except Exception as error:
            if wanted == "compiled":
                raise
            self.app.display_warning(
                f"the compiled decoder was not built ({error}): viewmeter works without it, and decodes beacons in "
                "Python. With a C compiler and Python's headers (Debian: gcc, python3-dev), install it again"
            )
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append(f"/{PACKAGE}/{library.name}")

    def _compile(self) -> Path:
        from setuptools import Distribution, Extension
        from setuptools.command.build_ext import build_ext

        gcc = ["-O3", "-std=c11", "-fvisibility=hidden", "-fstack-protector-strong", "-g0"]
        flags = ["/O2"] if sys.platform == "win32" else gcc
        sources = sorted(str(path) for path in Path(self.root, PACKAGE, "compiled").glob("*.c"))
        distribution = Distribution(
            {"name": "viewmeter", "ext_modules": [Extension(MODULE, sources, extra_compile_args=flags)]}
        )
        command = build_ext(distribution)
        command.build_lib = str(Path(self.root, "build", "lib"))
        command.build_temp = str(Path(self.root, "build", "temp"))
        command.ensure_finalized()
        command.run()
        built = Path(command.get_ext_fullpath(MODULE))
        library = Path(self.root, PACKAGE, built.name)
        built.replace(library)
        return library
