"""Parts done here and by Ray's workers: python -m pytest tests/cluster -m slow"""

import os
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from shortcut_lightning.cluster import InProcess, Work, open_pool, ray_pool
from shortcut_lightning.cluster.worker import WorkerFailed

CPU = torch.device("cpu")


@dataclass
class Squaring(Work):
    """Squares numbers; misbehaves at some."""

    folder: Path | None = None
    unlucky: int = -1

    def __call__(self, part: int) -> Any:
        if part == self.unlucky and self.folder and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if part == 100:
            raise ValueError("100 is not taken (data.number).")
        if part == 101:
            return [][part]
        if part == 102:
            warnings.warn("102 is large", stacklevel=1)
        return part * part


def test_here_parts_are_done_in_order_as_they_are_asked_for() -> None:
    asked = []

    def parts() -> Any:
        for number in range(3):
            asked.append(number)
            yield number

    done = InProcess().map(Squaring(), parts(), CPU)
    assert next(done) == (0, 0)
    assert asked == [0]
    assert list(done) == [(1, 1), (2, 4)]


@pytest.mark.parametrize("given", [(2, 0.0), (1, 0.5)])
def test_workers_without_ray_are_refused_in_a_line(given: tuple[int, float]) -> None:
    said = r"needs --engine ray.*pip install 'shortcut-lightning\[cluster\]'"
    with pytest.raises(ValueError, match=said), open_pool("local", *given):
        pass


def test_without_ray_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'shortcut-lightning\[cluster\]'"):
        open_pool("ray", 2).__enter__()


def test_an_address_where_nobody_listens_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left by a cluster that was killed, or mistyped; Ray itself would ask for minutes."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS")
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(ValueError, match=r"127.0.0.1:1, which `ray start` left .* to local"):
        ray_pool._connect(None)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port", "nobody.invalid:1", "x"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ValueError, match=rf"No Ray answers at {address} \(.*RAY_ADDRESS"):
            ray_pool._connect(None)


@pytest.mark.slow
class TestRay:
    def test_every_part_once(self, ray: Any) -> None:
        with open_pool("ray", 2) as pool:
            done = dict(pool.map(Squaring(), range(20), CPU))
        assert done == {number: number * number for number in range(20)}

    def test_a_part_whose_worker_is_lost_is_done_again(self, ray: Any, tmp_path: Path) -> None:
        with open_pool("ray", 2) as pool:
            found = list(pool.map(Squaring(tmp_path, unlucky=3), range(6), CPU))
        assert sorted(found) == [(number, number * number) for number in range(6)]
        assert (tmp_path / "died").exists()

    def test_what_a_worker_raises_and_warns_arrives(self, ray: Any) -> None:
        with open_pool("ray", 1) as pool:
            with pytest.raises(ValueError, match=r"100 is not taken \(data.number\)"):
                list(pool.map(Squaring(), [1, 100], CPU))
            with pytest.raises(WorkerFailed, match="IndexError"):
                list(pool.map(Squaring(), [101], CPU))
            with pytest.warns(UserWarning, match="102 is large"):
                list(pool.map(Squaring(), [102], CPU))

    def test_more_than_there_is_is_refused(self, ray: Any) -> None:
        with pytest.raises(ValueError, match="and this Ray has"):
            open_pool("ray", 99).__enter__()
        with pytest.raises(ValueError, match="take 1 GPUs, and this Ray has 0"):
            open_pool("ray", 2, 0.5).__enter__()

    def test_nothing_listens_beyond_the_loopback(self, ray: Any) -> None:
        psutil = pytest.importorskip("psutil")
        own = psutil.Process().children(recursive=True)
        ports = [
            each.laddr
            for process in (psutil.Process(), *own)
            for each in process.net_connections()
            if each.status == "LISTEN"
        ]
        assert ports
        assert {port.ip.removeprefix("::ffff:") for port in ports} == {"127.0.0.1"}
