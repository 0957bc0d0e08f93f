"""Headless Chromium, driven over its own protocol through a pipe: no driver and no web socket beside it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.waiting import wait_for

_NAMES = ("chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe", "--force-color-profile=srgb",
)  # fmt: skip

#: The protocol's pipe is of the file descriptors 3 and 4.
_AS_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""

_ANSWER_S = 60

_MODIFIERS = {"Alt": 1, "Control": 2, "Shift": 8}
_CODES = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, " ": 32}


def no_browser() -> str:
    """Why there is no browser; empty if there is one."""
    return "" if _found() else f"none of {', '.join(_NAMES)} is installed (Debian: apt-get install chromium)"


def _found() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Page:
    """One page. Strings of JavaScript are evaluated in it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, params, self._session)

    def open(self, url: str) -> None:
        self.call("Page.bringToFront")
        self.call("Page.navigate", url=url)
        wait_for(f"{url} to be there", lambda: bool(self.run("document.readyState === 'complete'")))

    def run(self, script: str) -> Any:
        """What *script*, an expression, gives. AssertionError if it throws."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, what: str, script: str, timeout_s: float = 60) -> Any:
        """The first true value that *script* gives."""
        found: list[Any] = []
        wait_for(what, lambda: bool(found.append(self.run(script)) or found[-1]), timeout_s)
        return found[-1]

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def press(self, key: str, *held: str) -> None:
        """A key with its modifiers, as a keyboard gives it."""
        modifiers = sum(_MODIFIERS[name] for name in held)
        code = _CODES.get(key, ord(key[0].upper()))
        plain = "\r" if key == "Enter" else key if len(key) == 1 else ""
        facts: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        text = {} if (held and "Shift" not in held) or not plain else {"text": plain}
        self.call("Input.dispatchKeyEvent", type="keyDown", modifiers=modifiers, **facts, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **facts)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot, of all of the page or of what is in sight."""
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))

    @property
    def complaints(self) -> list[str]:
        """What the page wrote to the console as warnings and errors, and what it threw."""
        return self._browser.complaints


class Browser:
    """A browser process, with a profile that goes with it."""

    def __init__(self, profile: str) -> None:
        program = _found()
        assert program is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        line = [sys.executable, "-c", _AS_3_AND_4, str(theirs_in), str(theirs_out), program, *_FLAGS]
        self._process = subprocess.Popen(
            [*line, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self.complaints: list[str] = []

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A page of its own. The one that was opened last is in front: those behind are told that nobody sees them."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        try:
            yield Page(self, session)
        finally:
            self.call("Target.closeTarget", {"targetId": target})

    def call(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + _ANSWER_S
        while True:
            got = self._next(deadline - time.monotonic())
            if got.get("id") == self._number:
                assert "error" not in got, (method, got["error"])
                return dict(got["result"])
            self._note(got)

    def _next(self, timeout_s: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, timeout_s))
            data = os.read(self._in, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
            case "Log.entryAdded" if params["entry"]["level"] in ("warning", "error"):
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.complaints.append(f"a dialogue: {params['message']}")

    def close(self) -> None:
        for end in (self._out, self._in):
            os.close(end)
        try:
            self._process.wait(5)  # it ends when its pipe does
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(profile)
        try:
            yield opened
        finally:
            opened.close()
