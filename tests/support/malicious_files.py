"""
Malicious files: good models with a single change, so that nothing else is the reason of the refusal. ``hostile_pickles`` has
files that the readers of torch and pickle would execute, and ``hostile_zips`` those in which two readers find different
content.
"""

import pickle

import numpy as np
import torch as th
from hostile_pickles import pickles
from hostile_zips import zips
from tampering import (
    ACTING,
    ANSI,
    DISCRETE,
    Cases,
    Hostile,
    Payload,
    architecture,
    array,
    billion_laughs,
    bytearray_pickle,
    case,
    compressed,
    duplicated,
    evil_setting,
    flood,
    generator,
    importing,
    lazy,
    member,
    moment,
    overlapping,
    patched,
    polyglot,
    saved,
    scalar,
    schedule,
    setting,
    space,
    tarred,
    tensors,
    weight,
    with_pickle,
)

from sb3_vpg.persistence.archives import write_archive


def _pickles() -> Cases:
    pth = "'policy.pth'"
    yield case("pickled setting", "to run code in a pickled setting", evil_setting, "pickles.*gamma.*trust=True")
    for name, tries, made in (
        ("pickle for weights", "to run code in a bare pickle", lambda m: pickle.dumps(Payload(m))),
        (
            "torch's old format",
            "code in torch's format before 1.6",
            lambda m: saved(Payload(m), _use_new_zipfile_serialization=False),
        ),
    ):
        yield case(
            name,
            tries,
            lambda members, m, made=made: write_archive({**members, "policy.pth": made(m)}),
            f"{pth} is not in torch",
        )
    yield case(
        "tar",
        "code in torch's first format",
        lambda members, m: write_archive({**members, "policy.pth": tarred(pickle.dumps(Payload(m)))}),
        f"{pth} is not in torch",
        "CVE-2025-32434",
    )
    yield case(
        "pickle in weights",
        "code in the pickle of torch's format",
        lambda members, m: with_pickle(members, pickle.dumps({"a": Payload(m)}, 2)),
        f"{pth} carries a pickle.*exec",
    )
    yield case(
        "TorchScript",
        "to run a TorchScript program",
        lambda members, m: with_pickle(
            members, pickle.dumps(Payload(m), 2), {"archive/constants.pkl": b"\x80\x02).", "archive/code/a.py": b""}
        ),
        f"{pth} carries a pickle",
    )
    yield case("polyglot", "two file formats in one file", polyglot, f"{pth} is not a complete zip archive.*two archives")
    yield case(
        "pickle in an optimiser",
        "to run code among the moments",
        lambda members, m: write_archive({**members, "critic_optimizer.pth": saved({"state": Payload(m)})}),
        "'critic_optimizer.pth' carries a pickle",
    )
    yield case(
        "allowed call",
        "to allocate 100 GB by a call that weights_only allows",
        lambda members, m: with_pickle(members, bytearray_pickle(10**11)),
        "bytearray",
    )
    yield case("import", "to import a module by the name of an environment", importing, "setting 'env', which no model")
    yield case(
        "lazy import",
        "to import a module by a name in a package that imports lazily",
        lazy,
        "lazy_package:Thing.*not imported",
    )
    for name, what in (
        ("class of a process", "subprocess:Popen"),
        ("class of torch that acts", "torch.jit._script:RecursiveScriptModule"),
        ("function for a class", "os:system"),
        ("class beside torch's layers", "torch.optim.swa_utils:AveragedModel"),
    ):
        yield case(name, f"to have {what} called", setting("policy_class", {"!class": what}), f"policy_class.*{what}")
    yield case(
        "class for a number", "to have a class built", setting("learning_rate", ACTING), "learning_rate must be a number"
    )
    yield case(
        "class in a schedule",
        "to have a class called",
        setting("learning_rate", schedule("FloatSchedule", value_schedule=ACTING)),
        "learning_rate.*FloatSchedule.*not made of numbers",
    )
    yield case(
        "schedule of another kind",
        "to have exec called",
        setting("ent_coef", {"!schedule": ["builtins:exec", {}]}),
        "ent_coef.*builtins:exec",
    )
    yield case("method", "to replace a method", setting("predict", 1), "'predict', which would take the place of a method")
    yield case("attribute", "to replace a derived attribute", setting("_rng", 1), "'_rng', which no model of ours saves")
    yield case(
        "variable",
        "to replace a weight under the name of a variable",
        member("pytorch_variables.pth", saved({"policy.value_net.weight": th.ones(3)})),
        r"'pytorch_variables.pth' should hold \[\]",
    )
    yield case(
        "words of its own",
        "to write control sequences to the terminal",
        setting("gamma", {"!left_out": ANSI}),
        r"could not hold \\x1b\[2Jall is well\\u202e",
    )


def _archives() -> Cases:
    for name, path in (
        ("path upwards", "../x.pth"),
        ("absolute path", "/tmp/x.pth"),
        ("path of Windows", "..\\x"),
        ("drive", "C:x"),
    ):
        yield case(name, "to be unpacked elsewhere", member(path, b"x"), "whose name is a path")
    yield case("stowaway", "an unknown member", member("setup.py", b"x"), "'setup.py', which no model")
    yield case("look-alike", "a name that looks like another", member("d\u0430ta", b"{}"), "which no model")
    yield case("member twice", "two members, one to be checked and one to be read", duplicated, "the member 'data' twice")
    yield case(
        "outer bomb",
        "100 MB compressed to 100 KB",
        lambda members, m: compressed(members, best_model_0=10**8),
        "which no model|compressed",
    )
    yield case(
        "inner bomb",
        "100 MB compressed to 100 KB, in the inner archive",
        lambda members, m: write_archive({**members, "policy.pth": compressed({}, archive__data__0=10**8)}),
        "'policy.pth' holds the compressed member",
    )
    yield case("overlap", "a thousand members that share their bytes", overlapping, "members claim")
    yield case("size of a member", "a false size of 4 GB", patched(24, b"\xf0\xff\xff\xff"), "members claim")
    yield case("zip64", "a size in a field that is missing", patched(20, b"\xff" * 8), "members claim|not a complete zip")
    yield case("encrypted", "an encrypted member", patched(8, b"\x01\x00"), "encrypted")
    yield case("method of compression", "an unknown compression method", patched(10, b"\x63\x00"), "compressed")
    yield case("cut off", "half a model", lambda members, m: write_archive(members)[:-400], "not a complete zip archive")
    yield case("empty", "an empty file", lambda members, m: b"", "not a complete zip archive")
    yield case("no archive", "a file of another format", lambda members, m: b"GIF89a" * 100, "not a complete zip archive")
    yield case(
        "no settings", "half a model", lambda m, _: write_archive({k: v for k, v in m.items() if k != "data"}), "no settings"
    )
    yield case(
        "no weights",
        "half a model",
        lambda m, _: write_archive({k: v for k, v in m.items() if k != "policy.pth"}),
        "no weights",
    )
    yield case("no JSON", "a member that is not JSON", member("data", b"\xff\xfe{"), "'data' is not JSON")
    yield case("other JSON", "JSON of another type", member("data", b"[1]"), "'data' must hold an object")
    yield case("deep JSON", "to overflow the stack", member("data", b"[" * 200_000), "'data' is not JSON")
    yield case(
        "deep settings",
        "to overflow the stack later",
        member("data", b'{"gamma":' + b"[" * 900 + b"]" * 900 + b"}"),
        "'data' is not JSON: it is nested more than 300 deep",
    )
    yield case(
        "endless number",
        "to take quadratic time for a long number",
        member("data", b'{"gamma": ' + b"9" * 100_000 + b"}"),
        "'data' is not JSON",
        "CVE-2020-10735",
    )


def _settings() -> Cases:
    larger = "larger networks than it has weights"
    yield case("wide network", "a trillion weights", architecture([10**9, 10**9]), f"{larger}|no model can be built")
    yield case("deep network", "a hundred thousand layers", architecture([1] * 10**5), larger)
    yield case("empty layers", "a hundred thousand empty layers", architecture([0] * 10**5), larger)
    yield case("strange network", "texts in place of layer sizes", architecture([["a"], None]), "no model can be built")
    yield case("long rollout", "petabytes for a rollout", setting("n_steps", 10**15), "n_steps must be at most")
    yield case("rollout beyond integers", "an integer overflow", setting("n_steps", 2**70), "n_steps must be at most")
    yield case(
        "many environments", "petabytes for a rollout", setting("n_envs", 10**15), "n_steps must be at most.*all environments"
    )
    yield case(
        "many actions",
        "a trillion actions",
        setting("action_space", space("Discrete", n=scalar(10**12), **DISCRETE)),
        f"{larger}|no model can be built",
    )
    yield case(
        "long observation",
        "a trillion bits",
        setting("observation_space", space("MultiBinary", n=10**12)),
        f"{larger}|no model can be built|array",
    )
    yield case(
        "space with a shape",
        "40 GB for its bounds",
        setting("observation_space", space("Box", low=0.0, high=1.0, dtype={"!dtype": "<f4"}, shape=[10**10])),
        r"observation_space.*Box of \['dtype', 'high', 'low', 'shape'\]",
    )
    yield case(
        "space of objects",
        "objects in arrays",
        setting("action_space", space("Box", low=0, high=1, dtype={"!dtype": "|O"})),
        "dtype '|O'",
    )
    yield case("no space", "a number in place of a space", setting("action_space", 3), "not a Gymnasium space")
    yield case("fields", "an array of records", setting("x", {"!array": ["f4,O", [0], ""]}), "dtype 'f4,O'")
    yield case("shape", "an array of an exabyte", setting("x", {"!array": ["<f4", [10**18], ""]}), "x: .*array")
    yield case("negative shape", "an array of any size", setting("x", {"!array": ["<f4", [-1], "AAAA"]}), "array of the shape")
    yield case(
        "random generator",
        "to make NumPy read beyond its buffer",
        setting("x", generator(10**6)),
        "x: .*MT19937 at the position 1000000",
    )
    yield case(
        "schedule of arrays",
        "to allocate 80 GB when it is called",
        setting(
            "learning_rate",
            schedule("LinearSchedule", start=array(np.zeros((10**5, 1))), end=array(np.zeros((1, 10**5))), end_fraction=1.0),
        ),
        "learning_rate.*not made of numbers",
    )
    yield case(
        "schedule by zero",
        "a division by zero",
        setting("learning_rate", schedule("LinearSchedule", start=1, end=0, end_fraction=0)),
        "ZeroDivisionError",
    )
    yield case("unknown tag", "a tag that an older reader might skip", setting("x", {"!lambda": 1}), "unknown tag '!lambda'")
    yield case("two tags", "a value of two types", setting("x", {"!tuple": [], "!array": []}), "unknown tag '!tuple'")
    yield case("number out of range", "a discount of NaN", setting("gamma", float("nan")), "gamma must be between")
    yield case(
        "text for a number",
        "a value of the wrong type",
        setting("n_critic_updates", "many"),
        "n_critic_updates must be a whole number",
    )
    yield case("text for settings", "a value of the wrong type", setting("policy_kwargs", "x"), "no model can be built")
    yield case("text for a class", "a value of the wrong type", setting("policy_class", "MlpPolicy"), "no model can be built")


def _weights() -> Cases:
    odd = "not a dense tensor|must be a tensor of real numbers"
    yield case("NaN", "a policy of NaN", weight(lambda w: w * float("nan")), "'policy.pth', action_net.weight has 24 numbers")
    yield case("infinite", "an infinite weight", weight(lambda w: w / 0), "'policy.pth', action_net.weight has 24 numbers")
    yield case(
        "overflow",
        "infinite as soon as it is a float32",
        weight(lambda w: w.double() + 1e300),
        "'policy.pth', action_net.weight has 24 numbers",
    )
    yield case("other shape", "weights that do not fit", weight(lambda w: w[:1]), "action_net.weight")
    yield case("missing", "missing weights", tensors("policy", lambda s: s.popitem()), "value_net.bias")
    yield case(
        "too many",
        "unknown weights",
        tensors("policy", lambda s: s.update(x=th.ones(3))),
        "Unexpected key.*x|too many",
    )
    yield case(
        "expanded",
        "a tensor of 4 TB that is a view of one number",
        weight(lambda w: th.zeros(1).expand(10**6, 10**6)),
        "no room|room for",
    )
    yield case("sparse", "a sparse tensor", weight(lambda w: w.to_sparse()), "'policy.pth' carries a pickle.*sparse")
    yield case("complex", "complex weights", weight(lambda w: w.to(th.complex64)), odd)
    yield case("meta", "a tensor without numbers", weight(lambda w: w.to("meta")), "'policy.pth' carries a pickle.*meta")
    yield case("not a dict", "a list for weights", member("policy.pth", saved([1, 2])), "no weights")
    yield case(
        "references",
        "10^30 values in 1 KB of references",
        lambda members, m: with_pickle(members, pickle.dumps({"a": billion_laughs()}, 2)),
        "room for",
    )
    yield case("same tensor", "5,000 references to 1 MB", flood, "room for")
    yield case(
        "bytes",
        "a set in place of a tensor",
        lambda members, m: with_pickle(members, pickle.dumps({"a": {1}}, 2)),
        "carries a pickle",
    )
    yield case(
        "huge memo",
        "to allocate 32 GB for the memo of a pickle",
        lambda members, m: with_pickle(members, b"\x80\x02}r\xff\xff\xff\x7f."),
        "no model can be built|missing",
    )
    yield case(
        "moments of NaN",
        "NaN at the next update",
        moment("exp_avg", th.full((8, 3), float("nan"))),
        "'critic_optimizer.pth', state, 0, exp_avg",
    )
    yield case(
        "infinite step", "NaN at the next update", moment("step", th.tensor(float("inf"))), "'step' in critic_optimizer"
    )
    yield case(
        "shape of moments",
        "to fail at the next update",
        moment("exp_avg", th.ones(7)),
        "'exp_avg' in critic_optimizer has the shape",
    )
    yield case(
        "strange moments",
        "to fail at the next update",
        tensors("critic_optimizer", lambda s: s.update(state={"a": 3})),
        "no model can be built|'critic",
    )
    yield case(
        "learning rate of NaN",
        "NaN at the next update",
        tensors("critic_optimizer", lambda s: s["param_groups"][0].update(lr=float("nan"))),
        "'critic_optimizer.pth', param_groups, lr is NaN",
    )
    yield case("no groups", "half an optimiser", tensors("critic_optimizer", lambda s: s.pop("param_groups")), "param_groups")
    yield case(
        "other groups",
        "another network's optimiser",
        tensors("critic_optimizer", lambda s: s["param_groups"][0].update(params=[0])),
        "group",
    )


LISTS = (_pickles, _archives, _settings, _weights, pickles, zips)
HOSTILE: dict[str, Hostile] = {name: case for part in LISTS for name, case in part()}
