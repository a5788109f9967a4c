"""``sb3-vpg export``: write the agent of a run to one file."""

from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName, ModelName
from rl_zoo3 import get_saved_hyperparams

from sb3_vpg.export import export
from sb3_vpg.export.api import FORMATS
from sb3_vpg.export.programs import check_extra
from sb3_vpg.zoo.agents.flags import N_ENVS, export_parser
from sb3_vpg.zoo.agents.play_env import create_env_of_run, saved_argument
from sb3_vpg.zoo.agents.trained_agents import find_model
from sb3_vpg.zoo.algorithms import algorithm_class
from sb3_vpg.zoo.registration import register


def export_run(
    folder: str,
    algo: str,
    env_id: str,
    file: Path | None = None,
    exp_id: int = 0,
    load_best: bool = False,
    format: str = "onnx",
    stochastic: bool = False,
    n_checked: int = 1000,
    seed: int = 0,
) -> Path:
    """
    Export a model that ``train`` has written, for the environment that it was trained in.

    :param folder: log folder, the ``-f`` of ``train``
    :param algo: name of one of our algorithms on the command line
    :param env_id: environment id
    :param file: to write; None: ``ALGO-ENV.onnx`` or ``.pt2`` in the current folder
    :param exp_id: number of the run, 0 for the latest
    :param load_best: take the best model of the training's evaluations instead of the last
    :param format: ``"onnx"`` or ``"torch"``
    :param stochastic: see ``sb3_vpg.export.export``
    :param n_checked: see ``sb3_vpg.export.export``
    :param seed: of the environments in which the file is compared with the model
    :return: the file
    :raises ValueError: if there is no such run, and see ``sb3_vpg.export.export``
    """
    if format == "onnx":
        check_extra()
    register()
    path, _ = find_model(folder, algo, env_id, exp_id, load_best)
    file = file or Path(f"{ModelName(algo, EnvironmentName(env_id))}{FORMATS[format]}")
    env = create_env_of_run(env_id, path, N_ENVS["dummy"], seed)
    try:
        model = algorithm_class(algo).load(path, device="cpu")
        return export(model, file, env, format, stochastic, n_checked, _environment(env_id, path))
    finally:
        env.close()


def _environment(env_id: str, model: Path) -> dict[str, Any]:
    """Return what the metadata say of the environment of a run."""
    settings = model.parent / EnvironmentName(env_id)
    hyperparams, _ = get_saved_hyperparams(str(settings), test_mode=True)
    kwargs = {**(hyperparams.get("env_kwargs") or {}), **(saved_argument(settings, "env_kwargs") or {})}
    return {"id": env_id, "kwargs": kwargs, "wrappers": hyperparams.get("env_wrapper") or []}


def export_agent() -> None:
    """Run the command ``export`` with the arguments in ``sys.argv``."""
    args = export_parser().parse_args()
    n, how = args.n_observations, {"format": args.format, "stochastic": args.stochastic, "seed": args.seed}
    file = export_run(args.folder, args.algo, args.env, args.output, args.exp_id, args.load_best, n_checked=n, **how)
    checked = f"acts as the agent on {n:,} observations" if n else "was not compared with the agent"
    print(f"Saved {file} ({file.stat().st_size / 1024:,.0f} kB), which {checked}")
