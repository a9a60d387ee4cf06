"""A Triton model that logs a line of each level for each request, with the request's id in it."""

from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]


class TritonPythonModel:
    """Answers what it was asked."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response a request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        logger, name = pb_utils.Logger, request.request_id()
        logger.log_verbose(f"verbose {name}")
        logger.log_info(f"info {name}")
        logger.log_warn(f"warning {name}")
        logger.log_error(f"error {name}")
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)])
