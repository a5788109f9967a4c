"""
The search space of ``sb3-vpg optimize`` for VPG.

It is conditional: a hyperparameter that the baseline does not use is not drawn, and no combination is drawn that VPG refuses.
Numbers are rounded to three digits, so that a YAML file can hold exactly what a trial was trained with.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial, FixedTrial
from torch import nn

BASELINES = ("value", "average", "leave_one_out", "none")
N_ENVS = (1, 2, 4, 8, 16)
ENTRY_UNCHANGED = "trains the entry as it stands"
"""User attribute of a trial that draws nothing and trains the entry that the search began with."""
_BATCH_SIZES = ("all", 64, 256, 1024)
_ENT_COEFS = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03)
_NETWORKS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
# Other policies keep their own networks
_SIZED_POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")


def sample_vpg_params(trial: BaseTrial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw the hyperparameters of one trial.

    :param trial: the trial, which stores the draws
    :param n_actions: number of continuous actions; 0 if there are none, so that gSDE is not drawn
    :param n_envs: number of environments; with one, the leave-one-out baseline needs at least two episodes
    :param additional_args: unused, as in the zoo's other on-policy samplers
    :return: keyword arguments of ``VPG``
    """
    if ENTRY_UNCHANGED in trial.user_attrs:
        return {}
    baseline = trial.suggest_categorical("baseline", BASELINES)
    trial.suggest_float("learning_rate", 1e-4, 0.03, log=True)
    trial.suggest_categorical("schedule", ["constant", "linear"])
    if baseline == "value":
        _draw_critic(trial, n_actions)
    else:
        trial.suggest_int("n_episodes", 2 if baseline == "leave_one_out" and n_envs == 1 else 1, 32, log=True)
    trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True)
    trial.suggest_categorical("ent_coef", _ENT_COEFS)
    trial.suggest_float("max_grad_norm", 0.1, 10.0, log=True)
    trial.suggest_categorical("normalize_advantage", [False, True])
    if _policy(trial) in _SIZED_POLICIES:
        trial.suggest_categorical("net_arch", list(_NETWORKS))
        trial.suggest_categorical("activation_fn", list(_ACTIVATIONS))
    hyperparams = convert_vpg_params(trial.params)
    hyperparams.pop("n_envs", None)
    return hyperparams


def _policy(trial: BaseTrial) -> str:
    """:return: name of the policy, which ``SearchManager`` stores in the study"""
    study = getattr(trial, "study", None)
    attributes = trial.user_attrs if study is None else study.user_attrs
    return str(attributes.get("policy", _SIZED_POLICIES[0]))


def _draw_critic(trial: BaseTrial, n_actions: int) -> None:
    trial.suggest_int("n_steps", 8, 2048, log=True)
    trial.suggest_float("vf_learning_rate", 1e-4, 0.03, log=True)
    trial.suggest_int("n_critic_updates", 1, 64, log=True)
    trial.suggest_categorical("critic_batch", _BATCH_SIZES)
    trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.5, log=True)
    if n_actions > 0:
        trial.suggest_categorical("use_sde", [False, True])


def convert_vpg_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Convert the parameters of a trial to hyperparameters.

    :param sampled_params: ``params`` of a trial; empty if it trains the entry that the search began with
    :return: keyword arguments of ``VPG`` and, if drawn, ``n_envs``; they include defaults for options of the entry that
        the drawn values may contradict
    """
    drawn = dict(sampled_params)
    if not drawn:
        return {}
    linear = drawn.pop("schedule") == "linear"
    # An entry may set these, and some baselines refuse them
    hyperparams: dict[str, Any] = {"reward_to_go": True, "discount_steps": False, "use_sde": False, "n_episodes": None}
    for name in ("learning_rate", "vf_learning_rate"):
        if name in drawn:
            rate = _rounded(drawn.pop(name))
            hyperparams[name] = f"lin_{rate:g}" if linear else rate
    for name in ("gamma", "gae_lambda"):
        if f"one_minus_{name}" in drawn:
            hyperparams[name] = round(1 - _rounded(drawn.pop(f"one_minus_{name}")), 8)
    if "critic_batch" in drawn:
        size = drawn.pop("critic_batch")
        hyperparams["batch_size"] = None if size == "all" else size
    if "net_arch" in drawn:
        layers, activation = _NETWORKS[drawn.pop("net_arch")], _ACTIVATIONS[drawn.pop("activation_fn")]
        network = {"pi": list(layers), "vf": list(layers)}
        hyperparams["policy_kwargs"] = {"net_arch": network, "activation_fn": activation}
    drawn["max_grad_norm"] = _rounded(drawn["max_grad_norm"])
    return {**hyperparams, **drawn}


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")


def suggest_n_envs(trial: BaseTrial, entry_n_envs: int) -> int:
    """
    Draw the number of environments. The zoo creates them before it draws the other hyperparameters.

    :param trial: the trial
    :param entry_n_envs: number in the entry that the search began with, which is one of the choices
    :return: number of environments
    """
    if ENTRY_UNCHANGED in trial.user_attrs:
        return entry_n_envs
    return trial.suggest_categorical("n_envs", sorted({*N_ENVS, entry_n_envs}))


def params_of(hyperparams: Mapping[str, Any], n_envs: int, n_actions: int) -> dict[str, Any] | None:
    """
    Find the parameters of a trial that convert to some hyperparameters.

    :param hyperparams: all hyperparameters of VPG, with defaults
    :param n_envs: number of environments
    :param n_actions: see ``sample_vpg_params``
    :return: parameters of the trial; None if the hyperparameters are not a point of the search space
    """
    wanted = dict(hyperparams)
    if wanted["policy_kwargs"] is None and wanted["policy"] != "CnnPolicy":
        # The network that SB3 builds by default
        wanted["policy_kwargs"] = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}
    if wanted["vf_learning_rate"] is None:
        wanted["vf_learning_rate"] = wanted["learning_rate"]
    with warnings.catch_warnings():
        # Optuna only warns if a value is out of range
        warnings.simplefilter("error")
        try:
            trial = FixedTrial({**_inverse(wanted), "n_envs": n_envs})
            trial.set_user_attr("policy", str(wanted["policy"]))
            suggest_n_envs(trial, n_envs)
            drawn = sample_vpg_params(trial, n_actions, n_envs, {})
        except (TypeError, ValueError, UserWarning):
            return None
    is_same = all(_comparable(name, value) == _comparable(name, wanted[name]) for name, value in drawn.items())
    return trial.params if is_same else None


def _inverse(hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """:return: a value for every parameter; the sampler takes those that it needs"""
    (linear, rate), (_, vf_rate) = (_comparable(name, hyperparams[name]) for name in ("learning_rate", "vf_learning_rate"))
    size = hyperparams["batch_size"]
    return {
        **hyperparams,
        "learning_rate": rate,
        "vf_learning_rate": vf_rate,
        "schedule": "linear" if linear else "constant",
        "critic_batch": _BATCH_SIZES[0] if size is None else size,
        **{f"one_minus_{name}": _rounded(1 - hyperparams[name]) for name in ("gamma", "gae_lambda")},
        "net_arch": "small",
        "activation_fn": "tanh",
    }


def _comparable(name: str, value: Any) -> Any:
    """:return: a value that is equal for equal hyperparameters; a learning rate becomes (is linear, initial rate)"""
    if name.endswith("learning_rate"):
        text = str(value)
        return text.startswith("lin_"), float(text.removeprefix("lin_"))
    return value
