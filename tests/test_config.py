"""Settings: flags over environment over defaults, and what is refused."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from dataplane.config import Config, read_config
from dataplane.datapath import DatapathChoice
from dataplane.observability.log import LogFormat, LogLevel

RUN = Path("/run/ovpn-dataplane")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, **environment: str) -> str:
    """The message of settings that are refused with exit code 2."""
    with pytest.raises(SystemExit) as raised:
        read_config(arguments, environment)
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_there_is_a_default_for_everything() -> None:
    assert read_config([], {}) == Config(
        run_dir=RUN,
        control_path=RUN / "control.sock",
        handoff_path=RUN / "handoff.sock",
        log_level=LogLevel.INFO,
        log_format=LogFormat.AUTO,
        datapath=DatapathChoice.AUTO,
    )


def test_the_sockets_follow_the_run_directory() -> None:
    config = read_config(["--run-dir", "/r"], {})
    assert (config.control_path, config.handoff_path) == (Path("/r/control.sock"), Path("/r/handoff.sock"))


def test_every_setting_has_a_flag() -> None:
    paths = ["--run-dir=/r", "--listen=unix:/l", "--handoff=/h"]
    assert read_config([*paths, "--log-level=debug", "--log-format=json", "--datapath=python"], {}) == Config(
        Path("/r"), Path("/l"), Path("/h"), LogLevel.DEBUG, LogFormat.JSON, DatapathChoice.PYTHON
    )


def test_every_setting_has_a_variable() -> None:
    environment = {
        "OVPN_DATAPLANE_RUN_DIR": "/r",
        "OVPN_DATAPLANE_LISTEN": "unix:///l",
        "OVPN_DATAPLANE_HANDOFF": "/h",
        "OVPN_DATAPLANE_LOG_LEVEL": "error",
        "OVPN_DATAPLANE_LOG_FORMAT": "console",
        "OVPN_DATAPLANE_DATAPATH": "compiled",
    }
    assert read_config([], environment) == Config(
        Path("/r"), Path("/l"), Path("/h"), LogLevel.ERROR, LogFormat.CONSOLE, DatapathChoice.COMPILED
    )


def test_a_flag_wins_over_the_environment() -> None:
    assert read_config(["--run-dir", "/flag"], {"OVPN_DATAPLANE_RUN_DIR": "/variable"}).run_dir == Path("/flag")


def test_an_empty_variable_counts_as_none() -> None:
    assert read_config([], {"OVPN_DATAPLANE_RUN_DIR": ""}).run_dir == RUN


def test_a_relative_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    assert read_config(["--listen", "unix:x/s"], {}).control_path == Path("/tmp/x/s")


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/run/s",
        "unix:",
        "unix://host/s",
        "unix://s",
        "tcp://127.0.0.1:1",
        "127.0.0.1:1",
        "unix-abstract:s",
        "dns:x",
    ],
)
def test_only_unix_sockets_are_served(capsys: pytest.CaptureFixture[str], target: str) -> None:
    message = refusal(capsys, "--listen", target)
    assert "--listen: must be unix:PATH or unix:///PATH" in message
    assert repr(target) in message


@pytest.mark.parametrize("length", [107, 108])
def test_a_socket_path_has_107_bytes_at_most(capsys: pytest.CaptureFixture[str], length: int) -> None:
    path = "/" + "é" * ((length - 1) // 2) + "x" * ((length - 1) % 2)
    if length == 107:
        assert read_config(["--handoff", path], {}).handoff_path == Path(path)
    else:
        assert "--handoff: must be a path of 1..107 bytes" in refusal(capsys, "--handoff", path)


def test_a_run_directory_that_is_too_long_for_its_sockets_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--run-dir", "/" + "r" * 100)
    assert "--listen (default unix:/rrr" in message
    assert "a shorter --run-dir" in message


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--log-level", "loud"], {}, "--log-level: must be one of debug, info, warning, error; is 'loud'"),
        ([], {"OVPN_DATAPLANE_LOG_LEVEL": "loud"}, "OVPN_DATAPLANE_LOG_LEVEL: must be one of debug"),
        (["--log-format", "xml"], {}, "--log-format: must be one of json, console, auto; is 'xml'"),
        (["--datapath", "c"], {}, "--datapath: must be one of auto, compiled, python; is 'c'"),
        ([], {"OVPN_DATAPLANE_LISTEN": "tcp:1"}, "OVPN_DATAPLANE_LISTEN: must be unix:PATH"),
        (["--run-dir", ""], {}, "--run-dir: must be a path; is empty"),
        (["--handoff", ""], {}, "--handoff: must be a path; is empty"),
        (["--listen", "unix:/s", "--handoff", "/s"], {}, "--handoff: must differ from --listen; both are /s"),
        (["--wrong"], {}, "unrecognized arguments: --wrong"),
        (["--log", "debug"], {}, "unrecognized arguments: --log"),
        (["--log-level"], {}, "argument --log-level: expected one argument"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(
    capsys: pytest.CaptureFixture[str], arguments: list[str], environment: dict[str, str], message: str
) -> None:
    assert message in refusal(capsys, *arguments, **environment)


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit) as raised:
        read_config([flag], {})
    assert raised.value.code == 0
    expected = "OVPN_DATAPLANE_RUN_DIR" if flag == "--help" else f"ovpn-dataplane {version('ovpn-dataplane')}"
    assert expected in capsys.readouterr().out
