"""The command line, and what the supervisor makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane_shim import __main__, app
from controlplane_shim.log import open_log
from controlplane_shim.supervisor import front


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The supervisor's and the program's command lines, in place of running them."""
    commands: list[list[str]] = []

    def run(supervisor: list[str], program: list[str]) -> int:
        commands.extend([supervisor, program])
        return 33

    monkeypatch.setattr(front, "run", run)
    monkeypatch.delenv("OVPN_SHIM_TARGET", raising=False)
    monkeypatch.delenv("OVPN_SHIM_HANDOFF", raising=False)
    monkeypatch.delenv("OVPN_SHIM_MSS", raising=False)
    monkeypatch.delenv("OVPN_SHIM_COPY_DSCP", raising=False)
    return commands


SUPERVISOR = [sys.executable, "-P", "-m", "controlplane_shim.supervisor"]


def test_program_stands_after_the_dashes_and_keeps_its_own(started: list[list[str]]) -> None:
    assert __main__.main(["run", "--", "openvpn", "--version", "--", "x"]) == 33
    assert started[1] == ["openvpn", "--version", "--", "x"]


def test_without_options_the_supervisor_gets_the_defaults(started: list[list[str]]) -> None:
    __main__.main(["run", "--", "true"])
    assert started[0] == [*SUPERVISOR, f"--target={__main__.DEFAULT_TARGET}", "--log-level=info"]


def test_options_are_handed_on(started: list[list[str]]) -> None:
    options = ["--target", "unix:///t", "--handoff", "/h", "--log-level", "debug", "--log-file", "/l"]
    __main__.main(["run", *options, "--", "true"])
    handed_on = ["--target=unix:///t", "--handoff=/h", "--log-level=debug", "--log-file=/l"]
    assert started[0] == [*SUPERVISOR, *handed_on]


def test_environment_stands_in_for_options(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVPN_SHIM_TARGET", "unix:///from-environment")
    monkeypatch.setenv("OVPN_SHIM_HANDOFF", "/from-environment")
    __main__.main(["run", "--handoff", "/given", "--", "true"])
    assert started[0][4:6] == ["--target=unix:///from-environment", "--handoff=/given"]


def test_mss_is_handed_on_from_option_or_environment(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVPN_SHIM_MSS", "1300")
    __main__.main(["run", "--", "true"])
    assert started[0][-1] == "--mss=1300"
    __main__.main(["run", "--mss", "0", "--", "true"])
    assert started[2][-1] == "--log-level=info"
    monkeypatch.setenv("OVPN_SHIM_MSS", "")
    __main__.main(["run", "--", "true"])
    assert started[4][-1] == "--log-level=info"


@pytest.mark.parametrize(
    ("environment", "options", "copies"),
    [
        ("", [], False),
        ("0", [], False),
        ("1", [], True),
        ("", ["--copy-dscp"], True),
        ("0", ["--copy-dscp=1"], True),
        ("1", ["--copy-dscp=0"], False),
    ],
)
def test_copy_dscp_is_handed_on_from_option_or_environment(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, environment: str, options: list[str], *, copies: bool
) -> None:
    monkeypatch.setenv("OVPN_SHIM_COPY_DSCP", environment)
    __main__.main(["run", *options, "--", "true"])
    assert ("--copy-dscp=1" in started[0]) is copies


@pytest.mark.parametrize("variable", ["MSS", "COPY_DSCP"])
def test_wrong_environment_is_wrong_usage(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv(f"OVPN_SHIM_{variable}", "big")
    with pytest.raises(SystemExit) as exited:
        __main__.main(["run", "--", "true"])
    assert (exited.value.code, started) == (64, [])
    assert f"argument --{variable.lower().replace('_', '-')}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["run", "--"],
        ["run", "openvpn"],
        ["run", "--log-level", "loud", "--", "true"],
        ["run", "--copy-dscp=2", "--", "true"],
        ["run", "--mss", "107", "--", "true"],
        ["run", "--mss", "65496", "--", "true"],
        ["walk", "--", "true"],
    ],
)
@pytest.mark.usefixtures("started")
def test_wrong_usage_is_ex_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        __main__.main(arguments)
    assert exited.value.code == 64
    assert "ovpn-shim: " in capsys.readouterr().err


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        __main__.main(["--version"])
    assert not exited.value.code
    assert capsys.readouterr().out.startswith("ovpn-shim ")


def test_help_tells_the_environment_variables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["run", "--help"])
    out = capsys.readouterr().out
    assert "OVPN_SHIM_TARGET" in out
    assert "OVPN_SHIM_HANDOFF" in out


@pytest.mark.root
def test_log_file_that_cannot_be_opened_is_ex_config() -> None:
    command = [
        sys.executable,
        "-m",
        "controlplane_shim",
        "run",
        "--log-file",
        "/no/such/folder/log",
        "--",
        "echo",
        "ran",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (app.EXIT_CONFIGURATION, "")
    assert "/no/such/folder/log" in done.stderr


@pytest.mark.root
def test_openvpn_runs_with_the_session_of_the_data_plane() -> None:
    """There is none to reach, and none is needed as long as OpenVPN does not ask."""
    command = [sys.executable, "-m", "controlplane_shim", "run", "--", "/usr/sbin/openvpn", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("OpenVPN 2.")
    assert done.stderr == ""


class TestLog:
    def test_event_is_one_line_with_the_prefix(self, tmp_path: Path) -> None:
        open_log("info", tmp_path / "log").warning("something\nhappened", reason="two\nlines", count=2)
        (line,) = (tmp_path / "log").read_text().splitlines()
        assert line.startswith("ovpn-shim: time=")
        assert line.endswith(r"level=warning event=something\nhappened reason=two\nlines count=2")

    def test_level_is_heeded(self, tmp_path: Path) -> None:
        log = open_log("warning", tmp_path / "log")
        log.info("not this")
        log.error("this")
        assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()] == ["event=this"]

    def test_file_is_appended_to(self, tmp_path: Path) -> None:
        open_log("info", tmp_path / "log").info("one")
        open_log("info", tmp_path / "log").info("two")
        assert len((tmp_path / "log").read_text().splitlines()) == 2

    def test_exception_is_told_by_kind_and_place_and_not_by_its_text(self, tmp_path: Path) -> None:
        try:
            bytes.fromhex("secret")
        except ValueError:
            open_log("info", tmp_path / "log").exception("failed")
        line = (tmp_path / "log").read_text()
        assert 'exception="ValueError test_main.py:' in line
        assert "fromhex" not in line

    @pytest.mark.parametrize("name", ["encrypt_key", "decrypt_key", "cipher_key", "nonce_tail"])
    def test_key_bytes_are_not_written(self, tmp_path: Path, name: str) -> None:
        open_log("info", tmp_path / "log").info("key", **{name: b"hunter2"})
        assert "hunter2" not in (tmp_path / "log").read_text()

    def test_log_that_cannot_be_written_is_no_error(self) -> None:
        log = open_log("info", Path("/dev/full"))
        log.info("lost")
