import json
import re

import pytest

from slmrec_jax.commands.main import main


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.slow
def test_compare(cheap, tiny_demo, tmp_path, capsys, refused):
    out = tmp_path / "compared"
    arguments = ["compare", *cheap[2:], "--models", "popularity,itemknn,mf:linear", "--seeds", "0,1", "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert re.search(r"mf:linear[^±]*│\n│ +│ ± ", said.out)  # a deviation is below its mean where a terminal is narrow
    figures = json.loads((out / "comparison.json").read_text())
    assert {name: len(results) for name, results in figures["systems"].items()} == {
        "popularity": 1,
        "itemknn": 1,
        "mf:linear": 2,
    }
    assert {len(of_others) for of_others in figures["p_values"].values()} == {2}
    assert (out / "comparison.png").stat().st_size > 5000
    written = (out / "mf-linear-seed1" / "result.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("finished before") == 2
    assert (out / "mf-linear-seed1" / "result.json").stat().st_mtime_ns == written
    assert "another config" in refused(*arguments, "--batch-size", "64")


@pytest.mark.parametrize("size", [50, 4000])
def test_a_full_disk_ends_a_comparison_in_one_line(tiny_demo, tmp_path, refused, size, refusing_disk):
    """At the table, and at the picture."""
    refusing_disk(size)
    said = refused("compare", "--models", "popularity", "--out", str(tmp_path / "out"))
    assert "File too large; free some space, or give another --out; the same command does not repeat finished" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"comparison.json"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "line 1 is not Python"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return None", "returns None"),
        (
            "def get_config():\n    import slmrec_jax\n    return slmrec_jax.Config()\nmake_method = 1",
            "has make_method(), which compare cannot use",
        ),
    ],
)
def test_config_files_that_cannot_be_used(refused, tmp_path, code, said):
    (tmp_path / "mine.py").write_text(code)
    assert said in refused("compare", "--config", str(tmp_path / "mine.py"), "--out", str(tmp_path / "out"))
