from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from dataplane.messages import (
    MAX_MESSAGE,
    AddSocket,
    Endpoint,
    FromWorker,
    PeerExpired,
    PeerFloatAsked,
    PeerFloated,
    Reply,
    Request,
    Stop,
)
from dataplane.worker.command_channel import CommandChannel, DaemonGone, close_all

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.Decoder(FromWorker).decode


class Pair:
    """A channel and the daemon's end of it, which does not wait either."""

    def __init__(self) -> None:
        self.daemon, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon.setblocking(False)
        self.channel = CommandChannel(theirs.detach())

    def told(self) -> list[FromWorker]:
        """What the daemon finds now."""
        messages = []
        while True:
            try:
                messages.append(decode(self.daemon.recv(MAX_MESSAGE)))
            except BlockingIOError:
                return messages

    def fill(self) -> list[FromWorker]:
        """Sends events until one has to wait."""
        sent: list[FromWorker] = []
        while not self.channel.has_unsent:
            sent.append(PeerExpired(len(sent), 0))
            self.channel.send(sent[-1])
        return sent

    def told_in_the_end(self) -> list[FromWorker]:
        """What a daemon finds that reads whatever comes."""
        messages = self.told()
        while self.channel.has_unsent:
            self.channel.flush()
            messages += self.told()
        return messages


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.daemon.close()


def floated(uid: int, port: int) -> PeerFloated:
    return PeerFloated(1, uid, Endpoint(bytes(4), port), 1)


def asked(uid: int, port: int) -> PeerFloatAsked:
    return PeerFloatAsked(1, uid, Endpoint(bytes(4), port), 1)


# Receiving


def test_request_is_received(pair: Pair) -> None:
    request = Request(7, AddSocket(3))
    pair.daemon.send(encode(request))
    assert pair.channel.receive() == (request, [])


def test_nothing_is_received_when_there_is_nothing(pair: Pair) -> None:
    assert pair.channel.receive() is None


def test_descriptors_come_with_their_request_and_are_not_inheritable(pair: Pair) -> None:
    reading, writing = os.pipe()
    socket.send_fds(pair.daemon, [encode(Request(7, Stop()))], [writing])
    received = pair.channel.receive()
    assert received is not None
    (fd,) = received[1]
    os.write(fd, b"hello")
    assert (os.read(reading, 100), os.get_inheritable(fd)) == (b"hello", False)
    close_all([reading, writing, fd])


@pytest.mark.parametrize(
    ("message", "request_id"),
    [
        (b"\xc1garbage", 0),
        (encode([1, 2]), 0),
        (encode({"request_id": 7}), 7),
        (encode({"request_id": 7, "command": {"type": "NoSuchCommand"}}), 7),
        (encode({"request_id": 7, "command": {"type": "AddSocket", "socket_id": "three"}}), 7),
        (encode(Request(7, Stop())).ljust(MAX_MESSAGE + 1), 0),
    ],
)
def test_what_is_no_request_is_answered_and_skipped(pair: Pair, message: bytes, request_id: int) -> None:
    pair.daemon.send(message)
    pair.daemon.send(encode(Request(8, Stop())))
    assert pair.channel.receive() == (Request(8, Stop()), [])
    (reply,) = pair.told()
    assert isinstance(reply, Reply)
    assert (reply.request_id, reply.error) == (request_id, "INTERNAL")


@pytest.mark.parametrize("count", [1, 4, 5])
def test_descriptors_of_what_is_no_request_are_closed(pair: Pair, count: int) -> None:
    reading, writing = os.pipe()
    socket.send_fds(pair.daemon, [b"garbage"], [writing] * count)
    os.close(writing)
    assert pair.channel.receive() is None
    assert os.read(reading, 1) == b""  # nobody can write any more
    os.close(reading)


def test_request_whose_descriptors_do_not_fit_is_refused(pair: Pair) -> None:
    socket.send_fds(pair.daemon, [encode(Request(7, Stop()))], [0] * 5)
    assert pair.channel.receive() is None
    (reply,) = pair.told()
    assert isinstance(reply, Reply)
    assert (reply.request_id, reply.error) == (7, "INTERNAL")


def test_key_bytes_do_not_show_in_the_answer_to_a_bad_request(pair: Pair) -> None:
    secret = "correct horse battery staple"
    pair.daemon.send(encode({"request_id": 7, "command": {"type": "InstallKey", "encrypt_key": secret}}))
    pair.channel.receive()
    assert secret not in str(pair.told())


def test_closed_channel_means_that_the_daemon_is_gone(pair: Pair) -> None:
    pair.daemon.close()
    with pytest.raises(DaemonGone):
        pair.channel.receive()


def test_requests_sent_before_the_channel_was_closed_still_come(pair: Pair) -> None:
    pair.daemon.send(encode(Request(7, Stop())))
    pair.daemon.close()
    assert pair.channel.receive() == (Request(7, Stop()), [])


# Sending


def test_message_is_sent_at_once(pair: Pair) -> None:
    pair.channel.send(Reply(7))
    assert (pair.told(), pair.channel.has_unsent) == ([Reply(7)], False)


def test_messages_wait_for_a_slow_daemon_and_keep_their_order(pair: Pair) -> None:
    sent = pair.fill()
    for number in range(1000):
        sent.append(Reply(number))
        pair.channel.send(sent[-1])
    assert pair.told_in_the_end() == sent


def test_waiting_float_gives_way_to_a_later_one_of_the_same_peer(pair: Pair) -> None:
    sent = pair.fill()
    for message in (floated(1, 1001), floated(2, 2001), Reply(7), floated(1, 1002)):
        pair.channel.send(message)
    assert pair.told_in_the_end() == [*sent, floated(2, 2001), Reply(7), floated(1, 1002)]


def test_waiting_question_for_a_float_gives_way_to_a_later_one_but_to_no_float(pair: Pair) -> None:
    sent = pair.fill()
    for message in (asked(1, 1001), floated(1, 1002), asked(2, 2001), asked(1, 1003)):
        pair.channel.send(message)
    assert pair.told_in_the_end() == [*sent, floated(1, 1002), asked(2, 2001), asked(1, 1003)]


def test_sending_to_a_daemon_that_is_gone_is_an_error(pair: Pair) -> None:
    pair.daemon.close()
    with pytest.raises(DaemonGone):
        pair.channel.send(Reply(7))


def test_maker_of_the_channel_is_known(pair: Pair) -> None:
    assert pair.channel.daemon_pid() == os.getpid()


def test_descriptor_that_is_no_socket_is_an_error() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="non-socket"):
        CommandChannel(fd)
    os.close(fd)
