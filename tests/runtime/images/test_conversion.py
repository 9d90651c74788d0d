"""Images that users give: every odd kind is taken right or refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime.bundle.manifest import Vision
from mgcc_runtime.errors import EXIT_BAD_INPUT, ImageError
from mgcc_runtime.images.conversion import fit_square, load_image, pixel_values, save_png, to_image
from tests.runtime.golden_data import gradient


def png_header(width, height):
    """A PNG that claims to be that large and holds nothing: a decompression bomb's head."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"hello, I am a text", "cannot be read"),
        (png_header(50_000, 50_000), "has far more than 50,000,000 pixels; scale it down first"),
        (png_header(10_000, 9_000), "is 10000x9000 pixels, at most 50,000,000 are taken"),
        (png_header(20_000, 16), "is 20000x16 pixels, at most 32:1 is taken; crop it first"),
        (png_header(64, 64), "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, data, message, recwarn):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert not recwarn.list


def test_truncated_file(tmp_path):
    save_png(gradient(40, 40), tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"half\.png cannot be read"):
        load_image(tmp_path / "half.png")


def test_opened_image_that_turns_out_broken(tmp_path):
    """Pillow reads the pixels of an opened image when they are first wanted."""
    save_png(gradient(40, 40), tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    opened = Image.open(io.BytesIO(data[: len(data) // 2]))
    with pytest.raises(ImageError, match=r"^image of mode RGB cannot be read \(.*truncated.*\); give a sound PNG"):
        load_image(opened)
    closed = Image.open(tmp_path / "whole.png")
    closed.close()
    with pytest.raises(ImageError, match="image of mode RGB cannot be read"):
        load_image(closed)


def test_path_that_the_system_refuses(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be read \(.*File name too long"):
        load_image(tmp_path / ("x" * 5000))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="does not exist; give the path"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)


def test_animated_file_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)
    with Image.open(tmp_path / "a.gif") as opened:
        opened.seek(2)
        assert load_image(opened).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.mode == "RGB"
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 1)) == (0, 0, 0)


def test_exif_orientation_is_applied(tmp_path):
    image = gradient(12, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    turned = load_image(tmp_path / "a.png")
    assert turned.size == (6, 12)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


def test_sixteen_bits(tmp_path):
    Image.fromarray(np.full((5, 5), 32896, np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_floating_point_pixels():
    with pytest.raises(ImageError, match="has floating-point pixels"):
        load_image(Image.new("F", (4, 4)))


def test_cmyk_and_grey():
    assert load_image(Image.new("CMYK", (4, 4))).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(Image.new("L", (4, 4), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_empty_image():
    with pytest.raises(ImageError, match="is 0x5 pixels"):
        load_image(Image.new("RGB", (0, 5)))


def test_the_caller_keeps_the_image():
    image = gradient(6, 6)
    before = np.asarray(image).copy()
    load_image(image)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_fit_square():
    image = gradient(8, 8)
    assert fit_square(image, 8) is image
    wide = fit_square(gradient(30, 10), 8)
    assert wide.size == (8, 8)
    whole = gradient(30, 10).resize((24, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(wide), np.asarray(whole)[:, 8:16])
    assert fit_square(gradient(3, 5), 8).size == (8, 8)


def test_pixel_values():
    vision = Vision((0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    image = gradient(4, 4)
    values = pixel_values([image, image], 4, vision)
    assert (values.shape, values.dtype) == ((2, 3, 4, 4), np.float32)
    for c in range(3):
        expected = (np.asarray(image)[:, :, c] / 255 - vision.mean[c]) / vision.std[c]
        np.testing.assert_allclose(values[1, c], expected, rtol=1e-5, atol=1e-6)


def test_to_image_clips_and_rounds():
    decoded = np.zeros((1, 3, 1, 4), np.float32)
    decoded[0, 0, 0] = [-3, -1, 1, 3]
    assert np.asarray(to_image(decoded))[0, :, 0].tolist() == [0, 0, 255, 255]
    assert np.asarray(to_image(decoded))[0, 0, 1] == 128
