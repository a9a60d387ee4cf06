"""The JSON form, as Triton's `GET /config` shows it."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict, from_json, parse, to_json
from penstock.protobuf import message_class
from penstock.repository.config_json import config_to_proto, proto_to_config

pytestmark = pytest.mark.extension("model_configuration")

PBTXT = """
name: "dyn0" backend: "python"
version_policy { latest { num_versions: 1 } }
input { name: "INPUT0" data_type: TYPE_FP32 dims: 16 reshape { shape: [] } }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: 16 }
dynamic_batching {
  priority_levels: 2 default_priority_level: 1
  default_queue_policy { default_timeout_microseconds: 5 max_queue_size: 3 }
  priority_queue_policy { key: 1 value { max_queue_size: 2 } }
}
instance_group { name: "dyn0" kind: KIND_CPU count: 1 secondary_devices { device_id: 3 } }
default_model_filename: "model.py"
"""

TRITON_SHOWS: ConfigDict = {
    "name": "dyn0",
    "platform": "",
    "backend": "python",
    "runtime": "",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 0,
    "input": [
        {
            "name": "INPUT0",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [16],
            "reshape": {"shape": []},
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ],
    "output": [
        {
            "name": "OUTPUT0",
            "data_type": "TYPE_FP32",
            "dims": [16],
            "label_filename": "",
            "is_shape_tensor": False,
            "is_non_linear_format_io": False,
        }
    ],
    "batch_input": [],
    "batch_output": [],
    "dynamic_batching": {
        "preferred_batch_size": [],
        "max_queue_delay_microseconds": 0,
        "preserve_ordering": False,
        "priority_levels": 2,
        "default_priority_level": 1,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 5,
            "allow_timeout_override": False,
            "max_queue_size": 3,
        },
        "priority_queue_policy": {
            "1": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": 0,
                "allow_timeout_override": False,
                "max_queue_size": 2,
            }
        },
    },
    "instance_group": [
        {
            "name": "dyn0",
            "kind": "KIND_CPU",
            "count": 1,
            "gpus": [],
            "secondary_devices": [{"kind": "KIND_NVDLA", "device_id": 3}],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
    ],
    "default_model_filename": "model.py",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
}


def test_is_what_a_real_triton_shows() -> None:
    message = text_format.Parse(PBTXT, message_class("inference.ModelConfig")())
    found = proto_to_config(message)
    assert found == TRITON_SHOWS
    assert list(found) == list(TRITON_SHOWS)
    assert config_to_proto(found) == message


def test_the_typed_view_and_workers_take_it() -> None:
    config = proto_to_config(text_format.Parse(PBTXT, message_class("inference.ModelConfig")()))
    assert parse(config).input[0].datatype == "FP32"
    assert parse(config).dynamic_batching is not None
    assert from_json(to_json(config)) == config


def test_floats_are_as_short_as_they_were_written() -> None:
    text = """
    sequence_batching { direct { minimum_slot_utilization: 0.1 } }
    model_metrics { metric_control { histogram_options { buckets: [0.1, -inf, nan] } } }
    """
    config = proto_to_config(text_format.Parse(text, message_class("inference.ModelConfig")()))
    assert config["sequence_batching"]["direct"]["minimum_slot_utilization"] == 0.1
    buckets = config["model_metrics"]["metric_control"][0]["histogram_options"]["buckets"]
    assert buckets == [0.1, "-Infinity", "NaN"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"nam": "x"}, 'has no field named "nam"'),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"input": [{"data_type": "FP32"}]}, "FP32"),
        ({"input": 3}, "input"),
    ],
)
def test_what_is_no_configuration(config: ConfigDict, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"^not a model configuration: ") as caught:
        config_to_proto(config)
    assert expected in str(caught.value)
