"""Post-training quantization by brevitas and aimet-torch; run by their interpreter, without tfcq.

    PYTHON -I ptq_torch.py check|brevitas|aimet FOLDER

FOLDER holds `given.json` (nodes, bits, iterations, seed) and `given.npz` (weights and images), as
`tools/ptq_peers.py` writes them. Prints what it found as JSON, in one line.
"""

import contextlib
import json
import pathlib
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

BATCH = 256
OF_PASS = "of the pass"
# Weights per channel and symmetric, activations per tensor, none of them placed by aimet itself.
AIMET_CONFIG = {
    "defaults": {
        "ops": {"is_output_quantized": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "per_channel_quantization": "True",
    },
    "params": {"bias": {"is_quantized": "False"}},
    "op_type": {},
    "supergroups": [],
    "model_input": {},
    "model_output": {},
}


class Add(torch.nn.Module):
    """A residual sum, as a module of its own."""

    def forward(self, left, right):
        return left + right


class Mean(torch.nn.Module):
    """The mean over positions, as a module of its own."""

    def forward(self, images):
        return images.mean((2, 3))


class Steps(torch.nn.Sequential):
    """Modules one after another, of which the first may take several tensors."""

    def forward(self, *tensors):
        for module in self:
            tensors = (module(*tensors),)
        return tensors[0]


class Network(torch.nn.Module):
    """The network of the given nodes.

    Args:
        nodes: as `tools/peers/description.py` has them.
        modules: the modules of each node, in order.
    """

    def __init__(self, nodes, modules):
        super().__init__()
        self.plan = [(node["name"], node["inputs"]) for node in nodes]
        for name, parts in modules.items():
            self.add_module(name, parts[0] if len(parts) == 1 else Steps(*parts))

    def forward(self, images):
        found = {"images": images}
        for name, inputs in self.plan:
            found[name] = getattr(self, name)(*(found[source] for source in inputs))
        return found[self.plan[-1][0]]


class Given:
    """What a folder holds.

    Args:
        folder: the folder.
    """

    def __init__(self, folder):
        self.settings = json.loads((folder / "given.json").read_text())
        self.nodes = self.settings["nodes"]
        with np.load(folder / "given.npz") as arrays:
            self.arrays = dict(arrays)
        self.calibration, self.test = (
            torch.from_numpy(self.arrays[name]).permute(0, 3, 1, 2).contiguous()
            for name in ("calibration", "test_images")
        )

    def network(self, quantized=None, bits=None):
        """Returns the network, float or with modules of brevitas.

        Args:
            quantized: makes the modules of a node from node, arguments and bits.
            bits: weight and activation bits of the pass.
        """
        modules = {}
        for node in self.nodes:
            name, kind, arguments = node["name"], node["kind"], []
            options = {key: node[key] for key in ("stride", "padding", "groups") if key in node}
            if kind in ("conv", "dense"):
                channels, inputs, *size = self.arrays[f"{name}/kernel"].shape
                arguments = [inputs * node.get("groups", 1), channels, *size[:1]]
            elif node.get("largest") is not None:
                kind, arguments = "clipped relu", [0.0, node["largest"]]
            make = quantized or _float_modules
            widths = [bits and (bits[place] if node.get(key) == OF_PASS else node.get(key))
                      for place, key in enumerate(("weights", "activations"))]  # fmt: skip
            modules[name] = make(kind, arguments, options, *widths)
            if kind in ("conv", "dense"):
                with torch.no_grad():
                    for key, parameter in (("kernel", "weight"), ("bias", "bias")):
                        value = torch.from_numpy(self.arrays[f"{name}/{key}"])
                        getattr(modules[name][0], parameter).copy_(value)
        return Network(self.nodes, modules).eval()

    @torch.no_grad()
    def logits(self, network):
        """Returns the logits of all test images."""
        return torch.cat([network(batch) for batch in self.test.split(BATCH)]).numpy()

    def top1(self, network):
        """Returns the share of test images that a network classifies right."""
        return float((self.logits(network).argmax(1) == self.arrays["test_labels"]).mean())


def _float_modules(kind, arguments, options, *_):
    kinds = {"conv": torch.nn.Conv2d, "dense": torch.nn.Linear, "relu": torch.nn.ReLU, "add": Add,
             "clipped relu": torch.nn.Hardtanh, "mean": Mean}  # fmt: skip
    return [kinds[kind](*arguments, **options)]


def check(given):
    """Returns versions, the accuracy of the float network and how far its logits lie from ours."""
    logits, ours = given.logits(given.network()), given.arrays["logits"]
    found = {}
    for name in ("torch", "brevitas", "aimet-torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {
        "versions": found,
        "difference": float(np.abs(logits - ours).max() / np.abs(ours).max()),
        "top1": float((logits.argmax(1) == given.arrays["test_labels"]).mean()),
    }


def brevitas(given):
    """Yields method, bits, and what quantizes the network so."""
    from brevitas import nn
    from brevitas.core.stats import NegativeMinOrZero
    from brevitas.inject.enum import StatsOp
    from brevitas.quant import scaled_int as kinds
    from brevitas.quant import shifted_scaled_int as shifted

    class Largest(kinds.Uint8ActPerTensorFloat):
        scaling_stats_op = StatsOp.MAX

    class LeastToLargest(shifted.ShiftedUint8ActPerTensorFloat):
        scaling_stats_op = StatsOp.MIN_MAX
        zero_point_stats_impl = NegativeMinOrZero

    def modules(weight_quant, positive, signed):
        def make(kind, arguments, options, weights, activations):
            # Means are those of ReLUs.
            act_quant = signed if kind in ("conv", "dense", "add") else positive
            if kind in ("conv", "dense"):
                layer = nn.QuantConv2d if kind == "conv" else nn.QuantLinear
                parts = [layer(*arguments, **options, bias=True, weight_quant=weight_quant,
                               weight_bit_width=weights)]  # fmt: skip
            elif kind == "relu" and activations:
                return [nn.QuantReLU(act_quant=act_quant, bit_width=activations)]
            else:
                parts = _float_modules(kind, arguments, options)
            if activations:
                parts.append(nn.QuantIdentity(act_quant=act_quant, bit_width=activations))
            return parts

        return make

    by_error = kinds.Uint8ActPerTensorFloatMSE, shifted.ShiftedUint8ActPerTensorFloatMSE
    largest = kinds.Int8WeightPerChannelFloat, Largest, LeastToLargest
    ranges = kinds.Int8WeightPerChannelFloat, *by_error
    mse = kinds.Int8WeightPerChannelFloatMSE, *by_error
    for name, quantizers, step in (
        ("min-max", largest, None),
        ("mse ranges", ranges, None), ("mse ranges, bias correction", ranges, "biases"),
        ("mse ranges and weights, bias correction", mse, "biases"),
    ):  # fmt: skip
        for bits in given.settings["bits"]:
            network = given.network(modules(*quantizers), bits)
            yield name, bits, lambda n=network, s=step: _brevitas_steps(n, given.calibration, s)


@torch.no_grad()
def _brevitas_steps(network, images, step):
    from brevitas.graph.calibrate import bias_correction_mode, calibration_mode

    with calibration_mode(network):
        network(images)
    if step:
        with bias_correction_mode(network):
            network(images)
    return network


def aimet(given):
    """Yields method, bits, and what quantizes the network so."""
    for kind, inputs in ((Add, 2), (Mean, 1)):
        _teach_aimet(kind, inputs)
    for name, scheme, learned in (
        ("min-max", "tf", False), ("min-max, AdaRound", "tf", True),
        ("enhanced ranges", "tf_enhanced", False),
        ("enhanced ranges, AdaRound", "tf_enhanced", True),
    ):  # fmt: skip
        for bits in given.settings["bits"]:
            yield name, bits, lambda s=scheme, x=learned, b=bits: _aimet_steps(given, s, x, b)


def _teach_aimet(kind, inputs):
    """Tells aimet how a module of this file is quantized."""
    from aimet_torch.nn import QuantizationMixin

    @QuantizationMixin.implements(kind)
    class Quantized(QuantizationMixin, kind):
        def __quant_init__(self):
            super().__quant_init__()
            self.input_quantizers = torch.nn.ModuleList([None] * inputs)
            self.output_quantizers = torch.nn.ModuleList([None])

        def forward(self, *tensors):
            found = kind.forward(self, *tensors)
            quantizer = self.output_quantizers[0]
            return quantizer(found) if quantizer else found


def _aimet_simulated(given, network, scheme, bits):
    """Returns aimet's simulation with its quantizers at the places and bits of ours."""
    from aimet_torch.quantsim import QuantizationSimModel

    config = pathlib.Path(sys.argv[2]) / "aimet.json"
    config.write_text(json.dumps(AIMET_CONFIG))
    simulated = QuantizationSimModel(
        network, given.calibration[:1], quant_scheme=scheme, config_file=str(config)
    )
    for node in given.nodes:
        module = getattr(simulated.model, node["name"])
        for place in range(len(module.input_quantizers)):
            module.input_quantizers[place] = None
        weights, activations = (
            bits[place] if node.get(key) == OF_PASS else node.get(key)
            for place, key in enumerate(("weights", "activations"))
        )
        if activations is None:
            module.output_quantizers[0] = None
        else:
            module.output_quantizers[0].bitwidth = activations
        if weights:
            module.param_quantizers["weight"].bitwidth = weights
    return simulated


def _aimet_steps(given, scheme, learned, bits):
    network = given.network()
    simulated = _aimet_simulated(given, network, scheme, bits)
    if learned:
        from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters

        batches = [(batch, 0) for batch in given.calibration.split(32)]
        asked = AdaroundParameters(
            batches, len(batches), default_num_iterations=given.settings["iterations"],
            forward_fn=lambda model, batch: model(batch[0]),
        )  # fmt: skip
        widths = [
            (getattr(network, node["name"]), bits[0] if node["weights"] == OF_PASS
             else node["weights"]) for node in given.nodes if node["weights"]
        ]  # fmt: skip
        encodings = pathlib.Path(sys.argv[2])
        network = Adaround.apply_adaround(
            network, given.calibration[:1], asked, str(encodings), "adaround", bits[0],
            widths, default_quant_scheme=scheme,
            default_config_file=str(encodings / "aimet.json"),
        )  # fmt: skip
        simulated = _aimet_simulated(given, network, scheme, bits)
        simulated.set_and_freeze_param_encodings(str(encodings / "adaround.encodings"))
    with torch.no_grad():
        simulated.compute_encodings(lambda model: model(given.calibration))
    return simulated.model


def main():
    """Prints what was asked for."""
    asked, given = sys.argv[1], Given(pathlib.Path(sys.argv[2]))
    with contextlib.redirect_stdout(sys.stderr):
        found = check(given) if asked == "check" else rows(given, asked)
    print(json.dumps(found))


def rows(given, asked):
    """Returns a row for each method and bit-width of a peer."""
    found = []
    for name, bits, quantize in {"brevitas": brevitas, "aimet": aimet}[asked](given):
        torch.manual_seed(given.settings["seed"])
        start = time.process_time()
        network = quantize()
        seconds = time.process_time() - start
        top1 = given.top1(network)
        label = "{}w{}a".format(*bits)
        found.append({"by": asked, "method": name, "bits": label, "top1": top1,
                      "seconds": seconds})  # fmt: skip
        print(asked, name, label, f"{100 * top1:.2f}", f"{seconds:.1f} s", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
