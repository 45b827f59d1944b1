"""The data plane: daemon (api, engine) and worker (datachannel, tun, transport). See docs/architecture.md."""
