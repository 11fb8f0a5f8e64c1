"""Groups of near duplicates: pictures that must not stand on both sides of a split.

Two steps. Pairs whose perceptual hashes differ in few bits are found exactly, among a million hashes in seconds. Then
a pair counts only if the pixels agree too: a hash of 64 bits takes a 4 for a 9. Groups are the connected pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Signature = tuple[NDArray[np.uint8], NDArray[np.uint8]]

BITS, BANDS, BAND_BITS = 64, 4, 16

MOST_BITS = 7
"""Differing bits up to which two hashes are compared further. Of four bands of 16 bits, one differs in at most
7 // 4 = 1 bit: that makes the search exact."""

EDGES, GRAYS = 0.92, 0.93
"""Correlations that a pair needs, of its edges and of its grays. Chosen by looking at the groups of 5,000 digits and
3,786 emoji. At 0.92 and 0.93, 396 digits are in 139 groups, each of one digit, and 1,410 of the 1,874 further skin
tones of an emoji share a group with another one. At 0.94 and 0.6, a 7 shares a group with three 9s, and the flags of
Bolivia and Iran are one. At 0.97 and 0.6, 1,195 skin tones are left."""

LARGEST = 32
"""Pictures in a group. The largest that look right have 22 (couples in all skin tones); larger ones were chains of the
digit 1. In such a group only closer pairs count: the missing correlation is halved until the parts are small enough."""

PAIRS_AT_ONCE = 4_000_000
SCORED_AT_ONCE = 4_096


def grouped(
    ids: Sequence[str], hashes: NDArray[np.uint64], signatures: Callable[[list[int]], list[Signature]]
) -> list[str]:
    """For each picture the smallest id of its group; its own where it is alone.

    `signatures` gives those of the pictures at some places; it is asked once, for those with a close hash.
    """
    import numpy as np

    left, right = candidates(hashes)
    if not len(left):
        return list(ids)
    asked, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    grays, edges = (np.stack(each) for each in zip(*signatures(asked.tolist()), strict=True))
    at_left, at_right = places[: len(left)], places[len(left) :]
    by_edges, by_grays = (correlations(values, at_left, at_right) for values in (edges, grays))
    near = (by_edges >= EDGES) & (by_grays >= GRAYS)
    part = _parts(len(ids), left[near], right[near], by_edges[near], EDGES)
    smallest = dict[int, str]()
    for image, number in zip(ids, part, strict=True):
        smallest[number] = min(image, smallest.get(number, image))
    return [smallest[number] for number in part]


def candidates(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of places whose hashes differ in at most MOST_BITS, each once, the smaller place first.

    By the pigeonhole: such a pair agrees in one of four bands but for one bit. So each band's buckets are joined with
    themselves and with those one bit away, and a pair is taken in the first band that brings it.
    """
    import numpy as np

    found = [pairs for band in range(BANDS) for pairs in _of_band(hashes, band)]
    if not found:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    left, right = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.lexsort((np.maximum(left, right), np.minimum(left, right)))
    return np.minimum(left, right)[order], np.maximum(left, right)[order]


def _of_band(hashes: NDArray[np.uint64], band: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    import numpy as np

    values = _band(hashes, band).astype(np.intp)
    order = np.argsort(values, kind="stable")
    lying = hashes[order]
    starts = np.searchsorted(values[order], np.arange(2**BAND_BITS + 1))
    every = np.arange(2**BAND_BITS)
    for flipped in (0, *(1 << bit for bit in range(BAND_BITS))):
        mine = every[every <= (every ^ flipped)]
        other = mine ^ flipped
        sizes = np.diff(starts)[mine] * np.diff(starts)[other]
        mine, other, sizes = mine[sizes > 0], other[sizes > 0], sizes[sizes > 0]
        ends = np.cumsum(sizes)
        for chunk in np.split(np.arange(len(mine)), np.flatnonzero(np.diff(ends // PAIRS_AT_ONCE)) + 1):
            first, second = _joined(starts, mine[chunk], other[chunk])
            if flipped == 0:
                first, second = first[first < second], second[first < second]
            differing = lying[first] ^ lying[second]
            close = np.bitwise_count(differing) <= MOST_BITS
            for earlier in range(band):
                close[close] = np.bitwise_count(_band(differing[close], earlier)) > 1
            yield order[first[close]], order[second[close]]


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.uint64]:
    import numpy as np

    bits: NDArray[np.uint64] = (hashes >> np.uint64(BAND_BITS * band)) & np.uint64(2**BAND_BITS - 1)
    return bits


def _joined(
    starts: NDArray[np.intp], mine: NDArray[np.intp], other: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every place of a bucket with every place of another, for all pairs of buckets at once."""
    import numpy as np

    wide = (starts[1:] - starts[:-1])[other]
    sizes = (starts[1:] - starts[:-1])[mine] * wide
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, column = np.divmod(within, np.repeat(wide, sizes))
    return np.repeat(starts[mine], sizes) + row, np.repeat(starts[other], sizes) + column


def correlations(values: NDArray[np.uint8], left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
    """Pearson's correlation of each pair of rows; of two even rows 1, of an even and an uneven one 0.

    Sums are of whole numbers, so every machine gives the same.
    """
    import numpy as np

    size = values.shape[1]
    sums = values.sum(axis=1, dtype=np.int64)
    spread = size * np.einsum("ij,ij->i", values, values, dtype=np.int64) - sums**2
    found = np.empty(len(left))
    for start in range(0, len(left), SCORED_AT_ONCE):
        i, j = left[start : start + SCORED_AT_ONCE], right[start : start + SCORED_AT_ONCE]
        together = size * np.einsum("ij,ij->i", values[i], values[j], dtype=np.int64) - sums[i] * sums[j]
        scale = np.sqrt(spread[i].astype(np.float64)) * np.sqrt(spread[j].astype(np.float64))
        even = (spread[i] == 0) & (spread[j] == 0)
        found[start : start + SCORED_AT_ONCE] = np.where(even, 1.0, together / np.where(scale > 0, scale, 1.0))
    return found


def _parts(
    size: int, left: NDArray[np.intp], right: NDArray[np.intp], score: NDArray[np.float64], limit: float
) -> NDArray[np.intp]:
    """The number of each picture's group; groups above LARGEST are divided by a tighter limit."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    count, numbers = connected_components(links, directed=False)
    part: NDArray[np.intp] = numbers.astype(np.intp)
    large: NDArray[np.bool_] = np.bincount(part, minlength=count)[part] > LARGEST
    if large.any():
        tighter = 1 - (1 - limit) / 2
        stays = large[left] & (score >= tighter)
        again = _parts(size, left[stays], right[stays], score[stays], tighter)
        part[large] = count + again[large]
    return part
