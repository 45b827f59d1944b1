"""The shim: serves the netlink requests of an unmodified OpenVPN by gRPC. See docs/architecture.md."""
