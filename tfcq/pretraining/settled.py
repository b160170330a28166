"""What a run uses, settled once its images and its network are known: what config.json records."""

import dataclasses
import math
from typing import Any

from tfcq.data.augmentation import augmentation_from
from tfcq.data.split import Split, view_size
from tfcq.nn.products import product_dtype
from tfcq.nn.quantizable import quantizers_of
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.backbones import settings_of
from tfcq.settings.fields import flat
from tfcq.settings.training import Config, config_from_flat, for_images, policy, total_steps
from tfcq.settings.training_groups import FLOAT32, ViewSettings
from tfcq.settings.used import numbers_text, policy_values, used

_VIEWS = tuple(field.name for field in dataclasses.fields(ViewSettings))


def settled(config: Config, split: Split, steps: int, model: Pretrainer) -> Config:
    """Returns settings with every default put in that was decided.

    What has no part in the run stays None: bits that no layer draws, strengths of views where none
    is augmented, the policy where the network of a file has quantizers of its own.

    Args:
        config: the settings.
        split: the images that the run is trained on.
        steps: steps per epoch.
        model: the model that is trained.
    """
    size, channels = view_size(split, config.data.image_size), split.image_shape[2]
    values: dict[str, Any] = flat(used(for_images(config, size)))
    total = total_steps(config.optimization, steps)
    duration = f"{total}steps" if total % steps else None
    values |= {"epochs": math.ceil(total / steps), "duration": duration}
    values |= {"image_size": size, "train_images": split.size}
    # On a machine that chooses otherwise the run would be another one.
    values["product_dtype"] = product_dtype(config.execution.product_dtype)
    views = dataclasses.asdict(augmentation_from(config.views, size, channels))
    augmented = set(model.recipe.views) != {0}
    values |= {name: views[name] if augmented else None for name in _VIEWS}
    if augmented:
        values["crop_area"] = numbers_text(views["crop_area"], "-")
    if model.policy is not None:
        values |= policy_values(policy(config))
    if "patch_size" in settings_of(config.network.backbone):
        values["patch_size"] = model.backbone.get_layer("patch_projection").kernel_size[0]
    for name, attribute in (("weight_bits", "weight_quantizer"), ("activation_bits", "quantizer")):
        if all(one.bits is not None for one in quantizers_of(model.backbone, attribute).values()):
            values[name] = None
    return config_from_flat(values)


def in_words(config: Config, channels: int, model: Pretrainer) -> str:
    """Returns one line that says what is trained on what, and how.

    Args:
        config: the settings, settled.
        channels: number of channels of the images.
        model: the model that is trained.
    """
    data, network, method = config.data, config.network, config.method
    form = {"stem": network.stem, "width": network.width, "patch size": network.patch_size}
    parts = [f"{name} {value}" for name, value in form.items() if value is not None]
    parameters = sum(math.prod(weight.shape) for weight in model.backbone.trainable_weights)
    parts.append(f"{parameters:,} parameters")
    size = f"{data.image_size}x{data.image_size}x{channels}"
    dtype = config.execution.product_dtype
    products = f", products in {dtype}" if dtype != FLOAT32 else ""
    in_parts = f" in {model.accumulate} parts" if model.accumulate > 1 else ""
    return (
        f"{data.dataset}, {data.train_images:,} images of {size}; {network.backbone}, "
        f"{', '.join(parts)}; {method.framework}, recipe {method.recipe}, policy "
        f"{network.policy or 'of its file'}, batch {config.optimization.batch_size}"
        f"{in_parts}{products}"
    )
