"""Whatever a model folder contains, using it ends in a text or one line, and other models still work."""

import json

import pytest

from tests.conftest import ROOT, script
from tests.hostile.kinds import KINDS

_SECONDS = 5  # of computing for one use
_MEMORY = 500 << 20  # bytes more than a good model takes


def use(root, ways, *kinds):
    """The result of each kind by name, and that of a good model; see tests/hostile/worker.py."""
    done = script("-m tests.hostile.worker", root, ways, *kinds, cwd=ROOT, timeout=1200)
    assert done.returncode == 0, done.stderr
    results = {(result := json.loads(line))["kind"]: result for line in done.stdout.splitlines()}
    return results, results.pop("good")


def problems(kind, result, good):
    """What is wrong with a result."""
    if result["status"]:
        return [f"ended with {result['status']}: {result['printed']}"]
    found = []
    for way, (_, seconds) in result["ways"].items():
        if seconds > _SECONDS:
            found.append(f"{way} took {seconds:.1f} s")
    if result["memory"] > good["memory"] + _MEMORY:
        found.append(f"took {result['memory'] - good['memory']:,} bytes more than a good model")
    if "Traceback" in result["printed"] or "\x1b" in result["printed"]:
        found.append(result["printed"])
    said, expected = result["ways"]["load"][0], KINDS[kind][1]
    if said != "loaded" if expected is None else not said.startswith("error: ") or expected not in said:
        found.append(f"said {said!r}, not {expected!r}")
    return [f"{kind}: {problem}" for problem in found]


def check(root, ways):
    results, good = use(root, ways)
    assert results.keys() == KINDS.keys() and len(KINDS) > 100
    assert not good["status"] and good["ways"]["load"][0] == "loaded", good
    wrong = [problem for kind, result in results.items() for problem in problems(kind, result, good)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_every_hostile_folder_loads_or_is_rejected_in_one_line(tmp_path):
    check(tmp_path, "load")


@pytest.mark.slow
def test_every_use_of_a_hostile_folder_ends_and_leaves_other_models_alone(tmp_path):
    check(tmp_path, "load,generate,evaluate,page,api")
