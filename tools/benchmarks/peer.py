"""Steps of others, each in a process of its own, one at a time: of lightly, of another commit.

PyTorch's threads wait for each other awake: beside other work its steps took ten times as long.
"""

import atexit
import json
import subprocess
import sys
from typing import Any

from benchmarks.alone import last_line

from tfcq.errors import UserError

# Each says what it is, then takes a step for each line that it is sent, and at the end tells its
# megabytes beyond those of its imports.
EARLIER = """
import json, resource, subprocess, sys
import tensorflow as tf
from tfcq.backbones.resnet import resnet
from tfcq.pretraining.pretrainer import Pretrainer

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, (framework, recipe, batch, size, width) = megabytes(), json.loads(sys.argv[2])
shape = (size, size, 3)
backbone = resnet(18, width=width, input_shape=shape)
model = Pretrainer(backbone, framework=framework, recipe=recipe)
model.set_run_length(1, 1000)
model.compile()
count = len(model.recipe.views)
drawn = tf.random.stateless_uniform((count, batch, *shape), (0, 0), alg="philox")
views, step = tuple(tf.unstack(drawn)), tf.function(model.train_step, autograph=False)
commit = ["git", "-C", sys.argv[1], "rev-parse", "--short", "HEAD"]
print(recipe + ", baseline", subprocess.check_output(commit, text=True).strip(), flush=True)
for _ in sys.stdin:
    print(step(views)["loss"].numpy(), flush=True)
print(megabytes() - before)
"""
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


def lightly(python: str, sizes: dict[str, Any]) -> list[str]:
    """Returns what runs lightly's SimSiam on the same network and batch as ours.

    Args:
        python: the interpreter.
        sizes: sizes of a step.
    """
    given = json.dumps([sizes[name] for name in ("batch_size", "image_size", "width")])
    # Without the packages that PYTHONPATH adds to ours.
    return [python, "-I", "-c", STEPS, given]


def earlier(checkout: str, recipe: str, sizes: dict[str, Any]) -> list[str]:
    """Returns what runs a recipe as another commit does, on the same network and batch.

    Args:
        checkout: its folder.
        recipe: name of the recipe.
        sizes: sizes of a step.
    """
    given = [sizes[name] for name in ("framework", "batch_size", "image_size", "width")]
    command = [sys.executable, "-P", "-c", EARLIER, checkout]
    told = json.dumps([given[0], recipe, *given[1:]])
    return ["env", f"PYTHONPATH={checkout}", "TF_CPP_MIN_LOG_LEVEL=3", *command, told]


class Peer:
    """Steps of others that can take turns with ours.

    Args:
        command: what `lightly` or `earlier` returns.

    Attributes:
        name: what it says that it is.
    """

    def __init__(self, command: list[str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)
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
