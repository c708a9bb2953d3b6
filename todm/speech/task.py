"""Speech recognition as a task: transducer loss, error rate, and the program that devices run."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.distributed import WHOLE, Shard
from todm.program import Methods, Program
from todm.recipe import STRICT, Count, Fraction
from todm.speech.agreement import agreement
from todm.speech.augment import Augmentation
from todm.speech.batches import Batch, evaluation_batches, train_batches, typical_features
from todm.speech.collapse import collapse
from todm.speech.corpus import Corpus
from todm.speech.decode import Recogniser, StreamRecogniser, WholeRecogniser, greedy
from todm.speech.delay import penalise_delay
from todm.speech.encoder import EncoderConfig, subsampled
from todm.speech.joint_loss import joint_collapse
from todm.speech.lattice import lattice_arcs
from todm.speech.program import transducer_program
from todm.speech.pruned_loss import pruned_rnnt_loss
from todm.speech.single import single_arcs
from todm.speech.transducer import BLANK, Transducer
from todm.speech.wer import word_error_rate
from todm.task import LossOutput, Score

FEW_LOGITS = 2**20
"""Logits of a batch up to which they are kept: below it, running the joiner a second time costs more than memory."""
KEPT = 2**28
"""Bytes of a split's features up to which they are kept, some two hours."""


@dataclass(frozen=True, config=STRICT)
class TransducerConfig:
    """Sizes of the recogniser."""

    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    """The encoder, which holds the search space."""
    joiner: Count = 64
    """Width in which encoder and predictor meet."""
    embedding: Count = 32
    """Width of the predictor's symbol embedding."""
    ctc: NonNegativeFloat = 0.5
    """Weight of the auxiliary CTC loss, which ends the plateau on which a transducer emits only blanks."""
    loss: Literal["exact", "pruned"] = "exact"
    """Transducer loss over the whole lattice, or on a band around its likely alignments: for large vocabularies."""
    alignments: Literal["all", "single"] = "single"
    """What the transducer loss sums over: all alignments, or those of a single symbol a frame at most, as decoders
    walk them."""
    band: Annotated[int, Field(ge=2)] = 5
    """Rows of the lattice that the pruned loss keeps in each frame."""
    delay_penalty: tuple[float, float] = (0.0, 0.0)
    """Cost of a symbol in nats for each encoder frame that it comes later: in the first update, and `delay_updates`
    later. Below zero, symbols wait for more of the word; a net that starts so does not get used to guessing."""
    delay_updates: NonNegativeInt = 0
    """Updates in which that cost goes from the one to the other."""
    blank_bias: float = 5.0
    """Initial logit of the blank above the other symbols; most frames are blank, and learning that takes long."""
    chunk_ms: Literal[160, 320, 640] = 320
    """Signal that one call of the exported streaming encoder consumes; any trained net takes any of them."""

    def __post_init__(self) -> None:
        if self.loss == "pruned" and self.ctc == 0:
            raise ValueError("the pruned loss needs ctc above 0: the CTC head is what a subnet learns from its teacher")
        if self.loss == "pruned" and any(self.delay_penalty):
            raise ValueError("the pruned loss has no delay_penalty; leave it out, or use the exact loss")
        first, last = self.delay_penalty
        if (first != last) != bool(self.delay_updates):
            raise ValueError("delay_updates is for a delay_penalty that changes: give both of its values, or neither")

    def delay_penalty_at(self, update: int) -> float:
        """What a frame's delay costs in an update."""
        first, last = self.delay_penalty
        return first + (last - first) * min(update / self.delay_updates, 1.0) if self.delay_updates else last


@dataclass(frozen=True, config=STRICT)
class Batching:
    """How training utterances are varied and put together."""

    seconds: PositiveFloat = 60.0
    """Audio in one batch, padding included."""
    warm_updates: NonNegativeInt = 200
    """Number of first updates on short utterances only: the plateau of blanks ends sooner on them."""
    warm_seconds: PositiveFloat = 2.0
    """Longest utterance of those."""
    workers: NonNegativeInt = 1
    """Processes that prepare batches ahead."""
    unreadable: Fraction = 0.01
    """Share of training utterances that may be left out because they cannot be read."""
    augmentation: Augmentation = Field(default_factory=Augmentation)
    """How utterances are varied."""


class SpeechTask:
    """Transducers on a corpus of utterances.

    Args:
        corpus: Utterances of each split and the symbols they are written in.
        config: Sizes and loss.
        batching: How training utterances are varied and put together.
        seed: Of data order and augmentation.
    """

    pipeline = "automatic-speech-recognition"

    def __init__(self, corpus: Corpus, config: TransducerConfig, batching: Batching, seed: int) -> None:
        self.corpus, self.config, self.batching, self.seed = corpus, config, batching, seed
        self._evaluation: dict[str, list[Batch]] = {}
        self._features: dict[tuple[str, type[Recogniser]], list[tuple[np.ndarray, str]]] = {}

    def build(self) -> Transducer:
        """The supernet, with the feature statistics of some training utterances."""
        config = self.config
        pruned = config.loss == "pruned"
        model = Transducer(config.encoder, len(self.corpus.tokens), config.joiner, config.embedding, pruned)
        model.start_with_blanks(config.blank_bias)
        model.encoder.set_statistics(typical_features(self.corpus.cuts["train"]))
        return model

    def train_batches(self, start: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        """Augmented batches of similar length, each a function of (seed, index)."""
        batching = self.batching
        batches = train_batches(
            self.corpus.cuts["train"], self.corpus.tokens, seconds_per_batch=batching.seconds, seed=self.seed,
            start=start, augment=batching.augmentation, workers=batching.workers,
            warm_updates=batching.warm_updates, warm_seconds=batching.warm_seconds,
            unreadable=batching.unreadable, shard=shard,
        )  # fmt: skip
        return (dataclasses.replace(batch, index=index) for index, batch in enumerate(batches, start))

    def loss(self, model: nn.Module, batch: Batch) -> LossOutput:
        """Transducer loss plus weighted CTC loss, per symbol of the batch.

        A transducer trained on all alignments may put several symbols into a frame; decoders, here and on devices, say
        one a frame at most, and lose the others.

        A subnet imitates the lattice reduced to {next label, blank, rest}; each cell weighs as much as the posterior
        of passing through it, so that the sum is the divergence between paths. With the pruned loss, whose band
        differs from net to net, it imitates the CTC head instead, frame by frame.
        """
        assert isinstance(model, Transducer)
        device = model.encoder.feature_mean.device
        tokens, token_lengths = batch.tokens.to(device), batch.token_lengths.to(device)
        lengths = subsampled(batch.feature_lengths).to(device)
        encoded = model.encoder(batch.features.to(device))
        symbols = token_lengths.sum()
        ctc = model.ctc(encoded).float() if model.ctc is not None and self.config.ctc > 0 else None
        if model.simple is not None and ctc is not None:
            losses = self._pruned(model, encoded, tokens, lengths, token_lengths)
            logits, weight = ctc, (torch.arange(ctc.shape[1], device=device) < lengths[:, None]).float()
        else:
            penalty = self.config.delay_penalty_at(batch.index)
            collapsed, occupancy, losses = self._exact(model, encoded, tokens, lengths, token_lengths, penalty)
            logits, weight = self.taught(model, encoded, tokens, collapsed, occupancy)
        # An utterance that cannot be said in its frames, one symbol each, or within the band, is left out.
        loss = torch.where(losses.isfinite(), losses, torch.zeros_like(losses)).sum() / symbols
        if ctc is not None:
            log_probs = ctc.log_softmax(-1).transpose(0, 1)
            of_ctc = F.ctc_loss(log_probs, tokens, lengths, token_lengths, BLANK, "sum", zero_infinity=True)
            loss = loss + self.config.ctc * of_ctc / symbols
        return LossOutput(loss, logits, weight / symbols, float(symbols) if batch.counted else 0.0)

    def taught(
        self, model: Transducer, encoded: Tensor, tokens: Tensor, collapsed: Tensor, occupancy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a subnet learns from the largest net, (..., classes), and the weight of each position, (...)."""
        return collapsed, occupancy

    def _exact(
        self, model: Transducer, encoded: Tensor, tokens: Tensor, lengths: Tensor, token_lengths: Tensor, penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The collapsed lattice, its occupancy, and the loss of each utterance."""
        if encoded.shape[:2].numel() * (tokens.shape[1] + 1) * len(self.corpus.tokens) <= FEW_LOGITS:
            collapsed = collapse(model.lattice(encoded, tokens).float(), tokens, token_lengths, BLANK)
        else:
            predicted, joiner = model.predicted(tokens), model.joiner.of_sums()
            collapsed = joint_collapse(encoded, predicted, joiner, tokens, lengths, token_lengths, BLANK)
        sum_up = single_arcs if self.config.alignments == "single" else lattice_arcs
        timed = penalise_delay(collapsed, lengths, penalty)
        losses, arcs = sum_up(timed, lengths, token_lengths)
        return collapsed, arcs.sum(-1), losses

    def _pruned(
        self, model: Transducer, encoded: Tensor, tokens: Tensor, lengths: Tensor, token_lengths: Tensor
    ) -> Tensor:
        """Each utterance's loss on the band, and half that of the simple joiner, which finds the band."""
        assert model.simple is not None
        simple, pruned = pruned_rnnt_loss(
            encoded, model.predicted(tokens), model.joiner.of_sums(), tokens, lengths, token_lengths,
            band=self.config.band, blank=BLANK, simple_encoder=model.simple["encoder"],
            simple_predictor=model.simple["predictor"], single=self.config.alignments == "single",
        )  # fmt: skip
        return pruned + 0.5 * simple

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Word error rate in percent by greedy decoding of whole utterances."""
        assert isinstance(model, Transducer)
        device = model.encoder.feature_mean.device
        references: list[str] = []
        words: list[str] = []
        for batch in self._batches(split):
            encoded = model.encoder(batch.features.to(device))
            ids = greedy(encoded, subsampled(batch.feature_lengths), model.predictor, model.joiner)
            words += [self.corpus.tokens.decode(symbols) for symbols in ids]
            references += batch.texts
        return {"wer": word_error_rate(references, words).wer}

    def _batches(self, split: str) -> list[Batch]:
        """A split's features, computed once: search evaluates many subnets on them."""
        if split not in self._evaluation:
            self._evaluation[split] = list(evaluation_batches(self.corpus.cuts[split], self.corpus.tokens))
        return self._evaluation[split]

    def _heard(self, split: str, kind: type[Recogniser]) -> Iterator[tuple[np.ndarray, str]]:
        """Features and words of a split, computed once where it is small: a dozen forms of a subnet hear it."""
        key = split, kind
        if key in self._features:
            yield from self._features[key]
            return
        kept: list[tuple[np.ndarray, str]] = []
        size = 0
        for samples, text in self.corpus.utterances(split):
            kept.append((kind.features(samples), text))
            size += kept[-1][0].nbytes
            yield kept[-1]
            if size > KEPT:
                kept.clear()
        if size <= KEPT:
            self._features[key] = kept

    def program(self, subnet: nn.Module) -> Program:
        """The recogniser of streams and of whole utterances, laid out as sherpa-onnx expects."""
        assert isinstance(subnet, Transducer)
        return transducer_program(subnet, self.corpus.tokens, self.config.chunk_ms)

    def agreement(self, program: Program, methods: Methods, split: str) -> tuple[float, float]:
        """Largest difference between the encoder's vectors chunk by chunk and as trained, on whole utterances.

        Returns:
            The difference, and the same relative to the largest value.
        """
        frames = program.methods[0].inputs["x"].shape[1]
        features = (features for features, _ in self._heard(split, StreamRecogniser))
        return agreement(methods, program.state_shapes(), frames, features)

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """Recognise every utterance: chunk by chunk, or where `methods` have no `encode_chunk`, as a whole."""
        tokens = self.corpus.tokens
        recogniser: Recogniser = WholeRecogniser(methods, tokens)
        if "encode_chunk" in methods:
            frames = program.methods[0].inputs["x"].shape[1]
            recogniser = StreamRecogniser(methods, tokens, program.state_shapes(), frames)
        references, words = [], []
        for features, text in self._heard(split, type(recogniser)):
            references.append(text)
            words.append(recogniser.recognise(features))
        return Score({"wer": word_error_rate(references, words).wer}, words)
