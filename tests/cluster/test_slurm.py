"""configs/slurm/ray.sh with stand-ins for SLURM's commands; on SLURM itself it was run by hand."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "configs/slurm/ray.sh"
STAND_INS = {
    # The second line comes later: who stops reading after the first would fail the job.
    "scontrol": 'echo "$NODE"; sleep 0.1; echo another',
    "getent": 'echo "$ADDRESS STREAM $NODE"; sleep 0.1; echo "$ADDRESS DGRAM $NODE"',
    "hostname": "echo 10.0.0.9 172.17.0.1",
    "srun": 'printf "%s\\n" "$@" "token=$RAY_AUTH_MODE:$RAY_AUTH_TOKEN"; exit "$STATUS"',
}


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder of programs that stand for SLURM's."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(commands: Path, *words: str, **environment: str) -> tuple[int, list[str]]:
    """The exit status, and what srun was given, of the script in a job of two nodes."""
    job = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    job |= {"NODE": "n1", "ADDRESS": "10.0.0.1", "STATUS": "0"} | environment
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), *words], env=job | {"PATH": path}, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_the_verb_runs_on_a_ray_of_all_nodes_and_their_processors(commands: Path) -> None:
    status, given = run(commands, "bench", "--config", "a name.yaml", "--workers", "2")
    words, separator, verb = given[:-1], given.index("--"), given[given.index("--") + 1 : -1]
    assert status == 0
    assert words[:4] == ["--cpus-per-task", "8", "ray", "symmetric-run"]
    options = dict(zip(words[4:separator:2], words[5:separator:2], strict=True))
    assert options == {"--address": "10.0.0.1:6379", "--min-nodes": "2", "--num-cpus": "8"}
    assert verb[:3] == ["env", "RAY_ADDRESS=10.0.0.1:6379", "shortcut-lightning"]
    assert verb[3:] == ["bench", "--config", "a name.yaml", "--workers", "2", "--engine", "ray"]


def test_only_who_has_the_token_of_this_job_joins(commands: Path) -> None:
    tokens = {run(commands, "detect")[1][-1] for _ in range(2)}
    assert len(tokens) == 2
    assert all(token.startswith("token=token:") and len(token) == 60 for token in tokens)


def test_a_node_that_knows_itself_as_the_loopback_is_called_by_its_address(commands: Path) -> None:
    assert "10.0.0.9:6379" in run(commands, "detect", ADDRESS="127.0.1.1")[1]


def test_the_status_of_the_verb_is_that_of_the_job(commands: Path) -> None:
    assert run(commands, "detect", STATUS="2")[0] == 2
