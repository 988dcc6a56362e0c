"""What Python callers are told of arguments that no annotation checks: in a process without the checks of tests."""

import json
import subprocess
import sys

import pytest

CALLS = {
    "demo(seed=-1)": "seed is -1: give at least 0",
    "demo(seed=0.5)": "seed is 0.5, of type float: give a whole number",
    "demo(num_users='20')": "num_users is '20', of type str: give a whole number",
    "demo(columns={'smell': '4'})": "columns of smell is '4', of type str: give a whole number",
    "demo(columns={'smell': 0})": "demo: there are 0 columns of smell",
    "made(train=Interactions([[0], [1, 2]], [0, 1]))": "data set x: train: found lists of different lengths",
    "made(features={'image': Feature([[0.5], [1, 2]], [True, True])})": "data set x: image: found lists of different",
    "made(features={'text': Words([0], [0], None)})": "data set x: num_words of text is None, of type NoneType: give",
    "made(user_ids=[[0], [1, 2]])": "data set x: user_ids: found lists of different lengths",
    "made(item_texts=['a'])": "data set x: item_texts is ['a'], of type list: give a dict of texts by kind",
    "made(item_texts={'name': ['a', 'b']})": "data set x: a kind of item_texts is 'name', of type str: give one of",
    "made(item_texts={'title': [['a'], ['b', 'c']]})": "data set x: items: title is not one text for each item",
}
SCRIPT = """
import json, sys
from slmrec_jax.data import Feature, Words, make_dataset
from slmrec_jax.data.synthetic import demo
from slmrec_jax.types import Interactions

def made(**changes):
    pairs = Interactions([0, 1], [0, 1])
    given = {"train": pairs, "valid": pairs, "test": pairs, "num_users": 2, "num_items": 2} | changes
    return make_dataset("x", **given)

made()
said = {}
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
        said[call] = "nothing"
    except Exception as error:
        said[call] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CALLS))]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_gets_one_line(said, call):
    assert said[call].startswith(f"UserError: {CALLS[call]}")
    assert "\n" not in said[call]
