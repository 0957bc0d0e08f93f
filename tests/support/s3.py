"""A real S3 API server for tests: versitygw (Apache-2.0), built by Go from the module proxy, on a loopback port.

Its objects are files under a folder. It honours ``If-None-Match: *``, which is what an archive asks of a store.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from support.waiting import wait_for

MODULE, VERSION = "github.com/versity/versitygw", "v1.8.0"
SUM = "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc="
CACHE = Path(__file__).parent.parent.parent / ".merganser"
KEY, SECRET = "merganser-test", "merganser-test-secret"


def installed(cache: Path) -> Path:
    """The server, fetched, checked and built once (a download of some 100 MB, and minutes of compiling)."""
    binary = cache / f"versitygw-{VERSION}"
    if binary.exists():
        return binary
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as scratch:
        env = {**os.environ, "GOBIN": scratch, "GOPATH": f"{scratch}/go", "GOFLAGS": "-buildvcs=false -modcacherw"}
        module = f"{MODULE}@{VERSION}"
        found = subprocess.run(["go", "mod", "download", "-json", module], env=env, capture_output=True, cwd=scratch)
        said = json.loads(found.stdout)["Sum"] if found.returncode == 0 else found.stderr.decode()
        if said != SUM:
            raise AssertionError(f"{module}: {said}, not the pinned {SUM}")
        subprocess.run(["go", "install", f"{MODULE}/cmd/versitygw@{VERSION}"], env=env, check=True, cwd=scratch)
        shutil.move(f"{scratch}/versitygw", binary)
    return binary


class S3:
    """One server with one bucket, ``merganser``."""

    def __init__(self, data: Path, port: int, cache: Path = CACHE) -> None:
        self._binary = installed(cache)
        self._data, self._port = data, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What a client has in its environment."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> S3:
        objects, meta = self._data / "objects", self._data / "meta"
        for folder in (objects / "merganser", meta):  # not every file system has extended attributes
            folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(self._binary),
            "--port",
            f"127.0.0.1:{self._port}",
            "--quiet",
            "--access",
            KEY,
            "--secret",
            SECRET,
        ]
        with (self._data / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "posix", "--sidecar", str(meta), str(objects)], stdout=log, stderr=log
            )
        try:
            wait_for("the S3 server answers", self._answers)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(timeout=20)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the S3 server ended: {(self._data / 's3.log').read_text()[-1000:]}")
        try:
            urllib.request.urlopen(self.env["AWS_ENDPOINT_URL"], timeout=5).close()
        except urllib.error.HTTPError:
            return True  # it wants a signature
        except OSError:
            return False
        return True
