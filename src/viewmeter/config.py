"""Settings: one TOML file and the environment in, one frozen `Config` and the origin of every value out.

A section is a room's own frozen dataclass; this page only composes them. Precedence: environment
(`VIEWMETER_SECTION__NAME`) over file (`--config`, else `viewmeter.toml` in the data folder) over default. Promised: an
unknown name or a value of the wrong type stops the start with a sentence that names the nearest right thing.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from viewmeter.collector.settings import CollectorSettings
from viewmeter.metadata.store import MetadataSettings
from viewmeter.olap.settings import StoreSettings
from viewmeter.query.settings import QuerySettings
from viewmeter.stream.settings import StreamSettings
from viewmeter.supervisor.settings import ServerSettings
from viewmeter.web.settings import WebSettings

ENV_PREFIX: Final = "VIEWMETER_"
FILE_NAME: Final = "viewmeter.toml"
MAX_FILE_BYTES: Final = 1 << 20


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
    """All settings of the product."""

    server: ServerSettings = field(default_factory=ServerSettings)
    collector: CollectorSettings = field(default_factory=CollectorSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    query: QuerySettings = field(default_factory=QuerySettings)
    web: WebSettings = field(default_factory=WebSettings)
    metadata: MetadataSettings = field(default_factory=MetadataSettings)
    smtp: SmtpSettings = field(default_factory=SmtpSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)


Origins = dict[tuple[str, str], str]
"""(section, name) to where the value came from: `default`, `file …` or `env …`."""


@dataclass(frozen=True)
class Loaded:
    """The settings in force and where each came from."""

    config: Config
    origins: Origins


def load(file: Path | None, data: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Read the settings. `file` must exist; the data folder's own file is read where there is one."""
    values: dict[tuple[str, str], Any] = {}
    origins: Origins = {}
    if file is None and data is not None and (data / FILE_NAME).is_file():
        file = data / FILE_NAME
    if file is not None:
        for key, value in _from_file(file).items():
            values[key], origins[key] = value, f"file {file}"
    for key, (name, text) in _from_environment(environ).items():
        values[key], origins[key] = text, f"env {name}"
    converted: dict[str, dict[str, Any]] = {}
    for (section, name), value in values.items():
        kind = field_types(section)[name]
        converted.setdefault(section, {})[name] = _convert(value, kind, f"{section}.{name}", origins[section, name])
    sections: dict[str, Any] = {}
    for section, kind in section_types().items():
        try:
            sections[section] = kind(**converted.get(section, {}))
        except ValueError as problem:  # a room's own check across its fields
            raise ConfigError(f"settings of section [{section}] do not fit: {problem}") from None
        for name in field_types(section):
            origins.setdefault((section, name), "default")
    return Loaded(Config(**sections), origins)


def override(loaded: Loaded, section: str, origin: str, **changes: Any) -> Loaded:
    """Return the settings with options of the command line on top; None = not given."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return loaded
    changed = dataclasses.replace(getattr(loaded.config, section), **given)
    config = dataclasses.replace(loaded.config, **{section: changed})
    return Loaded(config, {**loaded.origins, **{(section, name): origin for name in given}})


@functools.cache
def section_types() -> dict[str, type[Any]]:
    """Return each section's dataclass."""
    return typing.get_type_hints(Config)


@functools.cache
def field_types(section: str) -> dict[str, Any]:
    """Return the type of each setting of a section."""
    kind = section_types()[section]
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
        _known(section, section_types(), f"section [{section}] in {file}")
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
        _known(section, section_types(), f"section {section.upper()} of {variable}")
        _known(name, field_types(section), f"setting {section}.{name} of {variable}")
        values[section, name] = (variable, text)
    return values


def _known(name: str, names: Mapping[str, object], what: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else "there are: " + ", ".join(sorted(names))
    raise ConfigError(f"unknown {what}; {hint}")


def _convert(value: Any, kind: Any, name: str, origin: str) -> Any:
    from_text = origin.startswith("env ")
    if from_text and isinstance(value, str) and _is_sequence(kind):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return msgspec.convert(value, type=kind, strict=not from_text, dec_hook=decode_path)
    except msgspec.ValidationError as problem:
        shown = "***" if is_secret(name) else repr(value)
        raise ConfigError(f"{name} = {shown} ({origin}) does not fit: {problem}") from None


def _is_sequence(kind: Any) -> bool:
    return any(typing.get_origin(part) in (tuple, list, frozenset, set) for part in (kind, *typing.get_args(kind)))


def decode_path(kind: type, value: Any) -> Any:
    """Read a path where msgspec has no type for it."""
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"{kind!r} cannot be read from settings")


# -- handing the settings to a child process ------------------------------------------------------------------


def dump(config: Config) -> bytes:
    """Return the settings as JSON, for a child process; it may hold secrets."""
    return msgspec.json.encode(config, enc_hook=str)


def parse(text: bytes) -> Config:
    """Return the settings that `dump` wrote."""
    return msgspec.json.decode(text, type=Config, dec_hook=decode_path)


# -- showing them ---------------------------------------------------------------------------------------------

_SECRET = re.compile(r"secret|password|token|api_key")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def is_secret(name: str) -> bool:
    """Tell whether a setting's value is never shown."""
    return bool(_SECRET.search(name))


def shown(name: str, value: Any) -> Any:
    """Return a value as it may be printed: secrets and the user part of URLs masked."""
    if is_secret(name) and value:
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
            "value": shown(name, getattr(getattr(loaded.config, section), name)),
            "origin": loaded.origins[section, name],
            "env": f"{ENV_PREFIX}{section}__{name}".upper(),
        }
        for section in section_types()
        for name in field_types(section)
    ]
