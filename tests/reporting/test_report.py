"""Reports of finished runs: values, escaping, files, and the page in a browser."""

import csv
import dataclasses
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import numpy as np
import pyarrow.parquet
import pytest
import reference

from slmrec_jax import Config, UserError, durable, train
from slmrec_jax.commands.main import main
from slmrec_jax.config.config import IN_MEMORY
from slmrec_jax.data import write_store
from slmrec_jax.data.synthetic import demo
from slmrec_jax.evaluation.analysis import bootstrap
from slmrec_jax.models import slmrec_recipe
from slmrec_jax.reporting import facts, sections
from slmrec_jax.reporting import report as writer
from slmrec_jax.reporting.masking import mask_modalities, without
from slmrec_jax.training.inputs import make_inputs, make_spec
from slmrec_jax.training.loading import load_run
from slmrec_jax.training.storage.folder import read_config
from slmrec_jax.training.storage.records import write_json
from slmrec_jax.types import ALL, Augmentation, ModalityScale

pytestmark = pytest.mark.usefixtures("optax_promotion")

EVIL = "<script>alert(1)</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(tiny, untrained, tmp_path_factory):
    """Two finished runs on data whose names hold markup."""
    folder = tmp_path_factory.mktemp("runs")
    raw_ids = np.array([f'{EVIL}"$_{{{number}}}&\\' for number in range(tiny.num_items)])
    features = {f"<i>{name}</i>": tiny.features[name] for name in ("visual", "textual")}
    write_store(dataclasses.replace(tiny, name=EVIL, item_ids=raw_ids, features=features), folder / "data")
    config = Config(data=str(folder / "data"), dim=8, batch_size=512, num_layers=2, epochs=2, ks=(5, 20))
    for name, changes in {"full": {"task": "none"}, "a $x_1$ & <b>": {"model": "mf", "seed": 1}}.items():
        train(dataclasses.replace(config, **changes), out=folder / name)
    return folder / "full", folder / "a $x_1$ & <b>"


@pytest.fixture(scope="module")
def reported(runs, tmp_path_factory):
    """The page of the command, and the facts that it shows."""
    out = tmp_path_factory.mktemp("report") / "our report.html"
    gathered, gather = [], facts.gather_facts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "gather_facts", lambda *runs, **how: gathered.append(gather(*runs, **how)) or gathered[0])
        explored = str(out.with_name("explored.html"))
        assert main(["report", *map(str, runs), "--out", str(out), "--explore", explored]) == 0
    return out, gathered[0]


@pytest.fixture(scope="module")
def page(reported):
    return reported[0]


@pytest.fixture(scope="module")
def gathered(reported):
    return reported[1]


@pytest.fixture(scope="module")
def without_maps(gathered):
    """The same facts without the figures that take longest."""
    return gathered._replace(runs=[run._replace(clusters={}) for run in gathered.runs])


class Seen(HTMLParser):
    """The tags, attributes and text of a page."""

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


def test_markup_in_names_is_text(page):
    seen = Seen(page.read_text())
    assert "script" not in seen.tags
    assert not {"i", "b"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert EVIL in seen.text
    assert "<i>visual</i>" in seen.text
    assert "a $x_1$ & <b>" in seen.text
    assert seen.tags.count("html") == seen.tags.count("body") == 1


def test_the_page_to_explore_is_written_beside_it(page, runs):
    seen = Seen(page.with_name("explored.html").read_text())
    assert seen.tags.count("script") == 2  # its own, and the answers
    held = json.loads(re.search(r'"application/json">(.*?)</script>', page.with_name("explored.html").read_text())[1])
    assert [run["name"] for run in held["about?"]["runs"]] == [run.name for run in runs]
    assert held["users"]


def test_a_page_to_explore_that_cannot_be_written_is_refused(page, runs, tmp_path, capsys):
    out, there = str(tmp_path / "report.html"), str(page.with_name("explored.html"))
    assert f"{there} already exists: give another --explore" in refused(
        capsys, "report", str(runs[0]), "--out", out, "--explore", there
    )
    assert "--explore x.htm: give a name that ends in .html" in refused(
        capsys, "report", str(runs[0]), "--out", out, "--explore", "x.htm"
    )


def test_three_systems_to_explore_are_refused_before_any_is_measured(runs, untrained, tmp_path, capsys, monkeypatch):
    third = tmp_path / "third"
    train(dataclasses.replace(read_config(runs[0]), model="lightgcn"), out=third)
    monkeypatch.setattr(facts, "gather_facts", lambda *runs, **how: pytest.fail("measured"))
    named = [*map(str, runs), str(third)]
    told = refused(
        capsys, "report", *named, "--out", str(tmp_path / "report.html"), "--explore", str(tmp_path / "explored.html")
    )
    assert "--explore shows one or two trained systems, but there are 3: leave it out, or name one or two" in told


def test_runs_on_other_data_are_refused_before_any_is_measured(runs, untrained, tmp_path, capsys, monkeypatch):
    other = demo(num_users=60, num_items=80, num_scenes=6, exposures=40, columns={"visual": 4})
    changes = {"data": IN_MEMORY, "modalities": (), "task": "none"}
    train(dataclasses.replace(read_config(runs[0]), **changes), other, out=tmp_path / "other")
    monkeypatch.setattr(facts, "gather_facts", lambda *runs, **how: pytest.fail("measured"))
    named = [str(runs[0]), str(tmp_path / "other"), "--force"]
    told = refused(
        capsys, "report", *named, "--out", str(tmp_path / "report.html"), "--explore", str(tmp_path / "explored.html")
    )
    assert "--explore needs runs on the same data, but" in told


def test_the_page_needs_no_network(page):
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


def test_values_are_those_of_the_runs(page, runs):
    results = [json.loads((run / "result.json").read_text())["test"] for run in runs]
    table = {row["metric"]: row for row in rows_of(page, "metrics")}
    assert set(table) == set(results[0])
    for metric, row in table.items():
        for run, result in zip(runs, results, strict=True):
            assert float(row[run.name]) == pytest.approx(result[metric], rel=1e-5)
            assert float(row[f"{run.name} low"]) <= float(row[run.name]) <= float(row[f"{run.name} high"])
    difference = next(row for row in rows_of(page, "differences") if row["metric"] == "recall@20")
    of = {run.name: result["recall@20"] for run, result in zip(runs, results, strict=True)}
    assert float(difference["difference"]) == pytest.approx(of[difference["best"]] - of[difference["other"]], rel=1e-5)
    assert 0 < float(difference["p (t-test, Holm)"]) <= 1
    groups = [row for row in rows_of(page, "degree-items") if row["system"] == "full"]
    run = load_run(runs[0])
    assert [float(row["recall@20"]) for row in groups] == pytest.approx(
        [group.means["recall@20"] for group in run.evaluate_by("items")], rel=1e-5
    )
    for row in groups:
        assert float(row["recall@20 low"]) <= float(row["recall@20"]) <= float(row["recall@20 high"])


def test_results_for_a_paper_are_those_of_the_runs(page, runs, gathered):
    found = {(row["system"], row["metric"]): row for row in rows_of(page, "results")}
    users = pyarrow.parquet.read_table(page.parent / "our report_files" / "users.parquet").to_pydict()
    beyond = {row["system"]: row for row in rows_of(page, "beyond")}
    for folder in runs:
        run = load_run(folder)
        expected = run.evaluate("test")
        own = np.array([system == folder.name for system in users["system"]])
        assert {users["seed"][place] for place in np.flatnonzero(own)} == {run.config.seed}
        assert [users["user"][place] for place in np.flatnonzero(own)] == run.dataset.user_ids[expected.users].tolist()
        for metric, values in expected.per_user.items():
            np.testing.assert_array_equal(np.array(users[metric])[own], values)
            assert float(found[folder.name, metric]["mean"]) == expected.means[metric]
        for metric in ("coverage@20", "gini@20", "novelty@20", "popularity@20"):
            assert float(beyond[folder.name][metric]) == pytest.approx(
                float(found[folder.name, metric]["mean"]), rel=1e-5
            )
    for contrast in gathered.contrasts:
        assert float(found[contrast.label, contrast.metric]["p_value"]) == pytest.approx(contrast.holm)
    text = (page.parent / "our report_files" / "results.md").read_text()
    assert "a $x_1$ & <b>".translate({ord(sign): f"\\{sign}" for sign in "$_<>"}) in text


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
    assert found == ({}, "mf does not read modalities when it ranks")
    assert "mf does not read modalities" in Seen(page.read_text()).text
    assert {row["run"] for row in rows_of(page, "modalities")} == {"full"}
    assert len(rows_of(page, "modalities")) == 2


def test_incomparable_runs_are_refused_unless_forced(runs, without_maps, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    result = json.loads((other / "result.json").read_text())
    del result["sha256"]
    write_json(other / "result.json", result | {"protocol": "mmrec"})
    out = tmp_path / "report.html"
    assert "under a different protocol" in refused(capsys, "report", str(runs[0]), str(other), "--out", str(out))
    assert not out.exists()
    monkeypatch.setattr(facts, "describe_run", lambda *arguments: without_maps.runs[1])
    assert main(["report", str(runs[1]), str(other), "--out", str(out), "--force"]) == 0
    seen = Seen(out.read_text())
    assert "Not comparable" in seen.text
    assert "Differences" not in seen.text


def test_runs_without_a_common_metric_are_refused(runs, tmp_path, capsys):
    other = shutil.copytree(runs[0], tmp_path / "other")
    result = json.loads((other / "result.json").read_text())
    del result["sha256"]
    write_json(other / "result.json", result | {"test": {"recall@7": 0.1, "ndcg@7": 0.1}})
    said = refused(capsys, "report", str(runs[0]), str(other), "--out", str(tmp_path / "report.html"))
    assert "no test metric in common: report on runs with a common cut-off (--ks)" in said


def test_systems_tested_on_other_users_are_not_contrasted(gathered):
    assert gathered.contrasts
    first, other = gathered.systems
    assert facts._caveats([first, other]) == []
    (caveat,) = facts._caveats([first, other._replace(users=other.users + 1)])
    assert "on different users" in caveat


def in_words(facts_of_systems, **changes):
    return sections.report_summary(facts_of_systems._replace(**changes))


def test_the_page_opens_with_what_is_best(page, gathered):
    said = in_words(gathered)
    assert said.count(". ") == 0  # one sentence
    (header,) = re.findall(r"<header>.*?</header>", page.read_text(), re.DOTALL)
    assert Seen(header).text.endswith(said)
    best = max(gathered.systems, key=lambda each: each.metrics[gathered.metric].mean)
    other = next(each for each in gathered.systems if each is not best)
    found, less = (each.metrics[gathered.metric].mean for each in (best, other))
    assert said.startswith(f"{best.label} is best")
    for part in (
        f"test {gathered.metric} {found:.4f} [",
        f"{found - less:.4f} ({found / less - 1:.1%}) more",
        other.label,
    ):
        assert part in said


@pytest.mark.parametrize(
    ("p_value", "expected"),
    [(1e-7, "is best: .*p < 0.001"), (0.04, "is best: .*p = 0.04,"), (0.31, "not shown .* may be chance .p = 0.31,")],
)
def test_the_first_sentence_has_the_p_value_of_the_next_best(gathered, p_value, expected):
    (contrast,) = (each for each in gathered.contrasts if each.metric == gathered.metric)
    worse = contrast.difference._replace(interval=contrast.difference.interval._replace(mean=9.0))
    contrasts = [
        contrast._replace(label="far", difference=worse, holm=0.5),
        contrast._replace(holm=p_value),
        contrast._replace(metric="ndcg@5", holm=0.6),
    ]
    said = in_words(gathered, contrasts=contrasts)
    assert re.search(expected, said)
    assert f"more than {contrast.label}, the next" in said


def test_the_first_sentence_calls_nothing_best_without_a_comparison(gathered):
    first = gathered.systems[0]
    said = in_words(gathered, systems=[first], contrasts=[])
    assert said.startswith(f"{first.label} has test {gathered.metric} ")
    assert "no p-value" in said
    assert "best" not in said
    said = in_words(gathered, caveats=["a was tested on different users from b"], contrasts=[])
    assert said == "No system is called best, because they cannot be compared: a was tested on different users from b."
    (contrast,) = (each for each in gathered.contrasts if each.metric == gathered.metric)
    level = contrast.difference._replace(interval=contrast.difference.interval._replace(mean=0.0))
    said = in_words(gathered, contrasts=[contrast._replace(difference=level, holm=1.0)])
    assert f" and {contrast.label} are level: " in said
    assert "p = 1," in said


def test_groups_have_intervals_and_counts(gathered, runs):
    run = load_run(runs[0])
    (system,) = (each for each in gathered.systems if each.label == "full")
    for side in facts.SIDES:
        measured = run.measure_by(side)
        assert [each.group for each in measured] == run.evaluate_by(side)
        for found, (group, per_user) in zip(system.groups[side], measured, strict=True):
            values = per_user[gathered.metric]
            assert (found.label, found.num_nodes) == (group.label, group.num_nodes)
            assert found.interval == bootstrap({"": values})[""]
            assert found.interval.mean == pytest.approx(group.means[gathered.metric])


def test_intervals_are_of_95_percent(gathered):
    """Within the error of resampling; at 80 % they would be a third shorter."""
    per_user = {each.label: each.per_user["recall@20"] for each in gathered.systems}
    (contrast,) = (each for each in gathered.contrasts if each.metric == "recall@20")
    found = [(per_user[each.label], each.metrics["recall@20"]) for each in gathered.systems]
    found.append((per_user[contrast.best] - per_user[contrast.label], contrast.difference.interval))
    for values, interval in found:
        width = 2 * 1.96 * values.std() / math.sqrt(len(values))
        assert interval.high - interval.low == pytest.approx(width, rel=0.1)


def test_refusals_leave_nothing(runs, tmp_path, capsys):
    out = tmp_path / "report.html"
    run = str(runs[1])
    assert "give their folders" in refused(capsys, "report", "--out", str(out))
    assert "ends in .html" in refused(capsys, "report", run, "--out", str(tmp_path / "report"))
    assert "no item 'x'" in refused(capsys, "report", run, "--items", "x", "--out", str(out))
    (tmp_path / "there_files").mkdir()
    assert "there_files already exists" in refused(capsys, "report", run, "--out", str(tmp_path / "there.html"))

    assert "one of --items" in refused(capsys, "report", run, "--items", "x", "--items-file", "x", "--out", str(out))
    assert [path.name for path in tmp_path.iterdir()] == ["there_files"]


@pytest.mark.parametrize("size", [0, 20_000, 60_000])
def test_a_full_disk_leaves_no_report(without_maps, tmp_path, size, refusing_disk):
    """The disk is full at the first table, at the first figure, and at the page."""
    refusing_disk(size)
    with pytest.raises(UserError, match=r"cannot write .*page.html: File too large; free some space, or give another"):
        writer.write_report(without_maps, tmp_path / "new" / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_moved_removes_the_page(without_maps, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "rename", refuse)
    with pytest.raises(UserError, match="No space left"):
        writer.write_report(without_maps, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


HARNESS = """<iframe id="frame" src="our%20report.html" style="width: WIDTHpx; height: 800px"></iframe><script>
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
  const [picture, table] = [...page.querySelectorAll("#s2 ~ figure")].map(each => each.getBoundingClientRect());
  document.body.innerHTML = JSON.stringify({
    beside: table.left > picture.right && Math.abs(table.top - picture.top) < 50,
    images: copies.length, painted: copies.filter(painted).length, width: page.documentElement.scrollWidth,
    pictures: pictures.length, flat: pictures.filter(svg => svg.getBoundingClientRect().height < 50).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  });
};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH")
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_all_of_it_and_fetches_nothing(page, tmp_path, width):
    folder = tmp_path / "served"
    shutil.copytree(page.parent, folder)
    (folder / "harness.html").write_text(HARNESS.replace("WIDTH", str(width)))
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
    assert found["width"] <= width
    assert found["beside"] == (width == 1400)  # a wide window has the table of metrics beside their picture
    assert found["images"] == found["painted"] == 4  # the rasterized points of each map
    assert found["pictures"] == len(list((page.parent / "our report_files").glob("*.png")))
