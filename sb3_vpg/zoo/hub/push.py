"""
``sb3-vpg push_to_hub``: share a trained agent on the hub, in the zoo's layout but without pickles.

The files are first loaded into a temporary log folder, as by ``load_from_hub``, and that agent is scored and filmed. So the
numbers on the card belong to the files beside it, and files that cannot be loaded are not pushed.
"""

import argparse
import json
import shutil
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch as th
from huggingface_sb3 import EnvironmentName, ModelName
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import get_model_path

from sb3_vpg.common.system_info import versions
from sb3_vpg.export.programs import missing_packages
from sb3_vpg.persistence.archives import DATA, STATISTICS, read_archive, read_members
from sb3_vpg.zoo.advice import command_line
from sb3_vpg.zoo.agents.evaluation import Evaluation, evaluate_run
from sb3_vpg.zoo.agents.export_run import export_run
from sb3_vpg.zoo.agents.videos import film
from sb3_vpg.zoo.algorithms import algorithm_class
from sb3_vpg.zoo.hub.flags import push_parser
from sb3_vpg.zoo.hub.local_run import make_run, repacked, write_yaml
from sb3_vpg.zoo.hub.model_card import CardSubject, card
from sb3_vpg.zoo.hub.remotes import open_hub, repository_id
from sb3_vpg.zoo.hub.repository import ARGS, CONFIG, ENV_KWARGS, METRICS, METRICS_SIZE, naming_repository, read_repository
from sb3_vpg.zoo.own_modules import import_modules_of, modules_named_by
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.safe_yaml import has_python_tag, read_yaml

_CARD, _RESULTS, _FILM = "README.md", "results.json", "replay.mp4"
_CURVES = ("evaluations.npz", "*.monitor.csv")
# Files that an earlier push, by us or by the zoo, may have left; those that are not written again are deleted
_NAMES = (_CARD, _RESULTS, _FILM, CONFIG, ARGS, ENV_KWARGS, METRICS, "vec_normalize.pkl")


def push_to_hub() -> None:
    """Run the command ``push_to_hub`` with the arguments in ``sys.argv``."""
    args = push_parser().parse_args()
    args.env = EnvironmentName(args.env)
    register()
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    repo_id = repository_id(args.algo, args.env, args.organization, args.repo_name)
    with tempfile.TemporaryDirectory(prefix="sb3-vpg-hub-") as folder:
        files, logs = Path(folder) / "files", Path(folder) / "logs"
        files.mkdir()
        score = package(files, logs, args, repo_id)
        stale = [name for name in (*_NAMES, _onnx_name(args)) if not (files / name).exists()]
        url = open_hub(args.local_hub).push(files, repo_id, args.commit_message, stale)
    print(f"Mean return {score.mean:.2f} +/- {score.std:.2f}: {score.how}")
    print(f"Pushed to {url}")


def package(files: Path, logs: Path, args: argparse.Namespace, repo_id: str) -> Evaluation:
    """
    Write the files of a repository.

    :param files: folder to fill
    :param logs: log folder into which the files are loaded, to be scored and filmed
    :param args: of the command
    :param repo_id: organization and name
    :return: the score of the agent
    :raises ValueError: if there is no such run, or if its model contains pickles
    """
    env_name: EnvironmentName = args.env
    left_out, packages = _copy_run(files, args)
    with naming_repository(
        repo_id, files, "load it in Python with trust=True, put plain values in their place, and save it again"
    ):
        repository = read_repository(files, args.algo, env_name)
        make_run(repository, logs / args.algo / f"{env_name}_1", args.algo, env_name, gym_packages=packages)
    left_out += repository.dropped
    if left_out:
        print(f"Left out, because it is not plain data or playing does not need it: {', '.join(left_out)}")
    how: dict[str, Any] = {"seed": args.seed, "deterministic": _is_deterministic(args), "device": args.device}
    score = evaluate_run(str(logs), args.algo, env_name.gym_id, 1, args.n_eval_episodes, **how)
    _write_results(files / _RESULTS, score)
    subject = CardSubject(args.algo, env_name.gym_id, repo_id, _model_in_words(args), repository, read_yaml(files / CONFIG))
    onnx = None if args.no_onnx else _write_onnx(files, logs, args, score.deterministic)
    (files / _CARD).write_text(card(subject, score, args.install, packages, onnx), encoding="utf-8")
    (files / ".gitattributes").write_text("*.mp4 filter=lfs diff=lfs merge=lfs -text\n")
    if not args.no_render:
        flags = ["--seed", str(args.seed), "--deterministic" if score.deterministic else "--stochastic"]
        video = film(args.algo, env_name.gym_id, str(logs), args.n_timesteps, flags)
        shutil.move(video, files / _FILM)
        shutil.rmtree(video.parent)
    return score


def _write_onnx(files: Path, logs: Path, args: argparse.Namespace, deterministic: bool) -> str | None:
    """Export the agent that was scored. Return the name of the file; None if the extra is missing or it cannot be exported."""
    if missing := missing_packages():
        print(f"No ONNX file, because {', '.join(missing)} is not installed: pip install 'sb3-vpg[export]'")
        return None
    file = files / _onnx_name(args)
    try:
        export_run(str(logs), args.algo, args.env.gym_id, file, 1, stochastic=not deterministic)
    except ValueError as error:
        print(f"No ONNX file: {error}")
        return None
    return file.name


def _onnx_name(args: argparse.Namespace) -> str:
    return f"{ModelName(args.algo, args.env)}.onnx"


def _copy_run(files: Path, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """
    Write the run's model, settings and learning curves.

    :return: names of the settings that are not plain data, and the modules to import before the model is loaded
    """
    env_name: EnvironmentName = args.env
    which = (args.load_best, args.load_checkpoint, args.load_last_checkpoint)
    try:
        _, model_path, run = get_model_path(args.exp_id, args.folder, args.algo, env_name, *which)
    except (AssertionError, ValueError) as error:
        train = command_line("train", args.algo, env_name.gym_id, folder=args.folder)
        raise ValueError(
            f"no agent to push in {args.folder}/{args.algo} ({error}); train one first ({train}), or name it: -f, --exp-id"
        ) from error
    packages = [*args.gym_packages, *import_modules_of(Path(run) / env_name)]
    model = algorithm_class(args.algo).load(model_path, device="cpu")
    # The model's own statistics: vecnormalize.pkl has those of the end of the run
    content = repacked(model, read_archive(model_path).get(STATISTICS))
    (files / ModelName(args.algo, env_name).filename).write_bytes(content)
    packages += modules_named_by(read_members(BytesIO(content), model_path)[DATA])
    config, saved = (read_yaml(Path(run) / env_name / name) for name in (CONFIG, ARGS))
    env_kwargs = {**(config.get("env_kwargs") or {}), **(saved.get("env_kwargs") or {}), **(args.env_kwargs or {})}
    if has_python_tag(env_kwargs):
        raise ValueError(f"env_kwargs are {env_kwargs}, which are not plain data; give plain values with --env-kwargs")
    left_out = [name for name, value in config.items() if has_python_tag(value)]
    plain = {name: value for name, value in config.items() if name not in left_out}
    write_yaml(files / CONFIG, {**plain, "env_kwargs": env_kwargs})
    known = {"algo": args.algo, "env": env_name.gym_id, "seed": saved.get("seed"), "n_timesteps": model.num_timesteps}
    write_yaml(files / ARGS, {**known, "env_kwargs": env_kwargs})
    write_yaml(files / ENV_KWARGS, env_kwargs)
    curves = [curve for pattern in _CURVES for curve in sorted(Path(run).glob(pattern))]
    if sum(curve.stat().st_size for curve in curves) > METRICS_SIZE:
        left_out, curves = [*left_out, "learning curves, which are too large"], []
    with zipfile.ZipFile(files / METRICS, "w", zipfile.ZIP_DEFLATED) as archive:
        for curve in curves:
            archive.write(curve, curve.name)
    return left_out, list(dict.fromkeys(packages))


def _model_in_words(args: argparse.Namespace) -> str:
    """Return which model of the run is pushed, as the card says it."""
    if args.load_best:
        return "the best model of the evaluations during training"
    is_checkpoint = args.load_checkpoint is not None or args.load_last_checkpoint
    return "a checkpoint" if is_checkpoint else "the model at the end of training"


def _is_deterministic(args: argparse.Namespace) -> bool:
    """Return True if the agent takes the likeliest actions: as in the zoo, by default except on Atari and MiniGrid."""
    env_id = args.env.gym_id
    sampled = ExperimentManager.is_atari(env_id) or ExperimentManager.is_minigrid(env_id)
    return not args.stochastic and (args.deterministic or not sampled)


def _write_results(path: Path, score: Evaluation) -> None:
    results = {
        "mean_reward": score.mean,
        "std_reward": score.std,
        "is_deterministic": score.deterministic,
        "n_eval_episodes": len(score.returns),
        "eval_datetime": score.when,
        # The zoo's file has only the values above
        "seed": score.seed,
        "n_envs": score.n_envs,
        "versions": versions(),
    }
    path.write_text(json.dumps(results, indent=2) + "\n")
