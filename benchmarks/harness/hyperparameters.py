"""Hyperparameters in rl-zoo3's form, read without running the Python in them."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

OWN_FILE = Path(__file__).parents[2] / "hyperparams" / "vpg.yml"


def own_entry(env_id: str) -> dict[str, Any]:
    """:return: VPG's entry in hyperparams/vpg.yml, without ``policy``, which must be ``MlpPolicy``, and ``n_timesteps``"""
    entry: dict[str, Any] = yaml.safe_load(OWN_FILE.read_text())[env_id]
    assert entry.pop("policy") == "MlpPolicy"
    entry.pop("n_timesteps")
    return entry


def zoo_entry(algorithm: str, env_id: str) -> dict[str, Any]:
    """
    :param algorithm: name of a hyperparameter file of rl-zoo3, such as ``"ppo"``
    :return: the entry of an environment in this file, without ``policy``, which must be ``MlpPolicy``
    """
    # Importing rl_zoo3 would change gymnasium, so only its path is looked up
    package = find_spec("rl_zoo3")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "hyperparams" / f"{algorithm}.yml"
    entry: dict[str, Any] = yaml.safe_load(file.read_text())[env_id]
    assert entry.pop("policy") == "MlpPolicy"
    # These keys would need code of their own here
    assert not entry.keys() & {"env_wrapper", "frame_stack"}
    return entry


def scheduled(options: dict[str, Any]) -> dict[str, Any]:
    """:return: the options, in which the zoo's ``lin_0.001`` is a schedule that falls linearly to 0 at the end"""
    result = dict(options)
    for name, value in options.items():
        if isinstance(value, str) and value.startswith("lin_"):
            result[name] = LinearSchedule(float(value.removeprefix("lin_")), 0.0, end_fraction=1.0)
    return result


def read_dict(text: str) -> dict[str, Any]:
    """:return: the dict that the zoo writes as ``dict(activation_fn=nn.ReLU, net_arch=dict(pi=[64], vf=[64]))``"""
    return _read_dict(ast.parse(text.strip(), mode="eval").body)


def _read_dict(call: ast.expr) -> dict[str, Any]:
    assert isinstance(call, ast.Call)
    result = {}
    for keyword in call.keywords:
        assert keyword.arg is not None
        result[keyword.arg] = _read_value(keyword.value)
    return result


def _read_value(value: ast.expr) -> Any:
    if isinstance(value, ast.Call):
        return _read_dict(value)
    if isinstance(value, ast.Attribute):
        return getattr(nn, value.attr)
    return ast.literal_eval(value)
