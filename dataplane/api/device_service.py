"""DeviceService: requests to the engine and its views back.

Knows which call asks the engine for what, and what a hand-off token is exchanged for. Must not know how
requests are checked or errors are sent.
"""
# ruff: noqa: N802 - gRPC calls the methods as the contract names them

from __future__ import annotations

import time

from ovpn.dataplane.v1 import device_pb2, device_pb2_grpc

from dataplane.api import decode_device
from dataplane.api.allow_missing import missing_is_error
from dataplane.api.encode import encode_device
from dataplane.api.handoff_vault import HandoffVault
from dataplane.api.leases import Leases
from dataplane.api.validation import is_name
from dataplane.engine.engine import Engine
from dataplane.engine.types import DeviceSpec, DeviceView


class DeviceService(device_pb2_grpc.DeviceServiceServicer):
    """See proto/ovpn/dataplane/v1/device.proto."""

    def __init__(self, engine: Engine, vault: HandoffVault, leases: Leases) -> None:
        self._engine = engine
        self._vault = vault
        self._leases = leases

    async def CreateDevice(
        self, request: device_pb2.CreateDeviceRequest, _context: object
    ) -> device_pb2.CreateDeviceResponse:
        """Creates a device, on a token's descriptor if there is one."""
        spec = decode_device.decode_creation(request)
        view = await self._create(spec, request.tun_token, is_leased=request.delete_on_handoff_close)
        return device_pb2.CreateDeviceResponse(device=encode_device(view))

    async def GetDevice(self, request: device_pb2.GetDeviceRequest, _context: object) -> device_pb2.GetDeviceResponse:
        """Returns one device."""
        view = self._engine.get_device(decode_device.decode_name(request))
        return device_pb2.GetDeviceResponse(device=encode_device(view))

    async def ListDevices(
        self, request: device_pb2.ListDevicesRequest, _context: object
    ) -> device_pb2.ListDevicesResponse:
        """Lists devices, by name."""
        page = decode_device.decode_list(request)
        views, next_page_token = page.cut(self._engine.list_devices(), lambda view: view.name)
        return device_pb2.ListDevicesResponse(devices=map(encode_device, views), next_page_token=next_page_token)

    async def UpdateDevice(
        self, request: device_pb2.UpdateDeviceRequest, _context: object
    ) -> device_pb2.UpdateDeviceResponse:
        """Changes MTU, addresses, administrative state or switches."""
        name = request.device.name
        mode = self._engine.get_device(name).mode if is_name(name) else None
        name, change = decode_device.decode_change(request, mode)
        view = await self._engine.update_device(name, change)
        return device_pb2.UpdateDeviceResponse(device=encode_device(view))

    async def DeleteDevice(
        self, request: device_pb2.DeleteDeviceRequest, _context: object
    ) -> device_pb2.DeleteDeviceResponse:
        """Deletes a device, its sockets and its peers."""
        name = decode_device.decode_name(request)
        self._leases.forget(name)
        with missing_is_error(unless=request.allow_missing):
            await self._engine.delete_device(name)
        return device_pb2.DeleteDeviceResponse()

    async def _create(self, spec: DeviceSpec, tun_token: str, *, is_leased: bool) -> DeviceView:
        handed = self._vault.take(tun_token, time.monotonic()) if tun_token else None
        if handed is not None and is_leased:
            return await self._leases.create_device(spec, handed)
        view = await self._engine.create_device(spec, tun_fd=None if handed is None else handed.fd)
        # An earlier device of this name may have gone with its interface and left a lease behind.
        self._leases.forget(view.name)
        return view
