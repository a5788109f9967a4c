"""What callbacks read in ``locals`` is what SB3's loop shows them: the same loop with the same actions is the oracle."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, RandomEnv, make_model
from custom_policies import Masked
from sb3_loop import ACTIONS, OBSERVATIONS, RolloutRecorder, assert_same, environments, model_for, play, replay
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg import VPG

STEP = ("obs_tensor", "values", "log_probs")
AT_THE_END = (*STEP, "n_steps", "actions", "clipped_actions", "new_obs", "rewards", "dones", "infos")
WITHOUT_CRITIC: dict[str, dict[str, Any]] = {
    "steps": {"baseline": "none"},
    "episodes": {"n_episodes": 2},
    "average": {"n_episodes": 2, "baseline": "average"},
}


def kept(value: Any) -> Any:
    """:return: a copy that says what it was"""
    if isinstance(value, dict):
        return {key: kept(one) for key, one in value.items()}
    if isinstance(value, th.Tensor):
        return [str(value.dtype), str(value.device), value.requires_grad, value.clone().numpy()]
    return [str(value.dtype), value.copy()] if isinstance(value, np.ndarray) else value


def assert_kept(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for mine, its in zip(ours, theirs, strict=True):
        for name in mine:
            compare(mine[name], its[name])


def compare(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            compare(one[key], other[key])
    elif isinstance(one, list) and one and isinstance(one[0], str):
        assert one[:-1] == other[:-1]
        assert one[-1].shape == other[-1].shape
        np.testing.assert_allclose(one[-1], other[-1], rtol=1e-4, atol=1e-5)
    else:
        assert_same(one, other)


class SeenValues(RolloutRecorder):
    """Reads what is computed when it is read, every third step, and everything at the end of a rollout."""

    def __init__(self, on_step: Any) -> None:
        super().__init__(on_step)
        self.steps: list[Any] = []
        self.ends: list[Any] = []

    def _on_step(self) -> bool:
        if self.n_calls % 3 != 1:
            self.steps.append({name: kept(self.locals[name]) for name in STEP})
        return super()._on_step()

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        self.ends.append({name: kept(self.locals[name]) for name in AT_THE_END})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_values_log_probabilities_and_tensors_are_those_of_sb3(observation: str, action: str) -> None:
    """In number, type, shape and device, in a step and at the end of a rollout, also of a second one."""
    _, ours, _, theirs = replay(lambda: model_for(observation, action), kind=SeenValues)
    assert_kept(ours.steps, theirs.steps)
    assert_kept(ours.ends, theirs.ends)


@pytest.mark.parametrize("policy", ["relu", "extractor", "shared_extractor", "float64"])
def test_they_are_those_of_sb3_with_other_policies(policy: str) -> None:
    _, ours, _, theirs = replay(lambda: model_for("box", "discrete", policy), kind=SeenValues)
    assert_kept(ours.steps, theirs.steps)
    if policy != "float64":  # at the end they are those of the buffer, in float32
        assert_kept(ours.ends, theirs.ends)


class Reads(BaseCallback):
    """Compares what it reads with what the policy says of the step, whichever way it reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.n_ends = 0

    def _on_step(self) -> bool:
        names, policy = self.locals, self.model.policy
        for name in STEP:
            assert name in names
            assert names.get(name) is names[name]
        copies = [
            dict(names),
            {**names},
            names.copy(),
            dict(names.items()),
            dict(zip(names.keys(), names.values(), strict=True)),
        ]
        for copy in copies:
            assert set(copy) == set(names)
            assert all(copy[name] is names[name] for name in STEP)
        assert "nothing" not in names
        assert names.get("nothing", 3) == 3
        with pytest.raises(KeyError, match="nothing"):
            names["nothing"]
        with th.no_grad():
            observations = th.as_tensor(self.model._last_obs)
            actions = th.as_tensor(names["actions"])
            values, log_probs, _ = policy.evaluate_actions(observations, actions)
        th.testing.assert_close(names["obs_tensor"], observations)
        th.testing.assert_close(names["values"], values, rtol=1e-4, atol=1e-5)
        th.testing.assert_close(names["log_probs"], log_probs.float(), rtol=1e-4, atol=1e-5)
        return True

    def _on_rollout_end(self) -> None:
        self.n_ends += 1
        with th.no_grad():
            values = self.model.policy.predict_values(th.as_tensor(self.model._last_obs))
        th.testing.assert_close(self.locals["values"], values, rtol=1e-4, atol=1e-5)
        assert self.locals["dones"] is self.model._last_episode_starts
        np.testing.assert_array_equal(self.locals["log_probs"], self.model.rollout_buffer.log_probs[-1])


@pytest.mark.parametrize("box", [False, True], ids=["discrete", "box"])
@pytest.mark.parametrize("options", [{}, *WITHOUT_CRITIC.values()], ids=["critic", *WITHOUT_CRITIC])
@pytest.mark.parametrize("policy", ["MlpPolicy", Masked, "gsde"])
def test_every_callback_reads_them_in_learn(options: dict[str, Any], policy: Any, box: bool) -> None:
    """Also inside of lists and of events, also without a critic, where SB3 would ask the critic that nobody trains."""
    if (policy is Masked and box) or (policy == "gsde" and not box):
        pytest.skip("one kind of action each")
    more = {"use_sde": True, "policy": "MlpPolicy"} if policy == "gsde" else {"policy": policy}
    env = environments(2, action_space=CONTINUOUS) if box else environments(2)
    callbacks = [Reads() for _ in range(4)]
    after = EvalCallback(
        environments(1, **({"action_space": CONTINUOUS} if box else {})), eval_freq=8, callback_after_eval=None
    )
    nested = [callbacks[0], CallbackList([callbacks[1], EveryNTimesteps(2, callbacks[2])]), after, callbacks[3]]
    model = make_model(env=env, **more, **options)
    model.learn(64, callback=nested)
    assert [callback.n_calls for callback in callbacks] == [callbacks[0].n_calls] * 4
    assert callbacks[0].n_calls >= 32
    # SB3 tells an event's callback of no end
    assert [callback.n_ends > 1 for callback in callbacks] == [True, True, False, True]


def test_a_function_reads_them_too() -> None:
    """The oldest form of a callback."""
    seen: list[float] = []
    make_model().learn(16, callback=lambda variables, _: seen.append(float(variables["values"])) or True)
    assert len(set(seen)) > 8


def test_what_was_read_in_one_step_is_not_shown_in_the_next() -> None:
    """Nor what was shown at the end of the rollout before."""
    seen: list[np.ndarray] = []
    play(model_for(), RolloutRecorder(lambda callback: seen.append(callback.locals["values"].numpy())), rollouts=2)
    assert len(np.unique(np.concatenate(seen))) > 30


CALLS: list[int] = []


def count(*_: Any) -> None:
    CALLS.append(1)


def test_nobody_computes_what_nobody_reads() -> None:
    """The critic is asked once for the rollout and once for what follows it."""
    model = model_for(policy="extractor")
    model.policy.vf_features_extractor.register_forward_hook(count)
    play(model, RolloutRecorder())  # before which a copy was tried
    CALLS.clear()
    play(model, RolloutRecorder())
    assert len(CALLS) == 3  # time-outs are a batch as well
    play(model, RolloutRecorder(lambda callback: callback.locals["values"]))
    assert len(CALLS) == 3 + 3 + 15


def test_loops_may_take_turns() -> None:
    """After a rollout in SB3's loop, ours shows its own values, and the other way round."""
    model, callback = model_for(), Reads()
    _, callback = model._setup_learn(10_000, callback)
    for loop in (OnPolicyAlgorithm.collect_rollouts, VPG.collect_rollouts) * 2:
        assert loop(model, model.env, callback, model.rollout_buffer, model.n_steps)
    assert callback.n_calls == 60


class Curiosity(BaseCallback):
    """Adds to the rewards when the rollout is complete, and computes advantages anew, as public RND callbacks do."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        buffer.rewards += 0.5
        buffer.compute_returns_and_advantage(last_values=self.locals["values"], dones=self.locals["dones"])


class Bonus(BaseCallback):
    """Adds the same in each step."""

    def _on_step(self) -> bool:
        self.locals["rewards"] += 0.5
        return True


@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}], ids=["lean", "gsde"])
@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_advantages_that_are_computed_anew_are_those_of_the_new_rewards(options: dict[str, Any], kwargs: Any) -> None:
    """Whichever way the bonus comes in, the advantages of the steps that count are the same."""
    both = []
    for callback in (Curiosity(), Bonus()):
        model = make_model(env=environments(2, action_space=CONTINUOUS), gamma=0.9, n_steps=18, **options, **kwargs)
        model.set_random_seed(0)
        model.learn(36, callback=callback)
        buffer = model.rollout_buffer
        counted = getattr(buffer, "counted", np.ones_like(buffer.rewards, dtype=bool))
        both.append((buffer.advantages[counted], buffer.returns[counted]))
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


REFUSED: dict[str, dict[str, Any]] = {
    **{name: options for name, options in WITHOUT_CRITIC.items() if name != "episodes"},
    "discounted": {"n_episodes": 2, "discount_steps": True},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED.keys())
def test_advantages_that_are_computed_anew_are_refused_where_they_would_be_others(options: dict[str, Any]) -> None:
    """SB3's buffer knows GAE alone; the way out works."""
    model = make_model(**options)
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=r"compute_returns_and_advantage\(\).*self\.locals\['rewards'\] \+= bonus"):
        model.learn(32, callback=Curiosity())
    assert th.equal(model.policy.action_net.weight, before)
    model.learn(32, callback=Bonus())


class Shifted(ActorCriticPolicy):
    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, values + 100.0, log_prob - 7.0


def test_a_policys_own_values_are_shown() -> None:
    """Those of ``forward``, in every mode in which our own loop asks it."""
    shown: list[Any] = []

    class Show(BaseCallback):
        def _on_step(self) -> bool:
            shown.append((float(self.locals["values"]), float(self.locals["log_probs"])))
            return True

    model = make_model(Shifted, RandomEnv(action_space=CONTINUOUS), n_episodes=2)
    model.learn(12, callback=Show())
    buffer = model.rollout_buffer
    np.testing.assert_allclose(buffer.values[:, 0], [value for value, _ in shown])
    np.testing.assert_allclose(buffer.log_probs[:, 0], [log_prob for _, log_prob in shown])
    assert buffer.values.min() > 90.0
