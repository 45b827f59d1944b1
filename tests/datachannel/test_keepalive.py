"""The two clocks of a peer's keepalive."""

from __future__ import annotations

from dataplane.datachannel.keepalive import Keepalive

SECOND = 1_000_000_000


def test_zero_turns_a_clock_off() -> None:
    assert Keepalive().send_at_ns(0) is None
    assert Keepalive().expire_at_ns(0) is None


def test_clocks_are_independent() -> None:
    assert Keepalive(interval_s=10).send_at_ns(0) == 10 * SECOND
    assert Keepalive(interval_s=10).expire_at_ns(0) is None
    assert Keepalive(timeout_s=60).send_at_ns(0) is None
    assert Keepalive(timeout_s=60).expire_at_ns(0) == 60 * SECOND


def test_clocks_run_from_the_restart_while_there_was_no_packet() -> None:
    keepalive = Keepalive(10, 60)
    keepalive.restart(5 * SECOND)
    assert keepalive.send_at_ns(0) == 15 * SECOND
    assert keepalive.expire_at_ns(0) == 65 * SECOND


def test_clocks_run_from_the_last_packet_after_the_restart() -> None:
    keepalive = Keepalive(10, 60)
    keepalive.restart(5 * SECOND)
    assert keepalive.send_at_ns(7 * SECOND) == 17 * SECOND
    assert keepalive.expire_at_ns(8 * SECOND) == 68 * SECOND


def test_packets_before_the_restart_do_not_matter() -> None:
    keepalive = Keepalive(10, 60)
    keepalive.restart(5 * SECOND)
    assert keepalive.send_at_ns(4 * SECOND) == 15 * SECOND
    assert keepalive.expire_at_ns(4 * SECOND) == 65 * SECOND


def test_restart_of_sending_leaves_the_receiving_clock() -> None:
    keepalive = Keepalive(10, 60)
    keepalive.restart_sending(30 * SECOND)
    assert keepalive.send_at_ns(0) == 40 * SECOND
    assert keepalive.expire_at_ns(0) == 60 * SECOND
