# Purpose: a real S3 server for a benchmark: s3s-fs, a process of the benchmark's own, which keeps objects as files.
# Trade-off: on the same machine, so its work (a digest of each part, and writing it) takes cores from whoever uploads; that
#   meets both sides of a pair, and leaves the network out.
# If the assumption fails: the server never syncs, so caches are dropped, with a sync, before each run, or the second of a
#   pair would wait for what the first has left to write.

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

BUCKET = "backups"
BINARY = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "blkdelta-tools/bin/s3s-fs"
KEYS = {"AWS_ACCESS_KEY_ID": "AKTEST", "AWS_SECRET_ACCESS_KEY": "SKTEST", "AWS_REGION": "us-east-1"}


class Server:
    """Where it keeps the objects, and the environment in which clients find it."""

    def __init__(self, folder, port):
        self.bucket = folder / BUCKET
        self.env = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def need_server():
    if not BINARY.is_file():
        root = BINARY.parents[1]
        sys.exit(f"{BINARY} is not there\nHINT: cargo install s3s-fs --version 0.14.1 --locked --features binary --root {root}")


@contextlib.contextmanager
def server(folder):
    """The server with a bucket, until the end of the block."""
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"]]
    command = [BINARY, "--host", "127.0.0.1", "--port", str(port), *keys, folder]
    with open(folder.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(port)
        yield Server(folder, port)
    finally:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit(f"nobody listens on port {port}")
