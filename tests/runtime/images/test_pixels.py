"""The same picture is the same pixels: in every mode, and in every file that Pillow writes it to."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from mgcc_runtime.errors import ImageError
from mgcc_runtime.images.conversion import load_image

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = Image.fromarray(np.stack([GREY, GREY.T, 255 - GREY], -1))
ALPHA = GREY // 64 * 85
#: How far a file may be from its picture: what compression, chroma subsampling and 8-bit colour spaces cost.
LOSS = {"JPEG": 24, "MPO": 24, "WEBP": 48, "AVIF": 48, "GIF": 0}
FORMATS = (
    "PNG", "TIFF", "WEBP", "GIF", "JPEG", "BMP", "PPM", "TGA", "JPEG2000", "AVIF", "PCX", "SGI", "DDS", "IM", "MPO",
)  # fmt: skip
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", *SIXTEEN, *WITH_ALPHA)


def over_white(colours, alpha):
    a = alpha.astype(float)[..., None] / 255
    return np.rint(np.asarray(colours, float) * a + 255 * (1 - a))


def picture(mode):
    """A picture in this mode, and the pixels it shows."""
    if mode in SIXTEEN:
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (16, 16), (GREY.astype(np.uint16) * 257).astype(order).tobytes())
        return image, np.stack([GREY] * 3, -1)
    if mode == "I":
        return Image.fromarray(GREY.astype(np.int32) * 257), np.stack([GREY] * 3, -1)
    if mode in WITH_ALPHA:
        image = COLOURS.convert("L" if mode in ("LA", "La") else "RGB")
        shown = over_white(image.convert("RGB"), ALPHA)
        if mode == "PA":
            palette = COLOURS.quantize(64)
            image = palette.convert("PA")
            shown = over_white(palette.convert("RGB"), ALPHA)
        image.putalpha(Image.fromarray(ALPHA))
        return (image.convert({"La": "La", "RGBa": "RGBa"}[mode]) if mode in ("La", "RGBa") else image), shown
    if mode == "LAB":
        from PIL import ImageCms

        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        return ImageCms.profileToProfile(COLOURS, *profiles, outputMode="LAB"), np.asarray(COLOURS)
    image = COLOURS.quantize(64) if mode == "P" else COLOURS.convert(mode)
    return image, np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode):
    if mode == "LAB" and not features.check("littlecms2"):
        pytest.skip("this Pillow has no littlecms2; with a wheel of the package index this runs")
    image, shown = picture(mode)
    before = image.mode, image.tobytes()
    found = load_image(image)
    assert found.mode == "RGB"
    # twice rounded to 8 bits where colours are stored multiplied with alpha, once where laid over white; strong colours
    # of sRGB lie beyond LAB's 8 bits
    limit = 32 if mode == "LAB" else 2 if mode in ("La", "RGBa") else 1 if mode in WITH_ALPHA else 0
    assert np.abs(np.asarray(found, float) - shown).max() <= limit
    assert (image.mode, image.tobytes()) == before


def writable():
    for mode in MODES:
        if mode == "LAB" and not features.check("littlecms2"):
            continue
        image, _ = picture(mode)
        for kind in FORMATS:
            try:
                image.save(io.BytesIO(), kind)
            except (OSError, ValueError, KeyError, SystemError):
                continue  # Pillow does not write this mode to such a file
            yield mode, kind


#: What Pillow's writers themselves lose: alpha by formats without it, 16 bits by formats of 8 (cut off at 255).
LOST_IN_WRITING = {
    *((mode, kind) for mode in ("LA", "RGBA") for kind in ("GIF", "BMP", "PPM", "PCX", "SGI", "DDS", "JPEG", "MPO")),
    *((mode, kind) for mode in ("I", *SIXTEEN) for kind in ("WEBP", "GIF", "AVIF")),
}


@pytest.mark.parametrize(("mode", "kind"), sorted(set(writable()) - LOST_IN_WRITING))
def test_every_file(mode, kind):
    image, shown = picture(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind in LOSS and kind != "GIF" else {}))
    found = np.asarray(load_image(Image.open(buffer)), float)
    of_mode = 32 if mode == "LAB" else 3 if mode in ("HSV", *WITH_ALPHA) else 0
    assert np.abs(found - shown).max() <= LOSS.get(kind, 0) + of_mode


def test_the_matrix_is_a_matrix():
    cells = set(writable())
    assert len(cells) > 90
    assert {"PNG", "TIFF", "WEBP", "GIF", "JPEG", "BMP"} <= {kind for _, kind in cells}


def png(bits, colour, rows, transparent):
    """A PNG of this depth by hand: Pillow writes none of 2, 4 or 16 bits with a transparent colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b""
    for row in rows:
        digits = "".join(format(v, f"0{bits}b") for pixel in row for v in pixel)
        digits += "0" * (-len(digits) % 8)
        lines += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, colour, 0, 0, 0)
    key = b"".join(struct.pack(">H", v) for v in transparent)
    parts = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_at_every_depth(tmp_path, bits, as_object):
    """Each depth shows what its twin in 8 bits shows."""
    values = sorted({0, 1, 2**bits // 3, 2**bits - 1})
    for transparent in values:
        (tmp_path / "a.png").write_bytes(png(bits, 0, [[(v,) for v in values]] * 2, (transparent,)))
        shown = [255 if v == transparent else round(v * 255 / (2**bits - 1)) for v in values]
        source = Image.open(tmp_path / "a.png") if as_object else tmp_path / "a.png"
        assert np.asarray(load_image(source))[1, :, 0].tolist() == shown, transparent


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour(bits, read):
    scale = 257 if bits == 16 else 1
    pixels = [(10 * scale, 20 * scale, 30 * scale), (255 * scale, 0, 0), (300 % 2**bits, 7 * scale, 0)]
    shown = [[round(v / scale - 0.5 * (bits == 16 and v % scale > 0)) for v in pixel] for pixel in pixels]
    for i, transparent in enumerate(pixels):
        image = Image.open(io.BytesIO(png(bits, 2, [pixels] * 2, transparent)))
        if read:
            image.load()
        expected = [*shown]
        expected[i] = [255] * 3
        found = np.asarray(load_image(image))[0].tolist()
        assert np.abs(np.array(found) - expected).max() <= 1, transparent


@pytest.mark.parametrize(
    ("mode", "kind"), [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("L", "GIF"), ("P", "GIF")]
)
def test_a_transparent_value_that_pillow_writes(mode, kind):
    image = COLOURS.quantize(64) if mode == "P" else COLOURS.convert(mode)
    first = image.getpixel((0, 0))
    buffer = io.BytesIO()
    image.save(buffer, kind, transparency=first)
    found = load_image(Image.open(buffer))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    image.info["transparency"] = first
    np.testing.assert_array_equal(np.asarray(found), np.asarray(load_image(image)))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "CMYK", "HSV", "YCbCr"])
def test_a_transparent_value_that_means_nothing(mode):
    image = Image.new(mode, (3, 3))
    plain = load_image(image).getpixel((0, 0))
    image.info["transparency"] = 0
    assert load_image(image).getpixel((0, 0)) == plain


def test_arrays_of_integers():
    """Of 16 bits, or of 8 where none is larger; what neither can be is refused, never cut off."""
    for scale in (1, 257):
        found = load_image(Image.fromarray(GREY.astype(np.int32) * scale))
        np.testing.assert_array_equal(np.asarray(found)[..., 0], GREY)
    for value, told in ((-1, "-1 to 0"), (65536, "0 to 65536")):
        with pytest.raises(ImageError, match=f"has pixels from {told}, expected 0 to 65535"):
            load_image(Image.fromarray(np.array([[0, value]], np.int32).repeat(2, 0)))


def test_files_of_integers_hold_sixteen_bits():
    """A dark picture in 16 bits is dark, though all its values would do for 8."""
    buffer = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16)).save(buffer, "PPM")
    image = Image.open(buffer)
    for _ in range(2):
        assert np.asarray(load_image(image)).max() == 1
        image.load()
    assert np.asarray(load_image(Image.fromarray(GREY.astype(np.uint16)))).max() == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(kind, orientation):
    """As a file, as an unread image and as one that is read: the same way up."""
    wide = COLOURS.resize((48, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    wide.save(buffer, kind, exif=exif, quality=100)
    image = Image.open(buffer)
    found = np.asarray(load_image(image), float)
    turns = {3: (2, 0), 4: (2, 1), 6: (-1, 0), 5: (-1, 1), 8: (1, 0), 7: (1, 1), 1: (0, 0), 2: (0, 1)}
    quarters, mirrored = turns[orientation]
    expected = np.asarray(wide, float)
    expected = np.rot90(expected, quarters)
    expected = expected[:, ::-1] if mirrored else expected
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 12
    image.load()
    np.testing.assert_array_equal(np.asarray(load_image(image)), found.astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_data_does_not_lose_the_picture(kind):
    buffer = io.BytesIO()
    COLOURS.save(buffer, kind, exif=b"Exif\0\0no such thing")
    assert load_image(Image.open(buffer)).size == (16, 16)


def test_layers():
    """Pillow counts the layers of some formats from 1; they open at the whole picture."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 2, 2, 8, 3) + struct.pack(">III", 0, 0, 0)
    data = head + struct.pack(">H", 0) + bytes([200] * 4 + [100] * 4 + [50] * 4)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PSD"
    for _ in range(2):
        assert load_image(image).getpixel((1, 1)) == (200, 100, 50)
        image.load()
