"""Fixtures of the end-to-end tests: an authority, laboratories and a daemon; and the proof that nothing is left.

Every test runs twice, on the compiled and on the readable datapath, unless it is marked one_datapath; with
OVPN_DATAPLANE_DATAPATH set, on that one only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from lab.dataplane import DataPlane
from lab.lab import Lab, OpenLab
from lab.leftovers import left_behind
from lab.netns import ip
from lab.pki import Authority
from lab.waiting import wait_until

DATAPATH: Final = "OVPN_DATAPLANE_DATAPATH"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what would only be said twice."""
    if DATAPATH in os.environ:
        return
    repeated = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.get_closest_marker("one_datapath")
        and item.callspec.params["datapath"] == "python"
    ]
    config.hook.pytest_deselected(items=repeated)
    items[:] = [item for item in items if item not in repeated]


@pytest.fixture(
    scope="session", autouse=True, params=[os.environ[DATAPATH]] if DATAPATH in os.environ else ["compiled", "python"]
)
def datapath(request: pytest.FixtureRequest) -> Iterator[str]:
    """The datapath of every daemon that is started, whoever starts it: it is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATAPATH, request.param)
        yield request.param


@pytest.fixture(scope="session")
def used_labs() -> Iterator[list[str]]:
    """Names of the labs of this session. At its end nothing that they made may be on the machine any more."""
    names: list[str] = []
    before = _links()
    yield names
    assert {name: left for name in names if (left := left_behind(name))} == {}
    assert _links() - before == set()


def _links() -> set[str]:
    """Devices of the kinds that a lab makes, in the namespace of the tests, where none of them belongs."""
    names = (line.split()[0] for line in ip("-brief", "link").splitlines())
    return {name for name in names if name.startswith(("tun", "to-"))}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def open_lab(tmp_path_factory: pytest.TempPathFactory, used_labs: list[str], datapath: str) -> OpenLab:
    """Opens a lab in which every process must have ended once those that were started by it have been stopped.

    It, and so every lab and what is in it, goes with its datapath.
    """
    del datapath

    @contextmanager
    def opened() -> Iterator[Lab]:
        with Lab(tmp_path_factory.mktemp("lab")) as lab:
            used_labs.append(lab.name)
            yield lab
        assert lab.strays == []

    return opened


@pytest.fixture
def lab(open_lab: OpenLab) -> Iterator[Lab]:
    with open_lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def shared_data_plane(open_lab: OpenLab, datapath: str) -> Iterator[DataPlane]:
    with open_lab() as lab:
        data_plane = DataPlane(lab)
        assert data_plane.datapath() == datapath
        yield data_plane


@pytest.fixture
def data_plane(lab: Lab, shared_data_plane: DataPlane) -> Iterator[DataPlane]:
    """A daemon for tests that do it no harm. When the test's processes have been stopped it must be empty again."""
    assert shared_data_plane.devices() == []
    yield shared_data_plane
    lab.close()
    wait_until(lambda: not shared_data_plane.devices(), "no device in the daemon")


@pytest.fixture
def own_data_plane(lab: Lab) -> DataPlane:
    """A daemon that the test may kill."""
    return DataPlane(lab)
