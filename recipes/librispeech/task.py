"""LibriSpeech (Panayotov et al. 2015), or any corpus in its folder format, in word pieces."""

import contextlib
import hashlib
import io
from dataclasses import field
from pathlib import Path
from typing import Annotated

import torch
from lhotse import CutSet
from lhotse.recipes import download_librispeech, prepare_librispeech
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from todm.errors import TodmError
from todm.files import read_json, write_json
from todm.program import eager
from todm.recipe import STRICT, Count
from todm.space import active_arch
from todm.speech.corpus import Corpus, open_cuts, text_of
from todm.speech.decode import WholeRecogniser
from todm.speech.program import transducer_program
from todm.speech.task import Batching, SpeechTask, TransducerConfig
from todm.speech.tokens import Tokens
from todm.speech.transducer import Transducer
from todm.speech.wer import word_error_rate
from todm.subnet import extract

Parts = Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class LibriSpeechData:
    """Which parts of the corpus are used, and how."""

    folder: str | None = None
    """The folder LibriSpeech, which holds the parts; else they are downloaded from openslr.org (60 GB in all)."""
    train: Parts = field(default_factory=lambda: ["train-clean-100", "train-clean-360", "train-other-500"])
    """Parts to train on."""
    dev: Parts = field(default_factory=lambda: ["dev-clean", "dev-other"])
    """Parts that search chooses on."""
    test: Parts = field(default_factory=lambda: ["test-clean", "test-other"])
    """Parts that results are reported on, each by itself too."""
    pieces: Count = 500
    """Word pieces, the blank included."""
    beam: Count = 4
    """Hypotheses of the beam search that the test parts are decoded with beside greedy search; 1 leaves it out."""
    batching: Batching = Field(default_factory=Batching)
    """How training utterances are varied and put together."""


class LibriSpeechTask(SpeechTask):
    """Read English speech."""

    Data = LibriSpeechData
    Model = TransducerConfig

    def __init__(self, data: LibriSpeechData, model: TransducerConfig, seed: int, cache: Path) -> None:
        self.data = data
        parts = {"train": data.train, "dev": data.dev, "test": data.test}
        home = _corpus(data, cache)
        # Corpora in different places keep their manifests apart.
        kept = cache / f"librispeech-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]}"
        cuts = {name: _cuts(home, name, kept) for names in parts.values() for name in names}
        joined = {split: _joined([cuts[name] for name in names]) for split, names in parts.items()}
        corpus = Corpus({**joined, **cuts}, _tokens(joined["train"], data, kept))
        super().__init__(corpus, model, data.batching, seed)

    def provenance(self) -> dict[str, str]:
        """Where the data came from."""
        source = f"LibriSpeech: {', '.join(self.data.train)} from {self.data.folder or 'openslr.org'}"
        return {"source": source, "licence": "CC BY 4.0"}

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Word error rates in percent: of the split; for the test also of each part, by greedy and by beam search."""
        metrics = super().evaluate(model, split)
        if split != "test":
            return metrics
        for part in self.data.test:
            metrics[f"wer_{part}"] = super().evaluate(model, part)["wer"]
            if self.data.beam > 1:
                metrics[f"wer_{part}_beam"] = self._beam(model, part)
        return metrics

    def _beam(self, model: nn.Module, part: str) -> float:
        subnet = extract(model, active_arch(model)).eval()
        assert isinstance(subnet, Transducer)
        methods = eager(transducer_program(subnet, self.corpus.tokens, self.config.chunk_ms))
        recogniser = WholeRecogniser(methods, self.corpus.tokens, self.data.beam)
        texts = [(text, recogniser.transcribe(samples)) for samples, text in self.corpus.utterances(part)]
        return word_error_rate([text for text, _ in texts], [words for _, words in texts]).wer


def _corpus(data: LibriSpeechData, cache: Path) -> Path:
    """The folder that holds the parts."""
    wanted = [*data.train, *data.dev, *data.test]
    if data.folder is not None:
        missing = [part for part in wanted if not (Path(data.folder) / part).is_dir()]
        if missing:
            raise TodmError(
                f"{data.folder} has no folder {missing[0]!r}; give the folder LibriSpeech that holds the parts"
            )
        return Path(data.folder)
    try:
        return Path(download_librispeech(cache, dataset_parts=wanted))
    except OSError as error:
        raise TodmError(f"LibriSpeech cannot be downloaded ({error}); name its folder with --data DIR") from error


def _cuts(home: Path, part: str, cache: Path) -> CutSet:
    """The utterances of a part, from a manifest that is made the first time and read from disk as it goes."""
    path = cache / f"{part}.jsonl.gz"
    if not path.exists():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            manifests = prepare_librispeech(home, dataset_parts=[part])[part]
        cuts = CutSet.from_manifests(recordings=manifests["recordings"], supervisions=manifests["supervisions"])
        if not len(cuts):
            raise TodmError(f"{home / part} holds no utterances: no *.trans.txt beside .flac files in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".part-{path.name}")
        cuts.trim_to_supervisions(keep_overlapping=False).to_file(temporary)
        temporary.replace(path)
    return open_cuts(path)


def _joined(parts: list[CutSet]) -> CutSet:
    return CutSet.mux(*parts) if len(parts) > 1 else parts[0]


def _tokens(train: CutSet, data: LibriSpeechData, cache: Path) -> Tokens:
    """Word pieces of the training texts, kept beside the manifests."""
    path = cache / f"pieces-{data.pieces}-{'-'.join(data.train)}.json"
    if path.exists():
        kept = read_json(path)
        return Tokens("bpe", tuple(kept["symbols"]), bytes.fromhex(kept["model"]))
    tokens = Tokens.build("bpe", map(text_of, train), data.pieces)
    write_json(path, {"symbols": tokens.symbols, "model": tokens.model.hex()})
    return tokens
