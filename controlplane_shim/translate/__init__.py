"""Netlink requests to operations, operations to RPC messages, and outcomes back to netlink."""
