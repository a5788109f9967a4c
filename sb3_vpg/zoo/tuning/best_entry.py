"""``sb3-vpg best_entry``: the best trial of a search as an entry of a hyperparameter file, which trains as it stands."""

import argparse
import inspect
from pathlib import Path
from textwrap import indent
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from torch import nn

from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, algorithm_class
from sb3_vpg.zoo.commands import command
from sb3_vpg.zoo.tuning.study import StudyOrigin, loaded
from sb3_vpg.zoo.tuning.yaml_editor import with_entry

_FIRST = ("n_envs", "n_timesteps", "policy")
# Of no effect where there is no critic, and with whole episodes
_CRITIC = ("vf_learning_rate", "n_critic_updates", "batch_size")
_FIXED_LENGTH = ("n_steps", "gae_lambda")
_PLAIN = (bool, int, float, str, type(None))


def best_entry() -> None:
    """The command. Its arguments are ``sys.argv``."""
    args = _parser().parse_args()
    with loaded(args.storage, args.study_name) as study:
        env_id, text = entry_text(study)
        begun = StudyOrigin.read(study)
    if args.output is None:
        print(text, end="")
        return
    with_entry(args.output, env_id, text, args.force)
    more = ["-conf", str(args.output), *(["--gym-packages", *begun.gym_packages] if begun.gym_packages else [])]
    print(f"{args.output} has the entry. Train with it: {command('train', begun.algo, env_id, *more)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write the best trial of a search as an entry of a hyperparameter file.")
    parser.add_argument(
        "--storage", required=True, help="that of optimize: a journal file (.log), or a URL like sqlite:///FILE"
    )
    parser.add_argument("--study-name", help="that of optimize; may be left out if the storage has one study only")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="YAML file to add the entry to (default: print it)")
    parser.add_argument("--force", action="store_true", help="replace an entry of the same environment")
    return parser


def entry_text(study: optuna.Study) -> tuple[str, str]:
    """
    :param study: of ``sb3-vpg optimize``
    :return: environment id, and the lines of the entry
    :raises ValueError: if no trial was completed, or if no text can say what it was trained with
    """
    begun = StudyOrigin.read(study)
    if begun.entry is None:
        raise ValueError(
            f"study {study.study_name!r} began with hyperparameters that no YAML file can say (Python objects, given by "
            "-params): search again from a file that has them as text, or take the values of 'Params' by hand"
        )
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ValueError(f"study {study.study_name!r} has no completed trial yet")
    trial = study.best_trial
    hyperparams = best_hyperparams(begun, trial)
    comment = "".join(f"# {line}\n" for line in _remarks(study, trial))
    lines = yaml.safe_dump(hyperparams, sort_keys=False, default_flow_style=False, width=1000)
    return begun.env_id, f"{yaml.safe_dump(begun.env_id).splitlines()[0]}:\n{indent(comment + lines, '  ')}"


def best_hyperparams(begun: StudyOrigin, trial: FrozenTrial) -> dict[str, Any]:
    """
    :param begun: what the search began with
    :param trial: one of its trials
    :return: the entry that says what the trial was trained with, without what has no effect
    :raises ValueError: if no text can say it
    """
    drawn = {name: as_text(name, value) for name, value in _converted(begun, trial.params).items()}
    entry = {**(begun.entry or {}), **drawn}
    if "n_timesteps" in trial.user_attrs:
        entry["n_timesteps"] = trial.user_attrs["n_timesteps"]
    if begun.algo in ALGORITHMS:
        defaults = {
            name: parameter.default for name, parameter in inspect.signature(algorithm_class(begun.algo)).parameters.items()
        }
        # Only said to overrule what the entry might say
        entry = {name: value for name, value in entry.items() if name not in drawn or defaults.get(name, ...) != value}
    if begun.algo == DEFAULT_ALGORITHM and entry.get("baseline", "value") != "value":
        idle = _CRITIC if entry.get("n_episodes") is None else (*_CRITIC, *_FIXED_LENGTH)
        entry = {name: value for name, value in entry.items() if name not in idle}
    return {name: entry[name] for name in (*_FIRST, *sorted(entry.keys() - {*_FIRST})) if name in entry}


def _converted(begun: StudyOrigin, params: dict[str, Any]) -> dict[str, Any]:
    if begun.algo not in HYPERPARAMS_CONVERTER:
        raise ValueError(f"--algo {begun.algo} has no way from its trials to hyperparameters in rl_zoo3")
    converted: dict[str, Any] = HYPERPARAMS_CONVERTER[begun.algo](params)
    return converted


def as_text(name: str, value: Any) -> Any:
    """
    :param name: of a hyperparameter
    :param value: which a trial was trained with
    :return: what the zoo's files hold for it: plain data, or for the arguments of a policy Python as text
    :raises ValueError: if there is no such thing
    """
    return value if isinstance(value, _PLAIN) else _python(name, value)


def _python(name: str, value: Any) -> str:
    if isinstance(value, _PLAIN) or type(value) in (list, tuple):
        return repr(value)
    if isinstance(value, dict) and all(isinstance(key, str) and key.isidentifier() for key in value):
        return f"dict({', '.join(f'{key}={_python(name, inner)}' for key, inner in value.items())})"
    layer = getattr(value, "__name__", "")
    if getattr(nn, layer, None) is value:
        return f"nn.{layer}"
    raise ValueError(f"no YAML file can say {name}={value!r:.200}")


def _remarks(study: optuna.Study, trial: FrozenTrial) -> list[str]:
    """:return: where the entry comes from, without a date"""
    states = [other.state for other in study.get_trials(deepcopy=False)]
    known, steps = trial.user_attrs, trial.user_attrs.get("n_timesteps")
    seeds = sorted({other.user_attrs["seed"] for other in study.get_trials(deepcopy=False) if "seed" in other.user_attrs})
    kinds = ", ".join(f"{states.count(state)} {state.name.lower()}" for state in TrialState if states.count(state))
    return [
        f"Best of {len(states)} trials ({kinds}) of sb3-vpg optimize, study {study.study_name}: trial {trial.number}",
        f"Mean return of its last evaluation, over {known.get('n_eval_episodes', '?')} episodes: {trial.value:.6g}. It is the "
        "best of many single runs, so luck is in it: try other seeds",
        f"Budget of a trial: {steps if steps is None else f'{steps:,}'} steps. Seeds of the environments: "
        f"{', '.join(map(str, seeds)) or 'unknown'}",
    ]
