"""Agents whose environment, policy and networks are in the user's own modules can be played and shared."""

import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from hub_repositories import LEAVES_FILES_OPEN

from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.own_modules import command_of, import_modules_of

pytestmark = LEAVES_FILES_OPEN
ENV = "OwnWalk-v0"
SOURCES = {
    "own_walks": """
import gymnasium as gym, numpy as np
class Walk(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space, action_space = gym.spaces.Box(-9, 9, (3,), np.float32), gym.spaces.Discrete(2)
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        return self.observation_space.sample() * 0, {}
    def step(self, action):
        self.age += 1
        return np.full(3, self.age / 9, np.float32), float(action), self.age == 9, False, {}
    def render(self):
        return np.full((64, 64, 3), 20 * self.age, np.uint8)
gym.register("OwnWalk-v0", Walk, max_episode_steps=20)
""",
    "walk_policies": """
from stable_baselines3.common.policies import ActorCriticPolicy
class Policy(ActorCriticPolicy):
    pass
""",
    "walk_networks": """
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
class Net(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, 4)
        self.layer = th.nn.Linear(3, 4)
    def forward(self, observations):
        return self.layer(observations)
""",
}
ENTRY = f"""{ENV}:
  policy: walk_policies.Policy
  policy_kwargs: dict(net_arch=[8], features_extractor_class=__import__('walk_networks').Net)
  n_timesteps: 200
  n_steps: 64
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules, a hyperparameter file that names them, and a run in ``my logs``, a name that needs quotes."""
    folder = tmp_path_factory.mktemp("my project")
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "own.yml").write_text(ENTRY)
    train = ["train", "--env", ENV, "--gym-packages", "own_walks", "-conf", "own.yml", "-f", "my logs", "--eval-freq", "-1"]
    subprocess.run([sys.executable, "-m", "sb3_vpg", *train], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def importable(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project's folder; this process can import its modules, but has not yet imported them."""
    monkeypatch.syspath_prepend(project)
    monkeypatch.chdir(project)
    yield project
    forget_modules()


def forget_modules() -> None:
    gym.registry.pop(ENV, None)
    for name in SOURCES:
        sys.modules.pop(name, None)


PLAYS = {
    "evaluate": ["evaluate", "--env", ENV, "-n", "2"],
    "enjoy": ["enjoy", "--env", ENV, "--no-render", "-n", "30"],
    "benchmark": ["benchmark", "-n", "2", "--benchmark-dir", "table"],
    "train": ["train", "--env", ENV, "--gym-packages", "own_walks", "-conf", "plain.yml", "-n", "64", "--eval-freq", "-1"],
}


@pytest.mark.parametrize("command", PLAYS)
def test_commands_that_load_an_agent_import_its_modules(command: str, importable: Path) -> None:
    arguments = [*PLAYS[command], "-f", "my logs" if command != "train" else "more"]
    if command == "train":
        # The entry does not name the agent's policy
        (importable / "plain.yml").write_text(f"{ENV}: {{policy: MlpPolicy, n_timesteps: 64, n_steps: 32}}")
        arguments += ["-i", f"my logs/vpg/{ENV}_1/{ENV}.zip"]
    assert main(arguments) == 0
    assert {"walk_policies", "walk_networks"} <= sys.modules.keys()
    if command == "benchmark":
        assert "Left out" not in (importable / "table/benchmark.md").read_text()


@pytest.mark.expensive
def test_an_agent_is_filmed_shared_loaded_and_watched(importable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process that films finds the modules as this one does, and the printed commands load and watch the agent."""
    push = ["push_to_hub", "--env", ENV, "-orga", "me", "--local-hub", "my hub", "-f", "my logs", "-n", "12"]
    assert main([*push, "--n-eval-episodes", "2"]) == 0
    repository = importable / "my hub/me" / f"vpg-{ENV}"
    assert (repository / "replay.mp4").read_bytes()[4:8] == b"ftyp"
    page = (repository / "README.md").read_text()
    assert "`own_walks` and `walk_policies` and `walk_networks`: keep the folder of each module on `PYTHONPATH`" in page
    load = next(line for line in page.splitlines() if line.startswith("sb3-vpg load"))
    assert load.endswith("--gym-packages own_walks walk_policies walk_networks")
    forget_modules()
    assert main([*shlex.split(load)[1:], "--local-hub", "my hub", "-f", "my loads"]) == 0
    forget_modules()
    watch = capsys.readouterr().out.splitlines()[-1].partition("Watch it with: ")[2]
    assert watch == f"sb3-vpg enjoy --env {ENV} -f 'my loads'"
    assert main([*shlex.split(watch)[1:], "--no-render", "-n", "10"]) == 0


def test_a_search_its_entry_and_its_training_import_the_modules(importable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["optimize", "--env", ENV, "--gym-packages", "own_walks", "-conf", "own.yml", "-n", "64", "--verbose", "0"]
    search += ["--n-trials", "1", "--no-optim-plots", "--storage", "my study.log", "--study-name", "my study"]
    assert main([*search, "--n-evaluations", "1", "--eval-episodes", "1"]) == 0
    written = capsys.readouterr().out.partition("Write it to a file: sb3-vpg ")[2].splitlines()[0]
    forget_modules()
    assert main([*shlex.split(written)[:-1], "my best.yml"]) == 0
    printed = capsys.readouterr().out.partition("Train with it: sb3-vpg ")[2].splitlines()[0]
    assert main([*shlex.split(printed), "--eval-freq", "-1", "-f", "of the search"]) == 0
    assert main(["evaluate", "--env", ENV, "-f", "of the search", "-n", "1"]) == 0


def test_the_command_of_a_run_can_be_copied(project: Path) -> None:
    words = shlex.split((project / f"my logs/vpg/{ENV}_1/{ENV}/command.txt").read_text())
    assert words[-10:-2] == ["--env", ENV, "--gym-packages", "own_walks", "-conf", "own.yml", "-f", "my logs"]


def test_modules_that_are_gone_are_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing module of the environment is a warning, because the command may name another; of the policy, an error."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "renamed.py").write_text(SOURCES["own_walks"])
    for name in ("walk_policies", "walk_networks"):
        shutil.copy(project / f"{name}.py", tmp_path)
    evaluate = ["evaluate", "--env", ENV, "-f", str(project / "my logs"), "-n", "1", "--gym-packages", "renamed"]
    with pytest.warns(UserWarning, match="gym_packages own_walks, which cannot be imported here.*python -m sb3_vpg in that"):
        assert main(evaluate) == 0
    forget_modules()
    (tmp_path / "walk_policies.py").unlink()
    with pytest.warns(UserWarning, match="own_walks"):
        assert main([*evaluate[:-1], "json"]) == 1
    message = capsys.readouterr().err
    assert re.search(r"config\.yml: policy walk_policies\.Policy cannot be imported here .* PYTHONPATH", message)
    forget_modules()
    for command in ("enjoy", "load_from_hub"):
        words = [command, "--env", ENV, "-f", str(project / "my logs"), "--gym-packages", "own_walks"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert main([*words, *(["-orga", "me"] if command == "load_from_hub" else [])]) == 1
        assert "or run python -m sb3_vpg in that folder" in capsys.readouterr().err


def test_classes_that_the_zoo_saved_are_imported(tmp_path: Path, importable: Path) -> None:
    """Classes from ``-params`` and Python files are saved as Python objects, which are imported as well."""
    (tmp_path / "config.yml").write_text("policy: !!python/name:walk_policies.Policy ''")
    assert import_modules_of(tmp_path) == []
    assert "walk_policies" in sys.modules
    (tmp_path / "config.yml").write_text("policy: !!python/name:nowhere.Policy ''")
    with pytest.raises(ValueError, match=r"(?s)config\.yml cannot be read, or names .*'nowhere'"):
        import_modules_of(tmp_path)


def test_a_new_process_finds_the_same_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shows.py").write_text("import sys; print(__name__, *sys.argv)")
    done = subprocess.run([*command_of("shows"), "a b", "-m"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"__main__ {tmp_path / 'shows.py'} a b -m\n"
