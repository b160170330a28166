"""SimSiam of lightly, in the Python of an environment of its own, one step at a time.

PyTorch's threads wait for each other awake: beside other work its steps took ten times as long.
"""

import atexit
import json
import subprocess
from typing import Any

from benchmarks.alone import last_line

from tfcq.errors import UserError

# It says what it is, then takes a step for each line that it is sent, and at the end tells its
# megabytes beyond those of its imports.
STEPS = """
import json, resource, sys
import lightly, torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models import ResNetGenerator
from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, (batch, size, width) = megabytes(), json.loads(sys.argv[1])
resnet = ResNetGenerator("resnet-18", width=width / 64)
first, norm, *stages, _ = resnet.children()
pool = torch.nn.AdaptiveAvgPool2d(1)
backbone = torch.nn.Sequential(first, norm, torch.nn.ReLU(), *stages, pool, torch.nn.Flatten())
projector = SimSiamProjectionHead(8 * width, 2048, 2048)
predictor = SimSiamPredictionHead(2048, 512, 2048)
loss_of, views = NegativeCosineSimilarity(), torch.rand(2, batch, 3, size, size)
weights = [w for model in (backbone, projector, predictor) for w in model.parameters()]
optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
print(f"lightly {lightly.__version__}, PyTorch {torch.__version__}", flush=True)
for _ in sys.stdin:
    z = [projector(backbone(view)) for view in views]
    p = [predictor(one) for one in z]
    loss = (loss_of(p[0], z[1].detach()) + loss_of(p[1], z[0].detach())) / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item(), flush=True)
print(megabytes() - before)
"""


def check_peer(python: str) -> None:
    """Refuses an interpreter without lightly."""
    try:
        last_line([python, "-I", "-c", "import lightly; print()"])
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"--peer={python} cannot import lightly; name one that can.") from None


def command_of(python: str, sizes: dict[str, Any]) -> list[str]:
    """Returns what runs lightly's SimSiam on the same network and batch as ours.

    Args:
        python: the interpreter.
        sizes: sizes of a step.
    """
    given = json.dumps([sizes[name] for name in ("batch_size", "image_size", "width")])
    # Without the packages that PYTHONPATH adds to ours.
    return [python, "-I", "-c", STEPS, given]


class Peer:
    """Steps of lightly that can take turns with ours.

    Args:
        python: the interpreter.
        sizes: sizes of a step.

    Attributes:
        name: its versions.
    """

    def __init__(self, python: str, sizes: dict[str, Any]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command_of(python, sizes), text=True, **pipes)
        atexit.register(self._process.communicate)
        self.name = self._answer()

    def step(self) -> None:
        """Has it take a step and waits for its end."""
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args[0]} ended with {self._process.wait()}")
        return line.strip()
