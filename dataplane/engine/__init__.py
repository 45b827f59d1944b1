"""The truth about configuration: devices, sockets, peers, keys, events, and the workers that carry them out."""
