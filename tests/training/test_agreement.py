"""What processes share before they train, with the other processes played by what they would say."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from slmrec_jax import Config, UserError, processes
from slmrec_jax.config import Source
from slmrec_jax.data import load_copy, write_store
from slmrec_jax.errors import RefusedElsewhere
from slmrec_jax.evaluation.ranking import plan_ranking
from slmrec_jax.training.agreement import check_same_run, held_by_first, read_once
from slmrec_jax.training.setup import outline

RANKING = plan_ranking(np.arange(3), [], 5, 2)
MAKER = {"method": None, "config_file": None}


@pytest.fixture
def among(monkeypatch):
    """Make this process one of several, of which the others say what a function makes of its own words."""

    def become(index, others):
        monkeypatch.setattr(processes, "count", lambda: 2)
        monkeypatch.setattr(processes, "index", lambda: index)
        monkeypatch.setattr(processes, "gathered", lambda own: [own, others(own)] if index == 0 else [others(own), own])

    return become


@pytest.fixture(scope="module")
def planned(tiny):
    return outline(Config(model="mf", dim=4), tiny)


def test_equal_processes_pass(among, planned):
    among(0, lambda own: own)
    check_same_run(planned, RANKING, MAKER, resume=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version of jax": "0.1"}, r"version of jax \(0.1, not"),
        ({"data set (fingerprint)": "abc"}, r"data set \(fingerprint\) \(abc, not"),
        ({"dim": 8}, r"dim \(8, not 4\)"),
        ({"mf": {"features": "linear"}}, r"mf.features \(linear, not none\)"),
        ({"method": "mine"}, r"method \(mine, not the package's own\)"),
        ({"resume": "True"}, r"resume \(True, not False\)"),
        ({"another": 1}, r"another \(None, not 1\)"),
    ],
)
def test_a_process_that_differs_is_refused_by_name(among, planned, changed, message):
    among(0, lambda own: {**own, **{k: {**own[k], **v} if isinstance(v, dict) else v for k, v in changed.items()}})
    with pytest.raises(UserError, match=f"process 1 differs from process 0 in its {message}"):
        check_same_run(planned, RANKING, MAKER, resume=False)


ASKED = Source(data="/somewhere", k_core=5)


def words(own):
    """Whether a message is the first one of reading: the host, and what is asked for."""
    return isinstance(own, list) and isinstance(own[0], list)


def test_the_first_process_of_a_host_reads_and_leaves_a_copy(among, tiny):
    copies = []

    def says(own):
        if isinstance(own, list) and isinstance(own[0], str):
            copies.append(load_copy(Path(own[0]), None))  # it is there while the other reads
        return own

    among(0, says)
    assert read_once(lambda: tiny, ASKED) is tiny
    assert copies[0].fingerprint == tiny.fingerprint


def test_the_others_of_a_host_read_the_copy(among, tiny, tmp_path):
    write_store(tiny, tmp_path / "data")
    copy = [str(tmp_path / "data"), {"data": "/somewhere", "k_core": 5}]
    among(1, lambda own: copy if isinstance(own, list) and not words(own) else own)
    found = read_once(lambda: pytest.fail("it read for itself"), ASKED)
    assert found.fingerprint == tiny.fingerprint
    assert found.source == ASKED
    copy[0] = str(tmp_path / "of another container")
    assert read_once(lambda: tiny, ASKED) is tiny


def test_a_process_on_another_host_reads_for_itself(among, tiny):
    among(1, lambda own: [["elsewhere", "1"], own[1]] if words(own) else own)
    assert read_once(lambda: tiny, ASKED) is tiny


def test_other_data_are_refused_by_name_before_any_are_read(among):
    among(0, lambda own: [own[0], {**own[1], "k_core": 7}])
    with pytest.raises(UserError, match=r"process 1 differs from process 0 in its k_core \(7, not 5\)"):
        read_once(lambda: pytest.fail("it read"), ASKED)


def test_data_that_one_process_cannot_read_are_refused_in_all(among, tiny):
    def refuse():
        raise UserError("no such folder")

    among(0, lambda own: own)
    with pytest.raises(UserError, match="no such folder"):
        read_once(refuse, ASKED)
    among(1, lambda own: "no such folder" if own is None else own)
    with pytest.raises(RefusedElsewhere, match="no such folder"):
        read_once(lambda: tiny, ASKED)


def test_the_first_process_holds_the_folder_for_all_and_all_must_see_it(among, tmp_path):
    (tmp_path / "config.json").touch()
    with held_by_first(nullcontext(tmp_path)) as alone:
        assert alone == tmp_path
    among(1, lambda own: str(tmp_path) if own is None else own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "in_first", lambda action: None)
        patch.setattr(processes, "in_all", lambda action: action())
        with held_by_first(None) as other:
            assert other == tmp_path
        (tmp_path / "config.json").unlink()
        with (
            pytest.raises(UserError, match="is not visible on this host: use a folder that all hosts share"),
            held_by_first(None),
        ):
            pass
