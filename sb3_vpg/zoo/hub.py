"""
``sb3-vpg push_to_hub`` and ``load_from_hub``: agents on the Hugging Face hub, in the zoo's conventions but without pickles.

The zoo's own programs share pickles, and want ``TRUST_REMOTE_CODE`` to read them. Ours push plain files, and read a repository
as a stranger's (see ``hub_files``). ``--local-hub FOLDER`` puts a folder in the place of the hub: to look before anything is
uploaded, and to share over a file system.
"""

import argparse
import datetime
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_sb3 import EnvironmentName, ModelName, ModelRepoId
from rl_zoo3 import create_test_env
from rl_zoo3.utils import get_latest_run_id, get_model_path
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg.archives import RefusedFileError
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.zoo import DEFAULT, OURS
from sb3_vpg.zoo.evaluation import evaluate_run
from sb3_vpg.zoo.films import film
from sb3_vpg.zoo.hub_card import Score, card
from sb3_vpg.zoo.hub_files import ARGS, CONFIG, ENV_KWARGS, METRICS, Repository, check_size, examine, files_wanted
from sb3_vpg.zoo.plain_yaml import is_foreign, read_plain
from sb3_vpg.zoo.registration import our_class, register

_CURVES = ("evaluations.npz", "*.monitor.csv")


def push_to_hub() -> None:
    """The command. Its arguments are ``sys.argv``."""
    args = _push_parser().parse_args()
    register()
    name = args.repo_name or ModelName(args.algo, args.env)
    repo_id = ModelRepoId(args.organization, name)
    with tempfile.TemporaryDirectory(prefix="sb3-vpg-hub-") as folder:
        package(Path(folder), args, repo_id)
        url = _upload(Path(folder), repo_id, args.commit_message, args.local_hub)
    print(f"Pushed to {url}")


def package(folder: Path, args: argparse.Namespace, repo_id: str) -> None:
    """
    Put together what a repository holds.

    :param folder: to fill
    :param args: of the command
    :param repo_id: organization and name
    :raises ValueError: if there is no such run, or if its model holds pickles
    """
    env_name: EnvironmentName = args.env
    try:
        _, model_path, run = get_model_path(args.exp_id, args.folder, args.algo, env_name, args.load_best)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"no agent to push: {error}") from error
    settings = Path(run) / env_name
    # Refused if it holds pickles: nobody could load it without trust
    steps = our_class(args.algo).load(model_path, device="cpu").num_timesteps
    shutil.copy(model_path, folder / ModelName(args.algo, env_name).filename)
    config, saved = read_plain(settings / CONFIG), read_plain(settings / ARGS)
    env_kwargs = {**config.get("env_kwargs", {}), **(saved.get("env_kwargs") or {})}
    _write_yaml(folder / CONFIG, {name: value for name, value in config.items() if not is_foreign(value)})
    known = {"algo": args.algo, "env": env_name.gym_id, "seed": saved.get("seed"), "n_timesteps": steps}
    _write_yaml(folder / ARGS, {**known, "env_kwargs": env_kwargs})
    _write_yaml(folder / ENV_KWARGS, env_kwargs)
    with zipfile.ZipFile(folder / METRICS, "w", zipfile.ZIP_DEFLATED) as archive:
        for curve in (one for pattern in _CURVES for one in sorted(Path(run).glob(pattern))):
            archive.write(curve, curve.name)
    score = _measure(args, steps)
    when = datetime.datetime.now().isoformat(timespec="seconds")
    results: dict[str, Any] = {"mean_reward": score.mean, "std_reward": score.std, "is_deterministic": score.deterministic}
    results |= {"n_eval_episodes": score.n_episodes, "eval_datetime": when, "seed": score.seed}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    text = card(args.algo, env_name.gym_id, repo_id, score, read_plain(folder / CONFIG), args.install)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / ".gitattributes").write_text("*.mp4 filter=lfs diff=lfs merge=lfs -text\n")
    if not args.no_render:
        choice = ["--exp-id", str(args.exp_id), *(["--load-best"] if args.load_best else [])]
        choice += ["--stochastic"] if args.stochastic else []
        made = film(args.algo, env_name.gym_id, args.folder, args.n_timesteps, choice)
        shutil.move(made, folder / "replay.mp4")
        made.parent.rmdir()


def _measure(args: argparse.Namespace, steps: int) -> Score:
    kwargs: dict[str, Any] = {"seed": args.seed, "load_best": args.load_best, "deterministic": not args.stochastic}
    result = evaluate_run(args.folder, args.algo, args.env.gym_id, args.exp_id, args.n_eval_episodes, **kwargs)
    mean, std = float(result.returns.mean()), float(result.returns.std())
    return Score(mean, std, len(result.returns), not args.stochastic, args.seed, steps)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=True))


def _upload(folder: Path, repo_id: str, message: str, local_hub: Path | None) -> str:
    if local_hub is not None:
        target = local_hub / repo_id
        with _made_whole(target, force=True) as part:
            shutil.copytree(folder, part, dirs_exist_ok=True)
        return str(target)
    api = HfApi()
    url = api.create_repo(repo_id=repo_id, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    return str(url)


def load_from_hub() -> None:
    """The command. Its arguments are ``sys.argv``."""
    args = _load_parser().parse_args()
    register()
    name = args.repo_name or ModelName(args.algo, args.env)
    repo_id = ModelRepoId(args.organization, name)
    runs = Path(args.folder) / args.algo
    number = args.exp_id or get_latest_run_id(str(runs), args.env) + 1
    run = runs / f"{args.env}_{number}" if number > 0 else runs
    if run.exists() and (not args.force or number < 0):
        raise ValueError(f"{run} exists already: use --force to replace it, or --exp-id 0 for the next number")
    model_name = ModelName(args.algo, args.env).filename
    with tempfile.TemporaryDirectory(prefix="sb3-vpg-hub-") as folder:
        found = examine(_download(repo_id, model_name, Path(folder), args.local_hub), model_name)
        with _made_whole(run, args.force) as part:
            unpack(found, part, args.algo, args.env, args.trust)
    print(f"Loaded {repo_id} into {run}")
    if found.dropped:
        print(f"Left out, because playing does not need them and the zoo would run them: {', '.join(found.dropped)}")
    where = "" if args.folder == "logs" else f" -f {args.folder}"
    print(
        f"Watch it with: sb3-vpg enjoy{'' if args.algo == DEFAULT else f' --algo {args.algo}'} --env {args.env.gym_id}{where}"
    )


def _download(repo_id: str, model_name: str, folder: Path, local_hub: Path | None) -> Path:
    """:return: a folder with the files of a repository that are read, none of them larger than its kind may be"""
    wanted = files_wanted(model_name)
    if local_hub is not None:
        repository = local_hub / repo_id
        if not repository.is_dir():
            raise ValueError(f"{local_hub} has no repository {repo_id}")
        return repository
    api = HfApi()
    for file in api.model_info(repo_id, files_metadata=True).siblings or ():
        if file.rfilename in wanted:
            check_size(f"{repo_id}: {file.rfilename}", file.size or 0, wanted[file.rfilename])
    return Path(api.snapshot_download(repo_id, local_dir=folder, allow_patterns=list(wanted)))


def unpack(found: Repository, run: Path, algo: str, env_name: EnvironmentName, trust: bool = False) -> None:
    """
    Write what was found into the folder of a run, and see whether the agent can play.

    :param found: looked at
    :param run: an empty folder
    :param algo: one of ours
    :param env_name: the user's, not the repository's
    :param trust: whether the model may be unpickled
    :raises RefusedFileError: if the model is damaged, holds pickles, or is none for this environment
    """
    kwargs: dict[str, Any] = {"trust": True} if trust else {}
    loaded = our_class(algo).load(found.model, device="cpu", **kwargs)
    settings, model = run / env_name, run / f"{env_name}.zip"
    settings.mkdir()
    shutil.copy(found.model, model)
    for name, content in found.metrics.items():
        (run / name).write_bytes(content)
    config = {**found.config, "env_kwargs": found.env_kwargs}
    _write_yaml(settings / CONFIG, config)
    _write_yaml(settings / ARGS, {"algo": algo, "env": env_name.gym_id, **found.args, "env_kwargs": found.env_kwargs})
    bare = {"normalize": False, **{name: config[name] for name in ("env_wrapper",) if name in config}}
    env: VecEnv = create_test_env(
        env_name.gym_id, should_render=False, hyperparams=bare, env_kwargs=found.env_kwargs, vec_env_cls=DummyVecEnv
    )
    try:
        if config.get("normalize"):
            load_vec_normalize(found.model, env).save(str(settings / "vecnormalize.pkl"))
        _check_plays(loaded, env, config.get("frame_stack", 0), env_name)
        if trust:
            # Without its pickles, where it has none that is needed
            loaded.save(model)
    finally:
        env.close()


def _check_plays(model: Any, env: VecEnv, frames: int, env_name: EnvironmentName) -> None:
    shape, needed = env.observation_space, model.observation_space
    # Frames are stacked on top, which changes shapes and nothing else
    if (shape != needed and not frames) or env.action_space != model.action_space:
        raise RefusedFileError(
            f"the model plays {needed} with {model.action_space}, but {env_name.gym_id} has {shape} with {env.action_space}; "
            "it was trained on another environment"
        )


@contextmanager
def _made_whole(target: Path, force: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``target`` when all went well; else nothing has changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as folder:
        part = Path(folder) / "new"
        part.mkdir()
        yield part
        if target.exists() and force:
            target.rename(Path(folder) / "old")
        part.rename(target)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--algo", choices=list(OURS), default=DEFAULT, help="one of ours; the zoo's own: python -m rl_zoo3.…")
    parser.add_argument("--env", type=EnvironmentName, required=True, help="environment ID")
    parser.add_argument("-f", "--folder", default="logs", help="log folder")
    parser.add_argument("-orga", "--organization", required=True, help="organization or user on the hub")
    parser.add_argument("-name", "--repo-name", help="name of the repository (default: ALGO-ENV)")
    parser.add_argument("--exp-id", type=int, default=0, help="experiment ID (default: 0: the latest; loading: the next)")
    parser.add_argument("--local-hub", type=Path, metavar="FOLDER", help="a folder in the place of the hub")
    return parser


def _push_parser() -> argparse.ArgumentParser:
    parser = _parser("Score and film a trained agent, and share it on the Hugging Face hub.")
    parser.add_argument("-n", "--n-timesteps", type=int, default=1000, help="steps of the video (default: %(default)s)")
    parser.add_argument("--no-render", action="store_true", help="no video")
    parser.add_argument("--n-eval-episodes", type=int, default=100, help="episodes to score it by (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the environments that it is scored in (default: 0)")
    parser.add_argument("--load-best", action="store_true", help="the best model of the training's evaluations")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the likeliest")
    parser.add_argument("-m", "--commit-message", default="Initial commit", help="commit message")
    parser.add_argument("--install", default="sb3-vpg", help="what the card tells pip to install (default: %(default)s)")
    return parser


def _load_parser() -> argparse.ArgumentParser:
    parser = _parser("Load an agent from the Hugging Face hub into the log folder, running none of its author's code.")
    parser.add_argument("--force", action="store_true", help="replace the run of --exp-id if there is one")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="unpickle a model of SB3's own making, which runs whatever its author has put there",
    )
    return parser
