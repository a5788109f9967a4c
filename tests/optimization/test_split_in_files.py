"""A file holds the names of the parameters in each optimiser; names that cannot be right are refused."""

import pytest
import torch as th
from helpers import make_model
from tampering import tensors

from sb3_vpg import VPG
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import read_archive


def test_files_without_a_split_are_split_by_probing(model_path):
    """A file without a split is loaded, and probes find the owners."""
    model = make_model().learn(32)
    model.save(model_path)
    old = tensors("policy.optimizer", lambda state: state.pop("split"))
    model_path.write_bytes(old(read_archive(model_path), model_path))
    loaded = VPG.load(model_path)
    actual, expected = loaded.get_parameters(), model.get_parameters()
    assert actual["policy.optimizer"].pop("split") == expected["policy.optimizer"].pop("split")
    th.testing.assert_close(actual, expected, rtol=0, atol=0)


def change_split(**changes):
    return tensors("policy.optimizer", lambda state: state["split"].update(changes))


def exchange(state, first, second):
    """Exchange a name of the actor for one of the critic."""
    other = {first: second, second: first}
    for side in ("actor", "critic"):
        state["split"][side] = [[other.get(name, name) for name in group] for group in state["split"][side]]


HEAD = ["action_net.weight", "action_net.bias"]
BAD_SPLITS = {
    "no_dict": (tensors("policy.optimizer", lambda state: state.update(split=3)), "must name actor, critic and unassigned"),
    "a_part": (tensors("policy.optimizer", lambda state: state["split"].pop("critic")), "must name actor, critic and"),
    "no_lists": (change_split(actor="action_net.weight"), "must hold lists of names"),
    "no_groups": (change_split(critic=["value_net.weight"]), "must hold lists of names"),
    "no_names": (change_split(actor=[[1, 2]]), "must hold lists of names"),
    "lists_for_names": (change_split(actor=[[["a"]]]), "must hold lists of names"),
    "unassigned_text": (change_split(unassigned="log_std"), "must hold lists of names"),
    "unknown": (change_split(actor=[["action_net.weight", "secret"]]), "does not have: .'secret'"),
    "unknown_unassigned": (change_split(unassigned=["secret"]), "does not have: .'secret'"),
    "twice": (change_split(actor=[[*HEAD, *HEAD]]), "named twice"),
    "on_both_sides": (change_split(critic=[HEAD]), "named twice"),
    "nothing_for_the_actor": (change_split(actor=[]), "names no parameter"),
    "everything_for_the_critic": (
        tensors("policy.optimizer", lambda s: s["split"].update(actor=[], critic=[s["split"]["actor"][0] * 1])),
        "names no parameter",
    ),
    "the_actors_for_the_critic": (
        tensors("policy.optimizer", lambda state: exchange(state, "action_net.bias", "value_net.bias")),
        "'value_net.bias'. are in the wrong one",
    ),
    "unassigned_on_the_critics_side": (change_split(unassigned=["value_net.weight"]), "unassigned parameters must be in"),
    "another_number": (change_split(actor=[HEAD]), "differ in their numbers of parameters"),
    "another_number_of_the_critics": (
        change_split(critic=[["value_net.weight", "value_net.bias"]]),
        "differ in their numbers of parameters",
    ),
    "another_number_of_groups": (change_split(actor=[HEAD, []]), "differ in their numbers of parameters"),
}


@pytest.mark.parametrize("how", ["load", "set_parameters"])
@pytest.mark.parametrize(("change", "text"), BAD_SPLITS.values(), ids=BAD_SPLITS.keys())
def test_a_damaged_split_in_a_file_is_refused(change, text, how, model_path):
    """Names in a file that are damaged, unknown, repeated or on the wrong side are refused."""
    model = make_model().learn(16)
    model.save(model_path)
    model_path.write_bytes(change(read_archive(model_path), model_path))
    with pytest.raises(RefusedFileError, match=text):
        VPG.load(model_path) if how == "load" else model.set_parameters(model_path)
