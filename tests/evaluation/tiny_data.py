"""Hand-written documents of every shipped task, in the form of ``--data``."""

import gzip
import json

LONG = "The light of the river keeps turning under the cold stone, and the woman said it was not over yet. " * 4


def choices(*texts, labels="ABCD"):
    """Return choices as ARC and OpenBookQA have them."""
    return {"text": list(texts), "label": list(labels[: len(texts)])}


def copa(premise, question, choice1, choice2, label):
    return {"premise": premise, "question": question, "choice1": choice1, "choice2": choice2, "label": label}


def winogrande(sentence, option1, option2, answer):
    return {"sentence": sentence, "option1": option1, "option2": option2, "answer": answer}


DOCUMENTS = {
    "lambada_openai_test.jsonl.gz": [
        {"text": "The man said that the water flows down to the river"},
        {"text": 'She said:\n\n"It was not the man, it was the woman"'},
        {"text": LONG + "The light keeps turning"},
    ],
    "hellaswag_val.jsonl.gz": [
        {
            "activity_label": "River",
            "ctx": "A man is under the stone. the woman",
            "endings": ["keeps turning.", "said no.", "[substeps] was cold.", "flows  down."],
            "label": 1,
        },
        {
            "activity_label": "Light",
            "ctx": "How to keep the light. Turn the stone over. Wait.",
            "endings": ["Go down to the water.", "Yes.", "It was not yet.", "Say no."],
            "label": 0,
        },
    ],
    "piqa_valid.jsonl.gz": [
        {"goal": "Keep the water cold", "sol1": "put it under a stone", "sol2": "put it over a light"},
        {"goal": "Turn the stone", "sol1": "say that it was turning", "sol2": "turn it over"},
        {"goal": LONG, "sol1": "yes", "sol2": "no"},
    ],
    "arc_easy_validation.jsonl.gz": [
        {
            "question": "What flows down to the sea?",
            "choices": choices("a river", "a stone", "light"),
            "answerKey": "A",
        },
        {"question": "What is cold?", "choices": choices("light", "the man", "stone", labels="1234"), "answerKey": "3"},
    ],
    "openbookqa_validation.jsonl.gz": [
        {"question_stem": "A river is", "choices": choices("water", "a man"), "answerKey": " A"},
        {"question_stem": "The sea is under", "choices": choices("it", "light", "no"), "answerKey": "B"},
    ],
    "copa_validation.jsonl.gz": [
        copa("The water was cold.", "effect", "It was over.", "The man said no.", 1),
        copa("The stone keeps turning. ", "cause", "A man turned it.", "It was not.", 0),
    ],
    "winogrande_validation.jsonl.gz": [
        winogrande("The man said no to the woman because _ was cold.", "the man", "the woman", "1"),
        winogrande("The stone is under the light, so the _ keeps turning.", "stone", "light", "2"),
    ],
    "boolq_validation.jsonl.gz": [
        {"question": "does the river flow", "answer": True, "passage": "The river flows down."},
        {"question": "is it over", "answer": False, "passage": LONG},
    ],
}
BLIMP = ("anaphor_number_agreement", "determiner_noun_agreement_1", "irregular_plural_subject_verb_agreement_1")
BLIMP += ("npi_present_1", "passive_1", "wh_vs_that_no_gap")
for name in BLIMP:
    DOCUMENTS[f"blimp/{name}.jsonl.gz"] = [
        {"sentence_good": "The woman said that it was over.", "sentence_bad": "The woman said that it were over."},
        {"sentence_good": "A man keeps the light.", "sentence_bad": "A man keep the light."},
    ]
LABELS = [0, 1, 1]  # of PIQA


def write_data(folder, packed=True):
    """Write all files, gzipped or plain; return the folder."""
    for name, documents in DOCUMENTS.items():
        write_documents(folder / (name if packed else name.removesuffix(".gz")), documents)
    (folder / "piqa_valid_labels.lst").write_text("".join(f"{label}\n" for label in LABELS))
    return folder


def write_documents(path, documents):
    path.parent.mkdir(exist_ok=True, parents=True)
    raw = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
