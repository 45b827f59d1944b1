"""The second line of the bounds: what stands behind every check of a length."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

SEAL_WITHOUT_ROOM = """
from dataplane.datachannel.key_direction import KeyDirection
from dataplane.fastpath.aead import DataKey, seal_many
from dataplane.vocabulary import Cipher

material = KeyDirection(bytes(32), bytes(8))
seal_many(DataKey(0, Cipher.AES_GCM, material, material), 1, bytearray(23), 23)
"""


def test_access_out_of_bounds_ends_the_process_and_says_so() -> None:
    # Under `make sanitize` an abort is a finding; this one is wanted.
    environment = {**os.environ, "ASAN_OPTIONS": "handle_abort=0"}
    process = subprocess.run(
        [sys.executable, "-c", SEAL_WITHOUT_ROOM], stderr=subprocess.PIPE, env=environment, timeout=60, check=False
    )
    assert process.returncode == -signal.SIGABRT
    assert b"access out of bounds" in process.stderr
