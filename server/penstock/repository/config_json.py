"""ModelConfig as a message and as the JSON that Triton's `GET …/config` shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from penstock.errors import ConfigError
from penstock.model_config import ConfigDict
from penstock.protobuf import descriptor_pool, fields_of, is_map, is_repeated, message_class


def proto_to_config(message: Message) -> ConfigDict:
    """A message's JSON form: snake_case, defaults shown, integers as numbers, enums as names.

    Only parts that were not set (blocks, and choices between keys) are left out.
    """
    return {
        name: _value(field, getattr(message, name))
        for name, field in fields_of(message.DESCRIPTOR).items()
        if not field.has_presence or message.HasField(name)
    }


def config_to_proto(config: ConfigDict) -> Message:
    """Inverse of `proto_to_config`; keys that are left out have their defaults.

    Raises ConfigError when a key is unknown or a value is not of its type.
    """
    message = message_class("inference.ModelConfig")()
    try:
        return ParseDict(config, message, descriptor_pool=descriptor_pool())
    except ParseError as error:
        raise ConfigError(f"not a model configuration: {error}") from error


def _value(field: FieldDescriptor, value: Any) -> Any:
    if is_map(field):
        item = fields_of(field.message_type)["value"]
        return {str(key): _single(item, each) for key, each in value.items()}
    if is_repeated(field):
        return [_single(field, each) for each in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return proto_to_config(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if isinstance(value, float):
        return _number(value, is_single=field.type == FieldDescriptor.TYPE_FLOAT)
    return value


def _number(value: float, *, is_single: bool) -> float | str:
    if not math.isfinite(value):
        # JSON has no such numbers; protobuf's JSON has these words.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(str(np.float32(value))) if is_single else value
