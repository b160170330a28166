"""Vectors of other libraries' own networks: `PYTHONPATH=. python tools/public_vectors.py`.

Needs torch, torchvision and timm, which no test does: their networks, as narrow as
they can be made, get values that follow from the names of their tensors, so that names, shapes and
features are all that is kept.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / "tests" / "vectors" / "public"
WIDTH, SIZE = 8, 32
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the value of a tensor, float32: the same on every machine.

    Args:
        name: its name in torchvision or timm.
        shape: its shape.
    """
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return draw.uniform(0.5, 2, shape).astype(np.float32)
    if name.endswith("weight") and len(shape) == 1:
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    deviation = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
    return (draw.standard_normal(shape) * deviation).astype(np.float32)


def images() -> np.ndarray:
    """Returns two images, float32 [2, SIZE, SIZE, 3] in [0, 1]."""
    return np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)


def main() -> None:
    """Writes names, shapes and features of each network, and small files that PyTorch wrote."""
    import torch

    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, network in _networks().items():
        state = network.state_dict()
        tensors = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
        fixed = {n: v for n, v in tensors.items() if n == "pos_embed"}
        drawn = {n: torch.from_numpy(value(n, tuple(v.shape))) for n, v in tensors.items()}
        network.load_state_dict({**state, **drawn, **fixed})
        mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in IMAGENET)
        with torch.no_grad():
            pixels = torch.from_numpy(images()).permute(0, 3, 1, 2)
            features = network.eval()((pixels - mean) / deviation).numpy()
        shapes = {n: list(v.shape) for n, v in tensors.items()}
        found[f"{name}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        found[f"{name}/features"] = features
        found |= {f"{name}/{n}": v.numpy() for n, v in fixed.items()}
    np.savez_compressed(FOLDER / "networks.npz", **found)
    tree = _tree()
    torch.save(tree, FOLDER / "zip.pth")
    torch.save(tree, FOLDER / "older.pth", _use_new_zipfile_serialization=False)


def _networks():
    """Returns torchvision's ResNets and MobileNetV2 and timm's Vision Transformer, narrow."""
    import timm
    import torch
    import torchvision
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    class Narrow(ResNet):
        """torchvision's network of another width: its blocks, its pass, its names."""

        def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
            if planes == 64:
                self.inplanes = WIDTH
            return super()._make_layer(block, planes * WIDTH // 64, blocks, stride, dilate)

    networks = {}
    for depth, block, blocks in (
        (18, BasicBlock, [2, 2, 2, 2]),
        (34, BasicBlock, [3, 4, 6, 3]),
        (50, Bottleneck, [3, 4, 6, 3]),
    ):
        network = networks[f"resnet{depth}"] = Narrow(block, blocks)
        network.conv1 = torch.nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        network.bn1 = torch.nn.BatchNorm2d(WIDTH)
        network.fc = torch.nn.Identity()
    mobilenet = networks["mobilenet_v2"] = torchvision.models.mobilenet_v2(width_mult=WIDTH / 32)
    mobilenet.classifier = torch.nn.Identity()
    networks["timm_mobilenet_v2"] = timm.create_model("mobilenetv2_050", num_classes=0)
    transformer = networks["vit"] = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=24, num_heads=12, num_classes=0, global_pool="token"
    )
    transformer.pos_embed = torch.nn.Parameter(_mocov3_positions(SIZE // 8, 24), False)
    return networks


def _mocov3_positions(side: int, width: int):
    """Returns positions as MoCo v3's vits.py has them, which numbers its grid along columns."""
    import torch

    first, second = (
        part.flatten()
        for part in torch.meshgrid(*2 * [torch.arange(side, dtype=torch.float32)], indexing="ij")
    )
    quarter = width // 4
    frequency = 1.0 / 10000.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    waves = [
        wave(torch.outer(axis, frequency))
        for axis in (first, second)
        for wave in (torch.sin, torch.cos)
    ]
    return torch.cat([torch.zeros(1, width), torch.cat(waves, 1)])[None]


def _tree():
    """Returns what a training writes, of every type of number and of views of storages."""
    import collections

    import torch

    kinds = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8",
             "uint8", "bool")  # fmt: skip
    ramp = torch.arange(24, dtype=torch.float32)
    grid = ramp.reshape(2, 3, 4)
    state = torch.nn.BatchNorm1d(2).state_dict()
    return {
        "epoch": 3,
        "arch": "resnet50",
        "state_dict": collections.OrderedDict(
            whole=grid, turned=grid.permute(2, 0, 1), part=ramp[5:11:2], scalar=ramp[7],
            empty=ramp[:0], parameter=torch.nn.Parameter(grid[1]),
        ),
        "kinds": {kind: torch.arange(2).to(getattr(torch, kind)) for kind in kinds},
        "norm": state,
        "optimizer": {"state": {0: {"step": torch.tensor(4)}}, "lr": [0.1, None, True, (1, 2.5)]},
        "size": ramp.reshape(4, 6).size(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
