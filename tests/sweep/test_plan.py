"""Plans: what is written is what workers train."""

import json

import pytest
from sweeps import TOKENS_PER_STEP, sweep_tool, write_configs

from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.design import ProbeRun, ddo_plan
from autoscale_ds.sweep.plan import SweepPlan, Target, tokens_label, with_seeds

BASE = DomainWeights({"web": 0.5, "code": 0.3, "books": 0.2})
CONFIG = {
    "run": "SWEEP",
    "budget_tokens": 1000.0,
    "data": {"corpus": "c", "sequence_length": 10, "global_batch": 2},
    "model": {"preset": "nano"},
    "schedule": {"kind": "constant_with_cooldown", "warmup_tokens": 100, "cooldown_tokens": 200},
}


def plan(runs, **changes):
    return SweepPlan(**{"config": CONFIG, "deepspeed": {}, "runs": tuple(runs), **changes})


def test_every_design_gets_every_seed_and_the_base_gets_more():
    runs = with_seeds(ddo_plan(BASE, 1e6), 1e6, range(2), range(4))
    assert [run.run for run in runs[:4]] == ["1M/base@0", "1M/base@1", "1M/base@2", "1M/base@3"]
    assert [run.run for run in runs if "low/web" in run.run] == ["1M/low/web@0", "1M/low/web@1"]
    assert len(runs) == 4 + 6 * 2


def test_a_plan_is_read_as_it_was_written(tmp_path):
    made = plan(with_seeds(ddo_plan(BASE, 2000), 2000, [3]), target=Target(1e5, 7e4), evaluations=3)
    made.write(tmp_path / "s")
    assert SweepPlan.read(tmp_path / "s") == made


def test_the_schedule_of_a_run_is_that_of_the_configuration_at_its_own_budget(tmp_path):
    (run,) = with_seeds([ProbeRun("half", BASE, 500.0)], 500, [7])
    config = plan([run], evaluations=5).run_config(run, tmp_path)
    assert (config.schedule.warmup_tokens, config.schedule.cooldown_tokens) == (50, 100)
    assert (config.budget_tokens, config.seed, config.mixture.weights) == (500, 7, dict(BASE))
    assert config.evaluation.every_steps == 5  # 25 steps, 5 evaluations
    assert config.run == str(tmp_path / "runs/500.half@7")


def test_adding_runs_keeps_those_there_and_skips_what_is_trained_under_another_name():
    old = plan(with_seeds(ddo_plan(BASE, 1000), 1000, [0]))
    same, new = (
        ProbeRun("prior", BASE, 1000.0),
        ProbeRun("other", DomainWeights.uniform(["web", "code", "books"]), 1000.0),
    )
    both = old.extended(plan(with_seeds([same, new], 1000, [0])))
    assert [run.run for run in both.runs[len(old.runs) :]] == ["1k/other@0"]
    assert both.extended(old) == both


def test_a_sweep_refuses_runs_of_another_configuration_and_two_runs_of_one_name():
    old = plan(with_seeds([ProbeRun("a", BASE, 1000.0)], 1000, [0]))
    changed = {**CONFIG, "data": {**CONFIG["data"], "global_batch": 4}}
    with pytest.raises(ConfigError, match=r"config\.data\.global_batch 2, not 4"):
        old.extended(plan([], config=changed))
    other = ProbeRun("a", DomainWeights.uniform(["web", "code", "books"]), 1000.0)
    with pytest.raises(ConfigError, match="1k/a@0 is planned already"):
        old.extended(plan(with_seeds([other], 1000, [0])))


def test_two_runs_may_not_share_a_folder():
    with pytest.raises(ConfigError, match="share a folder"):
        with_seeds([ProbeRun("low/a.b", BASE, 1.0), ProbeRun("low.a/b", BASE, 1.0)], 1, [0])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ("[]", "no sweep plan"), ('{"kind": "sweep", "version": 1}', "damaged")],
)
def test_a_damaged_plan_is_said(tmp_path, content, message):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        SweepPlan.read(tmp_path)


def test_token_counts_read_as_people_write_them():
    assert [tokens_label(t) for t in (7.5e5, 1.5e6, 3e8, 1e10, 2e12, 500)] == [
        "750k",
        "1.5M",
        "300M",
        "10B",
        "2T",
        "500",
    ]


class TestCommandLine:
    def test_matched_runs_are_drawn_from_their_share_of_the_windows(self, tmp_path, small_corpus):
        config, ds = write_configs(tmp_path, small_corpus)
        sweep, scale = tmp_path / "s", 20 * TOKENS_PER_STEP
        new = ["--config", config, "--deepspeed_config", ds]
        said = sweep_tool(
            "plan", sweep, *new, "--mixture", "uniform", "--tokens", scale, "--match-repetition", 8 * scale
        )
        assert "1/8 of the windows" in said.stderr
        sweep_tool("plan", sweep, "--mixture", "proportional", "--tokens", 2 * scale)  # as planned: matched
        made = SweepPlan.read(sweep)
        shares = [made.run_config(run, sweep).data.window_share for run in made.runs]
        assert shares == [1 / 8, 1 / 4]
        unmatched = tmp_path / "u"
        sweep_tool("plan", unmatched, *new, "--mixture", "uniform", "--tokens", scale)
        assert "match_repetition" not in json.loads((unmatched / "plan.json").read_text())  # as plans were before
        more = ["--mixture", "proportional", "--tokens", scale]
        for folder, options, message in (
            (sweep, [*more, "--match-repetition", 4 * scale], "is planned with 40960; leave it out"),
            (sweep, [*more, *new], "match_repetition 40960.0, not null"),
            (unmatched, [*more, "--match-repetition", 4 * scale], "is planned without it; leave it out"),
            (sweep, ["--mixture", "uniform", "--tokens", 9 * scale], "is larger than --match-repetition 40.96k"),
            (tmp_path / "v", [*more, *new, "--match-repetition", 1e9], "which leaves domain 'web'"),
            (
                tmp_path / "v",
                [*more, *new, "--match-repetition", 1e6, "data.window_share=0.5"],
                "data.window_share is 0.5, but",
            ),
        ):
            assert message in sweep_tool("plan", folder, *options, code=2).stderr.replace("\n", " ")

    def test_planning_writes_designs_of_all_kinds_and_the_cost(self, tmp_path, small_corpus):
        config, ds = write_configs(tmp_path, small_corpus)
        sweep = tmp_path / "s"
        tokens = f"{20 * TOKENS_PER_STEP},{40 * TOKENS_PER_STEP}"
        common = ["--config", config, "--deepspeed_config", ds, "--tokens", tokens, "--target-tokens", 1e5]
        said = sweep_tool("plan", sweep, *common, "optimizer.learning_rate=1e-3").stderr
        assert "14 runs (14" in said
        assert "times the target run's" in said
        assert json.loads((sweep / "plan.json").read_text())["config"]["optimizer"]["learning_rate"] == 1e-3
        sweep_tool("plan", sweep, "--kind", "dirichlet", "--runs", 3, "--tokens", 20 * TOKENS_PER_STEP)
        (tmp_path / "w.json").write_text('{"web": 0.2, "code": 0.2, "books": 0.6}')
        mixtures = ["--mixture", "proportional", "--mixture", f"mine={tmp_path / 'w.json'}"]
        sweep_tool("plan", sweep, *mixtures, "--tokens", 60 * TOKENS_PER_STEP, "--seeds", 2, "--first-seed", 5)
        names = [run.run for run in SweepPlan.read(sweep).runs]
        assert len(names) == 14 + 2 + 4  # the dirichlet plan's prior is the base
        assert names[-1] == "15.36k/mine@6"
        for option, message in (
            (("--evaluations", 9), "--evaluations is 9, but"),
            (("--deepspeed_config", tmp_path / "w.json"), "has another DeepSpeed file"),
        ):
            assert message in sweep_tool("plan", sweep, "--tokens", 20 * TOKENS_PER_STEP, *option, code=2).stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "not planned yet: give --config"),
            (("--config", "{config}", "--deepspeed_config", "{ds}"), "give --tokens"),
            (("--config", "{config}", "--deepspeed_config", "{ds}", "--tokens", "100"), "less than one step"),
            (
                ("--config", "{config}", "--deepspeed_config", "{ds}", "--tokens", "1e5", "--kind", "axis"),
                "give --runs K",
            ),
            (("--config", "{config}", "--deepspeed_config", "{ds}", "--tokens", "1e5", "modle.preset=nano"), "model"),
            (
                ("--config", "{config}", "--deepspeed_config", "{ds}", "--tokens", "1e5", "--mixture", "none.json"),
                "none",
            ),
            (("--designs", "{config}", "--config", "{config}", "--deepspeed_config", "{ds}"), "not JSON"),
            (
                ("--designs", "{config}", "--tokens", "1", "--config", "{config}", "--deepspeed_config", "{ds}"),
                "so --tokens has no effect",
            ),
            (("--tokens", "1e6,nan"), "--tokens: 'nan' given, expected a finite number above 0"),
        ],
    )
    def test_a_mistake_is_one_line_and_code_2(self, tmp_path, small_corpus, arguments, message):
        config, ds = write_configs(tmp_path, small_corpus)
        arguments = [text.format(config=config, ds=ds) for text in arguments]
        said = sweep_tool("plan", tmp_path / "s", *arguments, code=2).stderr
        assert message in said
        assert said.count("\n") == 1
        assert not (tmp_path / "s").exists()

    def test_the_other_commands_say_that_there_is_no_sweep(self, tmp_path):
        for name in ("work", "status", "collect"):
            assert "is no sweep" in sweep_tool(name, tmp_path, code=2).stderr
