"""The reference pages name what there is, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

from dataplane.engine import errors
from dataplane.vocabulary import DropReason

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [*ROOT.glob("dataplane/api/*.py"), *ROOT.glob("dataplane/engine/*.py"), ROOT / "dataplane/daemon.py"]


def page(name: str) -> str:
    return (ROOT / "docs/reference" / name).read_text()


def found_in_sources(pattern: str) -> set[tuple[str, ...]]:
    return {match.groups() for source in SOURCES for match in re.finditer(pattern, source.read_text())}


def test_every_reason_is_on_its_page_with_its_code() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", page("errors.md"), re.MULTILINE))
    refused_by_engine = found_in_sources(r'EngineError\(\s*ErrorKind\.([A-Z_]+),\s*"([A-Z_]+)"')
    refused_by_api = found_in_sources(r'code_pb2\.([A-Z_]+),\s*"([A-Z_]+)"')
    refused_by_worker = {(kind.name, reason) for reason, kind in errors._KIND_OF_WORKER_ERROR.items()}
    assert listed == {(reason, code) for code, reason in refused_by_engine | refused_by_api | refused_by_worker}


def test_every_error_of_the_handoff_socket_is_on_its_page() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)` \| [^|]+ \|$", page("errors.md"), re.MULTILINE))
    assert listed == {reason for (reason,) in found_in_sources(r'HandoffRefused\(\s*"([A-Z_]+)"')}


def test_every_drop_reason_is_on_its_page_in_order() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", page("drop-reasons.md"), re.MULTILINE)
    assert listed == [reason.name.lower() for reason in DropReason]


def test_every_event_of_the_log_is_on_its_page_with_its_level() -> None:
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \| (\w+) \|", page("daemon.md"), re.MULTILINE)
    listed = {(level, event) for events, level in rows for event in re.findall(r"[a-z_]+", events)}
    logged = found_in_sources(r'\.(debug|info|warning|error|exception)\(\s*"([a-z_]+)"')
    assert listed == {("error" if level == "exception" else level, event) for level, event in logged}


def test_every_setting_is_on_its_page() -> None:
    listed = set(
        re.findall(r"^\| `--([a-z-]+) [^`]+` \| `(OVPN_DATAPLANE_[A-Z_]+)` \|", page("daemon.md"), re.MULTILINE)
    )
    settings = re.findall(r'add\("([a-z-]+)"', (ROOT / "dataplane/config.py").read_text())
    assert listed == {(name, f"OVPN_DATAPLANE_{name.upper().replace('-', '_')}") for name in settings}
