"""
Our algorithms inside rl-zoo3. Nothing here imports rl_zoo3 or torch before it is needed: the import takes seconds, and
rl_zoo3 replaces ``gymnasium.wrappers.TimeLimit`` for the whole process.
"""


def register() -> None:
    """
    Put our algorithms into the zoo's tables, for a program that drives rl_zoo3 itself. Safe to call twice.

    The zoo looks for hyperparameters in its own package; pass it ours with ``config=str(hyperparams_file("vpg"))`` or
    ``"random_search"``; ``-conf sb3_vpg.zoo.hyperparams`` names those of VPG. The command line ``sb3-vpg`` does both by
    itself.
    """
    from sb3_vpg.zoo import registration

    registration.register()
