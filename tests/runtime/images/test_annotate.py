"""Boxes on images."""

import numpy as np
from PIL import Image, ImageColor

from mgcc_runtime.images.annotate import COLOURS, annotate
from mgcc_runtime.layout import Box


def test_outline_stands_on_the_box():
    image = Image.new("RGB", (64, 64), "black")
    drawn = annotate(image, [Box("cat", (20, 30, 50, 60), 0.75)])
    colour = ImageColor.getrgb(COLOURS[0])
    for corner in ((20, 30), (49, 30), (20, 59), (49, 59)):
        assert drawn.getpixel(corner) == colour
    assert drawn.getpixel((35, 45)) == (0, 0, 0)
    assert not np.asarray(image).any()


def test_scale_and_label_inside_the_image():
    drawn = annotate(Image.new("RGB", (32, 32), "black"), [Box("a long label", (28, 0, 32, 8))], scale=4)
    assert drawn.size == (128, 128)
    assert (np.asarray(drawn) > 200).all(-1).any()  # the label is written, in white, though its box is at the edge


def test_no_boxes():
    image = Image.new("RGB", (16, 16), "red")
    np.testing.assert_array_equal(np.asarray(annotate(image, [])), np.asarray(image))
