"""Adds and subtracts: the classic first model of Triton's Python backend, unchanged in form."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1."""

    def execute(self, requests):
        """One response a request, in order."""
        return [self._answer(request) for request in requests]

    @staticmethod
    def _answer(request):
        a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
        outputs = [pb_utils.Tensor("OUTPUT0", a + b), pb_utils.Tensor("OUTPUT1", a - b)]
        return pb_utils.InferenceResponse(output_tensors=outputs)
