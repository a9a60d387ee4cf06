"""Sources of Triton `model.py` files, and the configuration that most of them need."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_files import load_spec, write_python
from penstock.backends.base import LoadedModel
from penstock.backends.registry import load
from penstock.model_config import ConfigDict
from penstock.types import Array

ADD_SUB = """
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(auto_complete_model_config):
            inputs = [
                {"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [4]},
                {"name": "INPUT1", "data_type": "TYPE_FP32", "dims": [4]},
            ]
            outputs = [
                {"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [4]},
                {"name": "OUTPUT1", "data_type": "TYPE_FP32", "dims": [4]},
            ]
            config = auto_complete_model_config.as_dict()
            input_names = [input["name"] for input in config["input"]]
            output_names = [output["name"] for output in config["output"]]
            for input in inputs:
                if input["name"] not in input_names:
                    auto_complete_model_config.add_input(input)
            for output in outputs:
                if output["name"] not in output_names:
                    auto_complete_model_config.add_output(output)
            auto_complete_model_config.set_max_batch_size(8)
            auto_complete_model_config.set_dynamic_batching()
            return auto_complete_model_config

        def initialize(self, args):
            self.model_config = model_config = json.loads(args["model_config"])
            output0_config = pb_utils.get_output_config_by_name(model_config, "OUTPUT0")
            output1_config = pb_utils.get_output_config_by_name(model_config, "OUTPUT1")
            self.output0_dtype = pb_utils.triton_string_to_numpy(output0_config["data_type"])
            self.output1_dtype = pb_utils.triton_string_to_numpy(output1_config["data_type"])

        def execute(self, requests):
            responses = []
            for request in requests:
                in_0 = pb_utils.get_input_tensor_by_name(request, "INPUT0")
                in_1 = pb_utils.get_input_tensor_by_name(request, "INPUT1")
                out_0 = in_0.as_numpy() + in_1.as_numpy()
                out_1 = in_0.as_numpy() - in_1.as_numpy()
                out_tensor_0 = pb_utils.Tensor("OUTPUT0", out_0.astype(self.output0_dtype))
                out_tensor_1 = pb_utils.Tensor("OUTPUT1", out_1.astype(self.output1_dtype))
                responses.append(
                    pb_utils.InferenceResponse(output_tensors=[out_tensor_0, out_tensor_1])
                )
            return responses

        def finalize(self):
            print("Cleaning up...")
"""

XY: ConfigDict = {
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
}
TEXT_XY: ConfigDict = {
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_STRING", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_STRING", "dims": [-1]}],
}


def executing(body: str) -> str:
    """A model whose `execute` is `body`."""
    lines = "\n".join("        " + line for line in body.strip().splitlines())
    return (
        "import json\nimport numpy as np\nimport triton_python_backend_utils as pb_utils\n"
        f"class TritonPythonModel:\n    def execute(self, requests):\n{lines}\n"
    )


def answering(expression: str) -> str:
    """A model that answers each request with the array `expression` as Y."""
    return executing(
        f"tensors = [pb_utils.Tensor('Y', {expression}) for r in requests]\n"
        "return [pb_utils.InferenceResponse([t]) for t in tensors]"
    )


def loaded(model_dir: Path, source: str, config: ConfigDict = XY) -> LoadedModel:
    """Write the model and load it."""
    write_python(model_dir, source)
    return load(load_spec(model_dir, config))


def row(*values: float) -> dict[str, Array]:
    """A request of one row."""
    return {"X": np.array([values], np.float32)}
