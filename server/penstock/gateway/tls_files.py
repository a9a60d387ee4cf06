"""The folder of what TLS is spoken with: the supervisor writes it, the fronts read it, in the middle of a change too.

`..data` is a link to the folder of the present files. All of them change in one moment: when it is replaced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = "tls"
"""In the run's folder."""
LINK: Final = "..data"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Names in such a folder."""

    folder: Path
    within: str = LINK
    """The folder in it where the files lie: the link, or what it led to at some moment."""

    @classmethod
    def of_run(cls, run_dir: Path) -> TlsFiles:
        """Those of a run."""
        return cls(run_dir / FOLDER)

    def pinned(self) -> TlsFiles:
        """Those of this moment: they don't change, and belong together. They are there for two changes more."""
        return TlsFiles(self.folder, os.readlink(self.folder / LINK))

    @property
    def link(self) -> Path:
        """Where the files lie."""
        return self.folder / self.within

    @property
    def certificates(self) -> Path:
        return self.link / "certificates.pem"

    @property
    def key(self) -> Path:
        return self.link / "key.pem"

    @property
    def client_ca(self) -> Path:
        return self.link / "client-ca.pem"

    @property
    def sds_server(self) -> Path:
        """Certificate and key, as Envoy reads them."""
        return self.link / "sds-server.json"

    @property
    def sds_client_ca(self) -> Path:
        return self.link / "sds-client-ca.json"
