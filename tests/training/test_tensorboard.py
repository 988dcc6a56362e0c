"""Writing TensorBoard events does not import PyTorch, and does not keep others from importing it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import slmrec_jax.training.fit
print("torch" in sys.modules)
import torch
print(torch.STUB)
"""


def test_training_does_not_load_torch_and_others_still_can(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("STUB = 'the stub'")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["False", "the stub"], done.stderr
