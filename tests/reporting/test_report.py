"""The report of finished runs: its figures, its escaping, its files, and how a browser takes it."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
import reference

from slmrec_jax import Config, UserError, data, durable, train
from slmrec_jax.commands.main import main
from slmrec_jax.data import write_store
from slmrec_jax.evaluation.analysis import Interval, uniformity
from slmrec_jax.models import slmrec_recipe
from slmrec_jax.reporting import charts, facts, items
from slmrec_jax.reporting import report as writer
from slmrec_jax.reporting.items import item_map, kmeans
from slmrec_jax.reporting.masking import mask_modalities, without
from slmrec_jax.reporting.page import element
from slmrec_jax.reporting.systems import find_systems
from slmrec_jax.reporting.tables import Table, is_number, shown, to_csv, to_latex
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.run import load_run
from slmrec_jax.training.storage.records import write_json
from slmrec_jax.types import ALL, Augmentation, ModalityScale

pytestmark = pytest.mark.usefixtures("optax_promotion")

EVIL = "<script>alert(1)</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Two finished runs, on data whose names come from strangers."""
    folder = tmp_path_factory.mktemp("runs")
    raw_ids = np.array([f'{EVIL}"$_{{{number}}}&\\' for number in range(tiny.num_items)])
    features = {f"<i>{name}</i>": feature for name, feature in tiny.features.items()}
    write_store(dataclasses.replace(tiny, name=EVIL, item_ids=raw_ids, features=features), folder / "data")
    config = Config(data=str(folder / "data"), dim=8, batch_size=512, num_layers=2, epochs=2, ks=(5, 20))
    with jax.numpy_dtype_promotion("standard"):
        for name, changes in {"full": {"task": "none"}, "a $x_1$ & <b>": {"model": "mf", "seed": 1}}.items():
            train(dataclasses.replace(config, **changes), out=folder / name)
    return folder / "full", folder / "a $x_1$ & <b>"


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "our report.html"
    with jax.numpy_dtype_promotion("standard"):
        assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def gathered(runs):
    with jax.numpy_dtype_promotion("standard"):
        return facts.gather(runs)


class Seen(HTMLParser):
    """The tags and attributes of a page, and the text between."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def rows_of(page, name):
    with (page.parent / "our report_files" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(list(arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("slmrec-jax: ")
    return said.err


def test_names_of_strangers_are_text(page):
    seen = Seen(page.read_text())
    assert "script" not in seen.tags
    assert not {"i", "b"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert EVIL in seen.text
    assert "<i>visual</i>" in seen.text
    assert "a $x_1$ & <b>" in seen.text
    assert seen.tags.count("html") == seen.tags.count("body") == 1


def test_the_page_needs_nothing_from_elsewhere(page):
    seen = Seen(page.read_text())
    addresses = {value for name, value in seen.attributes if name in ("href", "src", "xlink:href", "srcset", "action")}
    files = {address for address in addresses if not address.startswith(("#", "data:image/png;base64,"))}
    assert not {"link", "iframe", "object", "embed", "base"} & set(seen.tags)
    assert all(address.startswith("our%20report_files/") for address in files)
    assert {address.split("/")[1] for address in files} == {
        file.name for file in (page.parent / "our report_files").iterdir()
    }
    ids = [value for name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
    assert ("http-equiv", "Content-Security-Policy") in seen.attributes
    assert "url(http" not in page.read_text()


def test_figures_are_those_of_the_runs(page, runs):
    results = [json.loads((run / "result.json").read_text())["test"] for run in runs]
    table = {row["metric"]: row for row in rows_of(page, "metrics")}
    assert set(table) == set(results[0])
    for metric, row in table.items():
        for run, result in zip(runs, results, strict=True):
            assert float(row[run.name]) == pytest.approx(result[metric])
            assert float(row[f"{run.name} low"]) <= result[metric] <= float(row[f"{run.name} high"])
    difference = next(row for row in rows_of(page, "differences") if row["metric"] == "recall@20")
    of = {run.name: result["recall@20"] for run, result in zip(runs, results, strict=True)}
    assert float(difference["difference"]) == pytest.approx(of[difference["best"]] - of[difference["other"]])
    assert 0 < float(difference["p (t-test, Holm)"]) <= 1
    groups = [row for row in rows_of(page, "degree-items") if row["system"] == "full"]
    run = load_run(runs[0])
    assert [float(row["recall@20"]) for row in groups] == pytest.approx(
        [group.means["recall@20"] for group in run.evaluate_by("items")]
    )


def test_neighbours_are_of_the_modality(page, runs):
    dataset = load_run(runs[0]).dataset
    places = {raw: row for row, raw in enumerate(dataset.item_ids.tolist())}
    feature = dataset.features["<i>visual</i>"]
    rows = [row for row in rows_of(page, "neighbours-1") if row["table"] == "<i>visual</i>"]
    assert len(rows) == 5
    for row in rows:
        item = places[row["item"]]
        listed = [places[row[str(rank)]] for rank in range(1, 6) if row[str(rank)]]
        there = np.flatnonzero(feature.present)
        expected = reference.cosine_neighbours(feature.values, item, there, 5) if feature.present[item] else []
        assert listed == expected


def test_a_masked_modality_is_the_one_that_feature_masking_masks(runs):
    run = load_run(runs[0])
    spec, inputs = make_spec(run.config, run.dataset), make_inputs(run.dataset)
    model = slmrec_recipe(run.config, spec).model
    params = model.init(jax.random.key(3))
    name = next(iter(run.dataset.features))
    augmentation = Augmentation(modality=lambda key, names: ModalityScale({name: 0.0}))
    masked = model.encode(params, model.prepare(inputs))(augmentation, jax.random.key(0))
    plain = model.encode(params, model.prepare(without(run, inputs, name)))(Augmentation(), jax.random.key(0))
    np.testing.assert_allclose(plain.users(ALL), masked.users(ALL), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(plain.items(ALL), masked.items(ALL), rtol=1e-5, atol=1e-7)
    whole = model.encode(params, model.prepare(inputs))(Augmentation(), jax.random.key(0))
    assert np.abs(np.asarray(whole.items(ALL)) - np.asarray(plain.items(ALL))).max() > 1e-3


def test_a_system_without_modalities_says_so(page, runs):
    found = mask_modalities(load_run(runs[1]), "recall@20")
    assert found == ({}, "model='mf' does not read modalities when it ranks")
    assert "--model mf does not read modalities" in Seen(page.read_text()).text
    assert {row["run"] for row in rows_of(page, "modalities")} == {"full"}
    assert len(rows_of(page, "modalities")) == 3


def test_what_cannot_be_compared_is_refused_unless_forced(runs, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    result = json.loads((other / "result.json").read_text())
    del result["sha256"]
    write_json(other / "result.json", result | {"protocol": "mmrec"})
    out = tmp_path / "report.html"
    assert "under another protocol" in refused(capsys, "report", str(runs[0]), str(other), "--out", str(out))
    assert not out.exists()
    assert main(["report", str(runs[1]), str(other), "--out", str(out), "--force"]) == 0
    seen = Seen(out.read_text())
    assert "Not comparable" in seen.text
    assert "Differences" not in seen.text


def test_runs_under_other_rules_are_not_contrasted(gathered):
    assert gathered.contrasts
    first, other = gathered.systems
    (run,) = other.runs
    rules = run.config.eval._replace(mask_valid_at_test=False)
    changed = other._replace(runs=[run._replace(config=dataclasses.replace(run.config, eval=rules))])
    assert facts._comparable([first, other], []) == (True, [])
    comparable, (caveat,) = facts._comparable([first, changed], [])
    assert not comparable
    assert "eval.mask_valid_at_test=False, not True" in caveat
    comparable, (caveat,) = facts._comparable([first, other._replace(users=other.users + 1)], [])
    assert not comparable
    assert "on other users" in caveat


def test_intervals_are_of_95_percent(gathered):
    """Within what sampling leaves; at 80 % they would be a third shorter."""
    per_user = {each.label: each.per_user["recall@20"] for each in gathered.systems}
    (contrast,) = (each for each in gathered.contrasts if each.metric == "recall@20")
    found = [(per_user[each.label], each.metrics["recall@20"]) for each in gathered.systems]
    found.append((per_user[contrast.best] - per_user[contrast.label], contrast.difference.interval))
    for values, interval in found:
        width = 2 * 1.96 * values.std() / math.sqrt(len(values))
        assert interval.high - interval.low == pytest.approx(width, rel=0.1)


@pytest.fixture(scope="module")
def compared(tiny, tmp_path_factory):
    """A comparison of two systems with two seeds each, and of popularity; a third seed has not finished."""
    out = tmp_path_factory.mktemp("compared") / "out"
    arguments = ["--dim", "8", "--batch-size", "512", "--epochs", "1", "--ks", "5"]
    models = ["--models", "mf:concat,popularity,mf", "--seeds", "1,0"]
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(data, "demo", lambda: tiny)
        assert main(["compare", *arguments, *models, "--out", str(out)]) == 0
        shutil.copytree(out / "mf-seed0", out / "mf-seed2")
        (out / "mf-seed2" / "result.json").unlink()
        found = facts.gather([out, out / "mf-seed0"])
    return out, found


def test_seeds_of_a_system_are_averaged_and_popularity_stays(compared):
    out, found = compared
    record = json.loads((out / "comparison.json").read_text())
    assert [each.label for each in found.systems] == ["mf:concat", "mf", "popularity"]
    assert [[run.config.seed for run in each.runs] for each in found.systems] == [[0, 1], [0, 1], []]
    assert [each.label for each in found.runs] == ["mf:concat, seed 0", "mf, seed 0"]
    for each in found.systems:
        for metric in found.metrics:
            means = [test[metric] for test in record["systems"][each.label]]
            assert sorted(each.by_seed[metric]) == pytest.approx(sorted(means))
            assert each.metrics[metric].mean == pytest.approx(np.mean(means))
            assert each.per_user[metric].mean() == pytest.approx(np.mean(means))
        groups = each.groups["users"]
        weights = [group.num_nodes for group in groups]
        whole = np.average([group.means["recall@20"] for group in groups], weights=weights)
        assert whole == pytest.approx(each.metrics["recall@20"].mean)
    (note,) = found.notes
    assert note == f"{out / 'mf-seed2'} is missing or has not finished, and is left out"


def test_differences_are_tested_as_a_comparison_tests_them(compared):
    out, found = compared
    expected = json.loads((out / "comparison.json").read_text())["p_values"]
    for metric, of_others in expected.items():
        of_metric = {each.label: each.holm for each in found.contrasts if each.metric == metric}
        assert of_metric == pytest.approx(of_others)


def test_the_page_of_a_comparison(compared, tmp_path):
    _, found = compared
    writer.write_report(found, tmp_path / "page.html")
    seen = Seen((tmp_path / "page.html").read_text())
    assert "mf:concat, mf, popularity" in seen.text
    assert "is missing or has not finished, and is left out" in seen.text
    with (tmp_path / "page_files" / "seeds.csv").open(newline="") as file:
        rows = {(row["metric"], row["system"]): row for row in csv.DictReader(file)}
    for each in found.systems:
        row, values = rows["recall@20", each.label], each.by_seed["recall@20"]
        assert row["seeds"] == (str(len(values)) if each.runs else "—")
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert float(row["deviation"]) == pytest.approx(np.std(values, ddof=1) if each.runs else math.nan, nan_ok=True)
    with (tmp_path / "page_files" / "runs.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [
            *("mf-concat-seed0", "mf-concat-seed1", "mf-seed0", "mf-seed1", "—")
        ]


def test_a_run_that_is_missing_from_a_comparison_is_named(compared, tmp_path):
    out = shutil.copytree(compared[0], tmp_path / "copy")
    shutil.rmtree(out / "mf-seed1")
    notes = find_systems([out], force=False, say=print).notes
    assert any("mf-seed1 is missing" in note for note in notes)


def test_runs_of_one_config_and_seed_are_shown_one_by_one(compared, tmp_path):
    out, _ = compared
    shutil.copytree(out / "mf-seed0", tmp_path / "copy")
    found = find_systems([out / "mf-seed0", tmp_path / "copy", out / "mf-seed1"], force=False, say=print)
    assert [each.label for each in found.systems] == ["mf-seed0", "copy", "mf-seed1"]
    assert "same settings and seed" in found.notes[0]
    found = find_systems([out / "mf-seed1", out / "mf-seed0", out / "mf-concat-seed0"], force=False, say=print)
    assert [(each.label, len(each.folders)) for each in found.systems] == [("mf", 2), ("mf-concat-seed0", 1)]
    assert found.notes == []


def test_a_comparison_that_holds_nothing_to_report_is_refused(tmp_path):
    record = {"fingerprint": "", "protocol": "", "seeds": [0], "p_values": {}, "settings": {}}
    for systems, said in (
        ([], "systems is a list; expected named values"),
        ({"popularity": []}, "holds no finished run"),
    ):
        write_json(tmp_path / "comparison.json", record | {"systems": systems})
        with pytest.raises(UserError, match=said):
            find_systems([tmp_path], force=False, say=print)


def test_refusals_leave_nothing(runs, tmp_path, capsys):
    out = tmp_path / "report.html"
    run = str(runs[1])
    assert "give their folders" in refused(capsys, "report", "--out", str(out))
    assert "ends in .html" in refused(capsys, "report", run, "--out", str(tmp_path / "report"))
    assert "no item 'x'" in refused(capsys, "report", run, "--items", "x", "--out", str(out))
    (tmp_path / "there_files").mkdir()
    assert "there_files is there already" in refused(capsys, "report", run, "--out", str(tmp_path / "there.html"))

    assert "one of --items" in refused(capsys, "report", run, "--items", "x", "--items-file", "x", "--out", str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["there_files"]


@pytest.mark.parametrize("size", [0, 20_000, 60_000])
def test_a_full_disk_leaves_no_report(gathered, tmp_path, size, refusing_disk):
    """At the first picture, a later one, and the page."""
    refusing_disk(size)
    with pytest.raises(UserError, match=r"cannot write .*page.html: File too large; free some space, or give another"):
        writer.write_report(gathered, tmp_path / "new" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_moved_takes_the_page_with_it(gathered, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "rename", refuse)
    with pytest.raises(UserError, match="No space left"):
        writer.write_report(gathered, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_single_item_is_named_by_a_string(runs):
    dataset = load_run(runs[0]).dataset
    raw = str(dataset.item_ids[3])
    assert items.choose_items(dataset, raw).tolist() == items.choose_items(dataset, [raw]).tolist() == [3]


def test_texts_and_attributes_are_escaped():
    assert element("p", '<b a="1">', class_='"x', aria_label="&") == (
        '<p class="&quot;x" aria-label="&amp;">&lt;b a=&quot;1&quot;&gt;</p>'
    )
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"


def test_tables_as_csv_and_latex():
    table = Table("t", "50 % & more_", ("item", "value"), [("a\\b\n{$x}", Interval(0.5, 0.25, 1 / 3)), ("#", 2e-6)])
    assert list(csv.reader(to_csv(table).splitlines(keepends=True))) == [
        ["item", "value", "value low", "value high"],
        ["a\\b\n{$x}", "0.5", "0.25", str(1 / 3)],
        ["#", "2e-06", "", ""],
    ]
    latex = to_latex(table)
    assert r"\caption{50 \% \& more\_}" in latex
    assert r"a\textbackslash{}b \{\$x\} & 0.5000 {[}0.2500, 0.3333{]} \\" in latex
    assert r"\# & 2.0e-06 \\" in latex
    assert r"\begin{tabular}{lr}" in latex


def test_a_spreadsheet_finds_no_formula():
    cells = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "-5", -0.5, -3, "—", ""]
    name, *found = (
        line[0] for line in csv.reader(io.StringIO(to_csv(Table("t", "", ("=x",), [(cell,) for cell in cells]))))
    )
    assert name == "'=x"
    assert found[:6] == [f"'{cell}" for cell in cells[:6]]
    assert found[6:] == ["a=1", "-5", "-0.5", "-3", "—", ""]
    table = Table("t", "", ("run", "=x"), [("@a", Interval(-0.5, -1.0, 0.0)), ("b", "=none")])
    assert list(csv.reader(io.StringIO(to_csv(table)))) == [
        ["run", "'=x", "'=x low", "'=x high"],
        ["'@a", "-0.5", "-1.0", "0.0"],
        ["b", "'=none", "", ""],
    ]


def test_what_is_not_defined_is_a_dash():
    table = Table("t", "", ("run", "uniformity", "none"), [("a", uniformity(np.ones((1, 2), np.float32)), math.nan)])
    assert [shown(cell) for cell in table.rows[0]] == ["a", "—", "—"]
    assert not is_number(table, 1)
    assert is_number(table._replace(rows=[*table.rows, ("b", -1.5, math.nan)]), 1)


def test_every_run_has_its_line_in_a_legend():
    record = {"epoch": 1, "losses": {"loss": 1.0}, "split": "valid", "selected": {}, "improved": False}
    figure = charts.losses({"_hidden": [record], "__": [record], "c": [record]})
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_hidden", "__", "c"]


def test_kmeans_finds_planted_clusters():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [40, 25, 10])
    rows = (10 * np.eye(3)[truth] + rng.normal(size=(75, 3))).astype(np.float32)
    order = rng.permutation(75)
    np.testing.assert_array_equal(kmeans(rows[order], 3, seed=1), truth[order])  # numbered by size
    assert set(kmeans(np.ones((5, 2), np.float32), 3)) == {0}
    assert len(set(kmeans(np.eye(2, dtype=np.float32)[[0, 1, 0]], 8))) == 2


def test_kmeans_of_a_large_table_takes_a_sample_and_labels_all(monkeypatch):
    truth = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [400, 250, 100]))
    rows = (10 * np.eye(3)[truth] + np.random.default_rng(1).normal(size=(750, 3))).astype(np.float32)
    before, distances, seen = rows.copy(), items._distances, []

    def counted(block, centres):
        seen.append(len(block))
        return distances(block, centres)

    monkeypatch.setattr(items, "SAMPLE", 100)
    monkeypatch.setattr(items, "_distances", counted)
    np.testing.assert_array_equal(kmeans(rows, 3, seed=1), truth)
    assert seen[-8:] == [100] * 7 + [50]
    assert max(seen) == 100
    np.testing.assert_array_equal(rows, before)
    assert set(kmeans(rows, 1)) == {0}
    np.testing.assert_array_equal(rows, before)


def test_large_tables_are_sampled(monkeypatch):
    assert items.sample(7).tolist() == list(range(7))
    monkeypatch.setattr(items, "SAMPLE", 5)
    drawn = items.sample(100)
    assert len(set(drawn)) == 5
    assert drawn.tolist() == sorted(drawn) == items.sample(100).tolist()
    table = items.Vectors(np.eye(9, dtype=np.float32), np.arange(9) != 4)
    assert items.agreements({"a": table, "b": table, "c": table._replace(present=np.arange(9) < 2)}, 3) == {
        ("a", "b"): 1
    }


def test_the_map_is_of_principal_components():
    x = np.random.default_rng(1).normal(size=(30, 4)) * [1.0, 5.0, 2.0, 0.5]
    found = item_map(x.astype(np.float32))
    centred = x - x.mean(axis=0)
    sizes, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found.places), np.abs(expected), atol=1e-4)
    assert found.shares == pytest.approx(tuple(sizes[[-1, -2]] / sizes.sum()), rel=1e-4)
    flipped = item_map(-x.astype(np.float32))
    np.testing.assert_allclose(flipped.places, -found.places, atol=1e-4)  # the axes stay
    assert item_map(np.arange(3, dtype=np.float32)[:, None]).places[:, 1].tolist() == [0, 0, 0]


HARNESS = """<iframe id="frame" src="our%20report.html" style="width: 390px; height: 800px"></iframe><script>
const frame = document.getElementById("frame"), copies = [];
const address = image => image.getAttribute("href") || image.getAttribute("xlink:href") || image.src;
frame.onload = () => {  // before this page's own load event, which then waits for the copies
  for (const image of frame.contentDocument.querySelectorAll("image, img")) {
    const copy = new Image();
    copy.src = address(image);
    copies.push(document.body.appendChild(copy));
  }
};
function painted(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  if (!canvas.width) return false;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0);
}
window.onload = () => {
  const page = frame.contentDocument, pictures = [...page.querySelectorAll("figure svg")];
  document.body.innerHTML = JSON.stringify({
    images: copies.length, painted: copies.filter(painted).length, width: page.documentElement.scrollWidth,
    pictures: pictures.length, flat: pictures.filter(svg => svg.getBoundingClientRect().height < 50).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  });
};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
def test_a_browser_shows_all_of_it_and_fetches_nothing(page, tmp_path):
    folder = tmp_path / "served"
    shutil.copytree(page.parent, folder)
    (folder / "harness.html").write_text(HARNESS)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    flags += ["--allow-file-access-from-files", "--dump-dom"]
    said = subprocess.run(
        [BROWSER, *flags, (folder / "harness.html").as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    assert "CONSOLE" not in said.stderr
    found = json.loads(re.search(r"<body>(\{.*\})</body>", said.stdout, re.DOTALL)[1])
    assert found["requests"] == []
    assert found["flat"] == 0
    assert found["width"] <= 390
    assert found["images"] == found["painted"] == 6  # one a map: points as a picture
    assert found["pictures"] == len(list((page.parent / "our report_files").glob("*.png")))
