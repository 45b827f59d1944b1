"""Transports of OpenVPN packets: UDP."""
