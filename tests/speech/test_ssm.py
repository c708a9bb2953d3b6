"""The state-space layer against golden values in float64, and each of its forms against the others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from todm import Choice
from todm.speech.ssm import DiagonalSSM, MultiHeadSSM, gate

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "s4d.npz")
GOLD = {key: torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files}
HEADS, STATES, LENGTH = 4, 8, 200


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == torch.float64
    return torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def golden_layer(which: str = "fwd") -> DiagonalSSM:
    ssm = DiagonalSSM(HEADS, STATES).double()
    ssm.load_state_dict({name: GOLD[f"{which}.{name}"] for name in ssm.state_dict()})
    return ssm


def halves(state: torch.Tensor) -> torch.Tensor:
    """(heads, states, 2) of the golden values -> (heads, 2 * states), real parts first."""
    return state.transpose(1, 2).flatten(1)


def run_chunks(ssm: DiagonalSSM, u: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and final state of u (heads, time), chunk by chunk, as the docstring of chunk_matrices says."""
    m, outputs = ssm.chunk_matrices(length), []
    s = u.new_zeros(len(u), 2 * m["readout"].shape[1] // 2)
    for chunk in u.split(length, dim=1):
        y = torch.einsum("hij,hj->hi", m["direct"], chunk) + torch.einsum("hs,hsi->hi", s, m["readout"])
        outputs.append(y)
        rotated = s.roll(s.shape[1] // 2, dims=1)
        s = s * m["decay_real"] + rotated * m["decay_imag"] + torch.einsum("hj,hjs->hs", chunk, m["write"])
    return torch.cat(outputs, 1), s


def test_discretisation_and_kernels_are_the_golden_ones():
    ssm = golden_layer()
    assert close(torch.stack([part[..., 0] for part in ssm.powers(torch.ones(1))], -1), GOLD["dA"])
    assert close(torch.stack(ssm.input_gain(), -1), GOLD["dB"])
    assert close(ssm.kernel(LENGTH), GOLD["kernel"])
    assert close(golden_layer("bwd").kernel(LENGTH), GOLD["kernel_bwd"])


def test_the_convolution_and_its_gradients_are_the_golden_ones():
    ssm = golden_layer()
    y = (ssm.toeplitz(LENGTH) @ GOLD["u"][..., None])[..., 0]
    assert close(y, GOLD["y"])
    (y.square().sum() / 2).backward()
    for name, p in ssm.named_parameters():
        expected = GOLD[f"grad_half_sumsq.{name}"]
        assert torch.allclose(p.grad, expected, rtol=1e-9, atol=1e-9 * expected.abs().max()), name


@pytest.mark.parametrize("length", [1, 2, 5, 8, 40, 200])
def test_chunks_with_a_carried_state_are_the_golden_recurrence(length):
    ssm, middle = golden_layer(), int(GOLD["mid_frame"])
    y, state = run_chunks(ssm, GOLD["u"], length)
    assert close(y, GOLD["y"])
    assert close(state, halves(GOLD["state_end"]))
    step = next(n for n in (length, 5, 1) if middle % n == 0)
    assert close(run_chunks(ssm, GOLD["u"][:, :middle], step)[1], halves(GOLD["state_mid"]))


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_toeplitz_is_the_double_loop(length):
    ssm = golden_layer()
    kernel, matrix = ssm.kernel(length), torch.zeros(HEADS, length, length, dtype=torch.float64)
    for head in range(HEADS):
        for out in range(length):
            for into in range(out + 1):
                matrix[head, out, into] = kernel[head, out - into] + (ssm.D[head] if out == into else 0)
    assert torch.equal(ssm.toeplitz(length), matrix)


def test_fewer_heads_and_states_are_the_first_ones():
    heads, states = Choice("heads", (2, 4)), Choice("states", (3, 8))
    ssm = DiagonalSSM(heads, states).double()
    ssm.load_state_dict(golden_layer().state_dict())
    heads.active, states.active = 2, 3
    small = DiagonalSSM(2, 3).double()
    small.load_state_dict({k: v[:2, :3] if v.dim() > 1 else v[:2] for k, v in ssm.state_dict().items()})
    for layer in (ssm, ssm.plain()):
        assert close(layer.toeplitz(9), small.toeplitz(9))
        assert all(close(part, small.chunk_matrices(9)[name]) for name, part in layer.chunk_matrices(9).items())
    assert {k: v.shape for k, v in ssm.plain().state_dict().items()} == {
        k: v.shape for k, v in small.state_dict().items()
    }


def test_any_number_of_first_heads_spans_fast_and_slow_ones():
    steps = DiagonalSSM(8, 2).log_dt.detach().exp()
    assert steps.min() == pytest.approx(0.02)
    assert steps.max() == pytest.approx(0.5)
    assert steps.unique().numel() == 8
    for heads in (2, 4, 6):
        first = steps[:heads].sort().values
        assert first[-1] / first[0] > 25 ** ((heads - 1) / heads) * 0.8


def test_heads_gate_each_other_in_pairs():
    y = torch.randn(2, 3, 4, 5)
    expected = torch.cat([y[:, :, 0] * y[:, :, 1].sigmoid(), y[:, :, 2] * y[:, :, 3].sigmoid()], -1)
    assert torch.equal(gate(y), expected)


def test_the_mixer_is_its_definition_sample_by_sample():
    torch.manual_seed(0)
    mixer, x = MultiHeadSSM(6, 4, 2, 3).double(), torch.randn(2, 7, 6, dtype=torch.float64)
    kernel = mixer.ssm.kernel(7)
    u = mixer.into(x).view(2, 7, 4, 2)
    y = torch.zeros_like(u)
    for t in range(7):
        for s in range(t + 1):
            y[:, t] += kernel[:, t - s, None] * u[:, s]
        y[:, t] += mixer.ssm.D[:, None] * u[:, t]
    assert close(mixer(x), mixer.out(gate(y)))


def test_the_mixer_is_causal_and_remembers():
    torch.manual_seed(0)
    mixer, x = MultiHeadSSM(6, 4, 2, 3), torch.randn(2, 20, 6)
    changed = x.clone()
    changed[:, 11:] = 50.0
    before, after = mixer(x), mixer(changed)
    assert torch.equal(before[:, :11], after[:, :11])
    assert (before[:, 11:] - after[:, 11:]).abs().amax(-1).min() > 1e-2
    changed = x.clone()
    changed[:, 0] = 50.0
    assert (before - mixer(changed))[:, -1].abs().max() > 1e-3
    assert torch.allclose(before[1:], mixer(x[1:]), atol=1e-6)  # utterances of a batch do not see each other
