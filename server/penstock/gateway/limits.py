"""Bounds on what one client, or all of them, may take of the server. Both fronts have them."""

from __future__ import annotations

import resource
from typing import Final

MAX_CONNECTIONS: Final = 10_000
HANDSHAKE_S: Final = 10
"""Of TLS, from the connection on."""
MAX_STREAMS: Final = 1024
"""Requests under way on one HTTP/2 connection."""
MAX_HEADERS: Final = 100
MAX_HEADERS_KIB: Final = 32


def max_connections() -> int:
    """As many, or as descriptors allow: workers, models and files need some too."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_CONNECTIONS if files < 0 else min(MAX_CONNECTIONS, files // 2)
