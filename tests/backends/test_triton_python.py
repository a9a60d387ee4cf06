"""Unmodified Triton `model.py` files: their configuration, requests, responses and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_files import batch_of, each
from penstock.backends.base import Batch, RequestInfo
from penstock.errors import (
    AlreadyExists,
    Cancelled,
    InvalidRequest,
    ModelFailed,
    NotFound,
    Unavailable,
    UnknownError,
    Unsupported,
)
from triton_models import ADD_SUB, TEXT_XY, XY, answering, executing, loaded, row


def test_add_sub_answers_each_request(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = loaded(model_dir, ADD_SUB, {})
    ones = np.ones((1, 4), np.float32)
    twos = np.full((2, 4), 2, np.float32)
    batch = batch_of(
        {"INPUT0": ones, "INPUT1": ones},
        {"INPUT0": twos, "INPUT1": -twos},
        outputs=[(), ["OUTPUT1"]],
    )
    answers = each(model.execute(batch))
    assert answers[0]["OUTPUT0"].tolist() == [[2] * 4]
    assert answers[0]["OUTPUT1"].tolist() == [[0] * 4]
    assert answers[1].keys() == {"OUTPUT1"}
    assert answers[1]["OUTPUT1"].tolist() == [[4] * 4] * 2
    model.close()
    assert "Cleaning up" in capsys.readouterr().out


def test_inputs_are_views_of_the_batch(model_dir: Path) -> None:
    model = loaded(model_dir, answering("pb_utils.get_input_tensor_by_name(r, 'X').as_numpy()"))
    batch = batch_of(row(1), row(2), row(3))
    answers = each(model.execute(batch))
    assert [a["Y"].tolist() for a in answers] == [[[1]], [[2]], [[3]]]
    assert all(np.shares_memory(a["Y"], batch.inputs["X"]) for a in answers)


@pytest.mark.parametrize(
    "expression",
    [
        "np.array([['é', b'\\xff']], dtype=object)",
        "np.array([['é'.encode(), b'\\xff']])",
        "np.array([['é'.encode(), b'\\xff']], dtype=object)",
    ],
)
def test_string_outputs_become_bytes(expression: str, model_dir: Path) -> None:
    model = loaded(model_dir, answering(expression), TEXT_XY)
    (answer,) = each(model.execute(batch_of({"X": np.array([[b"a"]], dtype=np.object_)})))
    assert answer["Y"].dtype == np.object_
    assert answer["Y"].tolist() == [["é".encode(), b"\xff"]]


def test_str_array_and_other_objects_become_bytes(model_dir: Path) -> None:
    text = {"X": np.array([[b"a"]], dtype=np.object_)}
    model = loaded(model_dir, answering("np.array([['é', 'b']])"), TEXT_XY)
    assert each(model.execute(batch_of(text)))[0]["Y"].tolist() == [["é".encode(), b"b"]]
    model = loaded(model_dir, answering("np.array([[1, None]], dtype=object)"), TEXT_XY)
    assert each(model.execute(batch_of(text)))[0]["Y"].tolist() == [[b"1", b"None"]]


def test_error_response_fails_its_request_only(model_dir: Path) -> None:
    source = executing(
        """
responses = []
for request in requests:
    x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
    if x[0, 0] < 0:
        error = pb_utils.TritonError("negative", pb_utils.TritonError.INVALID_ARG)
        responses.append(pb_utils.InferenceResponse(output_tensors=[], error=error))
    elif x[0, 0] == 0:
        responses.append(None)
    else:
        responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
return responses
"""
    )
    answers = each(loaded(model_dir, source).execute(batch_of(row(-1), row(1), row(0))))
    assert type(answers[0]) is InvalidRequest
    assert str(answers[0]) == "negative"
    assert answers[1]["Y"].tolist() == [[1]]
    assert isinstance(answers[2], ModelFailed)
    assert "returned None" in str(answers[2])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("pb_utils.TritonError('no')", ModelFailed),
        ("pb_utils.TritonError('no', pb_utils.TritonError.UNKNOWN)", UnknownError),
        ("pb_utils.TritonError('no', pb_utils.TritonError.INTERNAL)", ModelFailed),
        ("pb_utils.TritonError('no', pb_utils.TritonError.NOT_FOUND)", NotFound),
        ("pb_utils.TritonError('no', pb_utils.TritonError.INVALID_ARG)", InvalidRequest),
        ("pb_utils.TritonError('no', pb_utils.TritonError.UNAVAILABLE)", Unavailable),
        ("pb_utils.TritonError('no', pb_utils.TritonErrorCode.UNSUPPORTED)", Unsupported),
        ("pb_utils.TritonError('no', code=6)", AlreadyExists),
        ("pb_utils.TritonError('no', pb_utils.TritonError.CANCELLED)", Cancelled),
        ("pb_utils.TritonError('no', 99)", ModelFailed),
        ("pb_utils.TritonError('no', [])", ModelFailed),
        ("'no'", ModelFailed),
    ],
)
def test_the_code_of_an_error_response(model_dir: Path, error: str, expected: type) -> None:
    source = executing(f"return [pb_utils.InferenceResponse(error={error}) for _ in requests]")
    (answer,) = each(loaded(model_dir, source).execute(batch_of(row(1))))
    assert (type(answer), str(answer)) == (expected, "no")


def test_exception_fails_the_batch_with_type_message_and_line(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(model_dir, executing("raise pb_utils.TritonModelException('no\\nluck')"))
    with pytest.raises(ModelFailed) as caught:
        model.execute(batch_of(row(1), row(2)))
    assert str(caught.value) == (
        "Failed to process the request(s) for model instance 'tiny_0_0',"
        " message: TritonModelException: no luck (1/model.py:6)"
    )
    assert "Traceback" in caplog.text


def test_a_failed_batch_is_not_run_again(model_dir: Path) -> None:
    source = executing(
        "self.calls = getattr(self, 'calls', 0) + 1\nraise ValueError(f'call {self.calls}')"
    )
    model = loaded(model_dir, source)
    for call in (1, 2):
        with pytest.raises(ModelFailed, match=f"call {call}"):
            model.execute(batch_of(row(1), row(2)))


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("None", "Expected a list in the execute return, found type 'NoneType'"),
        ("[]", r"InferenceRequest\(s\) size is:2, and InferenceResponse\(s\) size is:0"),
        ("[1, 2]", "Expected an 'InferenceResponse' object .* found type 'int'"),
    ],
)
def test_wrong_return_fails_the_batch(returned: str, text: str, model_dir: Path) -> None:
    model = loaded(model_dir, executing(f"return {returned}"))
    with pytest.raises(ModelFailed, match=text):
        model.execute(batch_of(row(1), row(2)))


@pytest.mark.parametrize("tensors", ["None", "[None]", "3", "['Y']"])
def test_response_of_no_tensors_fails_its_request(tensors: str, model_dir: Path) -> None:
    source = executing(f"return [pb_utils.InferenceResponse({tensors}) for _ in requests]")
    (answer,) = each(loaded(model_dir, source).execute(batch_of(row(1))))
    assert isinstance(answer, ModelFailed)
    assert "no list of pb_utils.Tensor" in str(answer)


def test_request_tells_what_the_client_said(model_dir: Path) -> None:
    source = executing(
        """
said = [{
    "id": r.request_id(), "outputs": r.requested_output_names(), "model": r.model_name(),
    "version": r.model_version(), "parameters": json.loads(r.parameters()),
    "correlation": r.correlation_id(), "timeout": r.timeout(), "flags": r.flags(),
    "cancelled": r.is_cancelled(), "inputs": [t.name() for t in r.inputs()],
} for r in requests]
return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([json.dumps(s)]))]) for s in said]
"""
    )
    model = loaded(model_dir, source, XY | {"output": TEXT_XY["output"]})
    parameters: dict[str, Any] = {
        "mine": "yes",
        "sequence_id": 7,
        "sequence_end": True,
        "timeout": 9,
    }
    request = RequestInfo(1, "id-1", parameters)
    (answer,) = each(model.execute(Batch(row(1), [request])))
    assert json.loads(answer["Y"][0]) == {
        "id": "id-1",
        "outputs": ["Y"],
        "model": "tiny",
        "version": 1,
        "parameters": {"mine": "yes"},
        "correlation": 7,
        "timeout": 9,
        "flags": 2,
        "cancelled": False,
        "inputs": ["X"],
    }


@pytest.mark.parametrize(
    "call",
    [
        "requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)",
    ],
)
def test_what_is_not_done_says_so(call: str, model_dir: Path) -> None:
    model = loaded(model_dir, executing(call))
    with pytest.raises(ModelFailed, match=r"TritonModelException: .*Penstock does not"):
        model.execute(batch_of(row(1)))


@pytest.mark.parametrize(
    "call",
    [
        "pb_utils.InferenceRequest(model_name='other', inputs=[]).exec()",
        "pb_utils.InferenceRequest(model_name='other', inputs=[]).async_exec()",
        "pb_utils.load_model('other')",
        "pb_utils.is_model_ready('other')",
    ],
)
def test_without_a_server_there_are_no_other_models(call: str, model_dir: Path) -> None:
    model = loaded(model_dir, executing(call))
    with pytest.raises(ModelFailed, match="other models can't be reached from here"):
        model.execute(batch_of(row(1)))
