"""Bad input to the command line ends in one line of text and exit code 1, and loses nothing."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_vpg import VPG
from sb3_vpg.zoo.cli import main

POISON_AFTER = 700
# When a model is refused, the zoo leaves its monitor files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*monitor.csv:pytest.PytestUnraisableExceptionWarning")


class PoisonedCartPole(gym.Wrapper):
    """CartPole whose rewards are NaN after ``POISON_AFTER`` steps, counted over all episodes."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.n_steps = 0

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.n_steps += 1
        return observation, np.nan if self.n_steps > POISON_AFTER else reward, terminated, truncated, info


@pytest.fixture(autouse=True, scope="module")
def _poisoned_env():
    gym.register("PoisonedCartPole-v0", lambda: PoisonedCartPole())
    yield
    del gym.registry["PoisonedCartPole-v0"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """:return: the text on stderr, which must not be a traceback"""
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.startswith(f"sb3-vpg {arguments[0]}: ")
    return message


def train(tmp_path: Path, *arguments: str) -> list[str]:
    return ["train", "--verbose", "0", "-n", "600", "--eval-freq", "-1", "-f", str(tmp_path / "logs"), *arguments]


def test_unknown_env(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "CartPole-v1" in refused(train(tmp_path, "--env", "CartPol-v1"), capsys)
    assert "--gym-packages MODULE" in refused(train(tmp_path, "--env", "Unheard-v0"), capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CartPole-v1: [unclosed", "not a readable YAML"),
        ("just a sentence", "must map environment ids"),
        ("CartPole-v1: 3", "must map environment ids"),
        ("CartPole-v1: {policy: MlpPolicy}", "needs 'n_timesteps'"),
        ("CartPole-v1: {n_timesteps: 600}", "needs 'policy'"),
        ("CartPole-v1: {policy: MlpPolicy, n_timesteps: 600, n_step: 5}", "did you mean 'n_steps'"),
        ("CartPole-v1: {policy: MlpPolicy, n_timesteps: 600, vf_coef: 0.5}", "vf_learning_rate"),
        ("CartPole-v1: {policy: MlpPolicy, n_timesteps: 600, n_steps: 64.5}", "n_steps must be a whole number"),
        ("CartPole-v1: {policy: MlpPolicy, n_timesteps: 600, gamma: -1}", "gamma must be between"),
        ("CartPole-v1: {policy_kwargs: 'dict(x=[', policy: MlpPolicy, n_timesteps: 600}", "policy_kwargs is 'dict(x=['"),
        ("CartPole-v1: {normalize: 'dict(x=y)', policy: MlpPolicy, n_timesteps: 600}", "normalize is 'dict(x=y)'"),
        (
            "CartPole-v1: {policy_kwargs: 'dict(activation_fn=ReLU)', policy: MlpPolicy, n_timesteps: 600}",
            "the name 'ReLU' is unknown: the text can use nn and the other names that the zoo imports. Write classes and "
            "functions of your own in a Python file that sets hyperparams = {...}, given with -conf conf.py",
        ),
        ("CartPole-v1: {policy: nowhere_nets.Policy, n_timesteps: 600}", "or run python -m sb3_vpg in that folder"),
        ("CartPole-v1: {policy: sb3_vpg.policies.Nothing, n_timesteps: 600}", "the module sb3_vpg.policies has no Nothing"),
        (
            "CartPole-v1: {policy: MlpPolicy, policy_kwargs: {f: !!python/name:mynets.Feat }, n_timesteps: 600}",
            "names a Python object, which is not supported in YAML",
        ),
        ("CartPole-v1: {policy: MlpLstmPolicy, n_timesteps: 600}", "RecurrentVPG"),
        ("Acrobot-v1: {policy: MlpPolicy, n_timesteps: 600}", "not found for vpg-CartPole-v1"),
    ],
    ids=lambda value: value[:30].replace(" ", "_"),
)
def test_unusable_hyperparameter_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    file = tmp_path / "conf.yml"
    file.write_text(text)
    assert said in refused(train(tmp_path, "-conf", str(file)), capsys)


def test_binary_hyperparameter_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "conf.yml"
    file.write_bytes(b"\xff\xfe\x00\x80")
    assert "not a readable YAML" in refused(train(tmp_path, "-conf", str(file)), capsys)


def test_missing_hyperparameter_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yml" in refused(train(tmp_path, "-conf", str(tmp_path / "nowhere.yml")), capsys)


@pytest.mark.parametrize("command", ["enjoy", "evaluate"])
def test_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    message = refused([command, "-f", str(tmp_path / "nothing")], capsys)
    assert message.startswith(
        f"sb3-vpg {command}: ValueError: The {tmp_path / 'nothing/vpg'} folder was not found; name another"
    )


def test_missing_run_with_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs/vpg").mkdir(parents=True)
    message = refused(["enjoy", "-f", str(tmp_path / "logs"), "--exp-id", "7"], capsys)
    assert "CartPole-v1_7 folder was not found; name another log folder with -f, or another run with --exp-id" in message


def test_a_python_file_can_hold_python_objects(tmp_path: Path) -> None:
    """A Python file given with ``-conf``, as the error messages advise, trains with Python objects."""
    conf = tmp_path / "conf.py"
    entry = "dict(policy='MlpPolicy', n_timesteps=600, policy_kwargs=dict(activation_fn=ReLU))"
    conf.write_text(f"from torch.nn import ReLU\nhyperparams = {{'CartPole-v1': {entry}}}\n")
    assert main(train(tmp_path, "-conf", str(conf))) == 0
    assert VPG.load(tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1").policy.activation_fn is th.nn.ReLU


def test_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs/vpg/CartPole-v1_1").mkdir(parents=True)
    assert "CartPole-v1_1, has no model" in refused(["evaluate", "-f", str(tmp_path / "logs")], capsys)


def test_the_traceback_flag_shows_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not found in gym registry"):
        main(train(tmp_path, "--env", "CartPol-v1", "--traceback"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-params", "policy_kwargs:dict(net_ach=[8])"], "TypeError"),
        (["-params", "n_envs:0"], "n_envs must be at least 1"),
        (["-params", "n_envs:2.0"], "n_envs must be a whole number"),
        (["-params", "seed:1"], "unexpected keyword argument 'seed'"),
        (["-params", "learning_rate:'exp_0.1'"], "learning_rate must be a number, a schedule or"),
        (["-params", "normalize_advantage:'False'"], "normalize_advantage must be True or False"),
        (["--env-kwargs", "foo:1"], "foo"),
        (["--env-kwargs", "foo:[1"], "--env-kwargs foo:[1: Python cannot evaluate the value (SyntaxError"),
        (
            ["-params", "gamma:0.9", "policy:MlpPolicy"],
            "policy:MlpPolicy: the name 'MlpPolicy' is unknown. Put quotes",
        ),
        (["-params", "policy_kwargs:dict(net_arch=Mine)"], "the name 'Mine' is unknown. Put"),
        (["-params", "policy:'nowhere_nets.Policy'"], "policy nowhere_nets.Policy cannot be imported here (No module named"),
        (["-params", "policy:'sb3_vpg.policies.Nothing'"], "but the module sb3_vpg.policies has no Nothing"),
        (["-params", "env_wrapper:[{'nowhere.Wrapper':{'a':1}}]"], "env_wrapper nowhere.Wrapper cannot be imported here"),
        (["--gym-packages", "nowhere_envs"], "No module named 'nowhere_envs'; if the module is yours, add the folder"),
        (["--device", "gpu"], "device must be"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    message = refused(train(tmp_path, *flags), capsys)
    assert said in message
    report = Path(message.split("the traceback is in ")[1].strip().rstrip(")"))
    assert "Traceback (most recent call last)" in report.read_text()
    report.unlink()


@pytest.mark.parametrize(
    "later", [["train", "-params", "gamma:5"], ["optimize", "--n-trials", "1"]], ids=lambda value: value[0]
)
def test_a_training_without_a_model_leaves_no_folder(tmp_path: Path, later: list[str]) -> None:
    """The latest run is the folder with the highest number, so a refused training and a search must leave no folder."""
    common = ["--verbose", "0", "-n", "300", "--eval-freq", "-1", "-f", str(tmp_path / "logs"), "--no-optim-plots"]
    assert main(["train", *common]) == 0
    main([*later, *common])
    assert [folder.name for folder in (tmp_path / "logs/vpg").iterdir() if folder.is_dir()] == ["CartPole-v1_1"]
    assert main(["evaluate", "-n", "1", "-f", str(tmp_path / "logs")]) == 0


def test_yaml_texts_that_are_numbers(tmp_path: Path) -> None:
    """YAML reads 1e-3 and 6e2 as strings, which are converted to numbers."""
    conf = tmp_path / "conf.yml"
    conf.write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 6e2, learning_rate: 1e-3}")
    arguments = ["train", "--verbose", "0", "--eval-freq", "-1", "-f", str(tmp_path / "logs"), "-conf", str(conf)]
    assert main(arguments) == 0


def test_evaluate_shows_the_score_even_if_the_picture_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(train(tmp_path)) == 0
    (tmp_path / "logs/vpg/CartPole-v1_1/learning_curve.png").mkdir()
    assert main(["evaluate", "-n", "2", "-f", str(tmp_path / "logs")]) == 1
    assert "Return over 2 episodes" in capsys.readouterr().out


def test_divergence_saves_the_last_good_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If a reward becomes NaN during training, the message says so, and a model with finite weights is saved."""
    settings = ["-params", "n_envs:1", "n_steps:128"]
    arguments = train(tmp_path, "--env", "PoisonedCartPole-v0", *settings, "-n", "2000")
    message = refused(arguments, capsys)
    assert "iteration 6" in message, "rollouts 1 to 5 cover 640 steps, the sixth reaches past 700"
    assert "the reward of environment 0 is nan" in message
    model = VPG.load(tmp_path / "logs/vpg/PoisonedCartPole-v0_1/PoisonedCartPole-v0.zip")
    assert model._n_updates == 5
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in model.policy.parameters())


def test_exp_id_is_the_number_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number that a run already has is refused, so runs that start at the same time cannot share a folder."""
    arguments = train(tmp_path, "--env", "CartPole-v1", "--exp-id", "7")
    assert main(arguments) == 0
    runs = tmp_path / "logs/vpg"
    assert [run.name for run in runs.iterdir()] == ["CartPole-v1_7"]
    before = (runs / "CartPole-v1_7/CartPole-v1.zip").read_bytes()
    assert "--resume 7" in refused(arguments, capsys)
    assert (runs / "CartPole-v1_7/CartPole-v1.zip").read_bytes() == before
    assert "--exp-id" in refused([*arguments, "--resume"], capsys)
    assert "--uuid" in refused([*arguments, "--uuid"], capsys)
