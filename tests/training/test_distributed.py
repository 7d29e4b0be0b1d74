"""Data-parallel training: two real processes equal one, the first alone writes, and a failure ends them all.

torchrun runs this file as a script, too: `work` and then `fail` are what its processes do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import trafficcast.training.loop
from pipelines.cli.main import main as command_line
from tests.cities import stores_in
from trafficcast.config.settings import load_config
from trafficcast.errors import InputError, JobError
from trafficcast.forecasting.model import build, load_model
from trafficcast.stores.city_stores import CityStores
from trafficcast.stores.flows import flows_dataset
from trafficcast.stores.registry import Registry
from trafficcast.training import distributed
from trafficcast.training.dataset import _windows_of
from trafficcast.training.distributed import _agree, _own_device, _processes, _share, process_group, rank
from trafficcast.training.loop import _train
from trafficcast.training.settings import TrainingSettings, recipe
from trafficcast.training.train import train as train_and_publish

ROOT = Path(__file__).parents[2]
SMALL = {"rows": 8, "cols": 8, "depth": 2, "embed": 16, "drop_path": 0.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "vmrnn-b": {"name": "vmrnn-b", **SMALL},
    "vmrnn-c": {"name": "vmrnn-c", **SMALL},
    "vmrnn-d": {"name": "vmrnn-d", "rows": 8, "cols": 8, "depths": (1, 1), "embed": 16, "drop_path": 0.0},
}
# Three windows a step of eleven: two for the first process and one for the second, and at last one and none.
SETTINGS = recipe("vmrnn-c", epochs=2, batch_size=3)
ONE_STEP = replace(SETTINGS, epochs=1, batch_size=11, clip=0.0)


def trained(name: str, settings: TrainingSettings, checkpoint: Path, **options: Any) -> tuple[nn.Module, Any]:
    """A small network without drop path trained on random flows; one of its parameters never gets a gradient."""
    torch.manual_seed(0)
    network = build(NETWORKS[name])
    network.idle = nn.Parameter(torch.ones(3))
    rng = np.random.default_rng(0)
    flows = rng.integers(0, 50, (30, 2, 8, 8))
    context, unit = {}, 50.0
    if name == "vmrnn-c":
        with torch.no_grad():
            for parameter in network.parameters():  # some start at zero, where others get no gradient at first
                parameter += 0.01
        calendar = rng.random((30, 6)).astype(np.float32)
        context, unit = {"climatology": (flows + rng.random(flows.shape)).astype(np.float32), "calendar": calendar}, 1.0
    windows = _windows_of(flows, unit, context, np.arange(11), np.arange(15, 20))
    given: dict[str, Any] = {"resume": False, "progress": lambda items, *_: items, **options}
    state = _train(
        network, *windows, unit, settings, torch.device("cpu"), checkpoint, "data", on_epoch=lambda _: None, **given
    )
    return network, state


def work(folder: Path) -> None:
    """One training step of every network, a whole training, and one interrupted and resumed; results in `folder`."""
    folder.mkdir(exist_ok=True)
    for name in NETWORKS:
        network, _ = trained(name, ONE_STEP, folder / f"one-step-{name}-{rank()}.safetensors")
        assert network.idle.grad is None
        gradients = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
        save_file(gradients, folder / f"gradients-{name}-{rank()}")
    _, state = trained("vmrnn-c", SETTINGS, folder / "whole.safetensors")
    save_file(state.best, folder / f"best-{rank()}")
    (folder / f"history-{rank()}").write_text(json.dumps(state.history))
    (folder / f"drawn-{rank()}").write_text(str(torch.rand(1)))

    def pull_the_plug(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        for item in items:
            if description.startswith("epoch 2") and item == 1:
                raise KeyboardInterrupt
            yield item

    checkpoint = folder / "interrupted.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained("vmrnn-c", SETTINGS, checkpoint, progress=pull_the_plug)
    _, state = trained("vmrnn-c", SETTINGS, checkpoint, resume=True)
    save_file(state.best, folder / f"resumed-{rank()}")
    _agree("city", "small")
    if _processes() > 1:
        with pytest.raises(JobError, match="do not see the same city"):
            _agree("city", f"city {rank()}")
    (folder / f"done-{rank()}").touch()


def fail(*words: str) -> None:
    """Train as the command line does with these words; the second process runs out of memory in its second step."""
    loss, calls = trafficcast.training.loop._forecast_loss, []

    def greedy(*arguments: Any) -> torch.Tensor:
        calls.append(None)
        if rank() == 1 and len(calls) == 2:
            raise MemoryError
        return loss(*arguments)

    trafficcast.training.loop._forecast_loss = greedy
    distributed.process_group = nullcontext  # these processes have joined already
    sys.argv[1:] = ["train", *words]
    command_line()


def torchrun(*words: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *map(str, words)], cwd=folder, env=environment, **pipes) as process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.terminate()  # and with it, where it still runs, the processes that it started
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def write_store(folder: Path) -> None:
    """A configuration and four days of flows of a city of 4 x 4 cells, slots of two hours."""
    folder.mkdir()
    (folder / "config.toml").write_text(
        "[cities.tiny]\nwest = 0\neast = 1\nsouth = 0\nnorth = 1\nrows = 4\ncols = 4\nslot_minutes = 120\n"
        'timezone = "UTC"\n'
    )
    city = load_config(folder / "config.toml").city()
    time = np.datetime64("2024-04-08", "us") + city.slot * np.arange(48)
    flow = np.random.default_rng(0).poisson(9, (48, 2, 4, 4))
    stores_in(folder / "data", city).flows.write(flows_dataset(city, time, flow, np.full(48, 9), np.ones(48)))


SPLIT = ("--train-end", "2024-04-10", "--valid-end", "2024-04-11")
WORDS = ("--model", "vmrnn-b", "--epochs", 1, "--batch-size", 5, "--device", "cpu", "--json", *SPLIT)


@dataclass(frozen=True)
class Worked:
    """What two processes, which failed at last, and what one made of the same `work`."""

    two: Path
    one: Path
    store: Path
    failed: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Worked:
    folder = tmp_path_factory.mktemp("distributed")
    two, one, store = folder / "two", folder / "one", folder / "store"
    write_store(store)
    failed = torchrun(__file__, two, *WORDS, folder=store)
    assert (two / "done-0").exists() and (two / "done-1").exists(), failed.stderr
    work(one)
    return Worked(two, one, store, failed)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(worked: Worked, name: str) -> None:
    two, one = worked.two, worked.one
    expected = load_file(one / f"gradients-{name}-0")
    assert sum(bool(gradient.any()) for gradient in expected.values()) > 0.9 * len(expected)
    for number in range(2):
        got = load_file(two / f"gradients-{name}-{number}")
        assert set(got) == set(expected)
        for key, gradient in expected.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(got[key], gradient, rtol=0, atol=1e-6 * max(scale, 1.0), msg=key)


def test_a_whole_training_equals_that_of_one_process(worked: Worked) -> None:
    two, one = worked.two, worked.one
    expected = json.loads((one / "history-0").read_text())
    for number in range(2):
        history = json.loads((two / f"history-{number}").read_text())
        for row, same in zip(history, expected, strict=True):
            assert row == pytest.approx(same, rel=1e-5)
    weights = load_file(one / "best-0")
    for key, value in load_file(two / "best-0").items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=1e-4, msg=key)


def test_both_processes_hold_the_same_network_to_the_bit(worked: Worked) -> None:
    two = worked.two
    assert (two / "best-0").read_bytes() == (two / "best-1").read_bytes()
    assert (two / "history-0").read_text() == (two / "history-1").read_text()


def test_each_process_draws_its_own_drop_path(worked: Worked) -> None:
    two, one = worked.two, worked.one
    assert (two / "drawn-0").read_text() == (one / "drawn-0").read_text() != (two / "drawn-1").read_text()


def test_both_resume_from_the_checkpoint_that_the_first_wrote(worked: Worked) -> None:
    two = worked.two
    for number in range(2):
        assert (two / f"resumed-{number}").read_bytes() == (two / "best-0").read_bytes()


def test_the_first_process_alone_writes(worked: Worked) -> None:
    two = worked.two
    assert {file.name for file in two.glob("one-step-*")} == {f"one-step-{name}-0.safetensors" for name in NETWORKS}


@pytest.mark.parametrize(("size", "count"), [(7, 2), (3, 3), (2, 4)])
def test_the_shares_of_a_batch_are_the_batch(size: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.arange(100, 100 + size)
    monkeypatch.setattr(distributed, "_processes", lambda: count)
    shares = []
    for number in range(count):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(_share(batch))
    assert all(len(own) for own, _ in shares)
    assert sum(weight for _, weight in shares) == pytest.approx(1.0)
    windows = [int(window) for own, weight in shares if weight for window in own]
    assert sorted(windows) == batch.tolist()


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    assert _own_device(torch.device("cuda")) == torch.device("cuda")  # one process leaves the choice to torch
    monkeypatch.setattr(distributed, "_processes", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _own_device(torch.device("cpu")) == torch.device("cpu") and not chosen
    assert _own_device(torch.device("cuda")) == torch.device("cuda:1") == chosen[0]
    for name in ("cuda:0", "mps"):
        with pytest.raises(InputError, match=f"cannot train on '{name}'"):
            _own_device(torch.device(name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="torchrun --nproc-per-node 1"):
        _own_device(torch.device("cuda"))


def test_torchrun_publishes_one_model_like_that_of_one_process(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_store(store)
    ran = torchrun("-m", "pipelines", "train", *WORDS, folder=store)
    assert ran.returncode == 0, ran.stderr
    card = json.loads(ran.stdout)  # one process alone prints
    assert ran.stderr.count("published") == 1
    assert card["training"]["processes"] == 2
    assert card["command"].startswith("torchrun --nproc-per-node 2 -m pipelines train --model vmrnn-b --epochs 1 ")
    assert {file.name for file in (store / "models" / "tiny").iterdir()} == {"champion", "vmrnn-b-1"}
    assert not list((store / "data" / "tiny" / "training").rglob("*.safetensors"))

    config = load_config(store / "config.toml")
    city = config.city()
    ends = [city.parse_time(SPLIT[1]), city.parse_time(SPLIT[3])]
    settings = recipe("vmrnn-b", epochs=1, batch_size=5)
    alone = train_and_publish(CityStores.of(config, city), "vmrnn-b", settings, *ends, device="cpu").card
    assert alone["version"] == "vmrnn-b-2" and alone["training"]["processes"] == 1
    assert alone["windows"] == card["windows"] and alone["data_hash"] == card["data_hash"]
    for split in ("validation", "test"):
        together, single = (made["metrics"][split][made["version"]]["rmse"] for made in (card, alone))
        assert together == pytest.approx(single, rel=0.05)  # the drop path of one half is another
    registry = Registry(config.paths.models / "tiny", city)
    torch.manual_seed(settings.seed)
    start = nn.utils.parameters_to_vector(build(card["architecture"]).parameters())
    ways = [
        nn.utils.parameters_to_vector(load_model(registry, v).network.parameters()) - start for v in registry.versions()
    ]
    assert nn.functional.cosine_similarity(*ways, dim=0) > 0.7  # most of the way they go together


def test_a_failing_process_ends_all_with_an_error_and_leaves_no_model(worked: Worked) -> None:
    assert worked.failed.returncode != 0 and not worked.failed.stdout
    assert "trafficcast: memory does not suffice for batches of 5 windows: lower --batch-size" in worked.failed.stderr
    assert not (worked.store / "models").exists()


if __name__ == "__main__":
    with process_group():
        work(Path(sys.argv[1]))
        fail(*sys.argv[2:])
