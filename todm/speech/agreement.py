"""Simulated beside chunk by chunk: an encoder as it was trained and as it streams, on the same features."""

from collections.abc import Iterable, Sequence

import numpy as np

from todm.program import Methods


def agreement(
    methods: Methods, states: Sequence[tuple[int, ...]], frames: int, utterances: Iterable[np.ndarray]
) -> tuple[float, float]:
    """Largest difference between the vectors of `encode` and of `encode_chunk` with its states carried.

    Args:
        methods: Both, eager or loaded.
        states: Shapes of the states.
        frames: Feature frames of a chunk; what an utterance has beyond whole chunks is not compared.
        utterances: Features (frames, 80) of each.

    Returns:
        The difference, and the same relative to the largest value of any vector.
    """
    furthest, largest = 0.0, float(np.finfo(np.float32).tiny)
    for features in utterances:
        chunks = len(features) // frames
        if not chunks:
            continue
        x = features[None, : chunks * frames]
        whole, _ = methods["encode"](x, np.array([x.shape[1]], np.int64))
        carried = [np.zeros(shape, np.float32) for shape in states]
        parts = []
        for chunk in np.split(x, chunks, axis=1):
            part, *carried = methods["encode_chunk"](chunk, *carried)
            parts.append(part)
        streamed = np.concatenate(parts, axis=1)
        furthest = max(furthest, float(np.abs(whole[:, : streamed.shape[1]] - streamed).max()))
        largest = max(largest, float(np.abs(streamed).max()))
    return furthest, furthest / largest
