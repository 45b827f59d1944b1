"""The gRPC services: thin; the only place of dataplane/ that imports protobuf."""
