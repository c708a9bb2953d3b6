"""A recogniser of two tunes, trained to the end in seconds."""

import numpy as np
import pytest
import soundfile
import torch

from todm import SearchSpace, activate
from todm.optim import ScaledAdam
from todm.speech.augment import Augmentation
from todm.speech.batches import evaluation_batches
from todm.speech.corpus import Corpus, corpus_from_folder
from todm.speech.encoder import EncoderConfig
from todm.speech.features import SAMPLE_RATE
from todm.speech.task import Batching, SpeechTask, TransducerConfig
from todm.speech.tokens import Tokens

TONES = {"up": (300.0, 1200.0), "down": (1200.0, 300.0)}
ENCODER = EncoderConfig(
    width=[24], depth=[1, 2], hidden=[16, 32], heads=[4], head_size=4, states=[4], front=16,
    attention_every=2, attention_heads=[1, 2], attention_head_size=8, attention_left=20,
)  # fmt: skip
"""One block of each family: state-space, then attention."""
TAIL_ONLY = Augmentation(speeds=[1.0], gain=0, noise=0, tail=0.5, frequency_masks=0, time_masks=0)


def say(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Each word two tones of 0.1 s and a pause, in a little noise."""
    t = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    parts = [np.zeros(1600)]
    for word in words:
        parts += [0.3 * np.sin(2 * np.pi * tone * t) for tone in TONES[word]]
        parts.append(np.zeros(int(rng.integers(1600, 4000))))
    audio = np.concatenate(parts)
    return audio + 0.003 * rng.standard_normal(len(audio))


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> SpeechTask:
    folder, rng, lines = tmp_path_factory.mktemp("tones"), np.random.default_rng(0), []
    for i in range(12):
        words = [list(TONES)[j] for j in rng.integers(2, size=1 + i % 4)]
        soundfile.write(folder / f"{i:02d}.wav", say(words, rng), SAMPLE_RATE)
        lines.append(f"{i:02d}.wav\t{' '.join(words)}\n")
    (folder / "table.tsv").write_text("".join(lines))
    cuts = corpus_from_folder(folder, folder / "table.tsv")
    corpus = Corpus({"train": cuts, "dev": cuts, "test": cuts.subset(first=5)}, Tokens.build("words", TONES))
    config = TransducerConfig(encoder=ENCODER, joiner=24, embedding=8, blank_bias=2.0)
    batching = Batching(seconds=20, warm_updates=0, workers=0, augmentation=TAIL_ONLY)
    return SpeechTask(corpus, config, batching, seed=0)


@pytest.fixture(scope="session")
def trained(task):
    """Largest and smallest net trained in turns; with the losses on the way."""
    torch.manual_seed(0)
    model = task.build()
    space, optimizer = SearchSpace.of(model), ScaledAdam(model.parameters(), clipping_scale=2.0)
    (batch,), losses = evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens), []
    for update in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + update / 50)
        activate(model, space.largest() if update % 2 else space.smallest())
        optimizer.zero_grad()
        loss = task.loss(model, batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses
