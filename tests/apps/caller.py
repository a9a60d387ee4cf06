"""A Triton model that asks other models what each request's parameters say.

`ask`: the model's name, and `with`: the parameters for it (JSON), `version`. `times`: that many requests at once, whose
answers are added up. `first`: read the inputs of all requests before any is asked for. `thread`: ask from another
thread. `stream`: ask the decoupled model of that name for X's values one by one, of which Y is the sum; `until`: no
more than that many; `between`: ask it once more before the second one is taken. `late`: wait for a file of that name
before anything is asked. `do`: "ready", "load" or "unload" the model instead. Otherwise Y is X.
"""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """One row in, one row out, by way of another model."""

    async def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request, in order."""
        told = [json.loads(request.parameters() or "{}") for request in requests]
        if any("first" in parameters for parameters in told):
            for request in requests:
                request.inputs()
        return [await self._answer(*pair) for pair in zip(requests, told, strict=True)]

    async def _answer(self, request: Any, parameters: dict[str, Any]) -> Any:
        if "do" in parameters:
            return self._control(request, **parameters)
        x = pb_utils.get_input_tensor_by_name(request, "X")
        if "late" in parameters:
            wait_for(parameters["late"])
        if "stream" in parameters:
            return self._stream(x.as_numpy(), parameters)
        if "ask" not in parameters:
            return answer_with(x.as_numpy(), {})
        asked = [self._nested(request, x, parameters) for _ in range(parameters.get("times", 1))]
        if "thread" in parameters:
            with ThreadPoolExecutor(1) as pool:
                responses = [pool.submit(asked[0].exec).result()]
        elif "times" in parameters:
            responses = await asyncio.gather(*(each.async_exec() for each in asked))
        else:
            responses = [asked[0].exec()]
        failed = [response.error() for response in responses if response.has_error()]
        if failed:
            return pb_utils.InferenceResponse(error=failed[0])
        outputs = [pb_utils.get_output_tensor_by_name(each, "Y").as_numpy() for each in responses]
        return answer_with(np.sum(outputs, axis=0), [said(response) for response in responses])

    def _nested(self, request: Any, x: Any, parameters: dict[str, Any]) -> Any:
        return pb_utils.InferenceRequest(
            model_name=parameters["ask"],
            model_version=parameters.get("version", -1),
            request_id=f"for {request.request_id()}",
            requested_output_names=["Y", "TOLD"],
            inputs=[pb_utils.Tensor("X", x.as_numpy())],
            parameters=json.loads(parameters.get("with", "{}")),
        )

    def _stream(self, x: Any, parameters: dict[str, Any]) -> Any:
        values = x[0].astype(np.int32)
        asked = pb_utils.InferenceRequest(
            model_name=parameters["stream"],
            requested_output_names=["OUT"],
            inputs=[
                pb_utils.Tensor("IN", values),
                pb_utils.Tensor("DELAY", np.zeros(len(values), np.uint32)),
            ],
            parameters={"in_threads": "between" not in parameters},
        )
        if "once" in parameters:
            return pb_utils.InferenceResponse(error=asked.exec().error())
        heard: list[int] = []
        for response in asked.exec(decoupled=True):
            if response.has_error():
                return pb_utils.InferenceResponse(error=response.error())
            out = pb_utils.get_output_tensor_by_name(response, "OUT")
            heard += [] if out is None else out.as_numpy().tolist()
            if parameters.pop("between", False):
                self._stream(x[:, :1], {"stream": parameters["stream"]})
            if len(heard) == parameters.get("until"):
                break
        return answer_with(np.full((1, 1), sum(heard), np.float32), heard)

    def _control(self, request: Any, do: str, model: str) -> Any:
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        try:
            if do == "ready":
                return answer_with(x, pb_utils.is_model_ready(model_name=model))
            (pb_utils.load_model if do == "load" else pb_utils.unload_model)(model_name=model)
        except pb_utils.TritonModelException as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return answer_with(x, "done")


def wait_for(path: str) -> None:
    """Tell that it waits, and wait."""
    Path(path + ".waits").touch()
    while not Path(path).exists():
        time.sleep(0.002)


def said(response: Any) -> Any:
    """What the other model told."""
    return json.loads(pb_utils.get_output_tensor_by_name(response, "TOLD").as_numpy()[0][0])


def answer_with(y: Any, told: Any) -> Any:
    """A response."""
    line = np.full((len(y), 1), json.dumps(told).encode(), np.object_)
    return pb_utils.InferenceResponse([pb_utils.Tensor("Y", y), pb_utils.Tensor("TOLD", line)])
