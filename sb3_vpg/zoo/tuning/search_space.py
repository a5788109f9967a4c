"""
The space that ``sb3-vpg optimize`` searches for VPG. It is conditional: a knob that a baseline has no use for is not drawn,
and no combination is drawn that VPG refuses.

What is drawn lies on logarithmic axes where factors matter; what a trial trains with is rounded to three digits, so that a
YAML file can say it exactly.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial, FixedTrial
from torch import nn

BASELINES = ("value", "average", "leave_one_out", "none")
N_ENVS = (1, 2, 4, 8, 16)
AS_IT_STANDS = "trains the entry as it stands"
"""A trial with this attribute draws nothing: its hyperparameters are those that the search began with."""
_BATCH_SIZES = ("all", 64, 256, 1024)
_ENT_COEFS = (0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03)
_NETWORKS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
# Whoever names another policy has its networks in mind
_OF_SIZE = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")


def sample_vpg_params(trial: BaseTrial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw the hyperparameters of one trial.

    :param trial: the trial that remembers what was drawn
    :param n_actions: number of continuous actions; 0 without such, where gSDE is not defined
    :param n_envs: one environment alone needs two episodes to compare one with the other
    :param additional_args: unused, as in the zoo's other on-policy samplers
    :return: keyword arguments of ``VPG``
    """
    if AS_IT_STANDS in trial.user_attrs:
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
    if _policy(trial) in _OF_SIZE:
        trial.suggest_categorical("net_arch", list(_NETWORKS))
        trial.suggest_categorical("activation_fn", list(_ACTIVATIONS))
    hyperparams = convert_vpg_params(trial.params)
    hyperparams.pop("n_envs", None)
    return hyperparams


def _policy(trial: BaseTrial) -> str:
    """:return: that of the entry, which the zoo writes down in the study"""
    study = getattr(trial, "study", None)
    attributes = trial.user_attrs if study is None else study.user_attrs
    return str(attributes.get("policy", _OF_SIZE[0]))


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
    :param sampled_params: the ``params`` of a trial, as Optuna stores them; none stand for the entry as it is
    :return: what they mean in an entry of a hyperparameter file: keyword arguments of ``VPG``, and ``n_envs`` where it was
        drawn. Options of the entry that would contradict them are set as well
    """
    drawn = dict(sampled_params)
    if not drawn:
        return {}
    linear = drawn.pop("schedule") == "linear"
    # An entry may set these, and not every baseline bears it
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


def suggest_n_envs(trial: BaseTrial, of_the_entry: int) -> int:
    """
    The zoo makes environments before it draws, so their number is drawn apart.

    :param trial: as in ``sample_vpg_params``
    :param of_the_entry: what the search began with, which is a choice as well
    :return: how many environments to train in
    """
    if AS_IT_STANDS in trial.user_attrs:
        return of_the_entry
    return trial.suggest_categorical("n_envs", sorted({*N_ENVS, of_the_entry}))


def params_of(hyperparams: Mapping[str, Any], n_envs: int, n_actions: int) -> dict[str, Any] | None:
    """
    The way back, for a search that begins with what is there.

    :param hyperparams: those of VPG, the class's defaults included
    :param n_envs: in how many environments it trains
    :param n_actions: as in ``sample_vpg_params``
    :return: the draws that mean the same; None if the space has no such point
    """
    wanted = dict(hyperparams)
    if wanted["policy_kwargs"] is None and wanted["policy"] != "CnnPolicy":
        # What SB3 builds, but for images
        wanted["policy_kwargs"] = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}
    if wanted["vf_learning_rate"] is None:
        wanted["vf_learning_rate"] = wanted["learning_rate"]
    with warnings.catch_warnings():
        # Optuna takes what is out of range all the same, and warns
        warnings.simplefilter("error")
        try:
            trial = FixedTrial({**_inverse(wanted), "n_envs": n_envs})
            trial.set_user_attr("policy", str(wanted["policy"]))
            suggest_n_envs(trial, n_envs)
            drawn = sample_vpg_params(trial, n_actions, n_envs, {})
        except (TypeError, ValueError, UserWarning):
            return None
    is_same = all(_meaning(name, value) == _meaning(name, wanted[name]) for name, value in drawn.items())
    return trial.params if is_same else None


def _inverse(hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """:return: a value for every knob; which of them count is the sampler's affair"""
    (linear, rate), (_, vf_rate) = (_meaning(name, hyperparams[name]) for name in ("learning_rate", "vf_learning_rate"))
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


def _meaning(name: str, value: Any) -> Any:
    """:return: the same for two values that say the same"""
    if name.endswith("learning_rate"):
        text = str(value)
        return text.startswith("lin_"), float(text.removeprefix("lin_"))
    return value
