"""The policies of ``RecurrentVPG``: sb3_contrib's, with one more argument."""

from typing import Any

import torch as th
from sb3_contrib.common.recurrent.policies import (
    RecurrentActorCriticCnnPolicy,
    RecurrentActorCriticPolicy,
    RecurrentMultiInputActorCriticPolicy,
)
from stable_baselines3.common.policies import BasePolicy

from sb3_vpg.common.arguments import real_number


class MlpLstmPolicy(RecurrentActorCriticPolicy):
    """
    sb3_contrib's policy for vectors. Other parameters: see its ``RecurrentActorCriticPolicy``.

    :param forget_gate_bias: the LSTMs' first bias of the forget gates. At each step an LSTM keeps about the fraction
        sigmoid(bias) of its memory. With torch's random biases that is a half, so that almost nothing is left after ten steps,
        and what has to be remembered for longer is learned slowly (Jozefowicz et al. 2015,
        https://proceedings.mlr.press/v37/jozefowicz15.html). 3.0 keeps six tenths over ten steps. None: torch's biases, as in
        sb3_contrib
    :raises ValueError: if ``forget_gate_bias`` is not a number from -100 to 100, or if ``lstm_kwargs`` leave the biases out
    """

    def __init__(self, *args: Any, forget_gate_bias: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.forget_gate_bias = forget_gate_bias
        if forget_gate_bias is not None:
            bias = real_number("forget_gate_bias", forget_gate_bias, low=-100.0, high=100.0)
            if not self.lstm_actor.bias:
                raise ValueError(f"forget_gate_bias={bias} needs biases, but lstm_kwargs has bias=False: leave one out")
            for lstm in (self.lstm_actor, self.lstm_critic):
                if lstm is not None:
                    _set_forget_gates(lstm, bias)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # sb3_contrib leaves its own arguments out, so that after policy.save() only policies with the defaults load
        n_layers, _, n_units = self.lstm_hidden_state_shape
        names = ("share_features_extractor", "shared_lstm", "enable_critic_lstm", "lstm_kwargs", "forget_gate_bias")
        own = {**{name: getattr(self, name) for name in names}, "lstm_hidden_size": n_units, "n_lstm_layers": n_layers}
        return {**super()._get_constructor_parameters(), **own}


class CnnLstmPolicy(MlpLstmPolicy, RecurrentActorCriticCnnPolicy):
    """sb3_contrib's policy for images, with the argument of ``MlpLstmPolicy``."""


class MultiInputLstmPolicy(MlpLstmPolicy, RecurrentMultiInputActorCriticPolicy):
    """sb3_contrib's policy for ``Dict`` observations, with the argument of ``MlpLstmPolicy``."""


RECURRENT_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpLstmPolicy": MlpLstmPolicy,
    "CnnLstmPolicy": CnnLstmPolicy,
    "MultiInputLstmPolicy": MultiInputLstmPolicy,
}


def check_recurrent_policy(policy_class: Any) -> None:
    """:raises ValueError: if the class is no ``RecurrentActorCriticPolicy``"""
    if not (isinstance(policy_class, type) and issubclass(policy_class, RecurrentActorCriticPolicy)):
        name = getattr(policy_class, "__name__", repr(policy_class))
        raise ValueError(
            f"RecurrentVPG needs one of {', '.join(RECURRENT_ALIASES)} or a subclass of sb3_contrib's "
            f"RecurrentActorCriticPolicy, but got {name}. Use VPG for a policy without memory"
        )


def _set_forget_gates(lstm: th.nn.LSTM, bias: float) -> None:
    """Set the sum of the two biases of each forget gate. torch orders the gates: input, forget, cell, output."""
    forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)
    with th.no_grad():
        for name, values in lstm.named_parameters():
            if name.startswith("bias_ih"):
                values[forget] = bias
            elif name.startswith("bias_hh"):
                values[forget] = 0.0
