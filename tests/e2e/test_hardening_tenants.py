"""What one tenant has in the server, another one neither sees nor uses: shared memory, over both protocols."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from penstock.cli import main
from region_files import region_file
from served import Served
from served_models import write_add_sub

pytestmark = pytest.mark.e2e

ROW = np.ones(4, np.float32)


def new_key(file: Path, tenant: str) -> str:
    """An API key of a new tenant's."""
    out = io.StringIO()
    store = f"--access-tenants-file={file}"
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        assert main(["tenants", "create", tenant, store]) == 0
        out.truncate(0)
        out.seek(0)
        assert main(["tenants", "key", "create", tenant, "--role", "user", store]) == 0
    return out.getvalue().strip()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """Of two tenants."""
    file = tmp_path / "state" / "tenants.db"
    return new_key(file, "mine"), new_key(file, "theirs")


@pytest.mark.parametrize("protocol", [tritonclient.http, tritonclient.grpc])
def test_regions_of_another_tenant(
    front: str, tmp_path: Path, keys: tuple[str, str], protocol: Any, serve: Any
) -> None:
    write_add_sub(tmp_path / "models" / "add_sub")
    flags = ("--access-mode=required", f"--access-tenants-file={tmp_path / 'state' / 'tenants.db'}")
    served: Served = serve(
        tmp_path / "models", front, "--allow-client-shm=true", *flags
    ).wait_ready()
    address = served.http if protocol is tritonclient.http else served.grpc
    mine, theirs = ({"x-api-key": key} for key in keys)
    with protocol.InferenceServerClient(address) as client, region_file(ROW.tobytes()) as (key, _):

        def infer(headers: dict[str, str]) -> Any:
            inputs = [protocol.InferInput(f"INPUT{n}", [4], "FP32") for n in (0, 1)]
            for each in inputs:
                each.set_shared_memory("r", ROW.nbytes)
            return client.infer("add_sub", inputs, headers=headers).as_numpy("OUTPUT0")

        client.register_system_shared_memory("r", key, ROW.nbytes, headers=mine)
        assert np.array_equal(infer(mine), ROW * 2)
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            infer(theirs)
        with pytest.raises(InferenceServerException, match="there is none of that key"):
            client.register_system_shared_memory("s", key, ROW.nbytes, headers=theirs)
        assert "key" not in str(client.get_system_shared_memory_status(headers=theirs))
        client.unregister_system_shared_memory("r", headers=theirs)
        client.unregister_system_shared_memory(headers=theirs)
        assert np.array_equal(infer(mine), ROW * 2)
