"""Real processes that are stopped, killed, interrupted and refused, and what they print and write."""

from pathlib import Path

import numpy as np
import pytest
from forked_processes import codes, output, run_program
from shared_scenarios import REFUSALS, ZOO_REFUSALS

from sb3_vpg import VPG
from sb3_vpg.checkpoints.files import checkpoints_in, latest, progress
from sb3_vpg.normalization import load_vec_normalize

PROGRAM = Path(__file__).parents[1] / "support/shared_scenarios.py"
WORDS = {
    "unequal shares": ("process 0 has 2, process 1 has 3", "make_vec_env(env_id, n_envs=6)"),
    "equal seeds": ("processes 0 and 1 have environments with the same random state", "env.seed("),
    "other settings": ("their gamma differ: 0.9, 0.91",),
    "other step sizes": ("their learning_rate differ: 0.001, 0.002",),
    "one normalizes": ("their wrappers differ", "VecNormalize"),
    "one checkpoint": ("process 0 has the callbacks ['TrainingCheckpoint']", "give them to each process"),
    "one hook": ("NumPy computes the policy's networks in the processes [1]", "Change it in each"),
    "RandomSearch": ("without torchrun",),
    "gSDE": ("global random stream", "without torchrun"),
    "dropout": ("Dropout", "LayerNorm"),
    "not divisible": ("n_envs=3 environments cannot be divided equally among 2 processes", "1 or 3 processes"),
}
ZOO_WORDS = {
    "optimize": "start it without torchrun",
    "evaluate": "start it without torchrun",
    "search flag": "start optimize without torchrun",
    "vec-env": "leave it out",
    "algo": "use --algo vpg",
    "n_envs": "1 or 3 processes",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_program(PROGRAM, tmp_path_factory.mktemp("runs"))


def result(runs: Path, name: str) -> tuple[np.ndarray, int]:
    written = np.load(runs / name / "result.npz")
    return written["weights"], int(written["timesteps"])


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_way_out(runs: Path, name: str) -> None:
    """Every process refuses what cannot be the training of a single process."""
    assert codes(runs, name) == [0, 0]
    for process in (0, 1):
        text = output(runs, name, process)
        assert text.startswith("ValueError: ")
        for word in WORDS[name]:
            assert word in text


@pytest.mark.parametrize("name", ZOO_REFUSALS)
def test_command_line_refuses_once(runs: Path, name: str) -> None:
    """Both processes end with an error, but only the first prints it. No folder of a run is left behind."""
    assert codes(runs, f"zoo {name}") == [1, 1]
    assert ZOO_WORDS[name] in output(runs, f"zoo {name}").splitlines()[-1]
    assert output(runs, f"zoo {name}", 1) == ""
    assert not (runs / "refused").exists()


def test_others_are_silent(runs: Path) -> None:
    """The first process logs, evaluates, writes and shows progress of all steps; the second does none of these."""
    assert codes(runs, "loud") == [0, 0]
    text = output(runs, "loud")
    assert "Using cpu device" in text
    assert "total_timesteps | 1536" in text
    assert "Eval num_timesteps=" in text
    assert "1,536/1,536" in text
    assert output(runs, "loud", 1) == ""
    files = [path.relative_to(runs / "loud") for path in (runs / "loud").rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} == {"output_0.txt", "output_1.txt", "tensorboard", "eval", "models_0"}
    assert len([path for path in files if path.parts[0] == "tensorboard"]) == 1


@pytest.mark.parametrize("kind", ["steps", "episodes"])
def test_callback_of_one_process_stops_all_at_its_step(runs: Path, kind: str) -> None:
    """Number of steps and weights are those of a single process that stops at this step."""
    weights, n_steps = result(runs, f"stop {kind} 2")
    expected, expected_steps = result(runs, f"stop {kind} 1")
    assert n_steps == expected_steps == 808
    np.testing.assert_array_equal(weights, expected)


def test_processors_that_round_differently_do_not_drift_apart(runs: Path) -> None:
    """A difference between the processes' weights is gone after the next rollout: the first one's are taken."""
    first, second = (np.load(runs / f"drift/weights_{process}.npy") for process in (0, 1))
    assert [np.array_equal(*both) for both in zip(first, second, strict=True)] == [True, False, True]


def test_model_is_saved_with_the_environments_of_all(runs: Path) -> None:
    """As a single process saves it, so that ``leave_one_out`` finds the other environments."""
    plain, shared = (VPG.load(runs / f"zoo logs/vpg/CartPole-v1_{number}/CartPole-v1.zip") for number in (1, 2))
    assert shared.n_envs == plain.n_envs > 1


def test_death_of_a_process_ends_the_others_and_names_it(runs: Path) -> None:
    code, killed = codes(runs, "killed")
    assert killed == -9
    assert code == 1
    assert "ProcessLostError: process 1 of 2 (pid " in output(runs, "killed")


def test_run_resumes_with_other_processes(runs: Path) -> None:
    """Two processes are killed; four resume from the checkpoint and end as an unbroken run of two, with its statistics."""
    assert "Taking up training after 512 of 1,536 steps" in output(runs, "resumed")
    assert all(output(runs, "resumed", process) == "" for process in (1, 2, 3))
    weights, n_steps = result(runs, "resumed")
    expected, expected_steps = result(runs, "unbroken")
    assert n_steps == expected_steps
    np.testing.assert_array_equal(weights, expected)
    last = latest(runs / "resumed")
    assert last is not None
    assert progress(last) == (1536, 1536)
    assert load_vec_normalize(last, VPG("MlpPolicy", "Pendulum-v1").get_env()).obs_rms.count == pytest.approx(1536, abs=0.1)


def test_plain_program_does_not_resume_a_run_of_torchrun(runs: Path) -> None:
    text = output(runs, "plain resume")
    assert "belongs to a run under torchrun" in text
    assert "--nproc-per-node 1" in text


def test_command_line_trains_the_model_of_a_plain_run(runs: Path) -> None:
    """The same weights, evaluations and Monitor files; the same output but for times and the folder."""
    assert codes(runs, "zoo") == [0, 0]
    plain, shared = (runs / f"zoo logs/vpg/CartPole-v1_{number}" for number in (1, 2))
    first, second = (VPG.load(folder / "CartPole-v1.zip") for folder in (plain, shared))
    for one, other in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach(), other.detach())
    evaluations = [np.load(folder / "evaluations.npz")["results"] for folder in (plain, shared)]
    np.testing.assert_array_equal(*evaluations)
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*")} for folder in (plain, shared)]
    assert names[1] - names[0] == {"torchrun.txt"}
    assert names[0] <= names[1]
    for name in names[0]:
        if name.endswith("monitor.csv"):
            rows = [[row.split(",")[:2] for row in (folder / name).read_text().splitlines()[2:]] for folder in (plain, shared)]
            assert rows[0] == rows[1]
    assert output(runs, "zoo", 1) == ""


def test_restart_by_torchrun_goes_on_with_the_run_that_the_first_start_opened(runs: Path) -> None:
    """Without ``--resume``: the second process is killed, and torchrun starts the same command again."""
    assert codes(runs, "zoo killed") == [1, -9]
    assert "ProcessLostError: process 1 of 2" in output(runs, "zoo killed")
    assert codes(runs, "zoo restarted") == [0, 0]
    folder = runs / "accident/vpg/CartPole-v1_1"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert f"Taking up training after 1,024 of 3,000 steps, from {folder}" in output(runs, "zoo restarted")
    first, second = (VPG.load(path / "CartPole-v1.zip") for path in (runs / "zoo logs/vpg/CartPole-v1_1", folder))
    for one, other in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach(), other.detach())


def test_ctrl_c_saves_once_and_says_how_to_resume(runs: Path) -> None:
    """All processes finish the same rollout; the first saves a checkpoint and the model."""
    assert codes(runs, "zoo interrupted") == [130, 130]
    text = output(runs, "zoo interrupted")
    assert text.count("Saving to") == 1
    assert "Stopped by SIGINT after" in text.splitlines()[-1]
    assert "torchrun --nproc-per-node 2 -m sb3_vpg train" in text.splitlines()[-1]
    assert output(runs, "zoo interrupted", 1) == ""
    folder = runs / "zoo interrupted/logs/vpg/CartPole-v1_1"
    assert VPG.load(folder / "CartPole-v1.zip").num_timesteps == progress(checkpoints_in(folder / "checkpoints")[-1])[0]
