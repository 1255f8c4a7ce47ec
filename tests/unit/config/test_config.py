"""Settings: where they come from, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from viewmeter import config
from viewmeter.collector.settings import CollectorSettings
from viewmeter.config import AlertSettings, ConfigError, SmtpSettings
from viewmeter.supervisor.settings import ServerSettings


def load(text: str = "", environ: dict[str, str] | None = None, *, folder: Path) -> config.Loaded:
    file = folder / "settings.toml"
    file.write_text(text)
    return config.load(file, None, environ or {})


def test_without_file_and_environment_every_setting_has_its_default() -> None:
    loaded = config.load(None, None, {})
    assert loaded.config.of(ServerSettings) == ServerSettings()
    assert {item["origin"] for item in config.describe(loaded)} == {"default"}


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    loaded = load("[server]\nport = 1\nworkers = 3", {"VIEWMETER_SERVER__PORT": "2"}, folder=tmp_path)
    assert loaded.config.of(ServerSettings).port == 2
    loaded = config.override(loaded, "server", "command line", port=4, host=None)
    assert loaded.config.of(ServerSettings) == ServerSettings(port=4, workers=3)
    origins = {item["name"]: item["origin"] for item in config.describe(loaded) if item["section"] == "server"}
    assert origins["port"] == "command line"
    assert origins["workers"].startswith("file ")
    assert origins["host"] == "default"


def test_the_data_folders_own_file_is_read_where_no_other_is_given(tmp_path: Path) -> None:
    (tmp_path / config.FILE_NAME).write_text("[server]\nport = 99")
    assert config.load(None, tmp_path, {}).config.of(ServerSettings).port == 99


@pytest.mark.parametrize(
    ("variable", "text", "kind", "name", "value"),
    [
        ("VIEWMETER_ALERTS__ALLOW_PRIVATE_WEBHOOKS", "true", AlertSettings, "allow_private_webhooks", True),
        ("VIEWMETER_ALERTS__ALLOW_PRIVATE_WEBHOOKS", "1", AlertSettings, "allow_private_webhooks", True),
        ("VIEWMETER_ALERTS__EVALUATE_EVERY_S", "0.5", AlertSettings, "evaluate_every_s", 0.5),
        ("VIEWMETER_SMTP__URL", "smtp://mail:25", SmtpSettings, "url", "smtp://mail:25"),
        (
            *("VIEWMETER_COLLECTOR__TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1/32", CollectorSettings),
            *("trusted_proxies", ("10.0.0.0/8", "127.0.0.1/32")),
        ),
        (
            "VIEWMETER_COLLECTOR__CITY_DATABASE",
            "/geo/city.mmdb",
            CollectorSettings,
            "city_database",
            Path("/geo/city.mmdb"),
        ),
    ],
)
def test_a_variable_is_read_as_the_type_of_its_setting(
    variable: str, text: str, kind: type, name: str, value: object
) -> None:
    loaded = config.load(None, None, {variable: text})
    assert getattr(loaded.config.of(kind), name) == value
    travelled = config.parse(config.dump(loaded.config))
    assert getattr(travelled.of(kind), name) == value


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("[colector]\nx = 1", {}, "did you mean `collector`?"),
        ("[server]\nprot = 1", {}, "did you mean `port`?"),
        ("[server]\nport = 'high'", {}, "server.port = 'high'"),
        ("server = 3", {}, "write [server]"),
        ("[server", {}, "not valid TOML"),
        ("", {"VIEWMETER_SERVER__PROT": "1"}, "did you mean `port`?"),
        ("", {"VIEWMETER_WEBB__X": "1"}, "did you mean `web`?"),
        ("", {"VIEWMETER_SERVER__PORT": "high"}, "env VIEWMETER_SERVER__PORT"),
        ("[web]\nstream_every_s = 9.0", {}, "section [web] do not fit: stream_every_s is 9"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(
    text: str, environ: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as told:
        load(text, environ, folder=tmp_path)
    assert said in str(told.value)
    assert "\n" not in str(told.value).strip()


def test_a_file_that_is_missing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the settings file"):
        config.load(tmp_path / "none.toml", None, {})


def test_other_variables_of_the_same_prefix_are_nobodys_business() -> None:
    config.load(None, None, {"VIEWMETER_DATA": "/x", "PATH": "/bin"})


def test_passwords_are_never_shown() -> None:
    loaded = config.load(None, None, {"VIEWMETER_SMTP__URL": "smtp://me:hush@mail:25"})
    shown = {(item["section"], item["name"]): item["value"] for item in config.describe(loaded)}
    assert shown["smtp", "url"] == "smtp://***@mail:25"
    assert "hush" not in repr(shown)
