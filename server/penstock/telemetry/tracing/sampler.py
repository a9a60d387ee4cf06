"""Which requests are traced."""

from __future__ import annotations

from penstock.telemetry.tracing.settings import TraceSetting


class Sampler:
    """One of `rate` requests, and `count` of them at most. A setting that changes gets a new one."""

    __slots__ = ("left", "seen", "setting")

    def __init__(self, setting: TraceSetting) -> None:
        self.setting = setting
        self.seen = 0
        self.left = setting.count
        """Traces that may still be made; -1: any number."""

    @property
    def on(self) -> bool:
        """Whether any request may still be traced."""
        return bool(self.setting.level) and self.left != 0

    def take(self, *, forced: bool) -> bool:
        """Whether this request is traced. `forced`: its client traces it, and asks that we do."""
        if not self.on:
            return False
        if not forced:
            self.seen += 1
            if self.seen % self.setting.rate:
                return False
        if self.left > 0:
            self.left -= 1
        return True
