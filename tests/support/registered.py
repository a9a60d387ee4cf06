"""Registered models on a real MLflow server, made over HTTP: a test need not import MLflow, which takes seconds."""

from __future__ import annotations

import http.client
import itertools
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from mlflow_server import MlflowServer

API: Final = "/api/2.0/mlflow"
ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"

MODEL: Final = '''
import numpy as np
import penstock
from penstock import Spec

@penstock.model(inputs={{"X": Spec("FP32", -1)}}, outputs={{"Y": Spec("FP32", -1)}}, max_batch_size=4)
class Scaled:
    """Y = {factor} X."""

    def __call__(self, X):
        return {{"Y": np.float32({factor}) * X}}
'''

_numbers = itertools.count()


class Registered:
    """One registered model, of a name of its own, and the experiment of its runs."""

    def __init__(self, server: MlflowServer) -> None:
        self.server = server
        self.name = f"scaled-{next(_numbers)}"
        self._call("POST", "/registered-models/create", {"name": self.name})
        made = self._call("POST", "/experiments/create", {"name": self.name})
        self._experiment = made["experiment_id"]

    def add(
        self, factor: float, alias: str = "", files: Mapping[str, str | bytes] | None = None
    ) -> int:
        """A version that multiplies, made by a run. `files`: others than its model.py. Returns its number."""
        run = self._call(
            "POST",
            "/runs/create",
            {"experiment_id": self._experiment, "run_name": f"times {factor}", "start_time": 1},
        )["run"]
        run_id, root = run["info"]["run_id"], run["info"]["artifact_uri"]
        self._call(
            "POST", "/runs/log-parameter", {"run_id": run_id, "key": "factor", "value": str(factor)}
        )
        for path, content in (files or {"model.py": MODEL.format(factor=factor)}).items():
            where = root.removeprefix("mlflow-artifacts:").lstrip("/")
            data = content.encode() if isinstance(content, str) else content
            self._request("PUT", f"{ARTIFACTS}/{where}/model/{urllib.parse.quote(path)}", data)
        body = {"name": self.name, "source": f"{root}/model", "run_id": run_id}
        made = self._call("POST", "/model-versions/create", body)
        version = int(made["model_version"]["version"])
        if alias:
            self.point(alias, version)
        return version

    def point(self, alias: str, version: int) -> None:
        """Have the alias mean that version."""
        body = {"name": self.name, "alias": alias, "version": str(version)}
        self._call("POST", "/registered-models/alias", body)

    def remove_alias(self, alias: str) -> None:
        self._call("DELETE", "/registered-models/alias", {"name": self.name, "alias": alias})

    def remove(self, version: int) -> None:
        """Delete the version."""
        body = {"name": self.name, "version": str(version)}
        self._call("DELETE", "/model-versions/delete", body)

    def aliases(self) -> dict[str, int]:
        found = self._call("GET", f"/registered-models/get?{self._query()}")["registered_model"]
        return {each["alias"]: int(each["version"]) for each in found.get("aliases", ())}

    def tags(self, version: int) -> dict[str, str]:
        """Of a version."""
        found = self._call("GET", f"/model-versions/get?{self._query(version=str(version))}")
        return {tag["key"]: tag["value"] for tag in found["model_version"].get("tags", ())}

    def _query(self, **more: str) -> str:
        return urllib.parse.urlencode({"name": self.name, **more})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(self._request(method, f"{API}{path}", data) or b"{}")
        return answer

    def _request(self, method: str, path: str, data: bytes | None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, (method, path, content)
            return content
        finally:
            connection.close()
