"""A long TCP transfer both ways at once, whose content is compared: a program for each end.

    python -m lab.echo serve PORT
    python -m lab.echo ask ADDRESS PORT MEBIBYTES

`ask` sends random bytes and prints the SHA-256 of what it sent and of what came back, a line each. Knows TCP streams;
must not know what carries them.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from typing import Final

READY: Final = "echoing"
MEBIBYTE: Final = 1 << 20


async def serve(port: int) -> None:
    """Returns to each client what it sends, until the process is ended by a signal."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MEBIBYTE):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, port=port)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def ask(address: str, port: int, mebibytes: int) -> tuple[str, str]:
    """Returns the SHA-256 of what was sent and of what came back."""
    reader, writer = await asyncio.open_connection(address, port)
    sent, came = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        content = random.Random(mebibytes)  # noqa: S311 - content, no secret
        for _ in range(mebibytes):
            data = content.randbytes(MEBIBYTE)
            sent.update(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def receive() -> None:
        while data := await reader.read(MEBIBYTE):
            came.update(data)

    await asyncio.gather(send(), receive())
    writer.close()
    return sent.hexdigest(), came.hexdigest()


def main(arguments: list[str]) -> None:
    """Runs one of the two ends."""
    if arguments[0] == "serve":
        asyncio.run(serve(int(arguments[1])))
    else:
        address, port, mebibytes = arguments[1:]
        sys.stdout.writelines(f"{digest}\n" for digest in asyncio.run(ask(address, int(port), int(mebibytes))))


if __name__ == "__main__":
    main(sys.argv[1:])
