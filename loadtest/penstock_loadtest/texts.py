"""The sentences that embedder cases send: always the same ones, of 4 to 40 words."""

from __future__ import annotations

import random

TEXT = """
water flows through the gate and turns a wheel while engineers watch pressure rise in steel pipes
below quiet mountain lakes every winter morning before light reaches old stone houses near bridges
where children wait for slow trains carrying letters bread music and news
"""


def sample_texts(count: int, seed: int = 1) -> list[str]:
    """`count` sentences; the same `seed` gives the same sentences on every machine."""
    generator, words = random.Random(seed), TEXT.split()
    return [
        " ".join(generator.choices(words, k=generator.randint(4, 40))).capitalize() + "."
        for _ in range(count)
    ]
