"""Headless Chromium, driven over a pipe by its DevTools protocol: what a person sees of a page, and its console."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1100,900",
    "--remote-debugging-pipe",
)
ANSWER_S: Final = 30
TROUBLE: Final = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


class Page:
    """The one page of a browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = to_browser
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.console: list[dict[str, Any]] = []
        """All that the page, or the browser on its behalf, complained of or wrote."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go there."""
        assert "errorText" not in self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression, which may be a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until the expression is true; the browser looks before each frame."""
        waiting = f"""new Promise((done) => {{
            const look = () => ({condition}) ? done(true) : requestAnimationFrame(look); look(); }})"""
        assert self.run(waiting) is True

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools command's result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result = message["result"]
                assert isinstance(result, dict)
                return result
            if message.get("method") in TROUBLE:
                self.console.append(message)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._in.read(1 << 16)
            assert chunk, "Chromium has ended"
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        assert isinstance(message, dict)
        return message

    def close(self) -> None:
        """Let go of the pipes."""
        os.close(self._out)
        self._in.close()


def chromium() -> str | None:
    """Where it is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A browser with one empty page."""
    program = chromium()
    assert program is not None, "Chromium is not installed (Debian's package chromium)"
    theirs_in, to_browser = os.pipe()
    from_browser, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(prefix="pt-", ignore_cleanup_errors=True) as profile:
        # it wants descriptors 3 and 4; the shell places them
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            page = Page(to_browser, from_browser)
            yield page
            page.call("Browser.close")
            page.close()
            process.wait(ANSWER_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
