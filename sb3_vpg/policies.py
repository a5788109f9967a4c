"""
The policies that VPG's aliases name. They are SB3's, except that actor and critic keep separate features extractors by
default: VPG fits the critic in steps of its own, and those must not move the actor.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from operator import attrgetter
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor

from sb3_vpg.eligibility import forward_hooks

_LONGEST = 1000
_NO_TENSORS = {int, float, bool, str, type(None), type}
_OF_EVERY_MODULE = vars(th.nn.Module()).keys() - {"_buffers"}


class MlpPolicy(ActorCriticPolicy):
    """
    SB3's policy for vectors with ``share_features_extractor=False`` by default. That matters where a
    ``features_extractor_class`` of the user's has weights; SB3's own only flattens.

    Other parameters: see ``ActorCriticPolicy``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("share_features_extractor", False)
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves this one out, so that its own policy.load() forgets a choice that is not the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CnnPolicy(MlpPolicy, ActorCriticCnnPolicy):
    """
    SB3's policy for images with a features extractor each for actor and critic. With
    ``share_features_extractor=True`` the network is half as large, and its extractor learns from the policy's gradient
    alone.

    Other parameters: see ``ActorCriticCnnPolicy``.
    """


class MultiInputPolicy(MlpPolicy, MultiInputActorCriticPolicy):
    """
    SB3's policy for ``Dict`` observations with a features extractor each for actor and critic, as in ``CnnPolicy``.

    Other parameters: see ``MultiInputActorCriticPolicy``.
    """


class LinearPolicy(MlpPolicy):
    """
    Action preferences, or the mean of a Gaussian, that are linear in the observation: softmax-linear for ``Discrete``
    actions, linear-Gaussian for ``Box``. The critic keeps SB3's two layers of 64.

    Other parameters: see ``ActorCriticPolicy``. ``net_arch=dict(pi=[], vf=[...])`` chooses another critic.

    :raises ValueError: for a ``net_arch`` that gives the policy a hidden layer
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("net_arch") is None:
            kwargs["net_arch"] = {"pi": [], "vf": [64, 64]}
        net_arch = kwargs["net_arch"]
        if net_arch and (isinstance(net_arch, list) or net_arch.get("pi")):
            raise ValueError(f"LinearPolicy has no hidden layer, but net_arch is {net_arch}; use {{'pi': [], 'vf': [...]}}")
        super().__init__(*args, **kwargs)


POLICY_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "LinearPolicy": LinearPolicy,
}


def original(policy: Any) -> Any:
    """:return: the policy that ``th.compile(policy)`` has wrapped, as SB3 unwraps it; any other one as it is"""
    return getattr(policy, "_orig_mod", policy)


_SPLIT = (
    "__call__",
    "forward",
    "evaluate_actions",
    "get_distribution",
    "extract_features",
    "_get_action_dist_from_latent",
)
_SPLIT_WITH_VALUES = (*_SPLIT, "predict_values", "obs_to_tensor")


def is_untouched(policy: Any, methods: tuple[str, ...]) -> bool:
    """:return: whether these methods are SB3's own: neither the policy's class nor the object has others"""
    cls = type(policy)
    # Each prediction asks: this is isinstance() without the price of an abstract class
    if ActorCriticPolicy not in cls.__mro__ or not vars(policy).keys().isdisjoint(methods):
        return False
    read, sb3s = _sb3s(methods)
    return bool(read(cls) == sb3s)


@cache
def _sb3s(methods: tuple[str, ...]) -> tuple[Callable[[Any], Any], Any]:
    read = attrgetter(*methods)
    return read, read(ActorCriticPolicy)


def is_split(policy: Any, values: bool = False) -> bool:
    """
    :param policy: any
    :param values: whether the values count, too
    :return: whether ``get_distribution`` (and ``predict_values``) says of an observation what ``forward`` and
        ``evaluate_actions`` say: these methods, and those that they call, are SB3's own. If not, SB3's algorithms sample from
        ``policy(observation)`` and learn from ``evaluate_actions``
    """
    if not is_untouched(policy, _SPLIT_WITH_VALUES if values else _SPLIT) or any(forward_hooks([policy])):
        return False
    if not policy.share_features_extractor:
        return True
    # forward() and evaluate_actions() call the body as a whole, and the extractor by its first name
    body = policy.mlp_extractor
    whole = type(body) is MlpExtractor and "forward" not in vars(body) and not any(forward_hooks([body]))
    return whole and policy.features_extractor is policy.pi_features_extractor is policy.vf_features_extractor


def evaluate_steps(
    policy: ActorCriticPolicy, observations: Any, actions: th.Tensor, has_critic: bool
) -> tuple[th.Tensor, th.Tensor]:
    """
    What ``evaluate_actions`` says, without the values where they can be left out.

    :param policy: the one that is learning
    :param observations: of n steps
    :param actions: of n steps as the rollout buffer holds them, shape (n, A)
    :param has_critic: whether the value network learns as well: its batch norm must see the rollout then
    :return: log-probability of each action and entropy of the distribution it came from, both of shape (n,)
    """
    actions = _as_evaluated(policy, actions)
    if is_split(policy) and not (has_critic and any(True for _ in policy.buffers())):
        distribution = policy.get_distribution(observations)
        log_prob, entropy = distribution.log_prob(actions), distribution.entropy()
    else:
        _, log_prob, entropy = policy.evaluate_actions(observations, actions)
    # Without a closed form (squashed gSDE), -log pi of the sampled action estimates the entropy
    return log_prob, -log_prob if entropy is None else entropy


def drop_graph(policy: ActorCriticPolicy) -> None:
    """
    Detach what the policy's modules and its distribution remember of their last call, since a policy that holds a graph
    cannot be deep-copied or pickled. SB3's loop writes over it at the next step.
    """
    for module in policy.modules():
        held = vars(module)
        for name in held.keys() - _OF_EVERY_MODULE:
            held[name] = _detached(held[name])


def _detached(value: Any, depth: int = 4) -> Any:
    """:return: the value, a dict, list or distribution with its tensors exchanged in place; a tuple anew if need be"""
    cls = type(value)
    if cls in _NO_TENSORS:
        return value
    if isinstance(value, th.Tensor):
        return value if value.grad_fn is None else value.detach()
    if cls in (dict, list, tuple):
        # Long ones are data of the user's
        if depth == 0 or len(value) > _LONGEST:
            return value
        items = list(value.items()) if cls is dict else list(enumerate(value))
        changed = {key: new for key, item in items if (new := _detached(item, depth - 1)) is not item}
        if cls is tuple:
            return tuple(changed.get(key, item) for key, item in items) if changed else value
        for key, new in changed.items():
            value[key] = new
    elif isinstance(value, (Distribution, th.distributions.Distribution)):
        _detached(vars(value), depth)
    return value


def evaluate_values(policy: ActorCriticPolicy, observations: Any, actions: th.Tensor) -> th.Tensor:
    """:return: the values that ``evaluate_actions`` says, on which SB3's algorithms train the critic, shape (n, 1)"""
    values, _, _ = policy.evaluate_actions(observations, _as_evaluated(policy, actions))
    return values


def _as_evaluated(policy: ActorCriticPolicy, actions: th.Tensor) -> th.Tensor:
    """:return: actions of a rollout buffer as SB3's algorithms hand them to ``evaluate_actions``"""
    return actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else actions


def check_policy_class(policy_class: Any) -> None:
    """
    :raises ValueError: if the class is no ``ActorCriticPolicy``, or is one that needs more than observations and
        actions to evaluate a step, as recurrent policies do
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, ActorCriticPolicy)):
        raise ValueError(f"VPG needs a policy name or a subclass of ActorCriticPolicy, but got {policy_class!r}")
    try:
        inspect.signature(policy_class.evaluate_actions).bind("self", "observations", "actions")
    except TypeError:
        raise ValueError(
            f"VPG cannot train {policy_class.__name__}: its evaluate_actions() takes more than observations and actions. "
            "Recurrent policies carry a hidden state, which VPG does not keep; use sb3_contrib.RecurrentPPO for them"
        ) from None


def unknown_policy(name: str, known: Iterable[str]) -> ValueError:
    """:return: the error for a policy name that is no alias"""
    return ValueError(
        f"VPG knows no policy {name!r}, only {', '.join(known)} and subclasses of ActorCriticPolicy given as a class. "
        "Recurrent policies (such as MlpLstmPolicy) are not supported; use sb3_contrib.RecurrentPPO for them"
    )
