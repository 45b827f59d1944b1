from __future__ import annotations

import platform

import pytest

from controlplane_shim.supervisor import architecture
from controlplane_shim.supervisor.architecture import Architecture


def test_current_is_the_entry_of_this_machine() -> None:
    assert (
        architecture.current() is {"x86_64": architecture.X86_64, "aarch64": architecture.AARCH64}[platform.machine()]
    )


def test_machine_without_an_entry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(OSError, match="pdp11"):
        architecture.current()


@pytest.mark.parametrize("entry", [architecture.X86_64, architecture.AARCH64])
def test_notified_calls_have_different_numbers(entry: Architecture) -> None:
    numbers = [entry.socket, entry.setsockopt, entry.sendto, entry.sendmsg, entry.sendmmsg, entry.write, entry.writev]
    assert len(set(numbers)) == len(numbers)
