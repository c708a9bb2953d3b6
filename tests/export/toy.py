"""A small, honest streaming program: cached frames, a state recurrence, a stateless predictor, a joiner."""

import numpy as np
import torch
from torch import Tensor, nn

from todm.program import Method, Methods, Program

FRAMES, BANDS, WIDTH, HEADS, STATE, VOCABULARY = 8, 16, 64, 4, 8, 12
METADATA = dict.fromkeys(
    ("decode_chunk_len", "num_encoder_layers", "d_model", "rnn_hidden_size", "context_size", "joiner_dim"), "1"
) | {"model_type": "lstm", "T": str(FRAMES), "vocab_size": str(VOCABULARY)}
STEPS, CHANNELS = FRAMES // 2, WIDTH // HEADS


class Encoder(nn.Module):
    """x (batch, 8, 16), state0 (1, batch, 16), state1 (1, batch, 512) -> out (batch, 4, 64), next states."""

    mix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(BANDS, WIDTH, 3, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        # Steps and state together, mixed by one constant per head: a linear recurrence over a whole chunk.
        self.register_buffer("mix", 0.2 * torch.randn(HEADS, STEPS + STATE, STEPS + STATE))

    def forward(self, x: Tensor, state0: Tensor, state1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch = x.shape[0]
        frames = torch.cat([state0.reshape(batch, 1, BANDS), x], 1)
        h = self.front(frames.transpose(1, 2)).transpose(1, 2)
        steps = self.norm1(h).reshape(batch, STEPS, HEADS, CHANNELS).permute(2, 0, 3, 1)
        state = state1.reshape(batch, HEADS, CHANNELS, STATE).permute(1, 0, 2, 3)
        both = torch.cat([steps, state], 3).reshape(HEADS, batch * CHANNELS, STEPS + STATE)
        mixed = torch.bmm(both, self.mix).reshape(HEADS, batch, CHANNELS, STEPS + STATE)
        h = h + mixed[:, :, :, :STEPS].permute(1, 3, 0, 2).reshape(batch, STEPS, WIDTH)
        h = h + self.down(nn.functional.silu(self.up(self.norm2(h))))
        state1 = mixed[:, :, :, STEPS:].permute(1, 0, 2, 3).reshape(1, batch, HEADS * CHANNELS * STATE)
        return h, x[:, -1:].reshape(1, batch, BANDS), state1


class Predictor(nn.Module):
    """y (batch, 2) of symbols, -1 for none -> (batch, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, y: Tensor) -> Tensor:
        known = (y >= 0).to(torch.float32).unsqueeze(-1)
        return self.mix((self.table(y.clamp(min=0)) * known).flatten(1))


class Joiner(nn.Module):
    """Encoder and decoder output, each (batch, 64) -> logits (batch, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.out(torch.tanh(encoder_out + decoder_out))


def streaming_program() -> Program:
    torch.manual_seed(0)
    one, batch = torch.ones(1, WIDTH), {0: "N"}
    states = {"state0": torch.zeros(1, 1, BANDS), "state1": torch.zeros(1, 1, HEADS * STATE * CHANNELS)}
    encode = Method(
        "encode_chunk",
        "encoder",
        Encoder().eval(),
        {"x": torch.randn(1, FRAMES, BANDS), **states},
        ("encoder_out", "next_state0", "next_state1"),
        states={"next_state0": "state0", "next_state1": "state1"},
        dynamic={"x": batch, "state0": {1: "N"}, "state1": {1: "N"}},
    )
    predict = Method(
        "predict",
        "decoder",
        Predictor().eval(),
        {"y": torch.tensor([[-1, 0]])},
        ("decoder_out",),
        dynamic={"y": batch},
        quantize=False,
        calls=1.5,
    )
    join = Method(
        "join",
        "joiner",
        Joiner().eval(),
        {"encoder_out": one, "decoder_out": one},
        ("logits",),
        dynamic={"encoder_out": batch, "decoder_out": batch},
        quantize=False,
        calls=4.0,
    )
    return Program(
        (encode, predict, join),
        seconds=0.08,
        metadata=METADATA,
        assets={"tokens.txt": b"<blk> 0\na 1\n"},
        variants={"streaming": ("encode_chunk", "predict", "join")},
    )


def transcribe(methods: Methods, streams: int = 2, chunks: int = 12) -> list[int]:
    """Greedy search over `streams` streams of seeded noise: the calls, states and contexts of real use."""
    random = np.random.default_rng(1)
    symbols: list[int] = []
    for _ in range(streams):
        states = (np.zeros((1, 1, BANDS), np.float32), np.zeros((1, 1, HEADS * STATE * CHANNELS), np.float32))
        context = [-1, 0]
        (decoder_out,) = methods["predict"](np.array([context]))
        for _ in range(chunks):
            x = random.standard_normal((1, FRAMES, BANDS)).astype(np.float32)
            encoder_out, *states = methods["encode_chunk"](x, *states)  # type: ignore[assignment]
            for step in range(STEPS):
                (logits,) = methods["join"](encoder_out[:, step], decoder_out)
                symbol = int(logits.argmax())
                if symbol:
                    symbols.append(symbol)
                    context = [context[-1], symbol]
                    (decoder_out,) = methods["predict"](np.array([context]))
    return symbols
