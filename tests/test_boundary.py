"""What Python callers are told of arguments of a wrong type: outside pytest, where no annotation is checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = {
    "train('slmrec')": "config is 'slmrec', of type str: give a slmrec_jax.Config",
    "train(Config(epochs='1'), tiny)": "epochs is '1', of type str: give a whole number",
    "train(Config(epochs=0), tiny)": "epochs is 0: give at least 1",
    "train(Config(), 'folder')": "dataset is 'folder', of type str: give a Dataset",
    "train(Config(), tiny, resume=True)": "resume=True needs out: the folder of the run to continue",
    "train(Config(), tiny, out=3)": "out is 3, of type int: give the path of a folder",
    "train(Config(modalities='visual'), tiny)": "modalities is 'visual', of type str: give a tuple",
    "train(Config(ks=(5, 90)), tiny)": "ks: the cut-off 90 is beyond the 6 items to rank: give at most 6",
    "train(Config(), tiny, method='mf')": "method is 'mf', of type str: give a function of a config and a spec",
    "train(Config(), tiny, progress='yes')": "progress is 'yes', of type str: give true or false",
    "train(Config(), tiny, callbacks=3)": "callbacks is 3, of type int: give a list of functions",
    "train(Config(), tiny, callbacks=['yes'])": "callbacks is 'yes', of type str: give a list of functions",
    "train(Config(), tiny, config_file=3)": "config_file is 3, of type int: give the path of a Python file",
    "train(Config(), tiny, resume='yes')": "resume is 'yes', of type str: give true or false",
    "run.recommend(k=True)": "k is True, of type bool: give the number of items that each user gets",
    "setup({}, tiny)": "config is {}, of type dict: give a slmrec_jax.Config",
    "setup(Config(dim=-1), tiny)": "dim is -1: give at least 2",
    "setup(Config(), None)": "dataset is None, of type NoneType: give a Dataset",
    "setup(Config(), tiny, method=3)": "method is 3, of type int: give a function of a config and a spec",
    "with_protocol(Config(), 'zz')": "there is no protocol 'zz': give one of strict, slmrec",
    "Config.load(None)": "path is None, of type NoneType: give the path of a config file",
    "run.export(3)": "folder is 3, of type int: give the path of a new folder",
    "run.report(None)": "page is None, of type NoneType: give the path of an HTML file",
    "dataset(([1], [2]), features=[1])": "features is [1], of type list: give a mapping",
    "load(5)": "data is 5, of type int: give the path of a folder, or 'demo'",
    "load('demo', split=3)": "split is 3, of type int: give text or nothing",
    "load('demo', split_seed='1')": "split_seed is '1', of type str: give a whole number",
    "load_run(None)": "folder is None, of type NoneType: give the path of a run's folder",
    "load_run('x', data=3)": "data is 3, of type int: give the path of a data set's folder",
    "made(train=([0], [1]))": "data set x: train is ([0], [1]), of type tuple: give slmrec_jax.types.Interactions",
    "made(num_users='3')": "data set x: num_users is '3', of type str: give a whole number",
    "made(features=[1])": "data set x: features is [1], of type list: give a dict of Feature or Words by modality",
    "made(features={'image': [1]})": "data set x: image is [1], of type list: give Feature(values, present)",
    "made(notes='a note')": "data set x: notes is 'a note', of type str: give a tuple of lines",
    "tiny.with_modalities('visual')": "data set x: modalities is 'visual', of type str: give a tuple of names",
    "run.recommend(k='3')": "k is '3', of type str: give the number of items that each user gets",
    "run.recommend(k=0)": "k is 0: give at least 1",
    "run.recommend(new_items='shop')": "new_items is 'shop', of type str: give what slm.read_new_items returns",
    "run.evaluate('train')": "split is 'train', of type str: give one of valid, test",
    "run.evaluate(protocol='strictly')": "protocol is 'strictly', of type str: give one of None, strict",
    "run.evaluate(candidates='new')": "candidates is 'new', of type str: give one of None, all, cold",
    "run.evaluate_by('both')": "side is 'both', of type str: give one of users, items",
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
    "feature_dropout(0.1, 'inptu')": "mode is 'inptu', of type str: give one of layer, input",
    "edge_dropout(0.1, 'Layer')": "granularity is 'Layer', of type str: give one of view, layer",
    "node_dropout('0.1')": "rate is '0.1', of type str: give a share of at least 0 and below 1",
    "feature_masking('swap')": "mode is 'swap', of type str: give one of swapped, clean",
    "feature_masking('clean', 'items')": "granularity is 'items', of type str: give one of batch, item",
    "info_nce(0.2, 'smpled')": "negatives is 'smpled', of type str: give one of inbatch, sampled",
    "info_nce(0.2, popularity_correction='auto')": "popularity_correction is 'auto', of type str: give a number",
    "info_nce(None)": "temperature is None, of type NoneType: give a number above 0",
    "info_nce(0.0)": "temperature is 0.0, of type float: give a number above 0",
    "info_nce(0.2, 'sampled', 0)": "num_negatives is 0, of type int: give a whole number of at least 1",
    "bpr('cos')": "score is 'cos', of type str: give one of dot, cosine",
    "bpr(num_negatives=1.5)": "num_negatives is 1.5, of type float: give a whole number of at least 1",
    "embedding_l2('layer1')": "rows is 'layer1', of type str: give one of layer0, view, fused",
    "embedding_l2(norm='l2')": "norm is 'l2', of type str: give one of squared, frobenius",
    "view_agreement(views, 0.2, 'users')": "entities is 'users', of type str: give one of both, items",
    "view_agreement(views, 0.2, contrast_on='x')": "contrast_on is 'x', of type str: give one of fused, modality",
    "view_agreement(views, 0.2, among='al')": "among is 'al', of type str: give one of batch, distinct, all",
    "view_agreement(views, 0)": "temperature is 0, of type int: give a number above 0",
    "fine_and_coarse(0.2, 'cos')": "similarity is 'cos', of type str: give one of dot, cosine",
    "fine_and_coarse(-1.0)": "temperature is -1.0, of type float: give a number above 0",
}

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from slmrec_jax import Augmentation, Config, Run, bpr, dataset, info_nce, load, load_run, setup, train, view_agreement
from slmrec_jax import with_protocol
from slmrec_jax.data import Feature, Words, make_dataset
from slmrec_jax.data.synthetic import demo
from slmrec_jax.objectives.augmentations import edge_dropout, feature_dropout, feature_masking, node_dropout
from slmrec_jax.objectives.losses import embedding_l2, fine_and_coarse
from slmrec_jax.types import Embeddings, Interactions

views = Augmentation(), Augmentation()

def made(**changes):
    pairs = Interactions(np.array([0, 1, 2]), np.array([0, 1, 2]))
    given = {"train": pairs, "valid": pairs, "test": pairs, "num_users": 3, "num_items": 6} | changes
    return make_dataset("x", **given)

tiny = made()
run = Run(Config(), tiny, Embeddings(np.ones((3, 2)), np.ones((6, 2))), {}, [], Path("run"))
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
def said(tmp_path_factory):
    """What each call raises, in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CALLS))]
    folder, root = tmp_path_factory.mktemp("calls"), str(Path(__file__).parents[1])
    ran = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"},
    )
    assert not list(folder.iterdir())
    return json.loads(ran.stdout)


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_is_named_in_one_line_in_the_words_of_python(said, call):
    assert said[call].startswith(f"UserError: {CALLS[call]}")
    assert "\n" not in said[call]
    assert "--" not in said[call]
