"""tools/fit_mixture.py as its users run it."""

import functools
import json
import math
from argparse import Namespace

import numpy as np
import pytest
from published import DOMAINS, FIGURES, ddo_table, optimum
from synthetic import World
from tools_in_process import in_process

from autoscale_ds.laws import selection
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.report import mixture_inputs
from autoscale_ds.search.predictor import read_predictor

fit_mixture = functools.partial(in_process, "fit_mixture.py")


def test_fit_auto_score_and_optimize_follow_each_other(folder, tmp_path):
    law, weights = tmp_path / "law.json", tmp_path / "weights.json"
    fitted = json.loads(fit_mixture("fit", folder / "runs.csv", "--law", "auto", "--out", law, "--json"))
    assert {"mean", "nearest run", "keep the last weights"} <= {row["law"] for row in fitted["selection"]}

    scored = json.loads(fit_mixture("score", law, folder / "held_out.csv", "--json"))
    assert set(scored) == {"targets", "mean", "warnings"}
    assert scored["warnings"] == []
    own = fit_mixture("score", law, folder / "runs.csv")
    assert "runs.csv has the name of a table the law was fitted to" in own
    assert set(scored["targets"]) == {"domain0", "domain1", "domain2"}
    expected = {"spearman", "spearman_within", "mae", "mae_within", "mre", "coverage", "width"}
    assert set(scored["mean"]) == set(scored["targets"]["domain0"]) == expected
    assert scored["mean"]["spearman_within"] > 0.98
    assert scored["mean"]["coverage"] > 0.85  # of losses without noise; a run's interval is wider

    arguments = ("--tokens", "16e9", "--parameters", "1e9", "--floor", 0.01, "--out", weights)
    found = json.loads(fit_mixture("optimize", law, *arguments, "--json"))
    written = json.loads(weights.read_text())
    assert set(written) == {"weights", "tokens", "source", "intervals"}
    assert written["weights"] == found["weights"]
    assert written["tokens"] == 16e9
    for name, weight in written["weights"].items():
        assert weight >= 0.01 - 1e-9
        assert written["intervals"][name][0] <= weight <= written["intervals"][name][1]


def test_predict_gives_losses_with_intervals_of_the_expectation_and_of_one_run(folder, tmp_path):
    mixtures = tmp_path / "mixtures.csv"
    names = [f"weight/domain{i}" for i in range(4)]
    mixtures.write_text(",".join(["run", *names]) + "\neven,.25,.25,.25,.25\nskewed,.7,.1,.1,.1\n")
    arguments = ("--tokens", "3e9", "--parameters", "5e7")
    found = json.loads(fit_mixture("predict", folder / "law.json", mixtures, *arguments, "--json"))
    assert list(found["mixtures"]) == ["even", "skewed"]
    for entry in found["mixtures"].values():
        for loss in entry["losses"].values():
            (low, high), (run_low, run_high) = loss["interval"], loss["run_interval"]
            assert run_low < low < loss["loss"] < high < run_high
    assert found["warnings"] == []
    far = fit_mixture("predict", folder / "law.json", mixtures, "--tokens", "9e9", "--parameters", "5e8")
    assert "warning: 9e+09 tokens are 2.25 times the largest" in far
    assert "warning: 5e+08 parameters are 5 times the largest" in far
    assert "give --tokens" in fit_mixture("predict", folder / "law.json", mixtures, code=2)
    no_size = fit_mixture("predict", folder / "law.json", mixtures, "--tokens", "3e9", code=2)
    assert "give --parameters" in no_size


def test_losses_of_another_kind_and_columns_of_another_name_are_taken(folder, tmp_path):
    lines = (folder / "runs.csv").read_text().splitlines()
    header = lines[0].replace("weight/", "cfg.w.").split(",")
    losses = [i for i, name in enumerate(header) if name.startswith("loss/")]
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        for i in losses:
            row[i] = str(math.exp(float(row[i]))) if row[i] else ""
    table = tmp_path / "perplexities.csv"
    table.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    arguments = ("fit", table, "--columns", "cfg.w.*=weight/*", "--law", "exposure", "--out", tmp_path / "law.json")
    fit_mixture(*arguments, "--loss-kind", "perplexity")
    scores = [json.loads(fit_mixture("score", law, folder / "held_out.csv", "--json"))
              for law in (folder / "law.json", tmp_path / "law.json")]  # fmt: skip
    assert scores[0]["mean"]["mae"] == pytest.approx(scores[1]["mean"]["mae"], rel=1e-6)


def test_score_with_columns_in_another_order_is_the_same(folder, tmp_path):
    lines = [line.split(",") for line in (folder / "held_out.csv").read_text().splitlines()]
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join(",".join(reversed(line)) for line in lines) + "\n")
    scores = [fit_mixture("score", folder / "law.json", table, "--json") for table in (folder / "held_out.csv", turned)]
    assert json.loads(scores[0])["mean"] == pytest.approx(json.loads(scores[1])["mean"])


def test_a_prior_an_objective_and_caps_are_taken(folder, tmp_path):
    (tmp_path / "prior.json").write_text('{"domain0": 0.4, "domain1": 0.3, "domain2": 0.2, "domain3": 0.1}')
    (tmp_path / "objective.json").write_text('{"domain0": 2, "domain1": 1}')
    options = ["--prior", tmp_path / "prior.json", "--kl", 0.05, "--objective", tmp_path / "objective.json"]
    options += ["--cap", "domain0=0.35", "--tokens", "4e9", "--parameters", "1e8", "--out", tmp_path / "w.json"]
    fit_mixture("optimize", folder / "law.json", *options)
    assert WeightsFile.read(tmp_path / "w.json").weights["domain0"] <= 0.35 + 1e-9


def test_a_law_no_better_than_the_mean_says_so_everywhere(tmp_path):
    """Pure noise: what auto compares on held-out runs is then best predicted by a constant."""
    table = World("exposure", m=3, targets=2).table(24)
    table.losses[:] = 3 + 0.1 * np.random.default_rng(0).normal(size=table.losses.shape)
    table.write(tmp_path / "noise.csv")
    law = tmp_path / "law.json"
    found = json.loads(fit_mixture("fit", tmp_path / "noise.csv", "--out", law, "--json"))
    errors = {row["law"]: row["error"] for row in found["selection"] if "error" in row}
    assert min(errors.values()) > 0.95 * errors["mean"]
    assert ["no law predicts clearly better than the mean" in text for text in found["warnings"]] == [True]
    assert json.loads(law.read_text())["source"]["warnings"] == found["warnings"]
    options = ("--tokens", "1e9", "--out", tmp_path / "w.json")
    assert f"warning: {found['warnings'][0]}" in fit_mixture("optimize", law, *options)
    fit_mixture("fit", tmp_path / "noise.csv", "--law", "linear", "--out", law)  # nothing was compared


def test_ddo_prints_the_released_optimum(tmp_path):
    ddo_table().write(tmp_path / "ddo.csv")
    options = ["--base", "base", "--objective", "mean-perplexity", "--floor", 0.2 / 7, "--out", tmp_path / "w.json"]
    fit_mixture("ddo", tmp_path / "ddo.csv", *options)
    weights = WeightsFile.read(tmp_path / "w.json").weights
    found = [7 * weights[name] for name in DOMAINS]
    assert found == pytest.approx(FIGURES["ddo_1.2B"]["optimum_uniform_units"], abs=1e-4)


def test_autoscale_prints_the_released_weights(tmp_path):
    at = []
    for scale in ("0.3e9", "1.2e9"):
        WeightsFile(optimum(scale)).write(tmp_path / f"{scale}.json")
        at += ["--at", f"{scale}={tmp_path / scale}.json"]
    found = json.loads(fit_mixture("autoscale", *at, "--tokens", "10e9", "--out", tmp_path / "w.json", "--json"))
    assert [found["weights"][name] for name in DOMAINS] == pytest.approx(
        FIGURES["autoscale"]["budget_exact_weights"]["10e9"], abs=1e-4
    )
    assert found["keep_the_last"]["c4"] == pytest.approx(optimum("1.2e9")["c4"])
    assert found["joint_law"] is None


def test_autoscale_saves_the_path_for_a_run_to_follow(tmp_path):
    at = []
    for scale in ("0.3e9", "1.2e9"):
        WeightsFile(optimum(scale)).write(tmp_path / f"{scale}.json")
        at += ["--at", f"{scale}={tmp_path / scale}.json"]
    written = ("--out", tmp_path / "w.json", "--save-path", tmp_path / "autoscale.json")
    found = json.loads(fit_mixture("autoscale", *at, "--tokens", "10e9", *written, "--json"))
    predictor = read_predictor(tmp_path / "autoscale.json", budget_tokens=10e9)
    assert dict(predictor.predict(10e9)) == pytest.approx(found["weights"])


def test_autoscale_names_the_domains_of_which_it_is_not_known_that_they_move(tmp_path):
    """The path is as wrong as it is long, so only domains that move more than others are known to move at all."""
    unknown = {}
    for spread in (1.01, 3.0):
        at = []
        for scale in ("0.3e9", "1.2e9"):
            weights = optimum(scale)
            intervals = {name: (weight / spread, weight * spread) for name, weight in weights.items()}
            WeightsFile(weights, float(scale), "test", intervals).write(tmp_path / f"{scale}.json")
            at += ["--at", f"{scale}={tmp_path / scale}.json"]
        options = (*at, "--tokens", "10e9", "--out", tmp_path / "w.json")
        unknown[spread] = set(json.loads(fit_mixture("autoscale", *options, "--json"))["move_unknown"])
        assert "should move at all is not known" in fit_mixture("autoscale", *options)
    assert unknown[1.01] < unknown[3.0] == set(DOMAINS)


def test_autoscale_decides_to_keep_the_last_optimum_unless_a_law_shows_a_gain(tmp_path):
    tokens = (1e9, 2e9, 4e9)
    truth = World("exposure-budget", m=4, targets=4, seed=3, tokens=tokens)
    truth.table(40, noise=0.001, crossed=True).write(tmp_path / "runs.csv")
    fit_mixture("fit", tmp_path / "runs.csv", "--law", "exposure-budget", "--out", tmp_path / "law.json")
    at = []
    for name, scale, weights in (("w1", 1e9, (0.4, 0.3, 0.2, 0.1)), ("w2", 4e9, (0.7, 0.1, 0.1, 0.1))):
        by_name = {f"domain{i}": w for i, w in enumerate(weights)}
        ranges = {domain: (w / 1.02, w * 1.02) for domain, w in by_name.items()}
        WeightsFile(DomainWeights(by_name), scale, "test", ranges).write(tmp_path / f"{name}.json")
        at += ["--at", f"{scale}={tmp_path / name}.json"]
    options = ("autoscale", *at, "--tokens", "8e9", "--out", tmp_path / "w.json", "--json", "--decide")
    kept = json.loads(fit_mixture(*options))
    assert kept["weights"] == kept["keep_the_last"]
    assert kept["decision"]["move"] == 0
    assert "no law of several scales is given" in kept["decision"]["reason"]
    assert kept["intervals"]["domain0"] == pytest.approx([0.7 / 1.02, 0.7 * 1.02])  # those it had, not the path's

    # These "optima" are none: the law knows better ones and moves there, no farther than it shows a gain.
    path = tmp_path / "path.json"
    moved = json.loads(fit_mixture(*options, "--law", tmp_path / "law.json", "--save-path", path))
    assert moved["decision"]["towards"] == "joint law's optimum"
    assert 0 < moved["decision"]["move"] <= 1
    assert moved["decision"]["probability_of_gain"] >= 0.9
    assert moved["decision"]["expected_gain"]["value"] > 0
    followed = read_predictor(path, budget_tokens=8e9).predict(8e9)
    assert followed.as_dict() == pytest.approx(moved["weights"], abs=1e-6)

    # At the law's own optimum there is nothing to gain.
    best = tmp_path / "best.json"
    fit_mixture("optimize", tmp_path / "law.json", "--tokens", "8e9", "--out", best)
    WeightsFile(WeightsFile.read(best).weights, None, "test", WeightsFile.read(best).intervals).write(best)
    at = ["--at", f"1e9={tmp_path / 'w1.json'}", "--at", f"4e9={best}"]
    options = ("autoscale", *at, "--tokens", "8e9", "--out", tmp_path / "w.json", "--json", "--decide")
    stays = json.loads(fit_mixture(*options, "--law", tmp_path / "law.json"))
    assert stays["decision"]["move"] == 0


def test_autoscale_stands_beside_the_optimum_of_a_joint_law(folder, tmp_path):
    at = []
    for tokens in ("1e9", "4e9"):
        at += ["--at", f"{tokens}={tmp_path / tokens}.json"]
        options = ["--tokens", tokens, "--parameters", "1e8", "--out", tmp_path / f"{tokens}.json"]
        fit_mixture("optimize", folder / "law.json", *options)
    options = ["--tokens", "16e9", "--law", folder / "law.json", "--parameters", "1e8", "--out", tmp_path / "w.json"]
    found = json.loads(fit_mixture("autoscale", *at, *options, "--json"))
    # The law's own optima at two scales, extrapolated, stay near the law's optimum at the third.
    assert sum(abs(found["weights"][name] - w) for name, w in found["joint_law"].items()) < 0.1


def test_design_and_stability_answer_in_json(tmp_path):
    options = ["--domains", "a,b,c", "--kind", "ddo", "--tokens", "1e9", "--low", 0.2, "--out", tmp_path / "plan.json"]
    plan = json.loads(fit_mixture("design", *options, "--json"))
    assert len(plan["runs"]) == 7
    World("exposure", m=4, targets=2, tokens=(1e9, 4e9)).table(10, crossed=True).write(tmp_path / "runs.csv")
    assert "pairs" in json.loads(fit_mixture("stability", tmp_path / "runs.csv", "--json"))


def test_stability_ranks_by_the_objective_when_one_is_given(tmp_path):
    """Two targets whose order turns with scale, while their mean keeps it."""
    rows = ["run,tokens,weight/a,weight/b,loss/x,loss/y"]
    for tokens, sign in ((1e9, 1), (4e9, -1)):
        for i in range(6):
            x = 3 + sign * 0.5 * i
            rows.append(f"r{i},{tokens},{0.1 * i + 0.1:.1f},{0.9 - 0.1 * i:.1f},{x + 2.5},{8 - x + 0.1 * i}")
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(rows) + "\n")
    by_target = json.loads(fit_mixture("stability", table, "--json"))
    assert by_target["mean"] < 0
    by_mean = json.loads(fit_mixture("stability", table, "--objective", "mean-loss", "--json"))
    assert by_mean["mean"] == pytest.approx(1.0)
    assert list(by_mean["pairs"][0]["spearman"]) == ["mean-loss"]


def test_figures_are_drawn(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra: pip install 'autoscale_ds[plots]'")
    fit_mixture("score", folder / "law.json", folder / "held_out.csv", "--plot", tmp_path / "score.png")
    assert (tmp_path / "score.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["", "fit", "score", "optimize", "ddo", "autoscale", "design", "stability"])
def test_help_shows_an_example(command):
    assert "python tools/fit_mixture.py" in fit_mixture(*([command] if command else []), "--help")


def test_predictions_say_their_scale_and_take_options_where_the_table_says_none(folder, tmp_path, caplog):
    names = [f"weight/domain{i}" for i in range(4)]
    mixtures = tmp_path / "mixtures.csv"
    mixtures.write_text(",".join(["run", "tokens", *names]) + "\na,,1,0,0,0\na,2e9,1,0,0,0\n")
    options = ("predict", folder / "law.json", mixtures, "--tokens", "4e9", "--parameters", "1e8")
    found = json.loads(fit_mixture(*options, "--json"))["mixtures"]
    scales = {name: (entry["tokens"], entry["parameters"]) for name, entry in found.items()}
    assert scales == {"a (line 2)": (4e9, 1e8), "a (line 3)": (2e9, 1e8)}  # two points of one run stay two
    assert f"--tokens 4e+09 is taken for 1 mixtures of {mixtures}, the others say theirs" in caplog.text
    header, first = fit_mixture(*options).splitlines()[:2]
    assert header.split()[:4] == ["mixture", "tokens", "parameters", "target"]
    assert first.split()[:6] == ["a", "(line", "2)", "4e+09", "1e+08", "domain0"]


def test_the_price_of_leaving_a_prior_is_not_part_of_the_objective(tmp_path):
    World("linear", m=3, targets=1).table(16).write(tmp_path / "runs.csv")
    fit_mixture("fit", tmp_path / "runs.csv", "--law", "linear", "--out", tmp_path / "law.json")
    (tmp_path / "prior.json").write_text('{"domain0": 0.4, "domain1": 0.3, "domain2": 0.3}')
    options = ["optimize", tmp_path / "law.json", "--tokens", "1e9", "--out", tmp_path / "w.json"]
    prior = ["--prior", tmp_path / "prior.json", "--kl"]
    text = fit_mixture(*options)
    assert "Intervals hold if linear is the law" in text
    assert "e-3" not in text.split("target")[0]  # a weight below a millionth is printed as 0
    near, far = (json.loads(fit_mixture(*options, *prior, kl, "--json"))["objective"] for kl in (0.1, 1e6))
    assert near["uniform"] == far["uniform"] < 10
    assert near["value"] < far["value"] == pytest.approx(far["prior"], abs=1e-6)
    assert near["price_of_leaving_prior"] > 0
    assert "leaving the prior is priced at" in fit_mixture(*options, *prior, 0.1)


def test_no_interval_of_a_loss_reaches_below_zero(folder, tmp_path):
    mixtures = tmp_path / "mixtures.csv"
    mixtures.write_text(",".join(f"weight/domain{i}" for i in range(4)) + "\n.25,.25,.25,.25\n")
    options = ("--tokens", "1e2", "--parameters", "1e8", "--json")
    found = json.loads(fit_mixture("predict", folder / "law.json", mixtures, *options))
    (mixture,) = found["mixtures"].values()
    assert min(end for loss in mixture["losses"].values() for end in loss["run_interval"]) >= 0
    assert "of the smallest of the table (1e+09), MUCH FARTHER" in found["warnings"][0]


@pytest.mark.parametrize(("law", "tokens"), [("auto", (1e9,)), ("linear", (1e9, 2e9, 4e9))])
def test_fit_counts_its_steps_to_the_end(law, tokens):
    table = World("linear", m=2, targets=1, tokens=tokens).table(10)
    steps: list[int] = []
    selection.fit(table, law, draws=1, advance=steps.append)
    assert sum(steps) == selection.num_steps(table, law)


def test_stability_compares_smaller_scales_with_larger_ones_in_few_lines(tmp_path):
    truth = World("exposure", m=4, targets=2, tokens=(1e9, 2e9, 4e9, 8e9), sizes=(1e7, 1e8, 1e9))
    truth.table(6, crossed=True).write(tmp_path / "runs.csv")
    pairs = json.loads(fit_mixture("stability", tmp_path / "runs.csv", "--json"))["pairs"]
    assert all(p["from"][key] <= p["to"][key] for p in pairs for key in ("tokens", "parameters"))
    assert len(pairs) == 10 * 6 - 12  # (token counts up to) x (sizes up to), less a scale with itself
    text = fit_mixture("stability", tmp_path / "runs.csv")
    assert len(text.splitlines()) <= 20 + 8
    assert "the 20 of 48 pairs that agree the least" in text
    assert "same best: share of targets with the same best mixture" in text


def test_bits_per_byte_know_the_bytes_of_targets_and_tasks(measured_corpus):
    """The corpus says 4 bytes a token of text, and its task 3 bytes a token of its completions."""
    options = Namespace(objective="bits-per-byte", corpus=measured_corpus)
    weights = mixture_inputs.read_objective(options, ["web", "exams", "quiz"]).weights
    expected = {"web": 1 / 4 / math.log(2), "exams": 1 / 4 / math.log(2), "quiz": 1 / 3 / math.log(2)}
    assert weights == pytest.approx(expected)


def test_epochs_cap_what_a_small_corpus_can_give(folder, tmp_path):
    shard = {"prefix": "x", "documents": 1, "text_bytes": 4, "sha256_bin": "", "sha256_idx": ""}
    tokens = {"domain0": 10**8, "domain1": 10**10, "domain2": 10**10, "domain3": 10**10}
    manifest = {
        "version": 1,
        "tokenizer": {"name": "gpt2", "vocabulary_size": 50257, "end_of_document": 50256},
        "domains": {name: {"train": [{**shard, "tokens": count}]} for name, count in tokens.items()},
    }
    (tmp_path / "corpus.json").write_text(json.dumps(manifest))
    options = ["--tokens", "4e9", "--parameters", "1e8", "--max-epochs", 4, "--corpus", tmp_path]
    fit_mixture("optimize", folder / "law.json", *options, "--out", tmp_path / "w.json")
    assert WeightsFile.read(tmp_path / "w.json").weights["domain0"] <= 4 * 1e8 / 4e9 + 1e-9


def test_decide_says_its_verdict_first_and_writes_what_to_train(folder, tmp_path):
    law, out = folder / "law.json", tmp_path / "w.json"
    asked = ("decide", law, "--tokens", "4e9", "--parameters", "1e8", "--out", out)
    found = json.loads(fit_mixture(*asked, "--json"))
    keys = {"weights", "expected_gain", "probability_of_gain", "expected_regret", "tokens_saved", "verdict"}
    assert keys <= set(found)
    assert found["expected_gain"]["low"] <= found["expected_gain"]["value"] <= found["expected_gain"]["high"]
    written = WeightsFile.read(out)
    assert dict(written.weights) == pytest.approx(found["weights"])
    assert written.source.startswith("fit_mixture.py decide, against uniform, mean-loss: ")
    kept = found["against"]["weights"]
    assert found["weights"] == pytest.approx(found["best"] if found["verdict"] == "change" else kept)
    said = fit_mixture(*asked[:-1], tmp_path / "again.json", "--against", out, "--risk", 0.9)
    assert said.startswith(("keep: ", "change: "))


@pytest.fixture(scope="module")
def repetition_law(tmp_path_factory):
    """A fitted law of repetition of three domains."""
    folder = tmp_path_factory.mktemp("repetition")
    World("exposure-repetition", m=3, targets=1, seed=4).table(30, noise=0.003).write(folder / "runs.csv")
    fit_mixture("fit", folder / "runs.csv", "--law", "exposure-repetition", "--out", folder / "law.json")
    return folder / "law.json"


class TestLawOfRepetition:
    def test_the_optimum_is_that_of_the_text_there_is(self, repetition_law, tmp_path):
        (tmp_path / "unique.json").write_text('{"domain0": 1e7, "domain1": 1e12, "domain2": 1e12}')
        weights = {}
        for name, unique in (
            ("little", tmp_path / "unique.json"),
            ("plenty", "domain0=1e12,domain1=1e12,domain2=1e12"),
        ):
            asked = ["--tokens", "1e9", "--unique", unique, "--out", tmp_path / "w.json"]
            weights[name] = json.loads(fit_mixture("optimize", repetition_law, *asked, "--json"))["weights"]["domain0"]
        assert weights["little"] < weights["plenty"] - 0.05
        decided = fit_mixture(
            "decide", repetition_law, "--tokens", "1e9", "--unique", unique, "--out", tmp_path / "d.json"
        )
        assert "domain0" in decided
        at = ["--unique", unique]
        assert json.loads(fit_mixture("predict", repetition_law, tmp_path / "w.json", *at, "--json"))["mixtures"]
        assert "spearman" in fit_mixture("score", repetition_law, repetition_law.parent / "runs.csv", "--json")

    def test_unique_tokens_that_are_missing_or_in_vain_are_said(self, repetition_law, folder, tmp_path):
        out = ["--tokens", "1e9", "--out", tmp_path / "w.json"]
        (tmp_path / "bad.json").write_text('{"domain0": -1}')
        for arguments, message in (
            (["optimize", repetition_law, *out], "give --corpus DIR, or --unique FILE"),
            (["optimize", repetition_law, *out, "--unique", "domain0=1e9"], "unique tokens of 'domain1' are not known"),
            (["optimize", repetition_law, *out, "--unique", "domain0=many"], "--unique 'domain0=many'"),
            (
                ["optimize", repetition_law, *out, "--unique", tmp_path / "bad.json"],
                "domains and their positive tokens",
            ),
            (
                ["optimize", folder / "law.json", *out, "--parameters", "1e8", "--unique", "domain0=1e9"],
                "--unique changes nothing here; it needs a law of repetition",
            ),
        ):
            said = fit_mixture(*arguments, code=2)
            assert message in said
            assert len(said.strip().splitlines()) == 1
