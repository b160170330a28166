"""Image files are read as what they are, whatever wrote them and whatever they are called."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfcq.data import folder as folder_source
from tfcq.data import views
from tfcq.data.augmentation import augmentation_for
from tfcq.data.folder import FolderSource
from tfcq.data.image_files import UnreadableImageError, depth_of, inspected, read_image
from tfcq.data.image_stream import ImageStream
from tfcq.data.plain_images import labelled_arrays
from tfcq.data.sources import source_from
from tfcq.errors import UserError
from tfcq.settings.training import config_from_flat
from tfcq.settings.training_groups import DataSettings

WHITE = (255, 255, 255)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "BMP": {}}


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes an image, and gives its path."""

    def write(image, kind: str, name: str = "image", **options) -> bytes:
        path = tmp_path / name
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        with open(path, "wb+") as stream:
            image.save(stream, kind, **options)
        return os.fsencode(path)

    return write


def read(path: bytes, channels: int = 3, background=WHITE, depth: int = 16) -> np.ndarray:
    return read_image(path, channels, background, depth)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_images_stand_upright(file, kind, orientation):
    blocks = np.kron(random_pixels(3, 5, 3), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    options = LOSSLESS.get(kind, {"quality": 95, "subsampling": 0})
    path = file(blocks, kind, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    # JPEG decoders of TensorFlow and Pillow round otherwise.
    np.testing.assert_allclose(read(path), expected, atol=12 if kind == "JPEG" else 0)
    assert inspected(path).shape == expected.shape


@pytest.mark.parametrize("name", ["image.jpg", "image.PNG", "image", "image.webp"])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_content_decides_whatever_the_name_says(file, kind, name):
    pixels = random_pixels(6, 4, 3)
    np.testing.assert_array_equal(read(file(pixels, kind, name, **LOSSLESS[kind])), pixels)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_frame_is_read_and_further_ones_are_noted(file, kind):
    first, second = (Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (90, 200))
    options = {} if kind == "GIF" else LOSSLESS[kind]
    path = file(first, kind, save_all=True, append_images=[second], **options)
    assert inspected(path).several
    assert set(read(path).ravel()) == {90}
    assert not inspected(file(first, kind, "one", **options)).several


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_values_are_scaled_by_their_real_depth(file, kind, bits):
    top = 2**bits - 1
    values = np.linspace(0, top, 60).astype(np.uint16).reshape(6, 10)
    path = file(values, kind)
    assert inspected(path).greatest == top and depth_of(top) == bits
    expected = np.round(values.astype(float) / top * 255)
    np.testing.assert_array_equal(read(path, 1, depth=bits)[..., 0], expected)


def test_16_bit_colour_keeps_its_channels(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (5, 4, 3)).astype(np.uint16)
    path = tmp_path / "image"
    path.write_bytes(tf.io.encode_png(values).numpy())
    expected = np.round(values / 4095 * 255)
    np.testing.assert_array_equal(read(os.fsencode(path), depth=12), expected)
    with pytest.raises(UnreadableImageError, match="values up to 40.., others up to 1023"):
        read(os.fsencode(path), depth=10)


def see_through(kind: str) -> tuple[Image.Image, np.ndarray, np.ndarray, dict]:
    """Returns an image with alpha, its colours and alpha, and how to write it."""
    pixels = random_pixels(5, 6, 4)
    pixels[..., 3] = np.where(np.arange(30).reshape(5, 6) % 3, pixels[..., 3], 255)
    if kind == "grey":
        grey = pixels[..., [0, 3]]
        return Image.fromarray(grey, "LA"), np.repeat(grey[..., :1], 3, 2), grey[..., 1:], {}
    if kind == "key":
        grey = random_pixels(5, 6)
        alpha = np.where(grey == grey[0, 0], 0, 255)[..., None]
        key = {"transparency": int(grey[0, 0])}
        return Image.fromarray(grey), np.repeat(grey[..., None], 3, 2), alpha, key
    if kind == "palette":
        palette = Image.fromarray(pixels[..., :3]).quantize(8)
        places = np.array(palette)
        colours = np.array(palette.convert("RGB"))
        return palette, colours, np.where(places == 2, 0, 255)[..., None], {"transparency": 2}
    return Image.fromarray(pixels), pixels[..., :3], pixels[..., 3:], {}


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 90)])
@pytest.mark.parametrize(
    ("kind", "form"),
    [("colour", "PNG"), ("colour", "TIFF"), ("colour", "WEBP"), ("grey", "PNG"), ("key", "PNG"),
     ("palette", "PNG"), ("palette", "GIF")],
)  # fmt: skip
def test_what_shines_through_is_the_background(file, kind, form, background):
    image, colours, alpha, options = see_through(kind)
    options |= {"lossless": True, "exact": True} if form == "WEBP" else {}
    path = file(image, form, **options)
    assert inspected(path).transparent
    share = alpha / 255
    expected = colours * share + np.array(background) * (1 - share)
    np.testing.assert_allclose(read(path, background=background), expected, atol=0.51)


def test_opaque_alpha_is_no_transparency_and_grey_stays_grey(file):
    grey = random_pixels(4, 4)
    opaque = np.stack([grey, np.full_like(grey, 255)], -1)
    path = file(Image.fromarray(opaque, "LA"), "PNG")
    assert not inspected(path).transparent
    np.testing.assert_array_equal(read(path, 1, (9, 9, 9))[..., 0], grey)


@pytest.mark.parametrize(
    ("image", "kind", "text"),
    [
        (np.zeros((3, 3), np.float32), "TIFF", "32 bits a pixel"),
        (np.zeros((3, 3), np.int32), "TIFF", "32 bits a pixel"),
        (np.zeros((3, 3, 3), np.uint8), "PPM", "no whole BMP, GIF, JPEG, PNG, TIFF or WebP image"),
    ],
)
def test_what_cannot_be_read_as_it_is_says_so(file, image, kind, text):
    with pytest.raises(UnreadableImageError, match=text):
        inspected(file(image, kind, "image.png"))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["GIF", "JPEG", *LOSSLESS])
def test_damaged_files_are_unreadable_and_nothing_worse(kind, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(random_pixels(9, 9, 3)).save(stream, kind)
    whole, draw = stream.getvalue(), np.random.default_rng(1)
    path = tmp_path / "image"
    for number in range(60):
        damaged = bytearray(whole[: draw.integers(len(whole))] if number % 2 else whole)
        for place in draw.integers(0, max(1, len(damaged)), 3) if damaged else ():
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            assert read(os.fsencode(path)).dtype == np.uint8
        except UnreadableImageError as error:
            assert "\n" not in str(error)


@pytest.fixture
def folder(tmp_path):
    """Forty grey images of two classes, image i filled with the value i."""
    for number in range(40):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)
    return tmp_path


def values_of(split):
    images, _ = labelled_arrays(split, 4)
    return np.round(images[:, 0, 0, 0] * 255).astype(int)


def test_file_that_vanishes_during_a_run_is_named_and_a_grey_image_stands_in(folder, caplog):
    split = FolderSource(str(folder)).split("train")
    before = values_of(split)
    (folder / "a" / "6.png").unlink()
    Image.fromarray(np.full((5, 4), 7, np.uint8)).save(folder / "b" / "7.png")
    with caplog.at_level("WARNING", "absl"):
        after = values_of(split)
        values_of(split)
    gone = np.isin(before, [6, 7])
    np.testing.assert_array_equal(after[gone], 128)
    np.testing.assert_array_equal(after[~gone], before[~gone])
    assert "6.png' can be read no more (No such file" in caplog.text
    assert "7.png' can be read no more (it is 5x4 now, and was 4x4)" in caplog.text
    assert "2 so far" in caplog.text and len(caplog.records) == 2


@pytest.mark.parametrize(("strict", "gone"), [(True, 1), (False, 5)])
def test_files_that_vanish_end_a_strict_run_and_many_end_any(folder, strict, gone):
    split = FolderSource(str(folder), strict).split("train")
    for number in range(gone):
        (folder / "ab"[number % 2] / f"{number}.png").unlink()
    for start in (lambda: values_of(split), lambda: list(ImageStream(split, 4))):
        with pytest.raises(UserError, match=f"{gone} of 40 image files of .* no more") as caught:
            start()
        assert "\n" not in str(caught.value)


@pytest.fixture
def decoded(monkeypatch):
    """Lets 10 files stand for more than 20; their names, as they are decoded at a start."""
    names = []

    def noted(path):
        names.append(os.path.basename(path).decode())
        return inspected(path)

    monkeypatch.setattr(folder_source, "DECODED_ALL", 20)
    monkeypatch.setattr(folder_source, "DECODED_OF_MORE", 10)
    monkeypatch.setattr(folder_source, "inspected", noted)
    return names


def test_files_beyond_a_number_are_held_against_some_of_them_when_they_are_used(
    folder, decoded, caplog
):
    FolderSource(str(folder)).split("train")
    sample = sorted(decoded)
    assert len(sample) == 10
    unread = [n for n in range(40) if f"{n}.png" not in sample]
    broken, large, coloured = (folder / "ab"[n % 2] / f"{n}.png" for n in unread[:3])
    broken.write_bytes(b"broken")
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(large)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(coloured)
    caplog.clear()
    decoded.clear()
    with caplog.at_level("WARNING", "absl"):
        split = FolderSource(str(folder)).split("train")
        values = values_of(split)
    assert (sorted(decoded), split.size, split.image_shape) == (sample, 40, (4, 4, 1))
    assert "10 of 40 image files of the train split are decoded at the start" in caplog.text
    assert f"{broken.name}' can be read no more (no whole" in caplog.text
    assert f"{large.name}' can be read no more (it is 5x4 and others are 4x4)" in caplog.text
    assert f"{coloured.name}' can be read no more (it has colour" in caplog.text
    expected = np.array([int(name.split("/")[1].split(".")[0]) for name in split.names])
    expected[np.isin(expected, unread[:3])] = 128
    np.testing.assert_array_equal(values, expected)


def test_files_that_stand_for_all_are_a_sample_of_all_classes(folder, decoded):
    FolderSource(str(folder)).split("train")
    # Even numbers are of class a, odd ones of class b.
    assert {int(name.split(".")[0]) % 2 for name in decoded} == {0, 1}


def test_broken_files_among_those_decoded_at_the_start_are_left_out(folder, decoded, caplog):
    FolderSource(str(folder)).split("train")
    name = decoded[3]
    broken = next(folder.glob(f"*/{name}"))
    broken.write_bytes(b"broken")
    with caplog.at_level("WARNING", "absl"):
        split = FolderSource(str(folder)).split("train")
    assert split.size == 39 and str(broken.relative_to(folder)) not in split.names
    assert f"{name}' is skipped" in caplog.text and "1 of 10 image files skipped" in caplog.text
    with pytest.raises(UserError, match="1 broken image file"):
        FolderSource(str(folder), strict=True).split("train")


def test_size_of_a_file_not_decoded_at_the_start_is_that_of_its_first_use(folder, decoded, caplog):
    for number in range(0, 40, 2):
        Image.fromarray(np.full((6, 6), number, np.uint8)).save(folder / "a" / f"{number}.png")
    split = FolderSource(str(folder)).split("train")
    assert split.image_shape == (None, None, 1)
    late = next(n for n in range(0, 40, 2) if f"{n}.png" not in decoded)
    assert sorted(values_of(split)) == list(range(40))
    Image.fromarray(np.full((4, 4), late, np.uint8)).save(folder / "a" / f"{late}.png")
    with caplog.at_level("WARNING", "absl"):
        assert 128 in values_of(split)
    assert f"{late}.png' can be read no more (it is 4x4 now, and was 6x6)" in caplog.text


@pytest.mark.parametrize("channels", [None, "3"])
def test_images_decoded_in_batches_and_one_by_one_are_the_same(folder, channels, monkeypatch):
    settings = DataSettings(dataset=f"folder:{folder}", channels=channels)
    split = source_from(settings).split("train")
    plain = augmentation_for(4, split.image_shape[2])
    streams = []
    for kept in (10**9, 0):
        monkeypatch.setattr(views, "CACHE_BYTES", kept)
        batches = views.view_batches(split, plain, 4, 8, 0, epochs=2, views=(0,), labels=True)
        streams.append([(v.numpy(), y.numpy().tolist()) for v, y in batches])
    assert len(streams[0]) == len(streams[1]) == 10
    for (one, labels), (other, others) in zip(*streams, strict=True):
        np.testing.assert_array_equal(one, other)
        # Even values are of class a, odd ones of class b.
        assert labels == others == (np.rint(one[:, 0, 0, 0] * 255).astype(int) % 2).tolist()


@pytest.mark.parametrize("pixels", [64 * 64, 15])
def test_images_are_decoded_when_a_batch_needs_them_and_kept(folder, pixels, monkeypatch):
    read, names = folder_source.read_image, []

    def noted(path, **how):
        names.append(path)
        return read(path, **how)

    monkeypatch.setattr(folder_source, "read_image", noted)
    monkeypatch.setattr(views, "TOGETHER_PIXELS", pixels)
    split = FolderSource(str(folder)).split("train")
    setting = (split, augmentation_for(4, 1), 4, 8, 0)
    list(views.view_batches(*setting, epochs=1, part=(1, 4)))
    assert len(names) == len(set(names)) == 10
    names.clear()
    list(views.view_batches(*setting, epochs=6))
    # Batches of two epochs may be made at the same time, and need the same image.
    assert len(set(names)) == 40 and len(names) < 80


def test_names_need_not_be_utf_8(folder):
    source, target = os.fsencode(folder / "a" / "0.png"), os.fsencode(folder)
    os.mkdir(target + b"/caf\xe9")
    os.rename(source, target + b"/caf\xe9/\xff\xfe.png")
    split = FolderSource(str(folder)).split("train")
    assert split.class_names == ("a", "b", "caf\\xe9")
    assert sorted(values_of(split)) == list(range(40))
    images, labels = labelled_arrays(split, 4)
    assert labels[values_of(split) == 0] == 2


def test_values_of_both_splits_have_the_depth_of_the_training_images(tmp_path, caplog):
    for name, greatest in (("train", 4095), ("test", 600), ("val", 5000)):
        (tmp_path / name / "a").mkdir(parents=True)
        Image.fromarray(np.full((4, 4), greatest, np.uint16)).save(tmp_path / name / "a" / "1.png")
    with caplog.at_level("WARNING", "absl"):
        test = FolderSource(str(tmp_path)).split("test")
    assert values_of(test) == [round(600 / 4095 * 255)]
    assert "1 of 1 images have 16 bits a channel; their values reach 4095" in caplog.text
    (tmp_path / "test" / "a" / "1.png").unlink()
    (tmp_path / "val" / "a" / "1.png").rename(tmp_path / "test" / "a" / "1.png")
    with pytest.raises(UserError, match="test split .* reach 5000, .* 4095 at most"):
        FolderSource(str(tmp_path)).split("test")


def test_grey_to_colour_and_back_is_the_same_to_the_last_bit(folder):
    for number in range(256):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / "a" / f"{number}.png")
    grey = source_from(DataSettings(dataset=f"folder:{folder}")).split("train")
    settings = DataSettings(dataset=f"folder:{folder}", channels="3")
    images, _ = labelled_arrays(source_from(settings).split("train"), 4)
    assert images.shape[3] == 3
    np.testing.assert_array_equal(images, np.repeat(labelled_arrays(grey, 4)[0], 3, 3))
    Image.fromarray(random_pixels(4, 4, 3)).save(folder / "b" / "colour.png")
    settings = DataSettings(dataset=f"folder:{folder}", channels="1")
    split = source_from(settings).split("train")
    assert split.image_shape == (4, 4, 1)
    assert set(range(256)) <= set(values_of(split))


def test_colour_becomes_its_luma(tmp_path):
    pixels = random_pixels(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    split = source_from(DataSettings(dataset=f"folder:{tmp_path}", channels="1")).split("train")
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(labelled_arrays(split, 8)[0][0, ..., 0] * 255, expected, atol=1)


def test_background_of_the_settings_is_what_is_seen(tmp_path):
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "a.png")
    for text, expected in (("white", WHITE), ("grey", (128,) * 3), ("#ff8001", (255, 128, 1))):
        settings = DataSettings(dataset=f"folder:{tmp_path}", background=text)
        images, _ = labelled_arrays(source_from(settings).split("train"), 4)
        np.testing.assert_allclose(images[0, 0, 0] * 255, expected)


@pytest.mark.parametrize("text", ["pink", "#12", "255,255,255", "", "#gggggg"])
def test_other_colours_are_refused_before_anything_is_opened(text):
    with pytest.raises(UserError, match="--background=.* allowed: white, black, grey, or #RRGGBB"):
        config_from_flat({"background": text})
