"""The OpenVPN data channel, sans-IO: bytes and `now` in, bytes and counts out. No socket, no clock, no log."""
