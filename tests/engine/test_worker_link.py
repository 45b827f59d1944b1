"""The daemon's end of the link to a worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from dataplane.engine.worker_link import LinkClosed, WorkerEvent, WorkerLink
from dataplane.messages import AddSocket, PeerExpired, RemovePeer, Reply, Request, Stop


class FarEnd:
    """The worker's end, and what the link told its owner."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.told: list[object] = []
        self.is_lost = asyncio.Event()

    def open_link(self) -> WorkerLink:
        return WorkerLink(self.ours, self.on_event, self.on_lost)

    def on_event(self, event: WorkerEvent) -> None:
        self.told.append(event)

    def on_lost(self) -> None:
        self.told.append("lost")
        self.is_lost.set()

    def say(self, *messages: msgspec.Struct) -> None:
        for message in messages:
            self.theirs.send(msgspec.msgpack.encode(message))

    def hear(self) -> tuple[Request, list[int]]:
        datagram, fds, _, _ = socket.recv_fds(self.theirs, 4096, 4)
        return msgspec.msgpack.decode(datagram, type=Request), fds


@pytest.fixture
async def far_end() -> FarEnd:
    return FarEnd()


@pytest.fixture
async def link(far_end: FarEnd) -> Iterator[WorkerLink]:  # type: ignore[misc]
    link = far_end.open_link()
    yield link
    link.close()
    far_end.theirs.close()


async def ask(link: WorkerLink, peer_id: int = 1) -> Reply:
    return await link.request(RemovePeer(peer_id))


async def started(*coroutines: object) -> list[asyncio.Task[Reply]]:
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]  # type: ignore[call-overload]
    await asyncio.sleep(0)
    return tasks


async def test_a_request_gets_its_reply(link: WorkerLink, far_end: FarEnd) -> None:
    (task,) = await started(ask(link))
    request, fds = far_end.hear()
    assert (request.command, fds) == (RemovePeer(1), [])
    far_end.say(Reply(request.request_id, "PEER_NOT_FOUND", "gone"))
    assert await task == Reply(request.request_id, "PEER_NOT_FOUND", "gone")


async def test_replies_find_their_requests_in_any_order(link: WorkerLink, far_end: FarEnd) -> None:
    one, two = await started(ask(link, 1), ask(link, 2))
    first, second = far_end.hear()[0], far_end.hear()[0]
    far_end.say(Reply(second.request_id, "two"), Reply(first.request_id, "one"))
    assert ((await one).error, (await two).error) == ("one", "two")


async def test_descriptors_travel_with_the_command(link: WorkerLink, far_end: FarEnd) -> None:
    read_end, write_end = os.pipe()
    (task,) = await started(link.request(AddSocket(1), [write_end]))
    request, (copy,) = far_end.hear()
    os.write(copy, b"through")
    assert os.read(read_end, 10) == b"through"
    far_end.say(Reply(request.request_id))
    await task
    for fd in (read_end, write_end, copy):
        os.close(fd)


async def test_who_waits_for_a_reply_goes_on_before_a_later_event_is_told(link: WorkerLink, far_end: FarEnd) -> None:
    async def ask_and_note() -> Reply:
        reply = await ask(link)
        far_end.told.append("reply")
        return reply

    (task,) = await started(ask_and_note())
    far_end.hear()
    before, after = PeerExpired(1, 1), PeerExpired(2, 2)
    far_end.say(before, Reply(1), after)
    far_end.theirs.close()
    await far_end.is_lost.wait()
    await task
    assert [entry for entry in far_end.told if entry != "lost"] == [before, "reply", after]


async def test_the_end_of_the_worker_fails_who_waits_and_is_told_once(link: WorkerLink, far_end: FarEnd) -> None:
    one, two = await started(ask(link), ask(link))
    far_end.theirs.close()
    for task in (one, two):
        with pytest.raises(LinkClosed):
            await task
    link.lose()
    assert far_end.told == ["lost"]


async def test_a_request_on_a_closed_link_fails(link: WorkerLink) -> None:
    link.close()
    with pytest.raises(LinkClosed):
        await ask(link)


async def test_a_request_to_a_worker_that_has_gone_fails(link: WorkerLink, far_end: FarEnd) -> None:
    far_end.theirs.close()
    with pytest.raises(LinkClosed):
        await ask(link)
    assert far_end.told == ["lost"]


async def test_a_worker_that_reads_nothing_is_lost(link: WorkerLink, far_end: FarEnd) -> None:
    async def ask_for_ever() -> Reply:
        while True:
            await started(ask(link))
            if link.closed:
                return await ask(link)

    with pytest.raises(LinkClosed):
        await ask_for_ever()
    assert far_end.told == ["lost"]


async def test_close_is_not_a_loss(link: WorkerLink, far_end: FarEnd) -> None:
    (task,) = await started(link.request(Stop()))
    link.close()
    link.close()
    with pytest.raises(LinkClosed):
        await task
    assert far_end.told == []


async def test_an_event_that_makes_no_sense_loses_the_worker() -> None:
    far_end = FarEnd()

    def refuse(_: WorkerEvent) -> None:
        raise ValueError

    link = WorkerLink(far_end.ours, refuse, far_end.on_lost)
    far_end.say(PeerExpired(1, 1))
    await far_end.is_lost.wait()
    assert link.closed
    far_end.theirs.close()


async def test_descriptors_from_a_worker_are_not_taken(link: WorkerLink, far_end: FarEnd) -> None:
    read_end, write_end = os.pipe()
    (task,) = await started(ask(link))
    request, _ = far_end.hear()
    socket.send_fds(far_end.theirs, [msgspec.msgpack.encode(Reply(request.request_id))], [write_end])
    await task
    os.close(write_end)
    assert os.read(read_end, 1) == b""  # nobody holds the other end any more
    os.close(read_end)
