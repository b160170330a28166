"""Files of weights that other libraries write and read, by their names."""

SAFETENSORS = ".safetensors"
# MoCo's and SimSiam's are called `.pth.tar` and are no tar.
_ENDINGS = (SAFETENSORS, ".pth", ".pth.tar", ".pt", ".ckpt", ".bin")
CHECKPOINTS_HELP = "PATH.pth or PATH.safetensors"
IMAGENET = {"input_mean": "0.485,0.456,0.406", "input_std": "0.229,0.224,0.225"}


def is_checkpoint(path: str | None) -> bool:
    """Whether a path is a public file of weights by its name.

    Args:
        path: the path, or None.
    """
    return (path or "").lower().endswith(_ENDINGS)
