import json
import re

import numpy as np
import pyarrow.parquet
import pytest

from slmrec_jax import UserError, load_run
from slmrec_jax.commands.main import main
from slmrec_jax.serving import served
from slmrec_jax.serving.exports import read_export
from slmrec_jax.serving.recommendations import Recommendations, nothing_left, without_items, write_ranked
from slmrec_jax.serving.served import recommend

EVIL = "\x1b[2J\x1b]0;owned\x07\u202eabc\n"


@pytest.mark.usefixtures("optax_promotion")
def test_evaluate(finished, tiny_demo, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(finished.folder), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"] == json.loads((finished.folder / "result.json").read_text())["test"]
    assert main(["evaluate", str(finished.folder), "--split", "valid", "--protocol", "mmrec"]) == 0
    assert "valid @20" in capsys.readouterr().out


def test_recommend_in_raw_ids(finished, tiny_demo, tmp_path, capsys):
    capsys.readouterr()
    arguments = ["recommend", str(finished.folder), "--users", "user-0001,user-0004", "-k", "3"]
    assert main([*arguments, "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["user"] for line in lines] == ["user-0001", "user-0004"]
    assert all(re.fullmatch(r"item-\d{4}", item) for line in lines for item in line["items"])
    assert all(line["scores"] == sorted(line["scores"], reverse=True) for line in lines)

    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert all(item in table for line in lines for item in line["items"])

    out = tmp_path / "found.parquet"
    assert main([*arguments, "--format", "parquet", "--out", str(out)]) == 0
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["item"] for row in rows] == [item for line in lines for item in line["items"]]
    assert [row["rank"] for row in rows] == [1, 2, 3] * 2


def one(user, *items, left=True):
    """Recommendations for one user; the last item is not one."""
    scores = np.array([[1.0] * (len(items) - 1) + [-np.inf]] if left else [[-np.inf] * len(items)], np.float32)
    return Recommendations(np.array([user]), np.array([items]), scores)


def test_raw_ids_are_shown_as_they_are(capsys):
    write_ranked([one("[x]u1", "[/i]2", "b")], "table", None)
    said = capsys.readouterr().out
    assert "[x]u1" in said
    assert "[/i]2" in said
    assert " b " not in said
    long = "item-" * 40
    write_ranked([one("u", long, "b")], "table", None)
    letters = re.sub(r"[^a-z-]", "", capsys.readouterr().out.split("score")[1])
    assert long in letters  # over several lines, and not cut short


def test_a_terminal_obeys_no_raw_id(capsys, tmp_path):
    write_ranked([one(EVIL, EVIL, "b")], "table", None)
    write_ranked([one(EVIL, EVIL, "b")], "table", tmp_path / "table")
    note = nothing_left(without_items(one(EVIL, "a", left=False)).tolist(), 1)
    assert "1 of 1 users have nothing left to recommend" in note
    for said in (capsys.readouterr().out, (tmp_path / "table").read_text(), note):
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
        assert r"\x1b[2J" in said


def test_a_user_with_nothing_left_is_in_every_form(tmp_path, capsys):
    ids = np.array([7, 8])
    found = Recommendations(ids, np.array([[1, 2], [3, 4]]), np.array([[0.5, -np.inf], [-np.inf] * 2], np.float32))
    for form in ("table", "jsonl", "parquet"):
        write_ranked([found], form, tmp_path / form)
    assert re.search(r"8 +│ +│ nothing left", (tmp_path / "table").read_text())
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    assert lines == [{"user": 7, "items": [1], "scores": [0.5]}, {"user": 8, "items": [], "scores": []}]
    rows = pyarrow.parquet.read_table(tmp_path / "parquet").to_pylist()
    assert rows == [
        {"user": 7, "rank": 1, "item": 1, "score": 0.5},
        {"user": 8, "rank": None, "item": None, "score": None},
    ]
    assert nothing_left(without_items(found).tolist(), 2) == "1 of 2 users have nothing left to recommend: 8"
    assert nothing_left(without_items(one(1, 2, 3)).tolist(), 1) is None


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_many_users_are_written_part_by_part(finished, tiny_demo, tmp_path, capsys, monkeypatch, form):
    """For 60 users, in parts of 7, as all at once; the notes count all of them."""
    said = []
    for name, most in (("whole", 1000), ("parts", 7)):
        monkeypatch.setattr(served, "PART_USERS", most)
        capsys.readouterr()
        arguments = [str(finished.folder), "-k", "1000", "--format", form, "--out", str(tmp_path / name)]
        assert main(["recommend", *arguments]) == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert "-k is 1000, but there are only 80 items to rank" in said[1].err
    if form == "parquet":
        files = [pyarrow.parquet.ParquetFile(tmp_path / name) for name in ("whole", "parts")]
        assert files[1].num_row_groups == 9
        whole, parts = (file.read().to_pylist() for file in files)
    else:
        texts = ((tmp_path / name).read_text() for name in ("whole", "parts"))
        whole, parts = ([json.loads(line) for line in text.splitlines()] for text in texts)
    for one, other in zip(whole, parts, strict=True):
        scores = [line.pop("scores" if form == "jsonl" else "score") for line in (one, other)]
        assert one == other
        assert scores[1] == pytest.approx(scores[0], rel=1e-5, abs=1e-6)  # products of fewer rows round differently


def test_a_part_where_all_have_nothing_left_has_the_columns_of_the_others(tmp_path):
    """Titles of such a part are all null, and still text."""
    parts = [
        one("u", "a", "b", left=left)._replace(texts={"title": np.array([["A", "B"]], np.object_)})
        for left in (True, False)
    ]
    write_ranked(parts, "parquet", tmp_path / "out")
    assert pyarrow.parquet.read_table(tmp_path / "out")["title"].to_pylist() == ["A", None]


def recommended(capsys, *arguments):
    assert main(["recommend", *arguments, "-k", "1", "--format", "jsonl"]) == 0
    return [json.loads(line)["user"] for line in capsys.readouterr().out.splitlines()]


def test_users_with_commas_quotes_and_blanks_can_be_named(exported, tmp_path, capsys, refused):
    shop = [str(exported)]
    assert recommended(capsys, *shop, "--users", 'u2,"Doe, Jane"') == ["u2", "Doe, Jane"]
    assert recommended(capsys, *shop, "--users", '" ""x"" ",u2 ') == [' "x" ', "u2 "]
    names = tmp_path / "names.txt"
    names.write_bytes('\ufeffDoe, Jane\r\n\n "x" \nu2 \nЖук'.encode())
    assert recommended(capsys, *shop, "--users-file", str(names)) == ["Doe, Jane", ' "x" ', "u2 ", "Жук"]
    assert "quotes must enclose an id" in refused("recommend", *shop, "--users", '"Doe, Jane')
    assert "one of --users and --users-file" in refused("recommend", *shop, "--users", "u2", "--users-file", str(names))
    for content, said in ((b"\n", "is empty"), (b"u2\n\xff", "not UTF-8 (byte 4)")):
        names.write_bytes(content)
        assert said in refused("recommend", *shop, "--users-file", str(names))
    assert "Is a directory" in refused("recommend", *shop, "--users-file", str(tmp_path))
    assert "no user 'all'" in refused("recommend", *shop, "--users", '"all"')


@pytest.mark.parametrize("form", ["table", "jsonl", "parquet"])
def test_a_full_disk_leaves_no_recommendations(exported, tmp_path, refused, form, refusing_disk):
    (tmp_path / "out").write_text("old")
    arguments = ["recommend", str(exported), "-k", "1", "--format", form, "--out"]
    refusing_disk(50)
    for name in ("out", "new/out"):
        said = refused(*arguments, str(tmp_path / name))
        assert f"cannot write {tmp_path / name}: File too large; free some space, or give another --out" in said
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shop"]


def test_a_history_and_similar_items(finished, tiny_demo, tmp_path, capsys, refused):
    run, history = str(finished.folder), tmp_path / "history.txt"
    history.write_text("item-0003\nitem-0004\n")
    capsys.readouterr()
    assert main(["recommend", run, "--history", str(history), "-k", "3", "--format", "jsonl"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["user"] == "new user"
    assert len(set(line["items"]) - {"item-0003", "item-0004"}) == 3
    assert "one of --users and --history" in refused(
        "recommend", run, "--history", str(history), "--users", "user-0001"
    )

    similar = ["similar", run, "--items", "item-0003,item-0004", "-k", "2"]
    assert main([*similar, "--format", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["item"] for line in lines] == ["item-0003", "item-0004"]
    assert all(len(line["similar"]) == 2 and line["item"] not in line["similar"] for line in lines)
    assert main([*similar, "--format", "parquet", "--out", str(tmp_path / "similar.parquet")]) == 0
    rows = pyarrow.parquet.read_table(tmp_path / "similar.parquet").to_pylist()
    assert [row["similar"] for row in rows] == [item for line in lines for item in line["similar"]]
    assert "needs --items" in refused("similar", run)
    assert "there is no item 'x'" in refused("similar", run, "--items", "x")


@pytest.mark.slow
def test_a_run_in_python(finished, tiny_demo, tmp_path):
    run = load_run(finished.folder)
    assert run.test == run.result["test"]
    assert run.curves["epoch"] == [record["epoch"] for record in run.history]
    assert run.curves["valid/recall@20"] == [record["metrics"]["recall@20"] for record in run.history]
    assert run.recommend(history=["item-0003"], k=2).items.shape == (1, 2)
    assert run.similar(["item-0003"], k=2).similar.shape == (1, 2)
    with pytest.raises(UserError, match=r"users or history \(for new users\), not both"):
        run.recommend(["user-0001"], history=["item-0003"])
    run.export(tmp_path / "exported")
    exported = recommend(read_export(tmp_path / "exported"), ["user-0001"], 3)
    assert exported.items.tolist() == run.recommend(["user-0001"], 3).items.tolist()
    run.report(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000
