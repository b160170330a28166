"""A training step of each recipe and form beside the first, and beside its own convolutions."""

import argparse
import functools
import itertools
from collections.abc import Callable
from typing import Any

from benchmarks.alone import alone, last_line
from benchmarks.peer import Peer, check_peer, earlier, lightly

from tfcq.errors import UserError, unknown_choice
from tfcq.settings.frameworks import FRAMEWORK_SETTINGS
from tfcq.settings.recipes import recipe_named
from tfcq.settings.training_groups import BFLOAT16, FLOAT32

SIZES = ("framework", "steps", "batch_size", "image_size", "width", "xla")
FORMS = {"product_dtype": (FLOAT32, BFLOAT16), "batch_norm": ("fused", "keras")}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what a comparison of steps takes."""
    parser.add_argument("--recipes", default="float,ssql", help="the one to compare with first")
    for name, allowed in FORMS.items():
        parser.add_argument(f"--{name}", default=allowed[0], help=",".join(allowed))
    parser.add_argument("--peer", help="Python interpreter of an environment with lightly")
    parser.add_argument("--baseline", help="checkout of an earlier commit to measure beside")
    add_sizes(parser)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds what any step takes."""
    parser.add_argument("--framework", default="simsiam", choices=FRAMEWORK_SETTINGS)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--width", type=int, default=64, help="of a ResNet-18")
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")


def figures(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each recipe in each form, for an earlier commit, and for lightly."""
    forms = {name: getattr(arguments, name).split(",") for name in FORMS}
    for name, allowed in FORMS.items():
        for word in forms[name]:
            if word not in allowed:
                raise unknown_choice(f"--{name}", word, allowed)
    recipes = arguments.recipes.split(",")
    for recipe in recipes:
        recipe_named(recipe)
    cases = [
        {"recipe": recipe, **dict(zip(forms, words, strict=True))}
        for words in itertools.product(*forms.values())
        for recipe in recipes
    ]
    if arguments.peer:
        if arguments.framework != "simsiam":
            raise UserError(f"--framework={arguments.framework} has no peer; allowed: simsiam.")
        check_peer(arguments.peer)
    sizes = {name: getattr(arguments, name) for name in SIZES}
    if arguments.baseline:
        cases += [{"command": earlier(arguments.baseline, recipe, sizes)} for recipe in recipes]
    if arguments.peer:
        cases.append({"command": lightly(arguments.peer, sizes)})
    return compared(cases, arguments)


def compared(cases: list[dict], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each case. Each meets the first in a process of its own, since what others
    left of the memory was seen to matter.

    Args:
        cases: what to measure; the first is a recipe of ours.
        arguments: sizes of a step.
    """
    sizes = {name: getattr(arguments, name) for name in SIZES}
    pairs = [alone("step:measured", sizes, [cases[0], other]) for other in cases[1:]]
    first = pairs[0][0] if pairs else alone("step:measured", sizes, cases)[0]
    return [
        {**row(*pair), "MB": peak(sizes, case)}
        for case, pair in zip(cases, [(first, first), *pairs], strict=True)
    ]


def row(first: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Returns what is told of a case.

    Args:
        first: the figures of the first case, from the same process.
        found: those of the case.
    """
    told = {"step": found["name"], "s": found["seconds"]}
    told["over the first"] = found["seconds"] / first["seconds"]
    if "floor" in found:
        told["passes over its"] = found["cost"] / first["cost"]
        told["its convolutions, s"] = found["floor"]
        told["over its convolutions"] = found["seconds"] / found["floor"]
        told["their GFLOP/s"] = found["flop"] / 1e9 / found["floor"]
    return told


def measured(sizes: dict[str, Any], cases: list[dict]) -> list[dict[str, Any]]:
    """Returns the figures of cases whose steps, and the convolutions of these, take turns.

    Args:
        sizes: sizes of a step.
        cases: one or two.
    """
    import tensorflow as tf
    from benchmarks.convolutions import floor

    from tfcq.deployment.check import median_seconds
    from tfcq.pretraining.costs import pass_counts

    calls: dict[str, Callable] = {}
    found: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        if "command" in case:
            peer = Peer(case["command"])
            calls[f"step {number}"] = peer.step
            found.append({"name": peer.name})
            continue
        model, calls[f"step {number}"] = built(sizes, case)
        products, starts, flop = floor(model, sizes["batch_size"])
        made = tf.function(products, autograph=False)
        calls[f"floor {number}"] = lambda made=made, starts=starts: made(*starts).numpy()
        trained, further = pass_counts(model)
        # A backward pass costs two forward ones.
        cost = 3 * trained + further
        found.append({"name": ", ".join(case.values()), "cost": cost, "flop": flop})
    seconds = median_seconds(calls, sizes["steps"], warm_up=2)
    for name, median in seconds.items():
        kind, _, number = name.partition(" ")
        found[int(number)]["seconds" if kind == "step" else "floor"] = median
    return found


def built(sizes: dict[str, Any], case: dict[str, str]) -> tuple[Any, Callable[[], Any]]:
    """Returns a model and what takes a step of it.

    Args:
        sizes: sizes of a step.
        case: recipe, dtype of products and kind of batch norm.
    """
    import tensorflow as tf

    from tfcq.backbones.resnet import resnet
    from tfcq.nn.products import multiply_in
    from tfcq.pretraining.pretrainer import Pretrainer

    shape = (sizes["image_size"], sizes["image_size"], 3)
    model = Pretrainer(
        resnet(18, width=sizes["width"], input_shape=shape),
        framework=sizes["framework"],
        recipe=case["recipe"],
    )
    model.set_run_length(1, 1000)
    for network in model.networks:
        multiply_in(network, case["product_dtype"])
        if case["batch_norm"] == "keras":
            normalize_as_keras(network)
    model.compile()
    count = len(model.recipe.views)
    drawn = tf.random.stateless_uniform((count, sizes["batch_size"], *shape), (0, 0), alg="philox")
    views = tuple(tf.unstack(drawn))
    # As Keras compiles it.
    step = tf.function(model.train_step, jit_compile=sizes["xla"], autograph=False)
    return model, lambda: step(views)["loss"].numpy()


def normalize_as_keras(network: Any) -> None:
    """Makes batch norms compute as Keras's own do.

    Args:
        network: a model; its layers are changed, those of nested models too.
    """
    import keras

    for layer in network.layers:
        if isinstance(layer, keras.Model):
            normalize_as_keras(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.call = functools.partial(keras.layers.BatchNormalization.call, layer)


def peak(sizes: dict[str, Any], case: dict[str, str]) -> float:
    """Returns the most memory that three steps take beyond what the imports took.

    Args:
        sizes: sizes of a step.
        case: what is measured.
    """
    # From here, where nothing large is held: the peak of a process begins with its parent's.
    if "command" in case:
        return float(last_line(case["command"], sent="step\n" * 3))
    return alone("step:megabytes", sizes, case)


def megabytes(sizes: dict[str, Any], case: dict[str, str]) -> float:
    """Returns `peak` of a recipe, in the process that is measured.

    Args:
        sizes: sizes of a step.
        case: recipe, dtype of products and kind of batch norm.
    """
    from memory import peak_bytes

    import tfcq.pretraining.pretrainer  # noqa: F401

    before = peak_bytes()
    _, step = built(sizes, case)
    for _ in range(3):
        step()
    return (peak_bytes() - before) / 2**20
