"""Baselines: what is subtracted from a return. Shapes as in ``returns.py``."""

import numpy as np

from sb3_vpg.estimation.returns import Bools, Floats, check_shapes


def leave_one_out(returns_EM: Floats, alive_EM: Bools) -> Floats:
    """
    Return, for each step, the mean return at the same time of the *other* episodes that still run then; 0 if there is none.
    It does not depend on the step's own episode, so subtracting it does not change the mean of the gradient.

    :param returns_EM: returns
    :param alive_EM: True for the returns that exist
    :return: ``b_EM``
    """
    check_shapes(returns_EM=returns_EM, alive_EM=alive_EM)
    n_others_EM = alive_EM.sum(axis=0) - alive_EM
    sum_of_others_EM = np.where(alive_EM, returns_EM, 0.0).sum(axis=0) - np.where(alive_EM, returns_EM, 0.0)
    b_EM: Floats = np.zeros_like(sum_of_others_EM)
    np.divide(sum_of_others_EM, n_others_EM, out=b_EM, where=n_others_EM > 0)
    return b_EM


def optimal_constant(products_E: Floats, squares_E: Floats) -> Floats:
    """
    Return the constant that minimises the variance of ``sum_t w_t (G_t - b) grad log pi_t`` (Greensmith et al. 2004),
    estimated for each episode from the other ones. With ``S = sum_t w_t grad log pi_t`` and
    ``A = sum_t w_t G_t grad log pi_t`` of an episode, it is ``E[A · S] / E[S · S]``.

    :param products_E: ``A · S`` of each episode
    :param squares_E: ``S · S`` of each episode
    :return: ``b_E``; 0 where ``S · S`` of the other episodes is 0
    """
    check_shapes(products_E=products_E, squares_E=squares_E)
    numerator_E, denominator_E = products_E.sum() - products_E, squares_E.sum() - squares_E
    tiny = np.finfo(np.float64).tiny
    b_E: Floats = np.zeros_like(numerator_E)
    np.divide(numerator_E, denominator_E, out=b_E, where=denominator_E > tiny)
    return b_E
