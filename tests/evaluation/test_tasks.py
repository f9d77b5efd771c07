"""Shipped tasks: their prompts against lm-eval's own, their numbers against lm-eval's own backend and by hand."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from tiny_data import DOCUMENTS, LABELS, write_data, write_documents
from tiny_models import hf_folder, over

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'autoscale_ds[eval]')")

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from autoscale_ds.evaluation.harness import hf_backend, load_tasks, run_tasks
from autoscale_ds.evaluation.task_files import shipped_tasks
from autoscale_ds.evaluation.text_perplexity import text_score
from autoscale_ds.training.trained import open_trained

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "eval"
THEIR_TASKS = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
THEIR_FILES = {
    "lambada_openai": "lambada/lambada_openai.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "piqa": "piqa/piqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "copa": "super_glue/copa/default.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "boolq": "super_glue/boolq/default.yaml",
}


def their_documents(name, documents):
    """Return documents as the hub has them: labels as numbers, HellaSwag's context in two parts."""
    if name == "piqa":
        return [{**document, "label": label} for document, label in zip(documents, LABELS, strict=True)]
    if name == "boolq":
        return [{**document, "label": int(document["answer"])} for document in documents]
    if name == "hellaswag":
        parts = [("A man is under the stone.", "the woman"), (documents[1]["ctx"], "")]
        return [
            {**document, "ctx_a": first, "ctx_b": second}
            for document, (first, second) in zip(documents, parts, strict=True)
        ]
    return documents


def requests(task):
    """Return what a task asks of a model, without the documents."""
    task.build_all_requests(rank=0, world_size=1)
    return [(each.request_type, each.doc_id, each.args) for each in task.instances]


@pytest.mark.parametrize("name", list(shipped_tasks()))
def test_prompts_targets_and_metrics_are_those_of_lm_eval(name, data):
    from datasets import Dataset

    theirs = load_yaml(THEIR_TASKS / THEIR_FILES.get(name, f"blimp/{name.removeprefix('blimp_')}.yaml"))
    ours = load_tasks([name], data)["tasks"][name]
    (file,) = load_yaml(shipped_tasks()[name])["dataset_kwargs"]["data_files"].values()
    documents = Dataset.from_list(their_documents(name, DOCUMENTS[file]))
    splits = dict.fromkeys(("train", "validation", "test"), documents)
    expected = ConfigurableTask(config={**theirs, "custom_dataset": lambda **options: splits})
    assert ours.config.task == expected.config.task == name
    assert requests(ours) == requests(expected)
    assert ours.VERSION == expected.VERSION
    assert set(ours.aggregation()) == set(expected.aggregation())
    for ours_doc, their_doc in zip(ours.eval_docs, expected.eval_docs, strict=True):
        target, wanted = ours.doc_to_target(ours_doc), expected.doc_to_target(their_doc)
        if isinstance(wanted, str) and ours.config.doc_to_choice and not ours.multiple_input:  # COPA gives the text
            wanted = expected.doc_to_choice(their_doc).index(wanted)
        assert target == wanted


def test_every_request_has_the_log_likelihood_of_lm_evals_backend(data, ours, theirs):
    """Some do not fit the context of 64 tokens: both read the same end of them."""
    before = ours.scorer.truncated
    instances = []
    for task in load_tasks(["all"], data)["tasks"].values():
        task.build_all_requests(rank=0, world_size=1)
        instances += task.instances
    assert len(instances) > 60
    mine, expected = ours.loglikelihood(instances), theirs.loglikelihood(instances)
    assert [score for score, _ in mine] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]
    assert ours.scorer.truncated - before == 5


def test_rolling_log_likelihoods_are_those_of_lm_evals_backend(ours, theirs):
    texts = [DOCUMENTS["boolq_validation.jsonl.gz"][1]["passage"], "No.", "It was not over yet."]
    instances = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    assert ours.loglikelihood_rolling(instances) == pytest.approx(theirs.loglikelihood_rolling(instances), abs=1e-3)


def test_a_text_at_the_stride_of_the_context_has_its_rolling_log_likelihood(ours, trained):
    text, end = DOCUMENTS["boolq_validation.jsonl.gz"][1]["passage"], trained.tokenizer.info.end_of_document
    score = text_score(ours.scorer, text, ours.tok_encode(text), trained.spec.context, end)
    (rolling,) = ours.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    assert -score.loss * score.tokens == pytest.approx(rolling, rel=1e-6)


def test_generated_text_is_that_of_lm_evals_backend(ours, theirs):
    prompts = ["The river", "She said that it was", DOCUMENTS["boolq_validation.jsonl.gz"][1]["passage"], "A"]

    def instances(**settings):
        return [Instance("generate_until", {}, (prompt, {**settings}), 0) for prompt in prompts]

    free = ours.generate_until(instances(until=[], max_gen_toks=20))
    assert all(free)
    asked = instances(until=[free[0][5:8]], max_gen_toks=20) + instances(until=["no such text"], max_new_tokens=9)
    made = ours.generate_until(asked)
    assert made == theirs.generate_until(asked)
    assert made[0] == free[0].split(free[0][5:8])[0]


def test_a_model_that_prefers_one_ending_has_the_score_computed_by_hand(folder, tmp_path):
    """A model whose logits do not depend on the context: 2 for " the", 0 for every other token."""
    trained = open_trained(folder)
    (the,) = trained.tokenizer.encode([b" the"]).tokens[:-1].tolist()
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.zero_()
        trained.model.norm.bias[0] = 1.0
        trained.model.tokens.weight[the, 0] = 2.0
    documents = [{"goal": "Say it", "sol1": "no", "sol2": "the"} for i in range(40)]
    write_documents(tmp_path / "piqa_valid.jsonl", documents)
    (tmp_path / "piqa_valid_labels.lst").write_text("".join(f"{int(i % 4 != 0)}\n" for i in range(40)))
    model = over(trained)
    (result,) = run_tasks(model, load_tasks(["piqa"], tmp_path))
    assert (result.task, result.version, result.items) == ("piqa", "1.0", 40)
    assert result.metrics["acc"].value == 0.75  # 30 of 40 answers are "the"
    assert result.metrics["acc"].standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 39))
    normaliser = math.log(math.exp(2) + trained.spec.vocabulary - 1)
    for context, ending, count in (("The river.", " the", 1), ("", " the the", 2)):
        (score,) = model.loglikelihood([Instance("loglikelihood", {}, (context, ending), 0)])
        assert score == (pytest.approx(count * (2 - normaliser), abs=1e-5), True)


def test_a_uniform_model_scores_chance(folder, tmp_path):
    """Endings of equal length are equally likely: the first is taken, right for half of random labels."""
    trained = open_trained(folder)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.zero_()
    labels = torch.randint(2, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    documents = [{"goal": f"Goal {i}", "sol1": "the same", "sol2": "the same"} for i in range(300)]
    write_documents(tmp_path / "piqa_valid.jsonl", documents)
    (tmp_path / "piqa_valid_labels.lst").write_text("\n".join(map(str, labels)))
    (result,) = run_tasks(over(trained, 64), load_tasks(["piqa"], tmp_path))
    figure = result.metrics["acc"]
    assert figure.value == labels.count(0) / 300
    assert abs(figure.value - 0.5) < 3 * figure.standard_error
    assert figure.standard_error == pytest.approx(math.sqrt(0.25 / 300), rel=0.02)


def test_lambada_perplexity_of_a_uniform_model_is_that_of_its_last_words(folder, tmp_path):
    trained = open_trained(folder)
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.zero_()
    texts = ["The man was not the woman", "It flows under the stone", "She said that it was cold"]
    write_documents(tmp_path / "lambada_openai_test.jsonl", [{"text": text} for text in texts])
    (result,) = run_tasks(over(trained), load_tasks(["lambada"], tmp_path))
    pieces = [len(trained.tokenizer.encode([f" {text.split()[-1]}".encode()]).tokens) - 1 for text in texts]
    assert result.metrics["perplexity"].value == pytest.approx(trained.spec.vocabulary ** (sum(pieces) / 3), rel=1e-4)
    assert result.metrics["perplexity"].standard_error is not None
    assert result.metrics["acc"].value == 0.0


def test_plain_files_do_as_well_as_gzipped_ones(data, ours, tmp_path):
    plain = run_tasks(ours, load_tasks(["all"], write_data(tmp_path, packed=False)), limit=2)
    assert plain == run_tasks(ours, load_tasks(["all"], data), limit=2)
    assert [result.task for result in plain] == list(shipped_tasks())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the task data is not beside the repository (../shared/data/eval)")
def test_the_data_sets_themselves_give_the_numbers_of_lm_evals_backend(tmp_path):
    folder = hf_folder(tmp_path / "hf", context=512)  # some endings of HellaSwag have more than 64 of our tokens
    models = (over(open_trained(folder)), hf_backend(folder, 8, "cpu", lambda count: None))
    mine, expected = (run_tasks(model, load_tasks(["all"], SHARED), limit=4) for model in models)
    assert [result.task for result in mine] == list(shipped_tasks())
    for result, other in zip(mine, expected, strict=True):
        assert (result.task, result.items) == (other.task, 4)
        for name, figure in result.metrics.items():
            assert figure.value == pytest.approx(other.metrics[name].value, rel=1e-4), (result.task, name)
