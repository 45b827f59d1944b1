"""Follows the kernel's routes for one device, as long as a switch of it asks for that.

Knows when to watch, and that the event loop tells when there is something to read. Must not know what a route means for
peers: routes.py does.
"""

from __future__ import annotations

import asyncio

import structlog

from dataplane.engine.resources import Resources, RouteFeed, Tun
from dataplane.engine.routes import Routes
from dataplane.engine.types import DeviceSpec


class KernelRoutes:
    """What the kernel routes through a device's interface, handed on to its Routes."""

    def __init__(self, tun: Tun, resources: Resources, routes: Routes) -> None:
        self._tun = tun
        self._resources = resources
        self._routes = routes
        self._feed: RouteFeed | None = None

    async def switch(self, device: DeviceSpec) -> None:
        """Begins or ends to follow, as the device's switches say. Raises EngineError; nothing has changed then.

        Addresses of the host and broadcast addresses stand among the routes, too, so those who tell them apart from
        peers' addresses need them.
        """
        is_wanted = device.follow_kernel_routes or device.client_to_client or device.forward_multicast
        if is_wanted and self._feed is None:
            feed = self._feed = await asyncio.to_thread(self._resources.watch_routes, self._tun.fd)
            asyncio.get_running_loop().add_reader(feed.fd, self._readable)
            self._readable()
        elif not is_wanted:
            self.close()

    def close(self) -> None:
        """Ends to follow, and forgets what was learned. Repeatable."""
        if self._feed is not None:
            asyncio.get_running_loop().remove_reader(self._feed.fd)
            self._feed.close()
            self._feed = None
            self._routes.forget_kernel()

    def _readable(self) -> None:
        if self._feed is None:
            return
        try:
            changes = self._feed.read()
        except OSError as error:
            structlog.get_logger().warning("kernel_routes_lost", interface=self._tun.interface_name, error=str(error))
            self.close()
        else:
            self._routes.learn(changes)
        self._routes.settle_soon()
