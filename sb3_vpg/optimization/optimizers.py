"""
Two optimisers out of one policy: the actor's, which stays ``policy.optimizer``, and the critic's.

The split is stored on the policy, beside its optimiser, and is copied with it. The policy or its optimiser may therefore be
replaced: a new one is split when it is first used.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch.optim import Optimizer

from sb3_vpg.optimization.ownership import Owned, owners, owners_by_probe
from sb3_vpg.policies import check_policy_class, original

ACTOR, CRITIC = "policy.optimizer", "critic_optimizer"
"""What the two are called among the parameters of a model."""
_NAMES = "split"
_SPLIT = "_vpg_split"


@dataclass
class Split:
    """
    :param optimizer: the actor's
    :param held: its parameters
    :param critic: the critic's; None where nothing belongs to the critic alone
    :param unassigned: parameters in ``optimizer`` that may still be the critic's: no gradient has reached them yet. The first
        rollout assigns those that it reaches; the rest stay with the actor
    """

    optimizer: Optimizer
    held: list[th.Tensor]
    critic: Optimizer | None
    unassigned: set[th.Tensor]

    def fits(self, optimizer: Optimizer, held: list[th.Tensor]) -> bool:
        """:return: whether this is how that optimiser has been split"""
        same = optimizer is self.optimizer and len(held) == len(self.held)
        return same and all(one is other for one, other in zip(held, self.held, strict=True))

    def goes_on_with(self, held: list[th.Tensor]) -> bool:
        """:return: whether an optimiser of these parameters takes the place of the actor's alone"""
        return set(held) >= set(self.held) and set(held).isdisjoint(parameters_of(self.critic))


def split_of(policy: ActorCriticPolicy) -> Split:
    """
    The split of a policy, which is made here unless it is there. An optimiser that was put in the place of the actor's, and
    holds all of the actor's parameters and none of the critic's, leaves the critic's as it is. Any other one is taken for an
    optimiser of everything, and split anew: what it leaves out is not trained.

    :param policy: whose ``optimizer`` may hold its parameters in any groups
    :return: the split
    :raises ValueError: if VPG cannot train the policy, or no parameter in its optimiser belongs to the actor
    """
    policy = original(policy)
    split: Split | None = vars(policy).get(_SPLIT)
    optimizer = getattr(policy, "optimizer", None)
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"{type(policy).__name__} has no optimizer: policy.optimizer must be a torch Optimizer, but is {optimizer!r:.200}"
        )
    held = parameters_of(optimizer)
    if split is not None and split.fits(optimizer, held):
        return split
    check_policy_class(type(policy))
    if split is not None and split.goes_on_with(held):
        new = Split(optimizer, held, split.critic, split.unassigned | (set(held) - set(split.held)))
    else:
        new = Split(optimizer, held, None, set(held))
    owned = owners_by_probe(policy) if new.unassigned else None
    if owned is not None:
        _settle(policy, new, owned)
    setattr(policy, _SPLIT, new)
    return new


def settle(policy: ActorCriticPolicy, observations: Any, actions: th.Tensor) -> None:
    """
    Ask once more whose the unassigned parameters are, with real steps. What is still unassigned then is the actor's.

    :param policy: one that ``split_of`` has seen
    :param observations: of the first rollout
    :param actions: likewise
    """
    policy = original(policy)
    split: Split = vars(policy)[_SPLIT]
    if not split.unassigned:
        return
    try:
        owned = owners(policy, observations, actions)
    except Exception as error:
        _explain(error, "VPG was evaluating the first rollout to find the parameters that only the critic uses")
        raise
    _settle(policy, split, owned)
    split.unassigned = set()


def _settle(policy: ActorCriticPolicy, split: Split, owned: Owned) -> None:
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
    """Group by group, with the options of the group, and with what the optimiser remembers of them."""
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
        split.critic = _of_the_same_class(optimizer, groups)
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter not in parameters]
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
    for parameter in parameters & optimizer.state.keys():
        assert split.critic is not None
        split.critic.state[parameter] = optimizer.state.pop(parameter)


def _of_the_same_class(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """:param groups: parameters, with all options of the class"""
    cls, step_size = type(optimizer), groups[0].get("lr", 0.0)
    try:
        return cls(groups, lr=step_size)  # type: ignore[call-arg]  # every subclass that SB3 builds has lr
    except Exception as error:
        raise ValueError(
            f"VPG trains the critic with a second optimizer of the class of policy.optimizer, but {cls.__name__}(groups, "
            f"lr={step_size}) fails: {error}. Use a subclass whose constructor needs only these two arguments"
        ) from error


def parameters_of(optimizer: Optimizer | None) -> list[th.Tensor]:
    """:return: what the optimiser holds, group by group"""
    return [] if optimizer is None else [parameter for group in optimizer.param_groups for parameter in group["params"]]


def trainable_parameters(optimizer: Optimizer) -> list[th.Tensor]:
    """:return: what the optimiser holds and the user has not frozen"""
    return [parameter for parameter in parameters_of(optimizer) if parameter.requires_grad]


def name_parameters(policy: ActorCriticPolicy, split: Split, saved: dict[str, Any]) -> None:
    """
    Write into the state dict of the actor's optimiser which parameters the two hold, so that whoever loads them need not ask.

    :param policy: of the split
    :param saved: what SB3's ``get_parameters`` has returned
    """
    names = _Names.of(policy, split)
    if names is not None:
        saved[ACTOR][_NAMES] = vars(names)


def split_as_named(policy: ActorCriticPolicy, split: Split, saved: dict[str, Any]) -> None:
    """
    Let the optimisers hold what ``name_parameters`` has written, in the same groups. Where that is something else than before,
    they forget what they remember, since the state dicts bring their own.

    :param policy: of the split
    :param split: is changed
    :param saved: state dicts; nothing happens if they name no parameters
    :raises ValueError: for names that the policy does not have or that contradict each other, and for a split that
        contradicts what the policy's own gradients say
    """
    if not (isinstance(saved.get(ACTOR), dict) and _NAMES in saved[ACTOR]):
        return
    names = _Names.read(saved[ACTOR][_NAMES])
    by_name = dict(original(policy).named_parameters())
    names.check(by_name)
    for what, groups in ((ACTOR, names.actor), (CRITIC, names.critic)):
        if what in saved and _sizes(what, saved[what]) != [len(group) for group in groups]:
            raise ValueError(f"{_NAMES!r} in {ACTOR} and the param_groups of {what} differ in their numbers of parameters")
    if names == _Names.of(policy, split):
        return
    settled, critics = {*split.held} - split.unassigned, {*parameters_of(split.critic)}
    wrong = [name for group in names.critic for name in group if by_name[name] in settled]
    wrong += [name for group in names.actor for name in group if by_name[name] in critics and name not in names.unassigned]
    if wrong:
        raise ValueError(f"{wrong!s:.300} are in the wrong one of {ACTOR} and {CRITIC}, as the policy's gradients show")
    options = {**split.optimizer.defaults, **split.optimizer.param_groups[0]}
    actor, critic = (
        [{**options, "params": [by_name[name] for name in group]} for group in groups]
        for groups in (names.actor, names.critic)
    )
    split.critic = _of_the_same_class(split.optimizer, critic) if critic else None
    split.optimizer.state.clear()
    split.optimizer.param_groups[:] = actor
    split.held = parameters_of(split.optimizer)
    split.unassigned = {by_name[name] for name in names.unassigned}


def options_of(optimizer: Optimizer) -> dict[str, Any]:
    """:return: the arguments that its constructor was given besides the step size, where they are not the class's own"""
    parameters = inspect.signature(type(optimizer)).parameters
    named = {name: value for name, value in optimizer.defaults.items() if name in parameters and name != "lr"}
    return {name: value for name, value in named.items() if value != parameters[name].default}


def check_class(what: str, optimizer: Optimizer, state: Any) -> None:
    """
    :param what: of the two it is
    :param optimizer: which is to get the state
    :param state: a state dict
    :raises ValueError: if it can only be that of an optimiser of another class
    """
    if not type(optimizer).__module__.startswith("torch.optim."):
        return
    # Torch fills in the flags that older versions did not have
    numbers = {name for name, value in optimizer.defaults.items() if type(value) in (int, float, tuple)}
    present = set(state["param_groups"][0]) if _sizes(what, state) else numbers
    if not numbers <= present:
        raise ValueError(
            f"{what} is a {type(optimizer).__name__} here, but the stored one has no {', '.join(sorted(numbers - present))}, "
            "so it is of another class. Build the model with its class; for load, pass "
            'custom_objects={"policy_kwargs": {"optimizer_class": ..., "optimizer_kwargs": {...}}}'
        )


def _sizes(what: str, state: Any) -> list[int]:
    try:
        return [len(group["params"]) for group in state["param_groups"]]
    except (TypeError, LookupError) as error:
        raise ValueError(f"{what} has no whole param_groups: {type(error).__name__}: {error}") from error


@dataclass
class _Names:
    """
    :param actor: of the actor's parameters, group by group
    :param critic: likewise
    :param unassigned: those of the actor's that may still prove to be the critic's
    """

    actor: list[list[str]]
    critic: list[list[str]]
    unassigned: list[str]

    @staticmethod
    def of(policy: ActorCriticPolicy, split: Split) -> "_Names | None":
        """:return: None if an optimiser holds what is none of the policy's, and has no name"""
        names = {parameter: name for name, parameter in original(policy).named_parameters()}
        if any(parameter not in names for parameter in [*parameters_of(split.optimizer), *parameters_of(split.critic)]):
            return None
        actor, critic = (
            [[names[parameter] for parameter in group["params"]] for group in one.param_groups] if one is not None else []
            for one in (split.optimizer, split.critic)
        )
        return _Names(actor, critic, sorted(names[parameter] for parameter in split.unassigned))

    @staticmethod
    def read(value: Any) -> "_Names":
        """:raises ValueError: for what ``vars`` of none could be"""
        if not isinstance(value, dict) or set(value) != {"actor", "critic", "unassigned"}:
            raise ValueError(f"{_NAMES!r} in {ACTOR} must name actor, critic and unassigned, but is {value!r:.200}")
        for groups in (value["actor"], value["critic"], [value["unassigned"]]):
            if not isinstance(groups, list) or not all(isinstance(g, list) and all(type(n) is str for n in g) for g in groups):
                raise ValueError(f"{_NAMES!r} in {ACTOR} must hold lists of names, but holds {groups!r:.200}")
        return _Names(**value)

    def check(self, known: dict[str, Any]) -> None:
        """:raises ValueError: for names that are unknown, twice there or on the wrong side"""
        actor = {name for group in self.actor for name in group}
        named = [name for group in [*self.actor, *self.critic] for name in group]
        unknown = sorted({*named, *self.unassigned} - set(known))
        if unknown:
            raise ValueError(f"the optimizers hold parameters that the policy does not have: {unknown!s:.300}")
        if len(set(named)) != len(named):
            raise ValueError(f"a parameter is named twice in {ACTOR} and {CRITIC}")
        if not actor:
            raise ValueError(f"{ACTOR} names no parameter, so that nothing would train the policy")
        if not set(self.unassigned) <= actor:
            raise ValueError(f"unassigned parameters must be in {ACTOR}, but they are {self.unassigned!s:.300}")


def _explain(error: Exception, note: str) -> None:
    # Python 3.10 has no notes
    add_note = getattr(error, "add_note", None)
    if add_note is not None:
        add_note(note)
