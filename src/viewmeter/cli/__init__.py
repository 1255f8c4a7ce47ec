"""The command line: arguments in, an exit code out. Each command is a function of one of this room's modules.

Promised: with `--json` stdout is that JSON alone; an error is one sentence on stderr that says what to do, and a code
that is not 0. Commands are imported when they are called, so that `viewmeter version` does not load a database.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from viewmeter import __version__
from viewmeter.cli.output import CommandError, complain

__all__ = ["app", "main"]

USAGE_EXIT = 2

app = App(
    name="viewmeter", help="Streaming analytics for video: live within seconds, right for years.", version=__version__
)

app.command("viewmeter.cli.up:up")
app.command("viewmeter.cli.demo:demo")
app.command("viewmeter.cli.access:init")
keys = App(name="keys", help="Make, list and revoke keys; they work at once, also while `up` runs.")
keys.command("viewmeter.cli.access:create")
keys.command("viewmeter.cli.access:list_keys", name="list")
keys.command("viewmeter.cli.access:revoke")
app.command(keys)
app.command("viewmeter.cli.access:signin")
app.command("viewmeter.cli.load:simulate")
app.command("viewmeter.cli.load:replay")
app.command("viewmeter.cli.bench:bench")
app.command("viewmeter.cli.doctor:doctor")
settings = App(name="config", help="Look at the settings.")
settings.command("viewmeter.cli.settings:show")
app.command(settings)
app.command("viewmeter.cli.settings:version")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    from viewmeter.config import ConfigError

    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as problem:
        complain(f"{str(problem).strip()} `viewmeter --help` lists what there is.")
        return USAGE_EXIT
    except (CommandError, ConfigError) as problem:
        complain(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `viewmeter … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
