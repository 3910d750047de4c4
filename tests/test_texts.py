"""Prompts as an editor sends them."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.editor.texts import spoken, unspoken


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a (red:1.2) boat", "a (red:1.2) boat"),
        ("a {red} boat", "a red boat"),
        ("a {} boat", "a  boat"),
        (r"a \{red\|blue\} boat \(here\)", r"a {red|blue} boat \(here\)"),
        ("red | blue", "red | blue"),
        ("a boat // red\nat sea //", "a boat \nat sea "),
        ("a /* red\nor blue */boat /**/", "a boat "),
        ("a /* boat", "a /* boat"),
        ("a /* boat // here\nat sea", "a /* boat \nat sea"),
        ("/*/ a */ boat", " boat"),
        ("a {red boat", "a {red boat"),
        ("a {red|{blue} boat", "a {red|blue boat"),
        ("a } boat", "a } boat"),
    ],
)
def test_comments_go_and_braces_without_a_choice_stay(text: str, said: str):
    assert spoken(text, Random(0)) == said


def test_one_of_each_choice_is_picked():
    heard = {spoken("{red|{light|dark} green|} {boat|car}", Random(seed)) for seed in range(200)}
    assert heard == {
        f"{colour} {thing}" for colour in ("red", "light green", "dark green", "") for thing in ("boat", "car")
    }


def test_choices_in_choices_may_be_as_deep_as_they_like():
    assert spoken("{" * 20_000 + "a" + "|b}" * 20_000, Random(0)).strip("ab") == ""


@given(st.text(alphabet="{|}\\/*\n a") | st.text())
def test_any_text_can_be_written_so_that_it_is_said(text: str):
    assert spoken(unspoken(text), Random(0)) == text
