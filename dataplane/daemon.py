"""The daemon: puts engine, hand-off socket and gRPC server together, and ends them in order.

Knows the parts and their order. Must not know what they do.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from contextlib import AsyncExitStack
from typing import Final

import structlog

from dataplane.api.handoff_server import HandoffServer
from dataplane.api.handoff_vault import HandoffVault
from dataplane.api.leases import Leases
from dataplane.api.server import ApiServer
from dataplane.api.server_service import DaemonFacts
from dataplane.api.socket_path import SocketPathError, run_directory
from dataplane.config import Config, program_version
from dataplane.datapath import DatapathUnavailable, choose_datapath
from dataplane.engine.engine import Engine
from dataplane.engine.worker_process import SubprocessLauncher
from dataplane.observability.log import set_up_log

GRACE_SECONDS: Final = 2.0
"""How long calls may go on after SIGTERM or SIGINT; a second signal ends them at once."""

_CANCELLATION_SECONDS: Final = 1.0


def run(config: Config) -> int:
    """Serves until a signal; returns the exit code: 0, or 1 if it could not start or failed."""
    set_up_log(config.log_level, config.log_format, sys.stderr)
    _raise_descriptor_limit()
    try:
        asyncio.run(serve(config))
    except (SocketPathError, DatapathUnavailable) as error:
        structlog.get_logger().error("cannot_start", error=str(error))
        return 1
    except Exception:  # noqa: BLE001 - the root of the process
        structlog.get_logger().exception("daemon_failed")
        return 1
    return 0


async def serve(config: Config) -> None:
    """Serves until SIGTERM or SIGINT. Whatever happens, nothing made is left behind.

    Raises SocketPathError, DatapathUnavailable.
    """
    log = structlog.get_logger()
    datapath, reason = choose_datapath(config.datapath)
    if reason:
        log.warning("no_compiled_datapath", reason=reason, datapath=datapath.value)
    end, hurry = _stop_events()
    async with AsyncExitStack() as parts:
        parts.enter_context(run_directory(config.run_dir))
        engine = Engine(worker_launcher=SubprocessLauncher(datapath))
        parts.push_async_callback(engine.close)
        vault = HandoffVault()
        leases = Leases(engine, vault)
        parts.push_async_callback(leases.join)
        handoff = HandoffServer(config.handoff_path, vault, leases.connection_closed)
        parts.callback(handoff.close)
        api = ApiServer(engine, vault, leases, DaemonFacts(program_version(), config.handoff_path, datapath))
        await api.start(config.control_path)
        parts.push_async_callback(api.stop, GRACE_SECONDS, hurry)
        log.info(
            "ready",
            version=program_version(),
            listen=f"unix:{config.control_path}",
            handoff=str(config.handoff_path),
            datapath=datapath.value,
            instance_id=engine.instance_id,
        )
        await end.wait()
        log.info("stopping")
    await _let_calls_end()
    log.info("stopped")


def _raise_descriptor_limit() -> None:
    """As many descriptors as may be, here and in the workers: each peer over TCP takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _stop_events() -> tuple[asyncio.Event, asyncio.Event]:
    """Events that the first and the second signal set."""
    end, hurry = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurry if end.is_set() else end).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return end, hurry


async def _let_calls_end() -> None:
    """Gives calls that gRPC has cancelled the turns they need to end.

    Whatever runs at the end of asyncio.run() is cancelled, which gRPC takes for a defect and logs.
    """
    this = asyncio.current_task()
    if calls := {task for task in asyncio.all_tasks() if task is not this}:
        await asyncio.wait(calls, timeout=_CANCELLATION_SECONDS)
