import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.maths.prompt_weights import DEEPEST, EMPHASIS, parse_weights

CASES = {
    "": [],
    "a cat": [("a cat", 1.0)],
    "a (cat)": [("a ", 1.0), ("cat", 1.1)],
    "(cat:1.3) dog": [("cat", 1.3), (" dog", 1.0)],
    "((a):2)": [("a", 2.2)],
    "((a:1.5):2)": [("a", 1.5)],
    "(a (b) c)": [("a ", 1.1), ("b", 1.1 * 1.1), (" c", 1.1)],
    "(a:b:0.5)": [("a:b", 0.5)],
    "(a:-1e1)": [("a", -10.0)],
    "(a: 2 )": [("a", 2.0)],
    "(a:nan)": [("a:nan", 1.1)],
    "(a:inf)": [("a:inf", 1.1)],
    "(:2)": [(":2", 1.1)],
    "(a:much)": [("a:much", 1.1)],
    "()": [],
    "(a": [("(a", 1.0)],
    "a)": [("a)", 1.0)],
    ") a (b) c": [(") a (b) c", 1.0)],
    "(a (b)": [("a ", 1.1), ("(b", 1.1)],
    r"\(a\)": [("(a)", 1.0)],
    r"(a \(b\):2)": [("a (b)", 2.0)],
    r"a \ b": [(r"a \ b", 1.0)],
    "[a] {b|c} BREAK": [("[a] {b|c} BREAK", 1.0)],
}


@pytest.mark.parametrize(("prompt", "expected"), CASES.items())
def test_prompts_are_read_as_the_reference_reads_them(prompt: str, expected: list[tuple[str, float]]) -> None:
    found = parse_weights(prompt)
    assert [part.text for part in found] == [text for text, _ in expected]
    assert all(abs(part.weight - weight) < 1e-9 for part, (_, weight) in zip(found, expected, strict=True))


@given(st.text())
def test_any_text_has_a_reading_and_its_words_survive(prompt: str) -> None:
    read = "".join(part.text for part in parse_weights(prompt))
    assert set(read) <= set(prompt)


@given(st.text(st.characters(blacklist_characters="()"), min_size=1))
def test_text_without_parentheses_is_itself(prompt: str) -> None:
    assert parse_weights(prompt) == [(prompt, 1.0)]


@given(st.text(st.characters(blacklist_characters="()\\:"), min_size=1), st.integers(1, 20))
def test_balanced_nesting_multiplies(word: str, depth: int) -> None:
    assert parse_weights("(" * depth + word + ")" * depth) == [(word, pytest.approx(EMPHASIS**depth))]


@given(st.text(), st.floats(-100, 100))
def test_escaped_text_in_a_group_comes_back_with_its_weight(word: str, weight: float) -> None:
    escaped = word.replace("(", r"\(").replace(")", r"\)")
    parts = parse_weights(f"(.{escaped}.:{weight})")
    assert parts == [(f".{word}.", weight)]


def test_nesting_without_end_is_neither_slow_nor_too_deep() -> None:
    deep = 5000
    (part,) = parse_weights("(" * deep + "a" + ")" * deep)
    assert part.weight == pytest.approx(EMPHASIS**DEEPEST)
