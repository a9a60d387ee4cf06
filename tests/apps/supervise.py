"""`python supervise.py [FLAG…] FOLDER`: the real supervisor over the fake gateway, impatient."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from penstock.commands.serve import rewrite_arguments
from penstock.config import Settings
from penstock.config_sources import load_settings
from penstock.errors import PenstockError
from penstock.logs import configure_logging
from penstock.supervisor.front import GatewayCommand, envoy_command
from penstock.supervisor.liveness import ProbeTiming
from penstock.supervisor.supervisor import Supervisor, Timing


def command(settings: Settings, run_dir: Path) -> GatewayCommand:
    """Envoy around the fake."""
    return envoy_command(
        settings, run_dir, app="fake_gateway:app", extra_path=[Path(__file__).parent]
    )


async def main(arguments: list[str]) -> int:
    """Flags as --name=value, then one folder."""
    *flags, folder = rewrite_arguments(arguments)
    pairs = (flag.removeprefix("--").split("=", 1) for flag in flags)
    given = {name.replace("-", "_"): value for name, value in pairs}
    settings = load_settings({**given, "model_repository": [folder]})
    configure_logging(settings.log_settings, sys.stderr)
    delay_s = float(os.environ.get("FIRST_DELAY_S", "0.02"))
    timing = Timing(
        probe=ProbeTiming(interval_s=0.2, timeout_s=0.3, misses=3),
        first_delay_s=delay_s,
        longest_delay_s=5 * delay_s,
        quick_crashes=3,
    )
    return await Supervisor(settings, sys.stdout, command, timing).run()


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except PenstockError as error:
        sys.exit(f"penstock: {error}")
