"""Action masks in the commands. ``StrictMasks-v0`` fails at an action that is not allowed, so each command passes masks."""

from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from helpers import MAY_STAND_STILL
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from strict_masks import StrictMasks

from sb3_vpg.compare.runs.tasks import Plan
from sb3_vpg.compare.runs.worker import run
from sb3_vpg.zoo import register
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.hyperparams import hyperparams_file

ENV = ["--env", "StrictMasks-v0"]
PACKAGES = ["--gym-packages", "strict_masks"]
ALGOS = {"maskable_vpg": ["n_steps:32"], "ppo_mask": ["n_steps:32", "batch_size:32", "n_epochs:2"]}
PLAY = {
    "evaluate": ["--n-eval-episodes", "2", "--stochastic"],
    "enjoy": ["-n", "30", "--no-render", "--stochastic"],
    "enjoy_best": ["-n", "30", "--no-render", "--load-best", "--n-envs", "2"],
    "record_video": ["-n", "5"],
}


@pytest.fixture(scope="module", params=ALGOS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """:return: the flags that name an agent, which was trained with evaluations"""
    folder = str(tmp_path_factory.mktemp(request.param))
    flags = ["--algo", request.param, *ENV, "-f", folder]
    assert StrictMasks
    sizes = ["-n", "96", "--eval-freq", "32", "--eval-episodes", "2", "--verbose", "0", "-params", *ALGOS[request.param]]
    assert main(["train", *flags, *PACKAGES, *sizes]) == 0
    return flags


@pytest.mark.parametrize("play", PLAY)
def test_masks_are_passed_wherever_the_agent_acts(play: str, trained: list[str], tmp_path: Path) -> None:
    output = ["-o", str(tmp_path)] if play == "record_video" else []
    assert main([play.partition("_best")[0], *trained, *PLAY[play], *output]) == 0


def test_benchmark_passes_masks(trained: list[str], tmp_path: Path) -> None:
    folder = trained[trained.index("-f") + 1]
    flags = ["-f", folder, "-n", "2", "--stochastic", *PACKAGES, "--benchmark-dir", str(tmp_path)]
    assert main(["benchmark", *flags]) == 0
    assert f"| {trained[1]} | StrictMasks-v0 |" in (tmp_path / "benchmark.md").read_text()


@MAY_STAND_STILL
def test_a_run_of_compare_passes_masks(tmp_path: Path) -> None:
    """In training, in its evaluations and in the final one; in this process, where ``compare`` starts another."""
    options = {"n_evaluations": 1, "eval_episodes": 1, "final_episodes": 2, "gym_packages": ["strict_masks"]}
    (task,) = Plan(["maskable_vpg"], ["StrictMasks-v0"], [0], {"StrictMasks-v0": 512}, **options).tasks()
    score = run(task, tmp_path)
    assert (len(score["mean_returns"]), len(score["final_returns"])) == (1, 2)


@MAY_STAND_STILL
@pytest.mark.parametrize("algo", ALGOS)
def test_trials_of_a_search_pass_masks(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["-n", "64", "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    assert main(["optimize", "--algo", algo, *ENV, *PACKAGES, *search, "--verbose", "0"]) == 0


def test_an_agent_is_pushed_and_loaded(trained: list[str], tmp_path: Path) -> None:
    if "ppo_mask" in trained:
        # Files of the zoo's algorithms are not shared by our commands
        assert main(["push_to_hub", *trained, "-orga", "me", "--local-hub", str(tmp_path)]) == 1
        return
    hub = ["-orga", "me", "--local-hub", str(tmp_path / "hub")]
    assert main(["push_to_hub", *trained, *hub, "--n-eval-episodes", "2", "--no-render"]) == 0
    page = (tmp_path / "hub/me/maskable_vpg-StrictMasks-v0/README.md").read_text()
    assert "from sb3_contrib.common.maskable.evaluation import evaluate_policy" in page
    assert main(["load_from_hub", "--algo", "maskable_vpg", *ENV, *PACKAGES, *hub, "-f", str(tmp_path / "loaded")]) == 0


def test_contribs_environments_are_registered_and_have_entries() -> None:
    register()
    for algo in ALGOS:
        entries = yaml.safe_load(hyperparams_file(algo).read_text())
        for name in entries.keys() - {"default"}:
            assert is_masking_supported(gym.make(name))
        assert len(entries) == 4
    # An entry of ppo_mask has contrib's defaults only
    assert entries["InvalidActionEnvDiscrete-v0"].keys() == {"n_timesteps", "policy"}
    MaskablePPO("MlpPolicy", gym.make("InvalidActionEnvMultiBinary-v0"), n_steps=8, batch_size=8).learn(8)
