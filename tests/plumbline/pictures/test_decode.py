"""What a decoder gives, and what it refuses: each malformed file by its own reason, whatever came before it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

import imagehash
import numpy as np
import pytest
from PIL import Image

from plumbline.pictures import decode, formats, perceptual
from plumbline.pictures.decode import REASONS, BadPicture
from plumbline.pictures.safe import Decoders
from tests.plumbline.pictures.malformed import encoded, malformed, rgb


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(children=1) as pool:
        yield pool


@pytest.mark.parametrize(("name", "content", "reason"), malformed(), ids=[name for name, _, _ in malformed()])
def test_each_malformed_file_is_refused_for_its_own_reason(
    decoders: Decoders, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(BadPicture) as refused:
        decoders.cleaned(content, name)
    assert refused.value.reason == reason
    assert refused.value.detail
    assert decoders.cleaned(encoded(rgb(1), "PNG"), "next.png").width == 40  # the next one suffers nothing


def test_there_are_sixty_and_more_and_every_reason_that_decoding_alone_gives_has_one() -> None:
    counts = Counter(reason for _, _, reason in malformed())
    assert sum(counts.values()) >= 60
    by_the_process = {"timeout", "out_of_memory", "decoder_crashed", "too_many_bytes", "duplicate"}
    assert counts.keys() == REASONS.keys() - by_the_process


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_gray_and_palette_pictures_become_the_rgb_that_they_show(mode: str, kind: str) -> None:
    image = rgb(2).convert(mode)
    stored = Image.open(io.BytesIO(encoded(image, kind)))
    picture = decode.decoded(encoded(image, kind))
    assert picture.format == kind.lower()
    assert np.array_equal(picture.rgb, np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_what_is_transparent_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (10, 0, 20, 20))
    given = image.convert(mode) if mode != "P" else image.quantize(4)
    picture = decode.decoded(encoded(given, "PNG"))
    assert tuple(picture.rgb[0, 19]) == (255, 255, 255)
    assert tuple(picture.rgb[0, 0]) == (tuple([76] * 3) if mode == "LA" else (255, 0, 0))
    assert picture.notes == ("laid on white",)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says_and_keeps_nothing_of_exif(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[decode.ORIENTATION], exif[0x010F] = orientation, "Camera 7"
    content = encoded(rgb(3).crop((0, 0, 40, 24)), "JPEG", exif=exif, quality=95)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))

    picture = decode.decoded(content, name="photo.JPG")
    assert np.array_equal(picture.rgb, turned)
    assert picture.notes == (("rotated by EXIF",) if orientation > 1 else ())
    assert decode.exif_summary(content) == {"Make": "Camera 7", "Orientation": str(orientation)}
    assert decode.exif_summary(decode.clean_png(picture.rgb)) is None
    assert b"Camera" not in decode.clean_png(picture.rgb)


def test_exif_that_cannot_be_read_neither_stops_nor_turns_a_picture(decoders: Decoders) -> None:
    content = encoded(rgb(4), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decoders.cleaned(content).notes == ()
    assert decoders.exif(content) is None


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (28, 28), (65, 33)])
def test_a_clean_png_holds_exactly_its_pixels_in_three_chunks_and_is_the_same_each_time(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    content = decode.clean_png(pixels)
    assert content == decode.clean_png(pixels.copy())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    assert formats.end_of(content, "png") == len(content)
    assert content.count(b"IHDR") == content.count(b"IDAT") == content.count(b"IEND") == 1


def test_a_child_gives_the_same_pixels_as_decoding_here(decoders: Decoders) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        content = encoded(rgb(5), kind)
        assert np.array_equal(decoders.decoded(content).rgb, decode.decoded(content).rgb)
        assert decoders.cleaned(content).png == decode.clean_png(decode.decoded(content).rgb)


def test_zeros_behind_the_end_are_padding_and_no_other_file() -> None:
    assert decode.decoded(encoded(rgb(6), "JPEG") + bytes(512)).format == "jpeg"


def test_of_a_cameras_file_with_further_pictures_the_first_counts_and_what_follows_them_is_refused() -> None:
    first = encoded(rgb(6), "JPEG")
    content = encoded(Image.open(io.BytesIO(first)), "MPO", save_all=True, append_images=[rgb(7), rgb(8)])
    picture = decode.decoded(content, name="photo.jpg")
    assert np.abs(picture.rgb.astype(int) - decode.decoded(first).rgb).mean() < 3
    assert picture.notes == ("the first of several pictures",)
    with pytest.raises(BadPicture, match=r"trailing_data: 9 bytes behind the jpeg"):
        decode.decoded(content + b"#!/bin/sh")


def test_a_preview_inside_exif_is_not_taken_for_the_end_of_the_picture() -> None:
    preview = encoded(rgb(7), "JPEG")
    content = encoded(rgb(8), "JPEG", comment=preview)
    assert formats.end_of(content, "jpeg") == len(content)


def test_the_perceptual_hash_is_imagehashs_phash_bit_for_bit() -> None:
    for seed in range(50):
        image = rgb(seed, 20 + 3 * seed)
        assert perceptual.phash(np.asarray(image)) == str(imagehash.phash(image))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_random_damage_is_refused_or_decoded_and_never_ends_the_decoder(kind: str, decoders: Decoders) -> None:
    decoders.cleaned(encoded(rgb(9), "PNG"))
    process, random, reasons = decoders._all[0].process, np.random.default_rng(5), set[str]()
    for seed in range(40):
        content = bytearray(encoded(rgb(seed).convert("P" if kind == "GIF" else "RGB"), kind))
        for at in random.integers(0, len(content), 1 + seed % 5):
            content[at] = random.integers(0, 256)
        try:
            decoders.cleaned(bytes(content))
        except BadPicture as bad:
            reasons.add(bad.reason)
    assert reasons <= REASONS.keys() - {"decoder_crashed"}
    assert decoders._all[0].process is process
