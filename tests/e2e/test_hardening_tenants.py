"""What one tenant has in the server, another one neither sees nor uses: shared memory, over both protocols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from region_files import region_file
from served import FRONTS, Served
from served_models import write_add_sub
from tenant_commands import new_key

pytestmark = pytest.mark.e2e

ROW = np.ones(4, np.float32)


@pytest.fixture(scope="module", params=FRONTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server, and the keys of two tenants."""
    folder = tmp_path_factory.mktemp("tenants")
    write_add_sub(folder / "models" / "add_sub")
    file = folder / "state" / "tenants.db"
    where = f"--access-tenants-file={file}"
    keys = new_key(where, "mine"), new_key(where, "theirs")
    flags = ("--allow-client-shm=true", "--access-mode=required", where)
    server = Served(folder / "models", request.param, *flags)
    try:
        yield server.wait_ready(), keys
    finally:
        server.close()


@pytest.mark.parametrize("protocol", [tritonclient.http, tritonclient.grpc])
def test_regions_of_another_tenant(served: tuple[Served, tuple[str, str]], protocol: Any) -> None:
    server, keys = served
    address = server.http if protocol is tritonclient.http else server.grpc
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
        client.unregister_system_shared_memory(headers=mine)
