"""The program of a transducer: what devices call, in the layout that sherpa-onnx reads by position."""

import torch
from torch import nn

from todm.program import Method, Program
from todm.speech.encoder import SUBSAMPLING
from todm.speech.features import BINS
from todm.speech.streaming import StreamingEncoder
from todm.speech.tokens import Tokens
from todm.speech.transducer import CONTEXT, Transducer
from todm.speech.whole import LONGEST, WholeEncoder

FRAMES_PER_SECOND = 100
LEAST_SHARE = 0.02
"""Of the weights: below it, int8 in predictor or joiner would save nothing, and they decide on symbols."""


def transducer_program(subnet: Transducer, tokens: Tokens, chunk_ms: int = 320) -> Program:
    """Encoder by chunks and of whole utterances, predictor and joiner, of an extracted transducer.

    Variant `streaming` calls `encode_chunk` once per `chunk_ms` of signal with its two states carried; variant
    `offline` calls `encode` once per utterance. Both share `predict` and `join`.

    Args:
        subnet: In eval mode.
        tokens: Its symbols.
        chunk_ms: A multiple of 40, what the encoder's outputs stand for.
    """
    frames = chunk_ms * FRAMES_PER_SECOND // 1000
    encoder = StreamingEncoder(subnet.encoder, frames).eval()
    (size0, size1), size = encoder.state_sizes, subnet.joiner.out.in_features
    # sherpa-onnx's layout "lstm": frames per call and shift, and the shapes of two states that start at zero.
    layout = {
        "model_type": "lstm", "T": frames, "decode_chunk_len": frames, "num_encoder_layers": 1, "d_model": size0,
        "rnn_hidden_size": size1,
    }  # fmt: skip
    encode_chunk = Method(
        name="encode_chunk", file="encoder", module=encoder,
        inputs={
            "x": torch.zeros(1, frames, BINS),
            "state0": torch.zeros(1, 1, size0), "state1": torch.zeros(1, 1, size1),
        },
        outputs=("encoder_out", "next_state0", "next_state1"),
        states={"next_state0": "state0", "next_state1": "state1"},
        dynamic={"x": {0: "N"}, "state0": {1: "N"}, "state1": {1: "N"}},
        metadata={key: str(value) for key, value in layout.items()},
    )  # fmt: skip
    weights = sum(parameter.numel() for parameter in subnet.parameters())

    def worth(module: nn.Module) -> bool:
        return sum(parameter.numel() for parameter in module.parameters()) > LEAST_SHARE * weights

    predict = Method(
        name="predict", file="decoder", module=subnet.predictor.eval(),
        inputs={"y": torch.zeros(1, CONTEXT, dtype=torch.int64)}, outputs=("decoder_out",),
        dynamic={"y": {0: "N"}}, quantize=worth(subnet.predictor),
        metadata={"vocab_size": str(len(tokens)), "context_size": str(CONTEXT)},
    )  # fmt: skip
    join = Method(
        name="join", file="joiner", module=subnet.joiner.eval(),
        inputs={"encoder_out": torch.zeros(1, size), "decoder_out": torch.zeros(1, size)}, outputs=("logit",),
        dynamic={"encoder_out": {0: "N"}, "decoder_out": {0: "N"}}, quantize=worth(subnet.joiner),
        calls=frames / SUBSAMPLING,
        metadata={"joiner_dim": str(size)},
    )  # fmt: skip
    encode = Method(
        name="encode", file="encoder", module=WholeEncoder(subnet.encoder).eval(),
        inputs={"x": torch.zeros(1, 2 * FRAMES_PER_SECOND, BINS), "x_lens": torch.tensor([2 * FRAMES_PER_SECOND])},
        outputs=("encoder_out", "encoder_out_lens"), dynamic={"x": {0: "N", 1: "T"}, "x_lens": {0: "N"}},
        bounds={"T": range(SUBSAMPLING, LONGEST + 1, SUBSAMPLING)}, calls=0.0,
        # Any type that sherpa-onnx reads with its generic offline transducer would do.
        metadata={"model_type": "conformer"},
    )  # fmt: skip
    return Program(
        methods=(encode_chunk, predict, join, encode), seconds=chunk_ms / 1000,
        variants={"streaming": ("encode_chunk", "predict", "join"), "offline": ("encode", "predict", "join")},
        assets={"tokens.txt": tokens.tokens_txt()},
    )  # fmt: skip
