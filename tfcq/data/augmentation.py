"""Random views of images, as a pure function of uniform draws.

The steps and their defaults are those of SimCLR (Chen et al. 2020, appendix A) as used by MoCo v2
and SimSiam: random resized crop, flip, colour jitter, grey-scale, blur. Nothing here draws random
numbers, so a view can be repeated exactly from its draws.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import tensorflow as tf

from tfcq.data import colour, resampling
from tfcq.errors import UserError
from tfcq.settings.fields import share_range
from tfcq.settings.training_groups import ViewSettings

# One uniform draw per view and entry. The order is part of what makes a run repeatable.
DRAWS = (
    "area",
    "aspect",
    "top",
    "left",
    "flip",
    "jitter",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "grayscale",
    "blur",
    "blur_sigma",
)

_PROBABILITIES = ("flip", "jitter_probability", "grayscale", "blur")
_STRENGTHS = ("brightness", "contrast", "saturation")
# Below, compiling takes longer than it gains.
_COMPILED_ABOVE = 64
_COLOUR_ONLY = ("saturation", "hue", "grayscale")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How strongly a view may differ from its image.

    Attributes:
        crop_area: least and greatest crop area, as a fraction of the image's area.
        crop_aspect: least and greatest width/height of a crop.
        flip: probability of a left-right flip.
        jitter_probability: probability that the colours are jittered at all.
        brightness: the factor is uniform in `[max(0, 1 - brightness), 1 + brightness]`.
        contrast: likewise.
        saturation: likewise; colour images only.
        hue: the hue is turned by up to this fraction of a full turn, 0 to 0.5; colour images only.
        grayscale: probability that the colours are removed; colour images only.
        blur: probability of a Gaussian blur.
        blur_sigma: least and greatest standard deviation of the blur, in pixels of the view.

    Raises:
        UserError: a value is outside its range.

    Example:

        >>> tfcq.Augmentation(crop_area=(0.5, 1.0), blur=0.0).crop_area
        (0.5, 1.0)
    """

    crop_area: tuple[float, float] = (0.2, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self):
        for name in ("crop_area", "crop_aspect", "blur_sigma"):
            # JSON knows lists only; equal settings must compare equal after a round trip.
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        if self.crop_area[1] > 1:
            raise UserError(f"crop_area={self.crop_area} exceeds the image; allowed: at most 1.0.")
        for name in _PROBABILITIES:
            _check_number(name, getattr(self, name), 1.0)
        for name in _STRENGTHS:
            _check_number(name, getattr(self, name), math.inf)
        _check_number("hue", self.hue, 0.5)

    @property
    def draws_per_view(self) -> int:
        """Number of uniform draws that one view consumes."""
        return len(DRAWS)

    def for_channels(self, channels: int) -> "Augmentation":
        """Returns this augmentation without the steps that `channels` channels cannot have.

        Args:
            channels: 3 (unchanged) or 1 (saturation, hue and grayscale are set to 0).

        Raises:
            UserError: another number of channels.
        """
        if channels == 3:
            return self
        if channels == 1:
            return dataclasses.replace(self, saturation=0.0, hue=0.0, grayscale=0.0)
        raise UserError(f"Images with {channels} channels cannot be augmented; allowed: 1 or 3.")

    def augment(self, images: tf.Tensor, draws: tf.Tensor, output_size: int) -> tf.Tensor:
        """Returns one view of each image.

        Colours are jittered in the fixed order brightness, contrast, saturation, hue (torchvision
        shuffles the order); as there, values are clipped to [0, 1] after each of these steps.

        Args:
            images: float32 [B, H, W, C], values in [0, 1]; C static, 1 or 3.
            draws: float32 [B, draws_per_view], uniform in [0, 1), in the order of `DRAWS`.
            output_size: height and width of the views, in pixels.

        Returns:
            float32 [B, output_size, output_size, C], values in [0, 1].

        Raises:
            UserError: C is neither 1 nor 3, C is 1 while saturation, hue or grayscale are on, or
                the draws' last axis is not `draws_per_view`.
        """
        self.check_channels(images.shape[-1])
        if draws.shape[-1] != self.draws_per_view:
            raise UserError(
                f"draws has shape {tuple(draws.shape)}; allowed: [B, {self.draws_per_view}]."
            )
        draw = _named(draws)
        boxes = crop_boxes(self, draw, tf.shape(images)[1], tf.shape(images)[2])
        planes = tf.transpose(images, [0, 3, 1, 2])
        planes = resampling.crop_resize(planes, *boxes, output_size, draw["flip"] < self.flip)
        return self._blurred(tf.transpose(self._coloured(planes, draws), [0, 2, 3, 1]), draws)

    def augment_one(self, image: tf.Tensor, draws: tf.Tensor, output_size: int) -> tf.Tensor:
        """Returns a view of one image, to within rounding the one of `augment`.

        For large images: what the crop leaves out costs nothing, and above 64 pixels the colours
        are compiled by XLA.

        Args:
            image: uint8 [H, W, C], or float32 with values in [0, 1]; C static, 1 or 3.
            draws: float32 [draws_per_view], as for `augment`.
            output_size: height and width of the view, in pixels.

        Returns:
            float32 [output_size, output_size, C], values in [0, 1].
        """
        draws = draws[tf.newaxis]
        draw = _named(draws)
        boxes = crop_boxes(self, draw, tf.shape(image)[0], tf.shape(image)[1])
        top, left, height, width = (side[0] for side in boxes)
        flip = draw["flip"][0] < self.flip
        crop = resampling.crop_resize_one(image, top, left, height, width, output_size, flip)
        coloured = _compiled(self) if output_size > _COMPILED_ABOVE else self._coloured_crops
        views = coloured(crop[tf.newaxis], draws, 1.0 if image.dtype.is_floating else 255.0)
        return self._blurred(views, draws)[0]

    def _coloured_crops(self, crops: tf.Tensor, draws: tf.Tensor, white: float) -> tf.Tensor:
        # The weights of a pixel add up to 1 only to within rounding.
        planes = tf.clip_by_value(tf.transpose(crops, [0, 3, 1, 2]) / white, 0.0, 1.0)
        return tf.transpose(self._coloured(planes, draws), [0, 2, 3, 1])

    def _coloured(self, planes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        draw = _named(draws)
        planes = self._jitter(planes, draw)
        if not self.grayscale:
            return planes
        chosen = _per_image(draw["grayscale"] < self.grayscale)
        return tf.where(chosen, colour.luma(planes), planes)

    def _jitter(self, planes: tf.Tensor, draw: dict[str, tf.Tensor]) -> tf.Tensor:
        if not self.jitter_probability:
            return planes
        jittered = planes
        for name in _STRENGTHS:
            strength = getattr(self, name)
            if strength:
                factor = _between(draw[name], max(0.0, 1.0 - strength), 1.0 + strength)
                jittered = getattr(colour, f"adjust_{name}")(jittered, _per_image(factor))
        if self.hue:
            turn = _per_image(_between(draw["hue"], -self.hue, self.hue))
            jittered = colour.turn_hue(jittered, turn)
        return tf.where(_per_image(draw["jitter"] < self.jitter_probability), jittered, planes)

    def _blurred(self, views: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if not self.blur:
            return views
        draw = _named(draws)
        chosen = tf.where(draw["blur"] < self.blur)
        sigma = tf.gather_nd(_between(draw["blur_sigma"], *self.blur_sigma), chosen)
        radius = views.shape[1] // 20 or 1

        def with_blurred() -> tf.Tensor:
            blurred = resampling.gaussian_blur(tf.gather_nd(views, chosen), sigma, radius)
            return tf.tensor_scatter_nd_update(views, chosen, blurred)

        # A blur takes as long as all else: no more images are blurred than need it.
        return tf.cond(tf.size(chosen) > 0, with_blurred, lambda: views)

    def check_channels(self, channels: int | None) -> None:
        """Checks that images with `channels` channels can have every step that is on.

        Raises:
            UserError: neither 1 nor 3 channels, or 1 while saturation, hue or grayscale are on.
        """
        if channels is None:
            raise UserError("The number of channels of the images is unknown; allowed: 1 or 3.")
        if self.for_channels(channels) != self:
            given = {name: getattr(self, name) for name in _COLOUR_ONLY}
            on = ", ".join(f"{name}={value}" for name, value in given.items() if value)
            raise UserError(f"Grey-scale images cannot have {on}; allowed: 0.")


def augmentation_for(image_size: int, channels: int) -> Augmentation:
    """Returns the recipe for views of a size.

    Up to 64 pixels: SimSiam's CIFAR setting (appendix D: no blur); larger: MoCo v2's and SimSiam's
    ImageNet setting. Up to 16 pixels crops keep at least 0.4 of the area, for a fifth of an 8x8
    image would be three or four pixels a side.

    Args:
        image_size: height and width of the views, in pixels.
        channels: channels of the images, 1 or 3.

    Raises:
        UserError: the size is not positive, or another number of channels.
    """
    if image_size < 1:
        raise UserError(f"image_size={image_size}; allowed: 1 or more pixels.")
    recipe = Augmentation(
        crop_area=(0.4, 1.0) if image_size <= 16 else (0.2, 1.0),
        blur=0.0 if image_size <= 64 else 0.5,
    )
    return recipe.for_channels(channels)


def augmentation_from(views: ViewSettings, image_size: int, channels: int) -> Augmentation:
    """Returns how views are augmented: the standard of the image size, then the settings.

    Args:
        views: the settings; None stands for the standard.
        image_size: height and width of the views, in pixels.
        channels: channels of the images, 1 or 3.

    Raises:
        UserError: on a value outside its range, or colour jitter on grey-scale images.
    """
    given = {k: v for k, v in dataclasses.asdict(views).items() if v is not None}
    if "crop_area" in given:
        given["crop_area"] = share_range("crop_area", given["crop_area"])
    chosen = dataclasses.replace(augmentation_for(image_size, channels), **given)
    chosen.check_channels(channels)
    return chosen


def crop_boxes(
    augmentation: Augmentation, draw: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns crop boxes in whole pixels.

    As torchvision's RandomResizedCrop, the area is uniform and the aspect log-uniform. Where the
    box does not fit, torchvision draws again, up to ten times; here the longer side is cut to
    the image, so large areas of extreme aspect come out slightly smaller.

    Args:
        augmentation: gives the ranges of area and aspect.
        draw: float32 [B] each, uniform in [0, 1): `"area"`, `"aspect"`, `"top"`, `"left"`.
        height: int32 [], height of the images in pixels.
        width: int32 [], width of the images in pixels.

    Returns:
        top, left, height and width of the boxes, float32 [B] each, whole pixels.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = _between(draw["area"], *augmentation.crop_area) * height * width
    low, high = augmentation.crop_aspect
    aspect = tf.exp(_between(draw["aspect"], math.log(low), math.log(high)))
    box_height = tf.clip_by_value(tf.round(tf.sqrt(area / aspect)), 1.0, height)
    box_width = tf.clip_by_value(tf.round(tf.sqrt(area * aspect)), 1.0, width)
    # Below 1, a draw times n stays below n in float32 too.
    top = tf.floor(draw["top"] * (height - box_height + 1))
    left = tf.floor(draw["left"] * (width - box_width + 1))
    return top, left, box_height, box_width


@functools.cache
def _compiled(augmentation: Augmentation) -> Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]:
    return tf.function(augmentation._coloured_crops, jit_compile=True)


def _named(draws: tf.Tensor) -> dict[str, tf.Tensor]:
    return dict(zip(DRAWS, tf.unstack(draws, axis=-1), strict=True))


def _between(draw: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + draw * (high - low)


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _pair(name: str, value) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] < math.inf:
        raise UserError(f"{name}={value!r}; allowed: two numbers with 0 < least <= greatest.")
    return pair


def _check_number(name: str, value: float, greatest: float) -> None:
    if not 0 <= value <= greatest or value == math.inf:
        bound = "0 or more" if greatest == math.inf else f"0 to {greatest:g}"
        raise UserError(f"{name}={value!r}; allowed: {bound}.")
