"""What stands open to a network, for who starts a server to read."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.config import Settings

LOOPBACK = ("127.", "::1")


def exposures(settings: Settings) -> Iterator[str]:
    """One line for each thing that everybody on the network may do, or see; none on loopback."""
    if settings.host.startswith(LOOPBACK):
        return
    where = f"the ports are open to the network ({settings.host})"
    if settings.access.mode == "off":
        may = [
            "run every model",
            "read configurations and statistics",
            "change trace and log settings",
        ]
        if settings.model_control_mode == "explicit":
            may.append("load models, which is to run programs here")
        if settings.allow_client_shm:
            may.append("read and write what lies in /dev/shm")
        yield f"{where}, and everybody may {', '.join(may)}: --access-mode required asks who it is"
    if not settings.tls.enabled:
        seen = "requests and answers"
        if settings.access.mode == "required":
            seen += ", and the credentials with them,"
        yield f"{where} without TLS: {seen} can be read and changed on the way (--tls-cert-file, --tls-key-file)"
