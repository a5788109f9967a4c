"""
Split a policy's optimiser in two: the actor's, which stays ``policy.optimizer``, and the critic's.

The split is an attribute of the policy and is copied with it. The policy or its optimiser may be replaced: a new one is split
when it is first used.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import Optimizer

from sb3_vpg.optimization.ownership import Owned, owners, owners_by_probe
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.policies import original

ACTOR, CRITIC = "policy.optimizer", "critic_optimizer"
"""Names of the two optimisers in ``model.get_parameters()``."""
_SPLIT_KEY = "split"
"""Key in the state dict of the actor's optimiser, see ``save_split``."""
_SPLIT_ATTRIBUTE = "_vpg_split"
"""Attribute of the policy that holds its ``Split``."""


@dataclass
class Split:
    """
    :param optimizer: the actor's
    :param held: its parameters
    :param critic: the critic's; None if no parameter belongs to the critic alone
    :param unassigned: parameters in ``optimizer`` that may be the critic's, since no gradient has reached them yet. The first
        rollout assigns those that its gradients reach; the others stay with the actor
    """

    optimizer: Optimizer
    held: list[th.Tensor]
    critic: Optimizer | None
    unassigned: set[th.Tensor]

    def is_current(self, optimizer: Optimizer, held: list[th.Tensor]) -> bool:
        """Return True if neither the actor's optimiser nor its parameters have changed."""
        return optimizer is self.optimizer and [*map(id, held)] == [*map(id, self.held)]

    def keeps_critic(self, held: list[th.Tensor]) -> bool:
        """Return True if an optimiser of these parameters replaces the actor's optimiser but not the critic's."""
        return set(held) >= set(self.held) and set(held).isdisjoint(parameters_of(self.critic))


def split_of(policy: ActorCriticPolicy, steps_class: type[Steps], check_policy_class: Callable[[Any], None]) -> Split:
    """
    Return the split of a policy, and make it if there is none or if the optimiser was replaced. A new optimiser that holds all
    of the actor's parameters and none of the critic's replaces only the actor's. Any other one replaces both and is split;
    parameters that it leaves out are not trained.

    :param policy: its ``optimizer`` may hold its parameters in any groups
    :param steps_class: on whose objects the policy is evaluated
    :param check_policy_class: raises ValueError if the algorithm cannot train policies of a class
    :raises ValueError: if VPG cannot train the policy, or if its optimiser holds no parameter of the actor
    """
    policy = original(policy)
    split: Split | None = vars(policy).get(_SPLIT_ATTRIBUTE)
    optimizer = getattr(policy, "optimizer", None)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"{type(policy).__name__} has no optimizer: policy.optimizer must be a torch Optimizer, but is {optimizer!r:.200}"
        )
    held = parameters_of(optimizer)
    if split is not None and split.is_current(optimizer, held):
        return split
    check_policy_class(type(policy))
    if split is not None and split.keeps_critic(held):
        new = Split(optimizer, held, split.critic, split.unassigned | (set(held) - set(split.held)))
    else:
        new = Split(optimizer, held, None, set(held))
    owned = owners_by_probe(policy, steps_class) if new.unassigned else None
    if owned is not None:
        _assign(policy, new, owned)
    setattr(policy, _SPLIT_ATTRIBUTE, new)
    return new


def assign_by_rollout(policy: ActorCriticPolicy, steps: Steps) -> None:
    """
    Assign the unassigned parameters by evaluating the policy on the first rollout. Those that no gradient reaches then are the
    actor's.

    :param policy: one with a split
    :param steps: of the rollout
    """
    policy = original(policy)
    split: Split = vars(policy)[_SPLIT_ATTRIBUTE]
    if not split.unassigned:
        return
    try:
        owned = owners(policy, steps)
    except Exception as error:
        # Python 3.10 has no notes
        if hasattr(error, "add_note"):
            error.add_note("VPG was evaluating the first rollout to find the parameters that only the critic uses")
        raise
    _assign(policy, split, owned)
    split.unassigned = set()


def _assign(policy: ActorCriticPolicy, split: Split, owned: Owned) -> None:
    actor, only_critic = owned
    if actor.isdisjoint(split.held):
        raise ValueError(
            f"{type(policy).__name__} has nothing to train: no parameter in its optimizer reaches its log-probabilities. "
            "(To freeze the actor, keep its parameters in the optimizer and call requires_grad_(False) on them)"
        )
    _give_to_critic(split, only_critic & split.unassigned)
    split.held = parameters_of(split.optimizer)
    split.unassigned -= actor | only_critic


def _give_to_critic(split: Split, parameters: set[th.Tensor]) -> None:
    """Move these parameters to the critic's optimiser, with the options of their groups and with their state."""
    optimizer = split.optimizer
    groups = [
        {**group, "params": moved}
        for group in optimizer.param_groups
        if (moved := [parameter for parameter in group["params"] if parameter in parameters])
    ]
    if split.critic is not None:
        for group in groups:
            split.critic.add_param_group(group)
    elif groups:
        split.critic = _second_optimizer(optimizer, groups)
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter not in parameters]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for parameter in parameters & optimizer.state.keys():
        assert split.critic is not None
        split.critic.state[parameter] = optimizer.state.pop(parameter)


def _second_optimizer(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """Return a second optimiser of the same class, for these parameter groups."""
    cls, step_size = type(optimizer), groups[0].get("lr", 0.0)
    try:
        return cls(groups, lr=step_size)  # type: ignore[call-arg]  # every subclass that SB3 builds has lr
    except Exception as error:
        raise ValueError(
            f"VPG trains the critic with a second {cls.__name__}, the class of policy.optimizer, but {cls.__name__}(groups, "
            f"lr={step_size}) fails: {error}. Use a subclass whose constructor needs only these two arguments"
        ) from error


def parameters_of(optimizer: Optimizer | None) -> list[th.Tensor]:
    """Return the parameters of all groups; none for None."""
    return [] if optimizer is None else [parameter for group in optimizer.param_groups for parameter in group["params"]]


def trainable_parameters(optimizer: Optimizer) -> list[th.Tensor]:
    """Return the parameters of all groups that the user has not frozen."""
    return [parameter for parameter in parameters_of(optimizer) if parameter.requires_grad]


def save_split(policy: ActorCriticPolicy, split: Split, saved: dict[str, Any]) -> None:
    """
    Write into the state dict of the actor's optimiser which parameters each optimiser holds.

    :param policy: of the split
    :param split: the two optimisers
    :param saved: state dicts, as SB3's ``get_parameters`` returns them
    """
    names = _SplitNames.of(policy, split)
    if names is not None:
        saved[ACTOR][_SPLIT_KEY] = vars(names)


def restore_split(policy: ActorCriticPolicy, split: Split, saved: dict[str, Any]) -> None:
    """
    Give the optimisers the parameters that ``save_split`` has written, in the same groups. If they change, the optimisers'
    states are cleared, since the state dicts bring their own.

    :param policy: of the split
    :param split: is changed
    :param saved: state dicts; nothing happens if they name no parameters
    :raises ValueError: for names that the policy does not have or that contradict each other, and for a split that
        contradicts the policy's gradients
    """
    if not (isinstance(saved.get(ACTOR), dict) and _SPLIT_KEY in saved[ACTOR]):
        return
    names = _SplitNames.read(saved[ACTOR][_SPLIT_KEY])
    by_name = dict(original(policy).named_parameters())
    names.check(by_name)
    for what, groups in ((ACTOR, names.actor), (CRITIC, names.critic)):
        if what in saved and _group_sizes(what, saved[what]) != [len(group) for group in groups]:
            raise ValueError(f"{_SPLIT_KEY!r} in {ACTOR} and the param_groups of {what} differ in their numbers of parameters")
    if names == _SplitNames.of(policy, split):
        return
    actors, critics = {*split.held} - split.unassigned, {*parameters_of(split.critic)}
    wrong = [name for group in names.critic for name in group if by_name[name] in actors]
    wrong += [name for group in names.actor for name in group if by_name[name] in critics and name not in names.unassigned]
    if wrong:
        raise ValueError(f"{wrong!s:.300} are in the wrong one of {ACTOR} and {CRITIC}, as the policy's gradients show")
    options = {**split.optimizer.defaults, **split.optimizer.param_groups[0]}
    actor, critic = (
        [{**options, "params": [by_name[name] for name in group]} for group in groups]
        for groups in (names.actor, names.critic)
    )
    split.critic = _second_optimizer(split.optimizer, critic) if critic else None
    split.optimizer.state.clear()
    split.optimizer.param_groups[:] = actor
    split.held = parameters_of(split.optimizer)
    split.unassigned = {by_name[name] for name in names.unassigned}


def options_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return the arguments of its constructor, without the step size, that differ from the class's defaults."""
    parameters = inspect.signature(type(optimizer)).parameters
    named = {name: value for name, value in optimizer.defaults.items() if name in parameters and name != "lr"}
    return {name: value for name, value in named.items() if value != parameters[name].default}


def check_class(what: str, optimizer: Optimizer, state: Any) -> None:
    """
    :param what: ``ACTOR`` or ``CRITIC``, for the error message
    :param optimizer: the one that the state is for
    :param state: a state dict
    :raises ValueError: if the state dict was written by an optimiser of another class
    """
    if not type(optimizer).__module__.startswith("torch.optim."):
        return
    # Torch fills in flags that state dicts of older versions lack
    numbers = {name for name, value in optimizer.defaults.items() if type(value) in (int, float, tuple)}
    present = set(state["param_groups"][0]) if _group_sizes(what, state) else numbers
    if not numbers <= present:
        raise ValueError(
            f"{what} is a {type(optimizer).__name__} here, but the stored one has no {', '.join(sorted(numbers - present))}, "
            "so it is of another class. Build the model with its class; for load, pass "
            'custom_objects={"policy_kwargs": {"optimizer_class": ..., "optimizer_kwargs": {...}}}'
        )


def _group_sizes(what: str, state: Any) -> list[int]:
    """:raises ValueError: if the state dict has no readable ``param_groups``"""
    try:
        return [len(group["params"]) for group in state["param_groups"]]
    except (TypeError, LookupError) as error:
        raise ValueError(f"{what} has damaged param_groups: {type(error).__name__}: {error}") from error


@dataclass
class _SplitNames:
    """
    The names of the parameters in a split.

    :param actor: of each group of the actor's optimiser
    :param critic: of each group of the critic's optimiser
    :param unassigned: those in ``actor`` that may be the critic's
    """

    actor: list[list[str]]
    critic: list[list[str]]
    unassigned: list[str]

    @staticmethod
    def of(policy: ActorCriticPolicy, split: Split) -> "_SplitNames | None":
        """:return: None if an optimiser holds a tensor that is no parameter of the policy, so that it has no name"""
        names = {parameter: name for name, parameter in original(policy).named_parameters()}
        if any(parameter not in names for parameter in [*parameters_of(split.optimizer), *parameters_of(split.critic)]):
            return None
        actor, critic = (
            [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups] if optimizer else []
            for optimizer in (split.optimizer, split.critic)
        )
        return _SplitNames(actor, critic, sorted(names[parameter] for parameter in split.unassigned))

    @staticmethod
    def read(value: Any) -> "_SplitNames":
        """:raises ValueError: if the value is not what ``save_split`` writes"""
        if not isinstance(value, dict) or set(value) != {"actor", "critic", "unassigned"}:
            raise ValueError(f"{_SPLIT_KEY!r} in {ACTOR} must name actor, critic and unassigned, but is {value!r:.200}")
        for groups in (value["actor"], value["critic"], [value["unassigned"]]):
            if not isinstance(groups, list) or not all(isinstance(g, list) and all(type(n) is str for n in g) for g in groups):
                raise ValueError(f"{_SPLIT_KEY!r} in {ACTOR} must hold lists of names, but holds {groups!r:.200}")
        return _SplitNames(**value)

    def check(self, known: dict[str, Any]) -> None:
        """:raises ValueError: if a name is unknown or occurs twice, or if the actor has none or lacks an unassigned one"""
        actor = {name for group in self.actor for name in group}
        named = [name for group in [*self.actor, *self.critic] for name in group]
        unknown = sorted({*named, *self.unassigned} - set(known))
        if unknown:
            raise ValueError(f"the optimizers hold parameters that the policy does not have: {unknown!s:.300}")
        if len(set(named)) != len(named):
            raise ValueError(f"a parameter is named twice in {ACTOR} and {CRITIC}")
        if not actor:
            raise ValueError(f"{ACTOR} names no parameter, so nothing would train the policy")
        if not set(self.unassigned) <= actor:
            raise ValueError(f"unassigned parameters must be in {ACTOR}, but they are {self.unassigned!s:.300}")
