"""bench/slow_link.py in short: what it asks of a minute holds for seconds, and it sees what it is to see."""

from __future__ import annotations

import pytest

from bench.slow_link import ROLES, measure
from lab.dataplane import DataPlane
from lab.lab import Lab
from lab.pki import Authority

pytestmark = [pytest.mark.root, pytest.mark.one_datapath]

SECONDS = 2


def test_a_sender_faster_than_the_link_loses_nothing_that_was_accepted(
    lab: Lab, authority: Authority, data_plane: DataPlane
) -> None:
    streams = list(measure(lab, authority, data_plane, ROLES, SECONDS))
    assert [stream.sender for stream in streams] == ["client", "server"]
    for stream in streams:
        assert stream.faults() == []
        assert stream.dropped.keys() == {"tx_queue_full"}
        assert stream.received > 0
