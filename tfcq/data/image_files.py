"""Image files read as what they are: upright, at their real depth, on a background, by content.

JPEG and PNG are decoded by TensorFlow, all else by Pillow, for which TensorFlow has no decoder or
one that reads less (palettes of BMP, sizes of a GIF's frames).
"""

import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image, UnidentifiedImageError

from tfcq.errors import UserError

# Notes on damaged metadata, and on images of 90 million pixels, which are read all the same.
warnings.filterwarnings("ignore", module=r"PIL\.")
READ = "BMP, GIF, JPEG, PNG, TIFF or WebP"
_PILLOW_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# MPO is what Pillow calls a JPEG with further ones behind it, as phones write them.
_JPEG = ("JPEG", "MPO")
_ORIENTATION, _BITS_PER_SAMPLE, _WHITE_IS_ZERO = 274, 258, (262, 0)
# 16-bit files hold what a camera gave: depths as cameras and scanners have them.
_DEPTHS = (8, 10, 12, 14, 16)
_NAMED, _BLANK, _BLANK_SIDE = 20, 128, 32
# How arrays are turned by the orientation that a file notes (EXIF 2.32, tag 274).
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}


class UnreadableImageError(Exception):
    """An image file that cannot be read; the text says why in a few words."""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """What a file holds.

    Attributes:
        shape: height, width and channels; 2 and 4 channels are grey and colour with alpha.
        greatest: greatest value of a 16-bit file; 0 of others.
        transparent: whether anything shines through.
        several: whether it holds more than one frame or page, of which the first is read.
    """

    shape: tuple[int, int, int]
    greatest: int
    transparent: bool
    several: bool


def inspected(path: bytes) -> ImageFile:
    """Returns what a file holds, after decoding all of it.

    Args:
        path: the file; bytes, since names need not be UTF-8.

    Raises:
        UnreadableImageError: it is not a whole image of a format that is read.
    """
    image, several = _decoded(path)
    alpha = image[..., -1] if image.shape[2] in (2, 4) else None
    colours = image if alpha is None else image[..., :-1]
    return ImageFile(
        shape=image.shape,
        greatest=int(colours.max()) if image.dtype == np.uint16 else 0,
        transparent=alpha is not None and bool((alpha < np.iinfo(image.dtype).max).any()),
        several=several,
    )


def depth_of(greatest: int) -> int:
    """Returns how many bits the values of 16-bit files have.

    Args:
        greatest: the greatest value of any of them.
    """
    return next(bits for bits in _DEPTHS if greatest < 2**bits)


def read_image(
    path: bytes, channels: int, background: tuple[int, int, int], depth: int
) -> np.ndarray:
    """Returns an image as uint8 [height, width, channels].

    Args:
        path: the file.
        channels: 1 or 3; grey images become colour ones, not the other way round.
        background: what is seen through transparent pixels; its brightness where images are grey.
        depth: bits of the values of a 16-bit file.

    Raises:
        UnreadableImageError: it is no whole image, has colour where `channels` is 1, or values
            beyond `depth`.
    """
    image = _decoded(path)[0]
    alpha = None
    if image.shape[2] in (2, 4):
        alpha, image = _in_8_bits(image[..., -1:], 16), image[..., :-1]
    image = _in_8_bits(image, depth)
    if image.shape[2] == 3 and channels == 1:
        raise UnreadableImageError("it has colour, and all others are grey")
    if image.shape[2] == 1 and channels == 3:
        image = np.repeat(image, 3, axis=2)
    if alpha is not None:
        behind = np.array(background, np.uint32)
        if channels == 1:
            behind = np.array(Image.new("RGB", (1, 1), background).convert("L"), np.uint32)[0]
        share = alpha.astype(np.uint32)
        image = ((image * share + behind * (255 - share) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def _in_8_bits(values: np.ndarray, depth: int) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    top = 2**depth - 1
    if values.max() > top:
        raise UnreadableImageError(f"it has values up to {values.max()}, others up to {top}")
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _decoded(path: bytes) -> tuple[np.ndarray, bool]:
    """Returns an upright image, uint8 or uint16 [H, W, 1 to 4], and whether there are more."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        image = Image.open(io.BytesIO(content), formats=_PILLOW_FORMATS)
        if image.format in _JPEG:
            pixels, several = tf.io.decode_jpeg(content).numpy(), False
        elif image.format == "PNG" and "transparency" not in image.info:
            kind = tf.uint16 if content[24] == 16 else tf.uint8
            pixels = tf.io.decode_png(content, dtype=kind).numpy()
            several = bool(getattr(image, "is_animated", False))
        else:
            several = bool(getattr(image, "is_animated", False))
            pixels = _by_pillow(image)
        if image.format != "PNG" or b"eXIf" in content or b"Raw profile type" in content:
            # Pillow turns a TIFF as it loads it, and then has no orientation any more.
            turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1), lambda image: image)
            pixels = turn(pixels)
        return pixels, several
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableImageError("more pixels than Pillow reads, 179 million") from None
    except Exception as error:
        # Of damaged files decoders raise whatever they stumble over.
        known = isinstance(error, OSError) and not isinstance(error, UnidentifiedImageError)
        told = getattr(error, "strerror", None) if known else None
        raise UnreadableImageError(told or f"no whole {READ} image") from None


def _by_pillow(image: Image.Image) -> np.ndarray:
    image.load()
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        if tags.get(_WHITE_IS_ZERO[0]) == _WHITE_IS_ZERO[1]:
            raise UnreadableImageError("a 16-bit TIFF whose 0 is white; allowed: black")
        return np.array(image)[..., np.newaxis].astype(np.uint16)
    if image.mode in ("I", "F"):
        raise UnreadableImageError("32 bits a pixel; allowed: 8, or up to 16 in grey TIFF and PNG")
    if max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8:
        raise UnreadableImageError("a colour TIFF of more than 8 bits a channel; allowed: as PNG")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    pixels = np.array(image.convert(mode))
    return pixels[..., np.newaxis] if mode == "L" else pixels


class ImageReader:
    """Reads the images of a split by their place, and goes on where one has gone.

    A file that can no longer be read is named, and a grey image of its size stands in for it.

    Args:
        source: name of the data set.
        paths: the files.
        shapes: height and width of each, when it was last read; None of one that never was.
        image_shape: height, width and channels of all; None for a height and width that vary.
        read: reads a file.
        strict: whether a file that has gone is an error.
    """

    def __init__(
        self,
        source: str,
        paths: list[bytes],
        shapes: Sequence[tuple[int, int] | None],
        image_shape: tuple[int | None, int | None, int],
        read: Callable[[bytes], np.ndarray],
        strict: bool,
    ) -> None:
        self._source, self._paths, self._shapes = source, paths, list(shapes)
        self._image_shape, self._read, self._strict = image_shape, read, strict
        self._lost: set[int] = set()

    def __call__(self, place: int) -> np.ndarray:
        """Returns an image as uint8 [height, width, channels].

        Args:
            place: its place in the split.

        Raises:
            UserError: it cannot be read, and it is the first (strict) or one of many.
        """
        *common, channels = self._image_shape
        height, width = self._shapes[place] or (side or _BLANK_SIDE for side in common)
        try:
            image = self._read(self._paths[place])
            found = image.shape[:2]
            if self._shapes[place] is None and common in ([None, None], list(found)):
                self._shapes[place] = height, width = found
            if found == (height, width):
                return image
            before = "and others are" if self._shapes[place] is None else "now, and was"
            fault = f"it is {found[0]}x{found[1]} {before} {height}x{width}"
        except UnreadableImageError as error:
            fault = str(error)
        self._tell(place, fault)
        return np.full((height, width, channels), _BLANK, np.uint8)

    def _tell(self, place: int, fault: str) -> None:
        known = place in self._lost
        self._lost.add(place)
        lost, name = len(self._lost), shown(self._paths[place])
        if self._strict or lost > max(1, len(self._paths) // 10):
            raise UserError(
                f"{lost} of {len(self._paths)} image files of {self._source!r} can be read no "
                f"more, the last {name!r} ({fault}); allowed: files that stay while they are used."
            )
        if not known and (lost <= _NAMED or lost % 1000 == 0):
            logging.warning(
                "Image file %r can be read no more (%s): a grey image stands in for it; %d so far.",
                name, fault, lost,
            )  # fmt: skip


def shown(path: bytes) -> str:
    """Returns a name as text that can be printed, whatever its bytes are.

    Args:
        path: the name.
    """
    return path.decode("utf-8", "backslashreplace")


def shown_name(name: str) -> str:
    """Returns a name that Python read from a folder as text that can be printed.

    Args:
        name: the name.
    """
    return shown(os.fsencode(name))
