from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane_shim.supervisor.lifeline import Backgrounded, Ended, Lifeline, Started


@pytest.fixture
def ends() -> Iterator[tuple[Lifeline, Lifeline]]:
    pair = Lifeline.pair()
    yield pair
    for end in pair:
        end.close()


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_started_brings_copies_of_both_descriptors(ends: tuple[Lifeline, Lifeline]) -> None:
    one, other = os.pipe()
    ends[0].send(Started(42, one, other))
    received = ends[1].receive()
    assert isinstance(received, Started)
    assert received.pid == 42
    assert received.listener is not None
    assert (inode(received.pidfd), inode(received.listener)) == (inode(one), inode(other))
    assert not os.get_inheritable(received.pidfd)
    for fd in (one, other, received.pidfd, received.listener):
        os.close(fd)


def test_started_without_listener(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[0].send(Started(42, 0, None))
    received = ends[1].receive()
    assert isinstance(received, Started)
    assert received.listener is None
    os.close(received.pidfd)


def test_backgrounded_brings_its_descriptor(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[0].send(Backgrounded(43, 0))
    received = ends[1].receive()
    assert isinstance(received, Backgrounded)
    assert inode(received.pidfd) == inode(0)
    os.close(received.pidfd)


@given(code=st.integers(0, 255), signal=st.integers(0, 64), text=st.text(st.characters(codec="utf-8"), max_size=100))
def test_ended_arrives_as_it_was_sent(code: int, signal: int, text: str) -> None:
    sender, receiver = Lifeline.pair()
    sender.send(Ended(code, signal, text))
    assert receiver.receive() == Ended(code, signal, text)
    sender.close()
    receiver.close()


def test_long_text_is_cut(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[0].send(Ended(1, text="ä" * 100000))
    received = ends[1].receive()
    assert isinstance(received, Ended)
    assert set(received.text) == {"ä"}


def test_death_of_the_other_end_is_none(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[0].close()
    assert ends[1].receive() is None


def test_what_was_sent_before_death_is_received(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[0].send(Ended(3))
    ends[0].close()
    assert ends[1].receive() == Ended(3)
    assert ends[1].receive() is None


def test_sending_to_the_dead_does_nothing(ends: tuple[Lifeline, Lifeline]) -> None:
    ends[1].close()
    ends[0].send(Ended(3))


def test_end_that_is_passed_on_is_inherited_and_stops_there(ends: tuple[Lifeline, Lifeline]) -> None:
    fd = ends[0].pass_on()
    assert os.get_inheritable(fd)
    inherited = Lifeline.inherited(os.dup(fd))
    assert not os.get_inheritable(inherited.fileno())
    inherited.close()
