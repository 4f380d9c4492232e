"""However a training by several processes ends, its group is left: torch aborts some processes that end inside one."""

import os
import subprocess
import sys

import pytest

# One process is a group too, with all that torch starts for one.
SCRIPT = """
import sys
from types import SimpleNamespace

import torch.distributed as dist
from recmerge.stages.distributed import run_together

def run(work):
    assert dist.is_initialized()
    if sys.argv[1] == "fails":
        raise ValueError("the disk is full")
    return "done before"

try:
    print(run_together(SimpleNamespace(config=SimpleNamespace(device="cpu")), run, None))
except ValueError as error:
    print(error)
print(dist.is_initialized())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "said"), [("ends", "done before"), ("fails", "the disk is full")])
def test_the_group_is_left(how: str, said: str) -> None:
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], env={**os.environ, **alone}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == [said, "False", ""]
