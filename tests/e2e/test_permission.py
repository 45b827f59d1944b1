"""Who may ask: a program under the shim that has lost CAP_NET_ADMIN is told EPERM, as the kernel's drivers say."""

from __future__ import annotations

import json
import sys
from errno import EPERM

import pytest

from lab.dataplane import DataPlane, shim
from lab.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

ROOT, NOBODY = 0, 65534


def told(lab: Lab, data_plane: DataPlane, user: int, *, namespace: bool) -> dict[str, int]:
    front = shim(data_plane.target, lab.directory / "shim.log")
    asker = [sys.executable, "-m", "tests.e2e.asker", str(user), str(int(namespace))]
    answers: dict[str, int] = json.loads(lab.run(lab.namespace("asker"), [*front, *asker], timeout_seconds=30))
    return answers


@pytest.mark.parametrize(("user", "namespace"), [(NOBODY, False), (NOBODY, True), (ROOT, True)])
def test_every_command_takes_the_capability_in_the_shims_own_user_namespace(
    lab: Lab, data_plane: DataPlane, user: int, namespace: bool
) -> None:
    """Seven commands and eight, a dump of each family, a link of each kind."""
    answers = told(lab, data_plane, user, namespace=namespace)
    assert answers == dict.fromkeys(answers, EPERM)
    assert len(answers) == 7 + 8 + 2 + 2


def test_with_the_capability_none_is_refused_for_want_of_it(lab: Lab, data_plane: DataPlane) -> None:
    answers = told(lab, data_plane, ROOT, namespace=False)
    assert EPERM not in answers.values()
    assert answers["link ovpn"] == 0
