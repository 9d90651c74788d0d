"""A caller's image is only borrowed: threads may share it, and it stays as it was."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime.errors import ImageError
from mgcc_runtime.images import borrowed
from mgcc_runtime.images.conversion import load_image
from tests.runtime.golden_data import gradient

_ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
_STILL = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA")


def noise(seed, size=(60, 40)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def animations(tmp_path_factory):
    """One file of three frames in each format that has frames."""
    folder = tmp_path_factory.mktemp("animations")
    for kind in _ANIMATED:
        frames = [noise(seed) for seed in range(3)]
        frames[0].save(folder / f"a.{kind.lower()}", kind, save_all=True, append_images=frames[1:])
    return folder


def state(image):
    """What a caller could see change, without a look at the pixels, which would change it."""
    return image.tell(), image.mode, image.size, list(image.tile), image.fp is None, dict(image.info)


def opened(path, how):
    if how == "path":
        return Image.open(path)
    return Image.open(io.BytesIO(path.read_bytes()) if how == "bytes" else path.open("rb"))


@pytest.mark.parametrize("how", ["path", "bytes", "file"])
@pytest.mark.parametrize("kind", _STILL)
def test_an_unread_image_stays_unread(tmp_path, kind, how):
    gradient(60, 40).save(tmp_path / "a", kind)
    truth = np.asarray(load_image(tmp_path / "a"))
    with opened(tmp_path / "a", how) as image:
        before = state(image)
        for _ in range(2):
            np.testing.assert_array_equal(np.asarray(load_image(image)), truth)
            assert state(image) == before
        image.load()
        np.testing.assert_array_equal(np.asarray(load_image(image)), truth)


@pytest.mark.parametrize("how", ["path", "bytes", "file"])
@pytest.mark.parametrize("kind", _ANIMATED)
def test_an_animation_keeps_its_frame(animations, kind, how):
    path = animations / f"a.{kind.lower()}"
    first = np.asarray(load_image(path))
    for frame in (0, 2):
        for read in (False, True):
            with opened(path, how) as image, Image.open(path) as beside:
                for one in (image, beside):
                    one.seek(frame)
                if read:
                    image.load()
                before = state(image)
                np.testing.assert_array_equal(np.asarray(load_image(image)), first)
                assert state(image) == before, (frame, read)
                np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(beside.convert("RGB")))


def test_an_image_changed_since_it_was_opened_is_taken_as_it_is_now(tmp_path):
    gradient(64, 64).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft("L", (16, 16))
        assert load_image(image).size == (16, 16)
    with Image.open(tmp_path / "a.jpg") as image:
        image.putpixel((0, 0), (1, 2, 3))
        assert load_image(image).getpixel((0, 0)) == (1, 2, 3)


def test_a_file_of_an_unknown_kind(tmp_path):
    """It has no cursor beside its own, so the image is read through it."""

    class Wrapped(io.BytesIO):
        """As a member of an archive is."""

    gradient(20, 10).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    stream = io.BufferedRandom(io.FileIO(tmp_path / "b.png", "w+"))
    stream.write(data)
    for file in (stream, Wrapped(data)):
        image = Image.open(file)
        np.testing.assert_array_equal(np.asarray(load_image(image)), np.asarray(gradient(20, 10)))
    stream.close()


@pytest.mark.skipif(not hasattr(os, "pread"), reason="this system has no pread; on Linux or macOS this runs")
def test_the_file_is_read_beside_its_own_cursor(tmp_path):
    gradient(20, 10).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        image = Image.open(file)
        before = file.tell()
        load_image(image)
        assert file.tell() == before
        assert not file.closed


def test_a_closed_animation_at_another_frame_is_refused(animations):
    with Image.open(animations / "a.gif") as image:
        image.seek(2)
        image.load()
    before = image.tell(), image.tobytes()
    with pytest.raises(ImageError, match=r"cannot be read \(.*closed"):
        load_image(image)
    assert (image.tell(), image.tobytes()) == before
    with Image.open(animations / "a.gif") as image:
        image.load()
    np.testing.assert_array_equal(np.asarray(load_image(image)), np.asarray(load_image(animations / "a.gif")))


def test_threads_share_one_image(animations, tmp_path):
    """Nobody has read it yet: 8 threads at once, in every format, each time from the same object."""
    noise(9, (300, 300)).save(tmp_path / "large.png")
    noise(9, (300, 300)).quantize(64).save(tmp_path / "palette.png")
    paths = [tmp_path / "large.png", tmp_path / "palette.png", *sorted(animations.iterdir())]
    gate = threading.Barrier(8)

    def load(image):
        gate.wait()
        return np.asarray(load_image(image)).tobytes()

    with ThreadPoolExecutor(8) as pool:
        for path in paths:
            truth = np.asarray(load_image(path)).tobytes()
            for frame in (0, 2 if path.parent == animations else 0):
                with Image.open(path) as image:
                    image.seek(frame)
                    assert set(pool.map(load, [image] * 8)) == {truth}, (path.name, frame)
                    assert image.tell() == frame


def test_threads_share_one_palette_that_is_not_settled():
    image = noise(1).quantize(16)
    truth = np.asarray(load_image(image.copy())).tobytes()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            shared = image.copy()
            shared.putpalette(image.getpalette())  # Pillow hands a palette over at the first touch
            assert {np.asarray(found).tobytes() for found in pool.map(load_image, [shared] * 8)} == {truth}


def test_warning_filters_stay_as_they_are(tmp_path, recwarn):
    import warnings

    gradient(8, 8).save(tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_image, [tmp_path / "a.png"] * 64))
    assert list(warnings.filters) == before


def test_pictures_of_shared_images_are_those_of_one_request_after_the_other(pipe, tmp_path):
    noise(4, (400, 400)).save(tmp_path / "a.png")
    requests = [{"seed": seed, "steps": 1} for seed in range(4)]

    def draw(image, request):
        return np.asarray(pipe.generate([image, "A cat."], **request).image).tobytes()

    truth = [draw(tmp_path / "a.png", request) for request in requests]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            with Image.open(tmp_path / "a.png") as image:
                assert list(pool.map(draw, [image] * 4, requests)) == truth
                assert image.tile, "still unread"


def test_what_happens_after_the_request_is_made_does_not_count(pipe, tmp_path):
    """The file is closed, the image painted over, the array behind it filled anew: all before the first event."""
    pixels = np.asarray(noise(7).convert("RGBA")).copy()
    alive = Image.fromarray(pixels)  # shares the array's memory
    noise(7).save(tmp_path / "a.png")
    truth = np.asarray(pipe.generate([tmp_path / "a.png", "A cat."], steps=1).image)
    file = Image.open(tmp_path / "a.png")
    painted = noise(7)
    streams = [pipe.stream([image, "A cat."], steps=1) for image in (alive, file, painted)]
    pixels[:] = 0
    file.close()
    (tmp_path / "a.png").unlink()
    painted.paste((0, 0, 0), (0, 0, 60, 40))
    for stream in streams:
        *_, last = stream
        np.testing.assert_array_equal(np.asarray(last.result.image), truth)


def test_a_chat_keeps_what_it_was_shown(pipe, tmp_path):
    """A turn that is read again later is read from the chat's own copy."""
    painted = noise(3)
    one, other = pipe.chat(), pipe.chat()
    one.send("A cat.", painted, steps=1)
    other.send("A cat.", noise(3), steps=1)
    painted.paste((0, 0, 0), (0, 0, 60, 40))
    expected, found = (chat.send("It sits.", steps=1).image for chat in (other, one))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_forked_child_can_take_images_over(tmp_path):
    """While another thread of the parent holds the lock, which no thread of the child will ever give back."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork; on Linux or macOS this runs")
    gradient(8, 8).save(tmp_path / "a.png")
    with borrowed._touching:
        child = os.fork()
        if child == 0:
            try:
                load_image(tmp_path / "a.png")
                os._exit(0)
            except BaseException:  # noqa: BLE001 (whatever it is, the child must not go on as a second test run)
                os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_file_that_is_cut_short_meanwhile(tmp_path):
    """Pillow maps such a file into memory, where a read beyond its new end would end the process."""
    noise(1, (600, 600)).convert("L").save(tmp_path / "a.pgm")
    with borrowed.open_image(tmp_path / "a.pgm") as image:
        os.truncate(tmp_path / "a.pgm", 100)
        with pytest.raises(OSError, match="truncated"):
            image.load()
