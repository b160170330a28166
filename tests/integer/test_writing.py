"""Files with just the integers of the simulation."""

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.integer.form import deployable
from tfcq.integer.lite_file import LiteFile
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.quantization.precision import Precision
from tfcq.settings.bitwidths import BitWidth


@pytest.fixture(scope="module")
def form(network, images):
    form = deployable(network)
    calibrate(form, images)
    return form


@pytest.mark.parametrize("weights", range(2, 9))
def test_every_integer_is_the_simulations(form, weights):
    made = LiteFile.read(written(form, BitWidth(weights, 8)).file.to_bytes())
    tensors = {tensor.name: tensor for tensor in made.tensors}
    precision = Precision(weights, 8)
    for layer in form.layers:
        if hasattr(layer, "weight_quantizer"):
            kernel, bias = tensors[f"{layer.name}/kernel"], tensors[f"{layer.name}/bias"]
            values = np.moveaxis(kernel.data, 0, -1) * kernel.scales
            np.testing.assert_allclose(values, layer.quantized_kernel(precision), rtol=1e-6)
            bits = layer.weight_quantizer.bits or weights
            assert np.max(np.abs(kernel.data)) == 2 ** (bits - 1) - 1
            added, _ = layer.rounded_bias(precision)
            np.testing.assert_allclose(bias.data * bias.scales, added, rtol=1e-5, atol=1e-7)


def test_tensors_lie_where_it_says(form):
    made = written(form, BitWidth(8, 8))
    for name, place in made.places.items():
        scale, zero_point, _ = form.get_layer(name).parameters(Precision(8, 8))
        tensor = made.file.tensors[place]
        assert (tensor.scale, tensor.zero_point) == (np.float32(scale), int(zero_point) - 128)


@pytest.mark.parametrize("bits", [BitWidth(8, 4), BitWidth(9, 8), BitWidth(None, None)])
def test_bits_that_litert_does_not_have_are_refused(form, bits):
    with pytest.raises(UserError, match="cannot be deployed"):
        written(form, bits)


def test_batches_are_computed_image_by_image(form, images):
    from tfcq.integer.runtime import every_tensor

    pixels = np.round(images[:4] * 255).astype(np.uint8)
    one, four = (written(form, BitWidth(8, 8), batch).file for batch in (1, 4))
    found = [every_tensor(file, pixels, "xnnpack")[file.outputs[0]] for file in (one, four)]
    np.testing.assert_array_equal(*found)


def test_small_weights_are_stored_two_a_byte_and_computed_alike(form, images):
    from tfcq.integer.emulation import emulate
    from tfcq.integer.runtime import every_tensor

    usual, packed = (
        LiteFile.read(written(form, BitWidth(3, 8), storage=storage).file.to_bytes())
        for storage in ("int8", "int4")
    )
    kernels = [(a, b) for a, b in zip(usual.tensors, packed.tensors, strict=True)
               if a.name.endswith("/kernel")]  # fmt: skip
    for one, other in kernels:
        np.testing.assert_array_equal(one.data, other.data)
        assert other.dtype == ("int4" if np.max(np.abs(one.data)) < 8 else "int8")
    # The stem keeps 8 bits.
    assert {other.dtype for _, other in kernels} == {"int4", "int8"}
    half = sum(one.data.size // 2 for one, other in kernels if other.dtype == "int4")
    assert len(usual.to_bytes()) - len(packed.to_bytes()) > 0.95 * half
    pixels = np.round(images[:8] * 255).astype(np.uint8)
    for name in ("xnnpack", "optimized", "reference"):
        for found, expected in zip(
            every_tensor(packed, pixels, name), emulate(packed, pixels, name), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_storage_that_does_not_hold_the_weights_is_refused(form):
    with pytest.raises(UserError, match="int4 does not hold weights at 5w8a; allowed: 2w8a to 4w8"):
        written(form, BitWidth(5, 8), storage="int4")
    with pytest.raises(UserError, match="storage 'int3'; allowed: int4, int8"):
        written(form, BitWidth(4, 8), storage="int3")
