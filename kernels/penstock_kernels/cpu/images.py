"""Images of bytes, to what networks take: resized, normalised, a plane a channel."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from penstock_kernels.cpu.bits import to_bf16, to_fp16
from penstock_kernels.cpu.jit import inlined, jit
from penstock_kernels.runner import Array

FP32: Final = 0
FP16: Final = 1
BF16: Final = 2
"""What is made; FP16 and BF16 are uint16 here, their bits."""


@inlined
def fill_taps(
    size: Any, resized: Any, at: Any, antialias: Any, start: Any, count: Any, weights: Any
) -> Any:
    """Which of `size` pixels in a line, from `start` on, make up each of those from `at` on of the `resized` ones, and
    how much of each. `antialias`: of all that it covers; else of two neighbours. Pixels' centres are at their half."""
    scale = size / resized
    reach = max(scale, 1.0) if antialias else 1.0
    for index in range(start.size):
        centre = (at + index + 0.5) * scale
        low = min(max(int(np.floor(centre - reach + 0.5)), 0), size - 1)
        high = max(min(int(np.floor(centre + reach + 0.5)), size), low + 1)
        total = 0.0
        for k in range(high - low):
            total += max(1.0 - abs(low + k + 0.5 - centre) / reach, 0.0)
        start[index] = low
        count[index] = high - low
        for k in range(high - low):
            part = max(1.0 - abs(low + k + 0.5 - centre) / reach, 0.0)
            weights[index, k] = part / total if total > 0 else 1.0


@inlined
def most_taps(size: Any, resized: Any, antialias: Any) -> Any:
    """As many as `fill_taps` has at most."""
    return int(np.ceil(max(size / resized, 1.0))) * 2 + 1 if antialias else 3


@inlined
def add_lines(line: Any, weights: Any, data: Any, begin: Any, pitch: Any, is_first: Any) -> Any:
    """Add up to four lines of bytes by their weights: less to load and store than one by one."""
    n = line.size
    a = data[begin : begin + n]
    if weights.size == 1:
        b, c, d = a, a, a
        w, x, y, z = weights[0], np.float32(0), np.float32(0), np.float32(0)
    elif weights.size == 2:
        b = data[begin + pitch : begin + pitch + n]
        c, d = a, a
        w, x, y, z = weights[0], weights[1], np.float32(0), np.float32(0)
    elif weights.size == 3:
        b = data[begin + pitch : begin + pitch + n]
        c = data[begin + 2 * pitch : begin + 2 * pitch + n]
        d = a
        w, x, y, z = weights[0], weights[1], weights[2], np.float32(0)
    else:
        b = data[begin + pitch : begin + pitch + n]
        c = data[begin + 2 * pitch : begin + 2 * pitch + n]
        d = data[begin + 3 * pitch : begin + 3 * pitch + n]
        w, x, y, z = weights[0], weights[1], weights[2], weights[3]
    if weights.size <= 2:
        if is_first:
            for i in range(n):
                line[i] = w * a[i] + x * b[i]
        else:
            for i in range(n):
                line[i] += w * a[i] + x * b[i]
    elif is_first:
        for i in range(n):
            line[i] = w * a[i] + x * b[i] + y * c[i] + z * d[i]
    else:
        for i in range(n):
            line[i] += w * a[i] + x * b[i] + y * c[i] + z * d[i]


@inlined
def across(
    line: Any, first: Any, start: Any, count: Any, weights: Any, channels: Any, planes: Any
) -> Any:
    """A resized line, a plane a channel. `first`: which column `line` begins with."""
    width = start.size
    if channels == 3:
        for x in range(width):
            at = (start[x] - first) * 3
            own = line[at : at + count[x] * 3]
            red, green, blue = np.float32(0), np.float32(0), np.float32(0)
            for k in range(count[x]):
                w = weights[x, k]
                red += w * own[3 * k]
                green += w * own[3 * k + 1]
                blue += w * own[3 * k + 2]
            planes[0, x] = red
            planes[1, x] = green
            planes[2, x] = blue
        return
    for x in range(width):
        at = (start[x] - first) * channels
        own = line[at : at + count[x] * channels]
        for channel in range(channels):
            value = np.float32(0)
            for k in range(count[x]):
                value += weights[x, k] * own[channels * k + channel]
            planes[channel, x] = value


@inlined
def store(
    planes: Any, factor: Any, added: Any, wide: Any, short: Any, image: Any, y: Any, kind: Any
) -> Any:
    """Normalise a line, and write it."""
    for channel in range(planes.shape[0]):
        line = planes[channel]
        f, a = factor[channel], added[channel]
        if kind == FP32:
            floats = wide[image, channel, y]
            for x in range(line.size):
                floats[x] = line[x] * f + a
            continue
        written = short[image, channel, y]
        if kind == BF16:
            for x in range(line.size):
                written[x] = to_bf16(line[x] * f + a)
        else:
            for x in range(line.size):
                written[x] = to_fp16(line[x] * f + a)


@jit
def preprocess(
    data: Array,
    places: Array,
    antialias: bool,
    factor: Array,
    added: Array,
    wide: Array,
    short: Array,
    kind: int,
    begin: int,
    end: int,
) -> None:
    """Lines begin:end of those of all images, one below the other. Each of `places` is an image: where in `data` it
    begins, bytes from a line to the next, height, width, resized height and width, and which of the resized lines and
    columns come first in the result. That is `wide`, or `short` where `kind` is a 16-bit format; the other one is not
    looked at."""
    result = wide.shape if kind == FP32 else short.shape
    channels, height, width = result[1], result[2], result[3]
    planes = np.empty((channels, width), np.float32)
    start, count = np.empty(width, np.int64), np.empty(width, np.int64)
    row_start, row_count = np.empty(1, np.int64), np.empty(1, np.int64)
    weights = np.empty((width, 1), np.float32)
    row_weights = np.empty((1, 1), np.float32)
    line = np.empty(0, np.float32)
    known = -1
    for row in range(begin, end):
        image, y = row // height, row % height
        place = places[image]
        if image != known:
            taps = most_taps(place[3], place[5], antialias)
            weights = np.empty((width, taps), np.float32)
            fill_taps(place[3], place[5], place[7], antialias, start, count, weights)
            row_weights = np.empty((1, most_taps(place[2], place[4], antialias)), np.float32)
            columns = start[width - 1] + count[width - 1] - start[0]
            line = np.empty(columns * channels, np.float32)
            known = image
        fill_taps(place[2], place[4], place[6] + y, antialias, row_start, row_count, row_weights)
        first = place[0] + row_start[0] * place[1] + start[0] * channels
        for k in range(0, row_count[0], 4):
            part = row_weights[0, k : min(k + 4, row_count[0])]
            add_lines(line, part, data, first + k * place[1], place[1], k == 0)
        across(line, start[0], start, count, weights, channels, planes)
        store(planes, factor, added, wide, short, image, y, kind)
