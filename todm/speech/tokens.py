"""Text to symbols and back: words, characters or byte-pair pieces, in the table that runtimes read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Literal

import sentencepiece

from todm.errors import TodmError

Kind = Literal["words", "characters", "bpe"]
BLANK_SYMBOL = "<blk>"
SPACE = "▁"
"""Becomes a space in the decoded text; between characters, inside pieces, and after every whole word."""


@dataclass(frozen=True)
class Tokens:
    """A vocabulary. Symbol 0 is the transducer's blank.

    `words` closes each word with a symbol of its own ("seven ▁ seven ▁"): a predictor of the last two symbols
    cannot tell "seven seven" from one long "seven".
    """

    kind: Kind
    symbols: tuple[str, ...]
    model: bytes = b""
    """The SentencePiece model of kind `bpe`."""

    @classmethod
    def build(cls, kind: Kind, texts: Iterable[str], size: int = 500) -> "Tokens":
        """The vocabulary of training texts in any order; `size` is the number of symbols of kind `bpe`.

        Raises:
            TodmError: there is no text, it holds a reserved symbol, or `size` does not fit it.
        """
        words = sorted(word for text in texts for word in text.split())
        if not words:
            raise TodmError("the training texts hold no words; check the table of texts")
        if kind == "bpe":
            return cls._build_bpe(words, size)
        symbols = set(words) if kind == "words" else set("".join(words))
        if reserved := sorted(s for s in symbols if SPACE in s or s == BLANK_SYMBOL):
            raise TodmError(f"the training texts hold the reserved {reserved[0]!r}; take it out of them")
        return cls(kind, (BLANK_SYMBOL, SPACE, *sorted(symbols)))

    @classmethod
    def _build_bpe(cls, words: list[str], size: int) -> "Tokens":
        model = BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(words), model_writer=model, model_type="bpe", vocab_size=size,
                character_coverage=1.0, normalization_rule_name="identity", num_threads=1, minloglevel=2,
                pad_id=0, pad_piece=BLANK_SYMBOL, unk_id=1, bos_id=-1, eos_id=-1,
            )  # fmt: skip
        except RuntimeError as error:
            reason = str(error).rpartition("] ")[2]
            raise TodmError(f"{size} pieces do not fit the training texts: {reason}") from error
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        return cls("bpe", tuple(pieces.id_to_piece(list(range(len(pieces))))), model.getvalue())

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    @cached_property
    def _pieces(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def encode(self, text: str) -> list[int]:
        """Symbol ids of a text, without blanks.

        Raises:
            TodmError: a word that the vocabulary cannot write, named.
        """
        ids: list[int] = []
        for word in text.split():
            if self.kind == "bpe":
                found = self._pieces.encode(word)
                known = self._pieces.unk_id() not in found
            else:
                found = [self._ids.get(s, 0) for s in ([word] if self.kind == "words" else word)]
                known = 0 not in found
                found.append(self._ids[SPACE])
            if not known:
                raise TodmError(f"no tokens for the word {word!r}; train with texts that hold it")
            ids += found
        return ids[:-1] if self.kind == "characters" else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of symbol ids, words separated by one space; blanks are passed over."""
        return " ".join("".join(self.symbols[i] for i in ids if i).replace(SPACE, " ").split())

    def tokens_txt(self) -> bytes:
        """The table that goes beside an exported model: a line "symbol id" for every symbol."""
        return "".join(f"{symbol} {i}\n" for i, symbol in enumerate(self.symbols)).encode()

    @classmethod
    def from_tokens_txt(cls, table: bytes, kind: Kind = "characters", model: bytes = b"") -> "Tokens":
        """Read `tokens_txt` back. Decoding needs neither `kind` nor the SentencePiece `model`, encoding does.

        Raises:
            TodmError: the table is damaged.
        """
        rows = [line.rpartition(" ") for line in table.decode(errors="replace").split("\n")[:-1]]
        if [row[2] for row in rows] != [str(i) for i in range(len(rows))] or rows[:1] != [(BLANK_SYMBOL, " ", "0")]:
            raise TodmError("tokens.txt is damaged: it should read '<blk> 0', 'symbol 1', ...; export again")
        return cls(kind, tuple(row[0] for row in rows), model)
