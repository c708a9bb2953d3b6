import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todm.errors import TodmError
from todm.speech.tokens import Tokens

WORDS = ["six", "seven", "eight"]
SENTENCES = [
    "the birch canoe slid on the smooth planks",
    "glue the sheet to the dark blue background",
    "it's easy to tell the depth of a well",
    "these days a chicken leg is a rare dish",
    "rice is often served in round bowls",
]
BPE = Tokens.build("bpe", SENTENCES, size=60)
word = st.text(st.characters(codec="utf-8", exclude_characters="▁<", exclude_categories=["Z", "C"]), min_size=1)
texts = st.lists(st.lists(word, min_size=1).map(" ".join), min_size=1).filter(lambda t: any(x.split() for x in t))


@settings(deadline=None)
@given(texts, st.sampled_from(["words", "characters"]))
def test_any_text_comes_back(corpus, kind):
    tokens = Tokens.build(kind, corpus)
    again = Tokens.from_tokens_txt(tokens.tokens_txt(), kind)
    assert again == tokens
    for text in corpus:
        ids = tokens.encode(text)
        assert all(0 < i < len(tokens) for i in ids)
        assert again.decode(ids) == " ".join(text.split())


@settings(deadline=None)
@given(st.lists(st.sampled_from(" ".join(SENTENCES).split()), min_size=1).map(" ".join))
def test_pieces_come_back(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert Tokens.from_tokens_txt(BPE.tokens_txt(), "bpe", BPE.model).encode(text) == BPE.encode(text)


def test_words_are_closed_so_that_repetitions_stand_apart():
    tokens = Tokens.build("words", WORDS)
    seven, end = tokens.symbols.index("seven"), tokens.symbols.index("▁")
    assert tokens.encode("seven seven") == [seven, end, seven, end]
    assert tokens.decode([0, seven, 0, end, seven]) == "seven seven"


def test_characters_have_a_space_between_words_only():
    tokens = Tokens.build("characters", ["ab b"])
    assert tokens.symbols == ("<blk>", "▁", "a", "b")
    assert tokens.encode("ab  b") == [2, 3, 1, 3]


def test_the_table_is_what_runtimes_read():
    assert Tokens.build("words", ["b a"]).tokens_txt().decode() == "<blk> 0\n▁ 1\na 2\nb 3\n"
    assert BPE.tokens_txt().decode().startswith("<blk> 0\n<unk> 1\n")
    assert len(BPE) == 60


@pytest.mark.parametrize("kind", ["words", "characters", "bpe"])
def test_the_order_of_texts_does_not_matter(kind):
    assert Tokens.build(kind, SENTENCES, 60) == Tokens.build(kind, SENTENCES[::-1], 60)


@pytest.mark.parametrize("kind", ["words", "characters", "bpe"])
def test_an_unknown_word_is_named(kind):
    tokens = Tokens.build(kind, SENTENCES, 60)
    with pytest.raises(TodmError, match="'Größe'"):
        tokens.encode("the Größe planks")
    assert tokens.encode("") == []
    assert tokens.decode([]) == ""


def test_travels_to_another_process():
    BPE.encode("the")
    assert pickle.loads(pickle.dumps(BPE)).encode("the dish") == BPE.encode("the dish")


@pytest.mark.parametrize("table", [b"", b"<blk> 0\na 2\n", b"a 0\n", b"<blk> 0\nseven\n", b"\xff\xfe"])
def test_a_damaged_table_is_refused(table):
    with pytest.raises(TodmError, match=r"tokens\.txt is damaged"):
        Tokens.from_tokens_txt(table)


@pytest.mark.parametrize(
    ("kind", "corpus", "says"),
    [
        ("words", [" ", ""], "no words"),
        ("characters", ["a▁b"], "reserved"),
        ("words", ["a <blk>"], "reserved"),
        ("bpe", ["one two"], "Vocabulary size too high"),
    ],
)
def test_texts_that_make_no_vocabulary(kind, corpus, says):
    with pytest.raises(TodmError, match=says):
        Tokens.build(kind, corpus)
