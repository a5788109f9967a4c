"""The command ``sb3-vpg best_entry``, which writes the best trial of a search as an entry of a hyperparameter file."""

import inspect
from textwrap import indent
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from torch import nn

from sb3_vpg.zoo.advice import command_line
from sb3_vpg.zoo.algorithms import ALGORITHMS, VPG_ALGORITHMS, algorithm_class
from sb3_vpg.zoo.tuning.flags import best_entry_parser
from sb3_vpg.zoo.tuning.study import StudyOrigin, count_trials, load_study
from sb3_vpg.zoo.tuning.yaml_editor import write_entry

# An entry begins with these; the others are sorted
_FIRST = ("n_envs", "n_timesteps", "policy")
# Without effect if there is no critic
_CRITIC = ("vf_learning_rate", "n_critic_updates", "batch_size")
# Without effect if there is no critic and rollouts are complete episodes
_FIXED_LENGTH = ("n_steps", "gae_lambda")
_SCALARS = (bool, int, float, str, type(None))


def best_entry() -> None:
    """The command. Its arguments are ``sys.argv``."""
    args = best_entry_parser().parse_args()
    with load_study(args.storage, args.study_name) as study:
        env_id, text = entry_text(study)
        origin = StudyOrigin.read(study)
    if args.output is None:
        print(text, end="")
        return
    write_entry(args.output, env_id, text, args.force)
    flags = ["-conf", str(args.output), *(["--gym-packages", *origin.gym_packages] if origin.gym_packages else [])]
    print(f"{args.output} has the entry. Train with it: {command_line('train', origin.algo, env_id, *flags)}")


def entry_text(study: optuna.Study) -> tuple[str, str]:
    """
    :param study: a study of ``sb3-vpg optimize``
    :return: environment id, and the best trial as the text of an entry
    :raises ValueError: if no trial was completed, if YAML cannot express its hyperparameters, or if another program created
        the study
    """
    origin = StudyOrigin.read(study)
    if origin.entry is None:
        raise ValueError(
            f"study {study.study_name!r} began with hyperparameters that YAML cannot express (Python objects, given by "
            "-params): search again from a file that has them as text, or copy the values under 'Params' by hand"
        )
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(f"study {study.study_name!r} has no completed trial yet")
    trial = study.best_trial
    hyperparams = best_hyperparams(origin, trial)
    comment = "".join(f"# {line}\n" for line in _comment_lines(study, trial))
    lines = yaml.safe_dump(hyperparams, sort_keys=False, default_flow_style=False, width=1000)
    return origin.env_id, f"{yaml.safe_dump(origin.env_id).splitlines()[0]}:\n{indent(comment + lines, '  ')}"


def best_hyperparams(origin: StudyOrigin, trial: FrozenTrial) -> dict[str, Any]:
    """
    :param origin: what the search began with
    :param trial: a trial of the search
    :return: the hyperparameters that the trial was trained with, without those that have no effect
    :raises ValueError: if YAML cannot express a value
    """
    drawn = {name: as_text(name, value) for name, value in _converted(origin, trial.params).items()}
    entry = {**(origin.entry or {}), **drawn}
    if "n_timesteps" in trial.user_attrs:
        entry["n_timesteps"] = trial.user_attrs["n_timesteps"]
    if origin.algo in ALGORITHMS:
        parameters = inspect.signature(algorithm_class(origin.algo)).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        # A drawn default needs no line here, although it may have overruled the entry that the search began with
        entry = {name: value for name, value in entry.items() if name not in drawn or defaults.get(name, ...) != value}
    if origin.algo in VPG_ALGORITHMS and entry.get("baseline", "value") != "value":
        unused = _CRITIC if entry.get("n_episodes") is None else (*_CRITIC, *_FIXED_LENGTH)
        entry = {name: value for name, value in entry.items() if name not in unused}
    return {name: entry[name] for name in (*_FIRST, *sorted(entry.keys() - {*_FIRST})) if name in entry}


def _converted(origin: StudyOrigin, params: dict[str, Any]) -> dict[str, Any]:
    if origin.algo not in HYPERPARAMS_CONVERTER:
        raise ValueError(f"rl_zoo3 cannot convert the trials of --algo {origin.algo} to hyperparameters")
    converted: dict[str, Any] = HYPERPARAMS_CONVERTER[origin.algo](params)
    return converted


def as_text(name: str, value: Any) -> Any:
    """
    Convert the value of a hyperparameter for the zoo's YAML files: numbers and strings stay, other values become Python code.

    :raises ValueError: if there is no such code
    """
    return value if isinstance(value, _SCALARS) else _python(name, value)


def _python(name: str, value: Any) -> str:
    if isinstance(value, _SCALARS) or type(value) in (list, tuple):
        return repr(value)
    if isinstance(value, dict) and all(isinstance(key, str) and key.isidentifier() for key in value):
        return f"dict({', '.join(f'{key}={_python(name, inner)}' for key, inner in value.items())})"
    layer = getattr(value, "__name__", "")
    if getattr(nn, layer, None) is value:
        return f"nn.{layer}"
    raise ValueError(f"YAML cannot express {name}={value!r:.200}")


def _comment_lines(study: optuna.Study, trial: FrozenTrial) -> list[str]:
    """:return: comments that say which search and trial the entry comes from, without a date"""
    trials = study.get_trials(deepcopy=False)
    n_episodes, steps = (trial.user_attrs.get(name) for name in ("n_eval_episodes", "n_timesteps"))
    seeds = sorted({other.user_attrs["seed"] for other in trials if "seed" in other.user_attrs})
    counts = count_trials(study)
    return [
        f"Best of {len(trials)} trials ({counts}) of sb3-vpg optimize, study {study.study_name}: trial {trial.number}",
        f"Mean return of its last evaluation, over {n_episodes or '?'} episodes: {trial.value:.6g}. This is the best of many "
        "single runs and partly luck: try other seeds",
        f"Budget of a trial: {steps if steps is None else f'{steps:,}'} steps. Seeds of the environments: "
        f"{', '.join(map(str, seeds)) or 'unknown'}",
    ]
