"""What the LibriSpeech recipe costs in its full size, from forward and backward passes measured here.

    python -m bench.librispeech

Utterances of twelve seconds, a minute together, of random features and word pieces, as many as LibriSpeech has on
average; the recipe's net, loss and precision, one thread. The training is scaled from that, an update being that of the
largest, the smallest and one random net; the optimiser and the data come on top.
"""

import random
import time
from pathlib import Path
from statistics import fmean

import torch
import yaml
from pydantic import TypeAdapter

from bench.run import cpu_model
from todm.space import SearchSpace, activate
from todm.speech.batches import Batch
from todm.speech.corpus import Corpus
from todm.speech.task import Batching, SpeechTask, TransducerConfig
from todm.speech.tokens import Tokens
from todm.speech.transducer import Transducer
from todm.subnet import extract

PIECES, UTTERANCES, SECONDS, PER_SECOND = 500, 5, 12, 4
"""Word pieces of the vocabulary; utterances, their duration and word pieces a second."""
RANDOM = 4
"""Random nets, whose mean counts."""
RECIPE = yaml.safe_load(Path("recipes/librispeech/recipe.yaml").read_text(encoding="utf-8"))


def main() -> None:
    """Print seconds for a minute of audio by net, and the whole training in hours of this core."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = TypeAdapter(TransducerConfig).validate_python(RECIPE["model"])
    task = SpeechTask(Corpus({}, Tokens("words", tuple(f"{i}" for i in range(PIECES)))), config, Batching(), 0)
    net = Transducer(config.encoder, PIECES, config.joiner, config.embedding, pruned=True)
    tokens = torch.randint(1, PIECES, (UTTERANCES, SECONDS * PER_SECOND))
    frames, symbols = (torch.full((UTTERANCES,), count) for count in (100 * SECONDS, tokens.shape[1]))
    batch = Batch(torch.randn(UTTERANCES, 100 * SECONDS, 80), frames, tokens, symbols, [""] * UTTERANCES)
    space, rng = SearchSpace.of(net), random.Random(0)
    archs = {"largest": space.largest(), "smallest": space.smallest()}
    archs |= {f"random {i + 1}": space.sample(rng) for i in range(RANDOM)}
    seconds = {}
    for name, arch in archs.items():
        activate(net, arch)
        times = []
        for _ in range(3):
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss = task.loss(net, batch).loss
            loss.backward()
            times.append(time.process_time() - start)
        seconds[name] = min(times)
        parameters = sum(p.numel() for p in extract(net, arch).parameters())
        print(f"{name:<10} {parameters / 1e6:5.1f} M  {seconds[name]:5.2f} s for a minute of audio")
    update = seconds["largest"] + seconds["smallest"] + fmean(seconds[f"random {i + 1}"] for i in range(RANDOM))
    updates, minutes = RECIPE["training"]["updates"], RECIPE["data"]["batching"]["seconds"] / 60
    print(f"an update: {update:.2f} s for a minute, {60 / update:.0f} s of audio a second")
    print(f"{updates:,} updates of {minutes:.0f} minutes: {updates * minutes / 60:,.0f} hours of audio, ", end="")
    print(f"{updates * minutes * update / 3600:,.0f} hours of one core of {cpu_model()}")


if __name__ == "__main__":
    main()
