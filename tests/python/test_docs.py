"""What is written is run: every docstring's example, and the tutorial's code blocks in their order.

If it is wrong: a docstring without an example would pass unseen, so the public names are counted too.
"""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import blkdelta

TUTORIAL = Path(__file__).parents[2] / "docs" / "PYTHON.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture
def example():
    """What examples start from: a volume of 8 MiB with 1 MiB in it, another one, and a repository with one backup."""
    content = b"data" * (1 << 18)
    Path("db.img").write_bytes(content + bytes(7 << 20))
    Path("log.img").write_bytes(content)
    repo = blkdelta.Repository.init("repo")
    repo.backup("db.img", volume="db")
    return {"blkdelta": blkdelta, "repo": repo}


def public():
    """Everything public with a docstring: functions, classes and their methods."""
    for name in blkdelta.__all__:
        thing = getattr(blkdelta, name)
        yield name, thing
        if inspect.isclass(thing):
            members = inspect.getmembers(thing, callable)
            yield from ((f"{name}.{key}", value) for key, value in members if not key.startswith("_"))
        if inspect.ismodule(thing):
            yield from ((f"{name}.{key}", getattr(thing, key)) for key in thing.__all__)
    yield "blkdelta", blkdelta


DOCUMENTED = dict(public())


@pytest.mark.parametrize("name", [name for name, thing in DOCUMENTED.items() if ">>>" in (thing.__doc__ or "")])
def test_the_example_of(name, example):
    found = doctest.DocTestParser().get_doctest(DOCUMENTED[name].__doc__, example, name, None, None)
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(found)
    assert outcome.failed == 0 and outcome.attempted > 0


def test_everything_public_is_documented():
    assert [name for name, thing in DOCUMENTED.items() if not thing.__doc__] == []
    without = {name for name, thing in DOCUMENTED.items() if ">>>" not in thing.__doc__ and inspect.isroutine(thing)}
    assert {name for name in without if name.split(".")[-1] not in ("close", "cancel", "as_dict", "add_note", "with_traceback")} == set()


def test_the_tutorial(example):
    blocks = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 8
    example.pop("repo").close()
    namespace = {}
    for block in blocks:
        exec(compile(block, str(TUTORIAL), "exec"), namespace)
