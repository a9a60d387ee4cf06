"""What the parameters of load and unload requests mean, on both wires."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from google.protobuf.message import Message

from penstock.access.session import OPEN
from penstock.errors import InvalidRequest
from penstock.gateway.http_types import HttpRequest
from penstock.gateway.model_control import CHUNK_CHARACTERS, ModelControl
from penstock.protobuf import message_class
from penstock.repository.overrides import Override
from penstock.workers.supervisor_messages import ModelReport

pytestmark = pytest.mark.extension("model_repository")

LINES = [
    ModelReport("m", "1", "READY", "", "python", 1, "cpu"),
    ModelReport("n", "", "UNAVAILABLE", "no weights", "", 0),
]


class Repository:
    """In the repository's place: it remembers what it was asked to do."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, Override | None, str]] = []
        self.unloads: list[tuple[str, bool, str]] = []
        self.listed: list[str] = []

    def check_control_allowed(self) -> None:
        """It is."""

    async def load(self, name: str, override: Override | None, repository: str) -> None:
        """Remember it."""
        self.loads.append((name, override, repository))

    async def unload(self, name: str, *, dependents: bool, repository: str) -> None:
        """Remember it."""
        self.unloads.append((name, dependents, repository))

    async def listing(self, repository: str) -> list[ModelReport]:
        """Always the same."""
        self.listed.append(repository)
        return LINES


class Wires:
    """The extension over a repository."""

    def __init__(self) -> None:
        self.repository = Repository()
        self.control = ModelControl(self.repository)  # type: ignore[arg-type]
        self.rpcs = {name: (request, call) for name, request, _, call in self.control.rpcs()}

    async def load(self, body: Any = b"", name: str = "m") -> Override | None:
        """Over HTTP: what the repository was given."""
        await self.control.load(name, request(body))
        return self.repository.loads.pop()[1]

    async def unload(self, body: Any = b"") -> bool:
        """Over HTTP: whether with dependents."""
        await self.control.unload("m", request(body))
        return self.repository.unloads.pop()[1]

    async def call(self, rpc: str, **fields: Any) -> Message:
        """Over gRPC."""
        message, answer = self.rpcs[rpc]
        return await answer(message_class(f"inference.{message}")(**fields), OPEN)

    async def load_rpc(
        self, parameters: Mapping[str, Any] = MappingProxyType({}), name: str = "m"
    ) -> Override | None:
        """Over gRPC: what the repository was given."""
        await self.call("RepositoryModelLoad", model_name=name, parameters=dict(parameters))
        return self.repository.loads.pop()[1]


def request(body: Any) -> HttpRequest:
    """A POST; what is no bytes is sent as JSON."""
    return HttpRequest("POST", {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def wires() -> Wires:
    return Wires()


# ── load ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", [b"", b" ", {}, {"parameters": {}}, {"parameters": None}])
async def test_a_plain_load(wires: Wires, body: Any) -> None:
    assert await wires.load(body) is None
    assert await wires.load_rpc() is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, CHUNK_CHARACTERS * 3 // 4, CHUNK_CHARACTERS + 1])
async def test_configuration_and_files(wires: Wires, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    override = Override(
        '{"max_batch_size": 1}', {"file:1/model.py": data, "file:x": b"x"}, "default"
    )
    files = {name: b64(content) for name, content in override.files.items()}
    assert await wires.load({"parameters": {"config": override.config, **files}}) == override
    parameters = {name: {"bytes_param": content} for name, content in override.files.items()}
    config = {"string_param": override.config}
    assert await wires.load_rpc({"config": config, **parameters}) == override


async def test_a_configuration_alone(wires: Wires) -> None:
    assert await wires.load({"parameters": {"config": "{}"}}) == Override("{}", tenant="default")
    assert await wires.load_rpc({"config": {"string_param": "{}"}}) == Override(
        "{}", tenant="default"
    )


CONFIG = {"config": "{}"}


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"conf": "{}"}, "unrecognized load parameter 'conf'."),
        ({"unload_dependents": True}, "unrecognized load parameter 'unload_dependents'."),
        ({"config": {}}, "invalid value type for load parameter 'config', expected a string"),
        ({"config": None}, "invalid value type for load parameter 'config', expected a string"),
        ({**CONFIG, "file:x": 1}, "invalid value type for load parameter 'file:x'"),
        ({**CONFIG, "file:x": "a"}, "load parameter 'file:x' is not base64"),
        ({**CONFIG, "file:x": "aä=="}, "load parameter 'file:x' is not base64"),
        ({**CONFIG, "file:x": "YQ==YQ=="}, "load parameter 'file:x' is not base64"),
        ({**CONFIG, "file:x": "YWFh\nYWFh"}, "load parameter 'file:x' is not base64"),
        ({"file:x": ""}, "Load parameter 'config' must be specified for model file override"),
        ({**CONFIG, "file:../x": ""}, "Invalid file parameter 'file:../x': it has a part '..'"),
        ({**CONFIG, "file:": ""}, "Invalid file parameter 'file:': it is empty"),
        ([], "'parameters' must be a JSON object"),
        ("config", "'parameters' must be a JSON object"),
    ],
)
async def test_bad_parameters_over_http(wires: Wires, parameters: Any, problem: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await wires.load({"parameters": parameters})
    assert problem in str(raised.value)
    assert wires.repository.loads == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b'{"a": ' * 101 + b"1" + b"}" * 101, "nests deeper than 100 levels"),
        (b"\xff\xfe", "not a JSON object"),
        (b'{"parameters": {"config": "{}", "config": "{}"}}', "'config' is given twice"),
        (
            b'{"parameters": {"config": "", "file:x": "", "file:x": ""}}',
            "'file:x' is given twice",
        ),
        (b'{"parameters": {"\\ud800": ""}}', r"unrecognized load parameter '\ud800'."),
    ],
)
async def test_bad_bodies(wires: Wires, body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await wires.load(body)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"conf": {"string_param": "{}"}}, "unrecognized load parameter 'conf'."),
        ({"config": {"bytes_param": b"{}"}}, "load parameter 'config', expected string_param."),
        ({"config": {}}, "load parameter 'config', expected string_param."),
        ({"file:x": {"string_param": "a"}}, "load parameter 'file:x', expected bytes_param."),
        ({"file:x": {"bytes_param": b""}}, "Load parameter 'config' must be specified"),
        (
            {"config": {"string_param": "{}"}, "file:/x": {"bytes_param": b""}},
            "Invalid file parameter 'file:/x': it is an absolute path",
        ),
    ],
)
async def test_bad_parameters_over_grpc(
    wires: Wires, parameters: dict[str, dict[str, Any]], problem: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await wires.load_rpc(parameters)
    assert problem in str(raised.value)
    assert wires.repository.loads == []


@pytest.mark.parametrize("name", ["..", ".x", "a/b", ""])
async def test_names_that_nothing_may_be_loaded_as(wires: Wires, name: str) -> None:
    with pytest.raises(InvalidRequest, match="can't be a model's name"):
        await wires.load({"parameters": CONFIG}, name)
    with pytest.raises(InvalidRequest, match="can't be a model's name"):
        await wires.load_rpc({"config": {"string_param": "{}"}}, name)


# ── unload, index ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_unload(wires: Wires) -> None:
    for given in (False, True):
        assert await wires.unload({"parameters": {"unload_dependents": given}}) is given
        parameter = {"unload_dependents": {"bool_param": given}}
        await wires.call(
            "RepositoryModelUnload", model_name="m", repository_name="r", parameters=parameter
        )
        assert wires.repository.unloads.pop() == ("m", given, "r")
    bodies: list[Any] = [b"", {}, {"parameters": {}}]
    for body in bodies:
        assert await wires.unload(body) is False


async def test_bad_unloads(wires: Wires) -> None:
    with pytest.raises(InvalidRequest, match=r"Unable to parse 'unload_dependents': .*non-boolean"):
        await wires.unload({"parameters": {"unload_dependents": 1}})
    with pytest.raises(InvalidRequest, match=r"unrecognized unload parameter 'force'."):
        await wires.unload({"parameters": {"force": True}})
    with pytest.raises(
        InvalidRequest, match=r"'unload_dependents' parameter, expected bool_param."
    ):
        await wires.call(
            "RepositoryModelUnload", parameters={"unload_dependents": {"int64_param": 1}}
        )
    with pytest.raises(InvalidRequest, match=r"unrecognized unload parameter 'force'."):
        await wires.call("RepositoryModelUnload", parameters={"force": {"bool_param": True}})
    assert wires.repository.unloads == []


async def test_index(wires: Wires) -> None:
    whole = [
        {"name": "m", "version": "1", "state": "READY", "reason": "", "devices": "cpu"},
        {
            "name": "n",
            "version": "",
            "state": "UNAVAILABLE",
            "reason": "no weights",
        },
    ]
    asked: list[tuple[Any, Any]] = [
        (b"", whole),
        ({"ready": False}, whole),
        ({"ready": True}, whole[:1]),
    ]
    for body, lines in asked:
        answer = await wires.control.index(request(body), "r")
        assert json.loads(answer.body) == lines
    answer_message: Any = await wires.call("RepositoryIndex", repository_name="s", ready=True)
    assert [(line.name, line.state) for line in answer_message.models] == [("m", "READY")]
    assert wires.repository.listed == ["r"] * 3 + ["s"]
    with pytest.raises(InvalidRequest, match="'ready' must be true or false"):
        await wires.control.index(request({"ready": "yes"}))
