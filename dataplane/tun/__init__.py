"""Linux TUN: opening, reading and writing in batches, link settings."""
