"""A real S3 server that checks signatures: ``rclone serve s3`` on a folder.

Tests put files into buckets and read them back through S3. In the served folder a file may still be
incomplete after the client has its answer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_RCLONE = Path(sys.executable).with_name("rclone")
_STARTING, _ATTEMPTS = 120.0, 4  # seconds; the machine may be busy


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class S3Server:
    """A server whose buckets are the folders in `folder`.

    Attributes:
        port: stays the same if the server is killed and started again.
    """

    key, secret = "access", "not-so-secret"

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self._log = folder, log
        for attempt in range(_ATTEMPTS):
            self.port = free_port()
            try:
                self.start()
            except RuntimeError:  # another process took the port
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return

    @property
    def options(self) -> dict[str, Any]:
        """Return the storage options of a client."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"key": self.key, "secret": self.secret, "endpoint_url": endpoint}

    def start(self) -> None:
        """Start the server, and wait until it listens.

        Raises:
            RuntimeError: it ended, or does not listen in time.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_RCLONE, "serve", "s3", self.folder, "--vfs-cache-mode", "off"),
                    *("--addr", f"127.0.0.1:{self.port}", "--config", os.devnull),
                    *("--auth-key", f"{self.key},{self.secret}"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _STARTING
        while self._process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"rclone does not listen:\n{self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    def upload(self, folder: Path, prefix: str) -> None:
        """Write the files of a folder, and of the folders in it, below ``bucket/prefix``."""
        fs = self._client()
        fs.makedirs(prefix.partition("/")[0], exist_ok=True)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                fs.pipe_file(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def download(self, prefix: str, folder: Path) -> Path:
        """Write everything below ``bucket/prefix`` to a new folder, and return the folder."""
        fs = self._client()
        for key in fs.find(prefix):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fs.cat_file(key))
        return folder

    def delete(self, key: str) -> None:
        """Delete one object."""
        self._client().rm_file(key)

    def _client(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(**self.options, use_listings_cache=False, skip_instance_cache=True)
