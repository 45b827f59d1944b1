"""What comes from the link, as the data channel takes it. Knows types only."""

from __future__ import annotations

SockAddr = tuple[str, int] | tuple[str, int, int, int]
"""An address as the socket module gives it; only compared and hashed in this package."""

Datagram = tuple[bytes, SockAddr | None, bytes | None]
"""OpenVPN packet, source (None: it came in a stream), and the packed local address it came to or None."""
