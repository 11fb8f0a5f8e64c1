"""The figures of a run take whatever a label may be."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.images import plots
from training.images.plots import Mistake


@pytest.mark.parametrize("label", ["$\\frac$", "L" * 200, "猫 x", "🐈"])
def test_a_label_of_dollars_of_200_characters_or_of_letters_that_the_font_lacks_is_drawn_and_leaves_room_for_the_matrix(
    label: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib only warns when axes have no room left
        plots.draw(tmp_path, np.array([[3, 1], [0, 3]]), [label, "b"], [Mistake(None, label, "b", 0.5)], "title")
    assert {path.name: Image.open(path).format for path in tmp_path.iterdir()} == {
        "confusion.png": "PNG",
        "misclassified.png": "PNG",
    }


def test_a_letter_that_the_font_lacks_stands_there_by_its_number() -> None:
    assert plots._short("猫 x") == "\\u732b x"
    assert plots._short("café") == "café"
