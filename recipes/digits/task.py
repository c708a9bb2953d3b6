"""The digits task: connected spoken digits, each word followed by an end-of-word symbol."""

from pathlib import Path

from pydantic import Field
from pydantic.dataclasses import dataclass

from todm.recipe import STRICT
from todm.recipes.digits.prepare import prepare
from todm.speech.corpus import Corpus
from todm.speech.task import Batching, SpeechTask, TransducerConfig
from todm.speech.tokens import Kind


@dataclass(frozen=True, config=STRICT)
class DigitsData:
    """Where the digits come from and how many utterances are made of them."""

    folder: str | None = None
    """Folder of recordings `{digit}_{speaker}_{take}.wav`; else $TODM_DATA/fsdd, a download, or synthetic speech."""
    train: int = 6000
    """Training utterances."""
    dev: int = 250
    """Utterances that search chooses on."""
    test: int = 600
    """Utterances that results are reported on."""
    held_out_speaker: str | None = None
    """Test on this speaker alone, who is in no other split."""
    babble_snr: tuple[float, float] | None = None
    """Level of the speaker above three others who talk at once, in dB, from and to; null: nobody else talks."""
    tokens: Kind = "words"
    """Symbols that words are written in."""
    batching: Batching = Field(default_factory=Batching)
    """How training utterances are varied and put together."""


class DigitsTask(SpeechTask):
    """Connected digits of the Free Spoken Digit Dataset."""

    Data = DigitsData
    Model = TransducerConfig

    def __init__(self, data: DigitsData, model: TransducerConfig, seed: int, cache: Path) -> None:
        name = f"digits-{data.held_out_speaker or 'all'}-{data.train}-{data.dev}-{data.test}"
        if data.babble_snr:
            name += "-babble-{:g}-{:g}".format(*data.babble_snr)
        self.prepared = prepare(
            cache / name, data=data.folder, train=data.train, dev=data.dev, test=data.test,
            held_out_speaker=data.held_out_speaker, babble_snr=data.babble_snr,
        )  # fmt: skip
        corpus: Corpus = self.prepared.corpus(data.tokens)
        super().__init__(corpus, model, data.batching, seed)

    def provenance(self) -> dict[str, str]:
        """Which recordings were used, for run.json."""
        prepared = self.prepared
        return {
            "origin": prepared.origin, "source": prepared.notice, "sha256": prepared.checksum,
            "folder": str(prepared.folder),
            "licence": "CC BY-SA 4.0" if prepared.origin != "synthetic" else "Apache-2.0 (Pico voices)",
        }  # fmt: skip
