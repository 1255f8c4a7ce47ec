"""Settings: one TOML file and the environment in, a `Config` and the origin of every value out.

A section is a room's own frozen dataclass; this page only lists them. Precedence: command line over environment
(`VIEWMETER_SECTION__NAME`) over file (`--config`, else `viewmeter.toml` in the data folder) over default. Promised: an
unknown name or a value of the wrong type stops the start with a sentence that names the nearest right thing. A room's
settings are imported when they are asked for, so that a collector does not load the store's libraries.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

ENV_PREFIX: Final = "VIEWMETER_"
FILE_NAME: Final = "viewmeter.toml"
MAX_FILE_BYTES: Final = 1 << 20

SECTIONS: Final[dict[str, str]] = {
    "server": "viewmeter.supervisor.settings:ServerSettings",
    "collector": "viewmeter.collector.settings:CollectorSettings",
    "gateway": "viewmeter.web.gateway:GatewaySettings",
    "stream": "viewmeter.stream.settings:StreamSettings",
    "store": "viewmeter.olap.embedded_settings:DuckDBSettings",
    "archive": "viewmeter.archive.settings:ArchiveSettings",
    "batch": "viewmeter.batch.settings:BatchSettings",
    "live": "viewmeter.live.embedded:MemoryLiveSettings",
    "query": "viewmeter.query.settings:QuerySettings",
    "web": "viewmeter.web.settings:WebSettings",
    "metadata": "viewmeter.metadata.settings:MetadataSettings",
    "smtp": "viewmeter.config:SmtpSettings",
    "alerts": "viewmeter.config:AlertSettings",
}
"""Section to the dataclass that defines it."""

_Settings = TypeVar("_Settings")


class ConfigError(Exception):
    """A setting that cannot be used; the text is one sentence that says what would be right."""


@dataclass(frozen=True)
class SmtpSettings:
    """Outgoing mail of alerts."""

    url: str = ""
    """`smtp://user:password@host:587` or `smtps://…:465`; empty = no mail."""


@dataclass(frozen=True)
class AlertSettings:
    """Evaluation and delivery of alerts."""

    allow_private_webhooks: bool = False
    """Also deliver to addresses that are not public, by http and to any port."""
    evaluate_every_s: float = 10.0
    """Pause between two evaluations of all rules."""


@dataclass(frozen=True)
class Config:
    """All settings: what was set, by section and name; the rest has its default."""

    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, kind: type[_Settings]) -> _Settings:
        """Return a room's settings. Raises `ConfigError` where its values do not fit together."""
        section = _SECTION_OF[kind.__name__]
        try:
            return kind(**self.values.get(section, {}))
        except ValueError as problem:  # a room's own check across its fields
            raise ConfigError(f"the settings of section [{section}] do not fit: {problem}") from None


_SECTION_OF: Final = {path.partition(":")[2]: section for section, path in SECTIONS.items()}

Origins = dict[tuple[str, str], str]
"""(section, name) of what was set to where that was: `file …`, `env …`, `command line`."""


@dataclass(frozen=True)
class Loaded:
    """The settings in force and where each that is no default came from."""

    config: Config
    origins: Origins


def load(file: Path | None, data: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Read the settings. `file` must exist; the data folder's own file is read where there is one."""
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    if file is None and data is not None and (data / FILE_NAME).is_file():
        file = data / FILE_NAME
    if file is not None:
        found |= {key: (value, f"file {file}") for key, value in _from_file(file).items()}
    found |= {key: (text, f"env {name}") for key, (name, text) in _from_environment(environ).items()}
    values: dict[str, dict[str, Any]] = {}
    for (section, name), (value, origin) in found.items():
        values.setdefault(section, {})[name] = _convert(section, name, value, origin)
    config = Config(values)
    for section in values:
        config.of(section_type(section))
    return Loaded(config, {key: origin for key, (_, origin) in found.items()})


def override(loaded: Loaded, section: str, origin: str, **changes: Any) -> Loaded:
    """Return the settings with others on top; None = not given."""
    given = {name: value for name, value in changes.items() if value is not None}
    values = {**loaded.config.values, section: {**loaded.config.values.get(section, {}), **given}}
    return Loaded(Config(values), {**loaded.origins, **{(section, name): origin for name in given}})


@functools.cache
def section_type(section: str) -> type[Any]:
    """Return the dataclass of a section."""
    module, _, name = SECTIONS[section].partition(":")
    kind: type[Any] = getattr(importlib.import_module(module), name)
    return kind


@functools.cache
def field_types(section: str) -> dict[str, Any]:
    """Return the type of each setting of a section."""
    kind = section_type(section)
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind) if item.init}


def _from_file(file: Path) -> dict[tuple[str, str], Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file} is larger than 1 MiB: that is not a settings file")
        parsed = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"cannot read the settings file {file}: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{file} is not valid TOML: {problem}") from None
    values: dict[tuple[str, str], Any] = {}
    for section, names in parsed.items():
        _known(section, SECTIONS, f"section [{section}] in {file}")
        if not isinstance(names, dict):
            raise ConfigError(f"`{section}` in {file} is a section: write [{section}] and settings below it")
        for name, value in names.items():
            _known(name, field_types(section), f"setting {section}.{name} in {file}")
            values[section, name] = value
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[tuple[str, str], tuple[str, str]]:
    values: dict[tuple[str, str], tuple[str, str]] = {}
    for variable, text in environ.items():
        section, separator, name = variable.removeprefix(ENV_PREFIX).lower().partition("__")
        if not variable.startswith(ENV_PREFIX) or not separator:
            continue
        _known(section, SECTIONS, f"section {section} of {variable}")
        _known(name, field_types(section), f"setting {section}.{name} of {variable}")
        values[section, name] = (variable, text)
    return values


def _known(name: str, names: Mapping[str, object], what: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(sorted(names))
    raise ConfigError(f"unknown {what}; {hint}")


def _convert(section: str, name: str, value: Any, origin: str) -> Any:
    kind = field_types(section)[name]
    from_text = origin.startswith("env ")
    if from_text and _is_sequence(kind):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, type=kind, strict=not from_text, dec_hook=_decode_path)
    except msgspec.ValidationError as problem:
        told = shown(name, value)
        raise ConfigError(f"{section}.{name} = {told!r} ({origin}) does not fit: {problem}") from None


def _is_sequence(kind: Any) -> bool:
    return any(typing.get_origin(part) in (tuple, list, frozenset, set) for part in (kind, *typing.get_args(kind)))


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"{kind!r} cannot be read from settings")


# -- handing the settings to a child process ------------------------------------------------------------------


def dump(config: Config) -> bytes:
    """Return the settings as JSON, for a child process; it may hold secrets."""
    return msgspec.json.encode(config.values, enc_hook=str)


def parse(text: bytes) -> Config:
    """Return the settings that `dump` wrote."""
    values: dict[str, dict[str, Any]] = msgspec.json.decode(text)
    for section, names in values.items():
        for name, value in names.items():
            names[name] = _convert(section, name, value, "supervisor")
    return Config(values)


# -- showing them ---------------------------------------------------------------------------------------------

_SECRET = re.compile(r"secret|password|token|api_key")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def shown(name: str, value: Any) -> Any:
    """Return a value as it may be printed: secrets and the user part of URLs masked."""
    if value and _SECRET.search(name) and not isinstance(value, int | float):
        return "***"
    if isinstance(value, str):
        return _USERINFO.sub("***", value)
    return msgspec.to_builtins(value, enc_hook=str)


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Return every setting: section, name, value (masked), origin, and the variable that sets it."""
    return [
        {
            "section": section,
            "name": name,
            "value": shown(name, getattr(settings, name)),
            "origin": loaded.origins.get((section, name), "default"),
            "env": f"{ENV_PREFIX}{section}__{name}".upper(),
        }
        for section in SECTIONS
        for settings in (loaded.config.of(section_type(section)),)
        for name in field_types(section)
    ]
