"""Where wireguard-go cannot be had, or only one without offloads, that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.wireguard_package import PackageUnavailable, fetch


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageUnavailable, match=r"apt could not fetch it: .*apt-get"):
        fetch(tmp_path / "there")


@pytest.mark.parametrize(("version", "accepted"), [("0.0.20260522-1", True), ("0.0.20220316-1+b4", False)])
def test_only_a_version_with_offloads_is_taken(tmp_path: Path, version: str, accepted: bool) -> None:
    program = tmp_path / "usr/bin/wireguard-go"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / f"wireguard-go_{version}_amd64.deb").touch()
    if accepted:
        assert fetch(tmp_path) == program
    else:
        with pytest.raises(PackageUnavailable, match="older"):
            fetch(tmp_path)
