"""The program itself, as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ovpn.dataplane.v1 import (
    common_pb2,
    device_pb2,
    device_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)

from dataplane.tun.device import open_tun

PATIENCE_S: Final = 30
PROGRAM: Final = ("-m", "dataplane")
NOT_COMPILED: Final = """
import sys
sys.modules["dataplane.fastpath.packet_path"] = None
from dataplane.__main__ import main
sys.exit(main())
"""
"""The program as it is where dataplane.fastpath was not built."""


class Daemon:
    """A running daemon. log: what it has said so far; every line must be JSON."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []

    async def said(self, event: str) -> dict[str, Any]:
        """Waits for a record."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := await self.process.stderr.readline():
                self.log.append(json.loads(line))
                if self.log[-1]["event"] == event:
                    return self.log[-1]
        pytest.fail(f"ended without saying {event}: {self.log}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; gives the exit code."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            self.log += [json.loads(line) for line in (await self.process.stderr.read()).splitlines()]
            return await self.process.wait()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="ovpn-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def started(*arguments: str, program: tuple[str, ...] = PROGRAM) -> AsyncIterator[Daemon]:
    """A daemon that was started; killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OVPN_DATAPLANE_")}
    process = await asyncio.create_subprocess_exec(sys.executable, *program, *arguments, stderr=PIPE, env=environment)
    try:
        yield Daemon(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def ready(run_dir: Path, *arguments: str, program: tuple[str, ...] = PROGRAM) -> AsyncIterator[Daemon]:
    async with started("--run-dir", str(run_dir), *arguments, program=program) as daemon:
        await daemon.said("ready")
        yield daemon


def channel(run_dir: Path) -> Any:
    return grpc.aio.insecure_channel(f"unix:{run_dir}/control.sock")


async def test_a_daemon_says_ready_once_with_what_clients_need(directory: Path) -> None:
    run_dir = directory / "run"
    async with ready(run_dir) as daemon:
        record = daemon.log[-1]
        async with channel(run_dir) as client:
            info = await server_pb2_grpc.ServerServiceStub(client).GetServerInfo(server_pb2.GetServerInfoRequest())
        assert await daemon.end() == 0
    assert (record["listen"], record["handoff"]) == (f"unix:{run_dir}/control.sock", f"{run_dir}/handoff.sock")
    assert (record["instance_id"], record["version"]) == (info.instance_id, info.version)
    assert info.handoff_path == record["handoff"]
    assert [entry["event"] for entry in daemon.log] == ["ready", "stopping", "stopped"]


@pytest.mark.parametrize("datapath", ["python", "compiled"])
async def test_the_datapath_that_was_asked_for_runs(directory: Path, datapath: str) -> None:
    async with ready(directory, "--datapath", datapath) as daemon:
        assert daemon.log[-1]["datapath"] == datapath
        assert await datapath_of(directory) == datapath
        await daemon.end()


async def test_the_compiled_datapath_runs_where_it_was_built(directory: Path) -> None:
    async with ready(directory) as daemon:
        assert daemon.log[-1]["datapath"] == "compiled"
        await daemon.end()


async def test_a_daemon_without_compiled_datapath_says_so_and_runs_the_readable_one(directory: Path) -> None:
    async with ready(directory, program=("-c", NOT_COMPILED)) as daemon:
        assert daemon.log[0]["event"] == "no_compiled_datapath"
        assert "the compiled datapath cannot be loaded" in daemon.log[0]["reason"]
        assert daemon.log[-1]["datapath"] == "python"
        assert await datapath_of(directory) == "python"
        await daemon.end()


async def test_a_daemon_without_the_compiled_datapath_that_was_asked_for_does_not_start(directory: Path) -> None:
    run_dir = ("--run-dir", str(directory))
    async with started(*run_dir, "--datapath", "compiled", program=("-c", NOT_COMPILED)) as daemon:
        assert await daemon.ended() == 1
    assert [record["event"] for record in daemon.log] == ["cannot_start"]
    assert "the compiled datapath cannot be loaded" in daemon.log[0]["error"]
    assert names_in(directory) == []


async def datapath_of(run_dir: Path) -> str:
    """The datapath in GetServerInfo, in words."""
    async with channel(run_dir) as client:
        info = await server_pb2_grpc.ServerServiceStub(client).GetServerInfo(server_pb2.GetServerInfoRequest())
    return server_pb2.DatapathKind.Name(info.datapath).removeprefix("DATAPATH_KIND_").lower()


async def test_the_sockets_are_guarded_by_their_modes(directory: Path) -> None:
    run_dir = directory / "run"
    async with ready(run_dir) as daemon:
        modes = [stat.S_IMODE((run_dir / name).stat().st_mode) for name in ("", "control.sock", "handoff.sock")]
        await daemon.end()
    assert modes == [0o750, 0o660, 0o660]


async def test_a_ready_daemon_is_serving(directory: Path) -> None:
    async with ready(directory) as daemon, channel(directory) as client:
        stub: Any = health_pb2_grpc.HealthStub(client)
        reply = await stub.Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await daemon.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_and_nothing_is_left(directory: Path, number: signal.Signals) -> None:
    async with ready(directory / "run") as daemon:
        assert await daemon.end(number) == 0
    assert names_in(directory) == []


async def test_a_run_directory_that_was_there_is_kept_with_what_is_in_it(directory: Path) -> None:
    (directory / "other").touch()
    async with ready(directory) as daemon:
        assert await daemon.end() == 0
    assert names_in(directory) == ["other"]


async def test_watches_end_and_health_says_so_before_the_daemon_ends(directory: Path) -> None:
    async with ready(directory) as daemon, channel(directory) as client:
        stub: Any = health_pb2_grpc.HealthStub(client)
        statuses = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        await anext(statuses)
        watch = aiter(event_pb2_grpc.EventServiceStub(client).Watch(event_pb2.WatchRequest()))
        await anext(watch)
        daemon.process.send_signal(signal.SIGTERM)
        assert (await anext(statuses)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(watch)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        # The health watch goes on: a second signal does not wait for it.
        assert await daemon.end() == 0


async def test_stale_sockets_are_replaced(directory: Path) -> None:
    for name, kind in (("control.sock", socket.SOCK_STREAM), ("handoff.sock", socket.SOCK_SEQPACKET)):
        with socket.socket(socket.AF_UNIX, kind) as stale:
            stale.bind(str(directory / name))
    async with ready(directory) as daemon:
        assert await daemon.end() == 0


async def test_a_killed_daemon_does_not_hinder_the_next(directory: Path) -> None:
    async with ready(directory / "run") as daemon:
        await daemon.end(signal.SIGKILL)
    async with ready(directory / "run") as daemon:
        assert await daemon.end() == 0


async def test_a_second_daemon_does_not_start_and_the_first_goes_on(directory: Path) -> None:
    async with ready(directory) as first:
        async with started("--run-dir", str(directory)) as second:
            assert await second.ended() == 1
            assert [record["event"] for record in second.log] == ["cannot_start"]
            assert "is in use: another daemon runs" in second.log[0]["error"]
        async with channel(directory) as client:
            await server_pb2_grpc.ServerServiceStub(client).GetServerInfo(server_pb2.GetServerInfoRequest())
        assert await first.end() == 0


async def test_a_control_socket_in_use_leaves_no_hand_off_socket(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(directory / "control.sock"))
        other.listen()
        async with started("--run-dir", str(directory)) as daemon:
            assert await daemon.ended() == 1
    assert names_in(directory) == ["control.sock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run-dir", "{}/missing/run"], "cannot make the directory"),
        (["--run-dir", "{}", "--listen", "unix:{}/missing/s"], "there is no directory"),
        (["--run-dir", "{}", "--handoff", "{}/file"], "is no socket"),
    ],
)
async def test_what_hinders_the_start_is_said_with_exit_code_1(
    directory: Path, arguments: list[str], message: str
) -> None:
    (directory / "file").write_text("precious")
    async with started(*[argument.format(directory) for argument in arguments]) as daemon:
        assert await daemon.ended() == 1
    assert message in daemon.log[-1]["error"]
    assert (directory / "file").read_text() == "precious"


async def test_a_wrong_flag_is_said_with_exit_code_2(directory: Path) -> None:
    async with started("--listen", "tcp:1") as daemon:
        assert daemon.process.stderr is not None
        message = (await daemon.process.stderr.read()).decode()
        assert await daemon.process.wait() == 2
    assert "--listen: must be unix:PATH" in message
    assert names_in(directory) == []


@pytest.mark.root
async def test_a_device_with_its_worker_ends_with_the_daemon(directory: Path) -> None:
    name = f"t{secrets.token_hex(4)}"
    async with ready(directory) as daemon, channel(directory) as client:
        device = device_pb2.Device(name=name, mode=common_pb2.DEVICE_MODE_MP)
        stub = device_pb2_grpc.DeviceServiceStub(client)
        created = (await stub.CreateDevice(device_pb2.CreateDeviceRequest(device=device))).device
        assert name in interfaces()
        assert is_running(created.worker_pid)
        assert await daemon.end() == 0
    assert name not in interfaces()
    assert not is_running(created.worker_pid)


@pytest.mark.root
async def test_a_leased_interface_is_gone_after_its_client(directory: Path) -> None:
    fd, name = open_tun(f"t{secrets.token_hex(4)}")
    async with ready(directory) as daemon, channel(directory) as client:
        watch = aiter(event_pb2_grpc.EventServiceStub(client).Watch(event_pb2.WatchRequest()))
        await anext(watch)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as handoff:
            handoff.connect(f"{directory}/handoff.sock")
            socket.send_fds(handoff, [b"adopt"], [fd])
            os.close(fd)
            token = handoff.recv(64).removeprefix(b"token ").decode()
            device = device_pb2.Device(name="leased", mode=common_pb2.DEVICE_MODE_P2P)
            request = device_pb2.CreateDeviceRequest(device=device, tun_token=token, delete_on_handoff_close=True)
            created = await device_pb2_grpc.DeviceServiceStub(client).CreateDevice(request)
            assert created.device.interface_name == name
            assert (await anext(watch)).device_created.name == "leased"
        assert (await asyncio.wait_for(anext(watch), PATIENCE_S)).device_deleted.device == "leased"
        assert name not in interfaces()
        assert await daemon.end() == 0


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
