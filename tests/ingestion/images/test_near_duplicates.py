"""The search for close hashes is exact; what hashes bring together, pixels can take apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ingestion.images import near_duplicates, packaged
from ingestion.images.near_duplicates import LARGEST, MOST_BITS, candidates, correlations, grouped
from plumbline.pictures import decode, perceptual
from plumbline.settings import settings
from tests.plumbline.pictures.malformed import rgb


def hashes_with_neighbours(seed: int, families: int) -> NDArray[np.uint64]:
    """Random hashes, each with others that differ from it in 0 to 12 bits."""
    random = np.random.default_rng(seed)
    own = random.integers(0, 2**64, families, dtype=np.uint64)
    near = [own]
    for bits in range(13):
        masks = np.array([sum(1 << int(b) for b in random.choice(64, bits, replace=False)) for _ in own], np.uint64)
        near.append(own ^ masks)
    return random.permutation(np.concatenate(near))


@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_exactly_the_pairs_that_comparing_all_with_all_finds(seed: int) -> None:
    hashes = hashes_with_neighbours(seed, 60)
    differing = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    left, right = np.nonzero(np.triu(differing <= MOST_BITS, 1))
    found = candidates(hashes)
    assert len(left) > 1000
    assert np.array_equal(found[0], left)
    assert np.array_equal(found[1], right)


def test_many_pairs_are_looked_at_in_small_pieces_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = hashes_with_neighbours(7, 40)
    whole = candidates(hashes)
    monkeypatch.setattr(near_duplicates, "PAIRS_AT_ONCE", 50)
    pieces = candidates(hashes)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_a_hundred_thousand_hashes_are_searched_and_planted_pairs_are_there() -> None:
    hashes = np.random.default_rng(1).integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[77_000] = hashes[5] ^ np.uint64(0b1000000010000000100000001000000010000000100000001)
    assert (5, 77_000) in set(zip(*(side.tolist() for side in candidates(hashes)), strict=True))


def test_no_picture_and_one_picture_have_no_pairs() -> None:
    assert grouped([], np.empty(0, np.uint64), lambda places: []) == []
    assert grouped(["a"], np.array([3], np.uint64), lambda places: []) == ["a"]


def group(pictures: list[NDArray[np.uint8]]) -> list[str]:
    hashes = np.array([int(perceptual.phash(picture), 16) for picture in pictures], np.uint64)
    ids = [f"{at:04}" for at in range(len(pictures))]
    return grouped(ids, hashes, lambda places: [perceptual.signature(pictures[at]) for at in places])


def test_a_photo_and_its_copies_are_one_group_and_another_photo_is_not_in_it() -> None:
    photo = rgb(1, 96)
    copies = [
        photo,
        photo.resize((60, 60)),
        photo.resize((131, 131), Image.Resampling.BILINEAR),
        ImageEnhance.Brightness(photo).enhance(1.15),
        photo.crop((1, 1, 95, 95)),
    ]
    assert group([np.asarray(each) for each in (*copies, rgb(2, 96))]) == ["0000"] * 5 + ["0005"]


def test_two_even_pictures_are_alike_and_an_even_one_is_like_no_drawing() -> None:
    even, drawn = np.zeros(64, np.uint8), np.arange(64, dtype=np.uint8)
    left, right = np.array([0, 0, 2]), np.array([1, 2, 3])
    assert correlations(np.stack([even, even + 9, drawn, drawn * 3]), left, right).tolist() == [1, 0, 1]


def test_a_chain_of_pictures_is_divided_where_its_links_are_weakest(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 * LARGEST
    left, right = np.arange(size - 1), np.arange(1, size)
    score = np.where(right % LARGEST == 0, 0.93, 0.999)
    part = near_duplicates._parts(size, left, right, score, 0.92)
    assert part.tolist() == [part[0]] * LARGEST + [part[LARGEST]] * LARGEST + [part[-1]] * LARGEST
    assert len(set(part.tolist())) == 3


def test_no_group_of_digits_holds_two_kinds_and_the_numbers_are_those_that_the_limits_state() -> None:
    digits = list(packaged.mnist())
    groups: dict[str, list[str]] = {}
    for digit, number in zip(digits, group([decode.decoded(digit.content).rgb for digit in digits]), strict=True):
        groups.setdefault(number, []).append(str(digit.label))
    together = [labels for labels in groups.values() if len(labels) > 1]
    assert all(len(set(labels)) == 1 for labels in together)
    assert (sum(map(len, together)), len(together), max(map(len, together))) == (396, 139, 14)


def test_of_the_skin_tones_of_an_emoji_three_quarters_are_in_a_group_with_another_one() -> None:
    if not (settings().cache / "emoji" / packaged.EMOJI_FILE).exists():
        pytest.skip("the package of emoji is not in the cache: `plumb images ingest --source emoji` fetches it")
    every = {item.content: item for item in packaged.emoji()}  # 34 pictures have the bytes of another one
    pictures = [decode.decoded(content).rgb for content in every]
    distinct = {picture.tobytes(): at for at, picture in reversed(list(enumerate(pictures)))}
    chosen = sorted(distinct.values())
    items = list(every.values())
    of_base = dict[str, set[str]]()
    sizes = Counter[str]()
    for at, number in zip(chosen, group([pictures[at] for at in chosen]), strict=True):
        base = items[at].name.partition("/")[0]
        of_base.setdefault(base, set()).add(number)
        sizes[base] += 1
    further = sum(sizes.values()) - len(sizes)
    together = further - sum(len(groups) - 1 for groups in of_base.values())
    assert (together, further) == (1410, 1874)
