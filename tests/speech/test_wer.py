import pytest
from hypothesis import given
from hypothesis import strategies as st

from todm.speech.wer import Wer, word_error_rate


def distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's, by its recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_counts_each_kind_of_error():
    references = ["one two three", "four five", "six"]
    hypotheses = ["one too three", "five", "six six seven"]
    assert word_error_rate(references, hypotheses) == Wer(100 * 4 / 6, 2, 1, 1, 6)


sentences = st.lists(st.sampled_from("abc"), max_size=6)


@given(st.lists(st.tuples(sentences, sentences)))
def test_is_the_edit_distance_over_all_words(pairs):
    result = word_error_rate([" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs])
    errors = sum(distance(a, b) for a, b in pairs)
    words = sum(len(a) for a, _ in pairs)
    assert result.insertions + result.deletions + result.substitutions == errors
    assert result.words == words
    assert result.wer == pytest.approx(100 * errors / max(words, 1))


def test_empty_references():
    assert word_error_rate([], []) == Wer(0, 0, 0, 0, 0)
    assert word_error_rate([""], [""]).wer == 0
    assert word_error_rate(["", "a"], ["x y", "a"]) == Wer(200, 2, 0, 0, 1)


def test_lists_of_different_length():
    with pytest.raises(ValueError, match="2 references but 1"):
        word_error_rate(["a", "b"], ["a"])
