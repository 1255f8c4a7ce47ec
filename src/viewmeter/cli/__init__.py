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

keys = App(name="keys", help="Make, list and revoke keys; they work at once, also while `up` runs.")
privacy = App(name="privacy", help="What viewers may ask for.")
tenants = App(name="tenants", help="List tenants, and set the zone whose days each reports by.")
settings = App(name="config", help="Look at the settings.")

# What the help of the whole says about each; the help of a command itself is the docstring of its function.
for where, name, path, says in (
    (app, "up", "up:up", "Run the whole product on this machine."),
    (app, "demo", "demo:demo", "Run it on a throw-away folder, with a past and with live simulated viewers."),
    (app, "init", "access:init", "Prepare a data folder without starting; print its two keys, once."),
    (keys, "create", "access:create", "Make one more key, of a tenant that is made if missing."),
    (keys, "list", "access:list_keys", "List keys, revoked ones too."),
    (keys, "revoke", "access:revoke", "End a key for ever."),
    (tenants, "list", "tenants:list_tenants", "List tenants and the zone that each reports in."),
    (tenants, "set", "tenants:set_tenant", "Change in which time zone a tenant reports."),
    (app, "signin", "access:signin", "Print a new one-time link to the dashboard."),
    (app, "simulate", "load:simulate", "Send synthetic viewers whose truth is known beforehand."),
    (app, "replay", "load:replay", "Post recorded beacons again."),
    (app, "import", "raw:import_", "Import raw events of any age, from Parquet or JSON lines."),
    (app, "export", "raw:export", "Write raw events to a file."),
    (app, "backup", "backup:backup", "Copy a data folder, while the product runs or not."),
    (app, "restore", "backup:restore", "Make a data folder from a backup."),
    (app, "verify", "verify:verify", "Compute every closed hour anew from raw events; list every difference."),
    (privacy, "erase", "privacy:erase", "Erase a viewer from everything."),
    (app, "bench", "bench:bench", "Run the project's own benchmarks."),
    (app, "doctor", "doctor:doctor", "Check this machine and a data folder."),
    (settings, "show", "settings:show", "Print every setting and where it came from."),
    (app, "version", "settings:version", "Print the version of Viewmeter and of what it stands on."),
):
    where.command(f"viewmeter.cli.{path}", name=name, help=says)
app.command(keys)
app.command(tenants)
app.command(privacy)
app.command(settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; return the exit code."""
    import structlog

    from viewmeter.config import ConfigError

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is the command's answer
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
