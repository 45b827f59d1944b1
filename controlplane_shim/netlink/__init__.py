"""Sans-IO codecs of netlink messages. Bytes in, operations out, and back."""
