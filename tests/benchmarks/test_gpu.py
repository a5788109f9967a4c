"""benchmarks/gpu.py compares the devices, and refuses a machine without a GPU."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch as th
from pretended_gpu import PretendedGpu

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    gpu = import_module("gpu")


def test_without_a_gpu_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="but torch finds none on this machine"):
        gpu.main()


@pytest.mark.filterwarnings("ignore:You are trying to run VPG on the GPU:UserWarning")
def test_the_quick_run_measures_both_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The report names the device, and has a row with a ratio for numbers and one for images."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--threads", "1"])
    monkeypatch.setattr(th.cuda, "get_device_name", lambda: "Pretended GPU")
    monkeypatch.setattr(gpu, "PIXELS", 36)
    with PretendedGpu() as pretended:
        gpu.main()
    assert pretended.n_waits > 0
    printed = capsys.readouterr().out
    assert "GPU: Pretended GPU. CPU: 1 threads." in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith(("| numbers", "| images"))]
    assert [row[0] for row in rows] == ["| numbers", "| images"]
    for row in rows:
        on_cpu, on_gpu, ratio = (float(cell.replace(",", "").strip(" |")) for cell in row[-3:])
        assert ratio == pytest.approx(on_gpu / on_cpu, rel=0.05, abs=0.01)


def test_a_case_is_built_as_its_name_says() -> None:
    model = gpu.new_model(gpu.Case("numbers", 3, 16, 32, 2), "cpu")
    assert (model.n_envs, model.n_steps, model.n_critic_updates) == (3, 16, 2)
    assert [layer.out_features for layer in model.policy.mlp_extractor.value_net if hasattr(layer, "out_features")] == [32, 32]
