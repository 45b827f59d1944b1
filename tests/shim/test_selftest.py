"""The self-test: what each check refuses, and that nothing is left open."""

from __future__ import annotations

import os
from errno import EPERM
from pathlib import Path

import pytest

from controlplane_shim import selftest
from controlplane_shim.dataplane_client import DataPlaneError
from controlplane_shim.event_feed import Bell
from controlplane_shim.selftest import LIVENESS_DEVICE, DaemonConnector, NotReadyError, establish
from tests.descriptors import open_fds
from tests.shim.conftest import GONE, FakeCaller, FakeConnector, FakeDataPlane, FakeHandoff


@pytest.fixture
def connector(dataplane: FakeDataPlane, handoff: FakeHandoff, monkeypatch: pytest.MonkeyPatch) -> FakeConnector:
    monkeypatch.setattr(selftest, "TUN_PATH", os.devnull)
    return FakeConnector(dataplane, handoff)


def refusal(connector: FakeConnector, bell: Bell, caller: FakeCaller | None = None) -> NotReadyError:
    with pytest.raises(NotReadyError) as caught:
        establish(caller or FakeCaller(), connector, bell.ring)
    return caught.value


def test_all_checks_passed_leave_a_link_that_watches(connector: FakeConnector, bell: Bell) -> None:
    link = establish(FakeCaller(), connector, bell.ring)
    assert (link.dataplane, link.handoff) == (connector.dataplane, connector.handoff)
    assert connector.handoff_paths == ["/advertised"]
    assert list(connector.dataplane.watches) == [LIVENESS_DEVICE]
    link.close()
    assert connector.dataplane.closed
    assert connector.dataplane.watches[LIVENESS_DEVICE][0].cancelled


def test_descriptors_that_cannot_be_copied(connector: FakeConnector, bell: Bell) -> None:
    class Forbidding(FakeCaller):
        def fetch_fd(self, fd: int) -> int:
            raise PermissionError(EPERM, f"descriptor {fd} is not yours")

    error = refusal(connector, bell, Forbidding())
    assert error.check == "OpenVPN's descriptors can be copied"
    assert "CAP_SYS_PTRACE" in error.advice
    assert connector.dataplane.diary == []


def test_a_caller_that_is_gone(connector: FakeConnector, bell: Bell) -> None:
    caller = FakeCaller()
    caller.pid = 2**22 + 1
    assert refusal(connector, bell, caller).check == "OpenVPN's descriptors can be copied"


def test_no_tun_device(connector: FakeConnector, bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "TUN_PATH", "/nonexistent/tun")
    error = refusal(connector, bell)
    assert error.check == "/nonexistent/tun opens"
    assert connector.dataplane.diary == []


def test_no_daemon(connector: FakeConnector, bell: Bell) -> None:
    connector.dataplane.fail("server_info", GONE)
    error = refusal(connector, bell)
    assert error.check == "the data plane answers"
    assert "connection refused" in str(error)
    assert connector.dataplane.closed


def test_no_handoff_socket(connector: FakeConnector, bell: Bell) -> None:
    connector.handoff = None
    assert refusal(connector, bell).check == "the data plane takes descriptors"
    assert connector.dataplane.closed


def test_a_handoff_socket_that_refuses_us(connector: FakeConnector, handoff: FakeHandoff, bell: Bell) -> None:
    handoff.failures.append(DataPlaneError("FAILED_PRECONDITION", "PERMISSION_DENIED", "user id 5"))
    error = refusal(connector, bell)
    assert error.check == "the data plane takes descriptors"
    assert "user id 5" in error.reason
    assert handoff.closed


def test_events_that_do_not_come(
    connector: FakeConnector, handoff: FakeHandoff, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "ANSWER_SECONDS", 0.01)
    connector.dataplane.gives_bookmark = False
    assert refusal(connector, bell).check == "the data plane reports events"
    assert connector.dataplane.closed
    assert handoff.closed


def test_no_descriptor_is_left_open_by_a_refusal(connector: FakeConnector, bell: Bell) -> None:
    connector.handoff = None
    before = open_fds()
    refusal(connector, bell)
    assert open_fds() <= before


def test_the_configured_handoff_path_prevails_over_the_advertised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DaemonConnector("unix:/nonexistent", f"{tmp_path}/missing").open_handoff("/dev/null")
