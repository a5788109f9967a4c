"""What ``sb3-vpg optimize`` searches. Ranges follow the zoo's for A2C, with the critic's own three knobs added."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_onpolicy_params


def sample_vpg_params(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Draw the hyperparameters of one trial.

    :param trial: the trial that remembers what was drawn
    :param n_actions: unused, as in the zoo's other on-policy samplers
    :param n_envs: unused likewise
    :param additional_args: unused likewise
    :return: keyword arguments of ``VPG``
    """
    trial.suggest_int("n_steps_pow", 5, 11)
    trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True)
    trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.3, log=True)
    trial.suggest_float("learning_rate", 1e-4, 0.03, log=True)
    trial.suggest_float("vf_learning_rate", 1e-4, 0.01, log=True)
    trial.suggest_int("n_critic_updates_pow", 0, 5)
    trial.suggest_float("ent_coef", 1e-8, 0.1, log=True)
    trial.suggest_float("max_grad_norm", 0.3, 2.0)
    trial.suggest_categorical("normalize_advantage", [False, True])
    trial.suggest_categorical("net_arch", ["tiny", "small", "medium"])
    trial.suggest_categorical("activation_fn", ["tanh", "relu"])
    hyperparams = convert_vpg_params(trial.params)
    # What the drawn values mean, for whoever reads the report
    for name in ("gamma", "gae_lambda", "n_steps", "n_critic_updates"):
        trial.set_user_attr(name, hyperparams[name])
    return hyperparams


def convert_vpg_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled_params: the ``params`` of a trial, as Optuna stores them
    :return: keyword arguments of ``VPG``
    """
    hyperparams: dict[str, Any] = convert_onpolicy_params(sampled_params)
    hyperparams["n_critic_updates"] = 2 ** hyperparams.pop("n_critic_updates_pow")
    return hyperparams
