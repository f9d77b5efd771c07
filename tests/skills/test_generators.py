"""Every answer is checked by arithmetic of the test's own, from the text alone."""

import collections
import itertools
import math
import re
import zlib

import pytest

from autoscale_ds.errors import ConfigError
from autoscale_ds.skills import KINDS, parse_skill
from autoscale_ds.skills.base import held_out, is_held_out, training
from autoscale_ds.skills.formats import Calculation, written
from autoscale_ds.skills.parity import subsets

FORMATS = ("plain", "reversed", "simplified", "detailed")
ALL = [f"{kind}:format={form}" for kind in ("addition", "subtraction", "multiplication") for form in FORMATS]
ALL += ["aggregated", "aggregated:format=reversed", "parity", "lego:depth=1", "lego:depth=4", "random"]


def one(text):
    (generator,) = parse_skill(text).values()
    return generator


def first(text, count, seed=0, share=0.1):
    return list(itertools.islice(training(one(text), seed, share), count))


def value(expression):
    assert re.fullmatch(r"\d+([-+*]\d+)+", expression)
    return eval(re.sub(r"\b0+(?=\d)", "", expression))


def answer_of(prompt, completion):
    """Return the calculation asked for and the final answer given, whatever the format."""
    if prompt.startswith("Input:"):
        asked = re.fullmatch(r"Input:\n(.*)\nTarget:\n", prompt)[1]
        return asked, int(completion.rsplit("\n", 1)[1].replace(" ", ""))
    if prompt.startswith("$"):
        return prompt[1:-1], int(completion[:-1][::-1])
    return prompt[:-1], int(completion)


@pytest.mark.parametrize("text", [text for text in ALL if "format" in text or text == "aggregated"])
def test_every_answer_of_a_calculation_is_right(text):
    for prompt, completion, _ in first(text, 400):
        asked, given = answer_of(prompt, completion)
        assert given == value(asked), (prompt, completion)


@pytest.mark.parametrize("kind", ["addition", "subtraction"])
@pytest.mark.parametrize("form", ["simplified", "detailed"])
def test_every_line_of_a_column_scratchpad_is_right(kind, form):
    for prompt, completion, _ in first(f"{kind}:format={form}", 200):
        a, sign, b = re.search(r"(\d+)([-+])(\d+)", prompt).groups()
        steps = [tuple(map(int, pair)) for pair in re.findall(r"A->(\d) , C->(-?\d)", completion)]
        assert len(steps) == max(len(a), len(b))
        for n, (digit, carry) in enumerate(steps, 1):
            low = value(f"{int(a) % 10**n}{sign}{int(b) % 10**n}")  # of the last n digits, straight from the numbers
            assert low == sum(d * 10**k for k, (d, _) in enumerate(steps[:n])) + carry * 10**n
            assert 0 <= digit <= 9
        for x, y, before, total in re.findall(r" (\d)[-+](\d)([-+]\d)=(-?\d+) ", completion):
            assert int(total) == int(x) + (1 if sign == "+" else -1) * int(y) + int(before)


def test_every_line_of_a_product_scratchpad_is_right():
    for prompt, completion, _ in first("multiplication:format=detailed", 200):
        a, b = map(int, re.search(r"(\d+)\*(\d+)", prompt).groups())
        lines = re.findall(r"\* (\d) , A=\[(.*?)\] , k=(\d+) , B=\[(.*?)\] , C=(\d+)\+(\d+)=(\d+)", completion)
        assert len(lines) == len(str(b))
        total = 0
        for digit, product, shift, shifted, before, more, after in lines:
            assert int(product.replace(",", "")) == a * int(digit)
            assert int(shifted.replace(",", "")) == a * int(digit) * int(shift) == int(more)
            assert int(before) == total
            total += int(more)
            assert int(after) == total
        assert total == a * b


def test_the_papers_example_is_written_as_in_the_paper():
    """128 + 367 of Lee et al. 2023, figure 3; their lengths: about 12, 14, 62 and 270 characters a sample."""
    texts = {form: "".join(written(Calculation(128, "+", 367), form)) for form in FORMATS}
    assert texts["plain"] == "128+367=495"
    assert texts["reversed"] == "$128+367=594$"
    assert texts["simplified"] == "Input:\n128+367\nTarget:\nA->5 , C->1\nA->9 , C->0\nA->4 , C->0.\n495"
    assert texts["detailed"] == (
        "Input:\n128+367\nTarget:\n<scratch>\n[1,2,8] has 3 digits.\n[3,6,7] has 3 digits.\n"
        "[1,2,8] + [3,6,7] , A=[] , C=0 , 8+7+0=15 , A->5 , C->1\n[1,2] + [3,6] , A=[5] , C=1 , 2+6+1=9 , A->9 , C->0\n"
        "[1] + [3] , A=[9,5] , C=0 , 1+3+0=4 , A->4 , C->0\n[] + [] , A=[4,9,5] C=0 , END\n</scratch>\n4 9 5"
    )
    assert [len(text) + 1 for text in texts.values()] == pytest.approx([12, 14, 62, 270], rel=0.05)


def carries(a, b, sign):
    """Count the digits at which the numbers' last n digits overflow."""
    width = max(len(str(a)), len(str(b)))
    ends = [(a % 10**n, b % 10**n, 10**n) for n in range(1, width + 1)]
    return sum(x + y >= base if sign == "+" else x < y for x, y, base in ends)


@pytest.mark.parametrize(("kind", "sign"), [("addition", "+"), ("subtraction", "-")])
def test_lengths_and_carries_are_balanced(kind, sign):
    """Of 12,000 each share is within four standard deviations; a few problems are held out unevenly."""
    counts = collections.Counter()
    total = 12_000
    for problem in first(f"{kind}:lengths=equal", total, share=1e-9):
        numbers = sorted(map(int, problem.prompt[:-1].split(sign)), reverse=True)
        counts[len(str(numbers[0])), carries(*numbers, sign)] += 1
    for digits in (1, 2, 3):
        kinds = digits + (sign == "+")
        for number in range(kinds):
            share = 1 / 3 / kinds
            assert abs(counts[digits, number] - total * share) < 4 * math.sqrt(total * share * (1 - share))
    assert sum(counts.values()) == total
    assert len(counts) == (9 if sign == "+" else 6)


def test_by_default_lengths_come_as_numbers_of_that_length():
    lengths = [max(map(len, p.prompt[:-1].split("+"))) for p in first("addition", 10_000)]
    counts = [lengths.count(digits) for digits in (1, 2, 3)]
    for count, expected in zip(counts, (100, 900, 9000), strict=True):  # the paper's samples
        assert abs(count - expected) < 5 * math.sqrt(expected)


def test_differences_are_negative_half_of_the_time_and_factors_of_every_length():
    negative = sum(p.completion.startswith("-") for p in first("subtraction", 4000))
    assert abs(negative - 2000) < 160
    lengths = collections.Counter(
        tuple(sorted(map(len, p.prompt[:-1].split("*")))) for p in first("multiplication:lengths=equal", 6000)
    )
    assert set(lengths) == {(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)}
    assert min(lengths[n, 3] for n in (1, 2, 3)) > 500


def test_aggregated_calculations_have_several_operations():
    counts = collections.Counter(len(re.findall(r"[-+*]", p.prompt)) for p in first("aggregated:operations=4", 3000))
    assert set(counts) == {2, 3, 4}
    assert min(counts.values()) > 850


def test_parities_are_those_of_their_bits_and_come_by_rank():
    problems = first("parity:tasks=20,bits=16,size=4,exponent=1.5", 8000)
    chosen = subsets(20, 16, 4)
    counts = collections.Counter()
    for prompt, completion, _ in problems:
        task, bits = re.fullmatch(r"(\d\d):([01]{16})=", prompt).groups()
        assert int(completion) == sum(int(bits[place]) for place in chosen[int(task)]) % 2
        counts[int(task)] += 1
    weights = [rank**-1.5 for rank in range(1, 21)]
    for task, weight in enumerate(weights):
        expected = 8000 * weight / sum(weights)
        assert abs(counts[task] - expected) < 5 * math.sqrt(expected)
    assert len(set(chosen)) == 20
    assert subsets(5, 16, 4) == chosen[:5]
    assert abs(sum(p.completion == "1" for p in problems) - 4000) < 200


def test_a_chains_value_follows_from_its_clauses():
    depths = collections.Counter()
    for depth in (1, 3, 5):
        for prompt, completion, _ in first(f"lego:depth={depth}", 300):
            clauses, asked = prompt[:-1].split("|")
            rules = {clause[0]: (clause[2], clause[3]) for clause in clauses.split(";")}
            assert len(rules) == 5
            sign, name, steps = 1, asked, 0
            while name != "1":
                mark, name = rules[name]
                sign, steps = (-sign if mark == "-" else sign), steps + 1
            depths[steps] += 1
            assert completion == f"{'+' if sign > 0 else '-'}1"
    assert depths == {1: 300, 3: 300, 5: 300}


def test_random_numbers_follow_their_rule_and_compress_to_no_less_than_their_digits():
    problems = first("random:multiplier=25173,increment=13849,bits=24", 2000)
    for prompt, completion, _ in problems[:200]:
        states = [int(text[::-1], 16) for text in (prompt + completion).split(",")]
        assert len(states) == 16
        assert all(after == (25173 * x + 13849) % 2**24 for x, after in itertools.pairwise(states))
    text = "\n".join(prompt + completion for prompt, completion, _ in problems).encode()
    digits = sum(character not in b",\n" for character in text)
    assert len(zlib.compress(text, 9)) > 0.5 * digits  # 4 bits a digit, nothing for the separators


def test_a_state_of_the_cycle_is_reached_in_one_leap():
    generator = one("random:bits=12,multiplier=13,increment=7")
    state, states = 0, []
    for place in range(4096):
        assert generator.state(place) == state
        states.append(state)
        state = (13 * state + 7) % 4096
    assert sorted(states) == list(range(4096))  # the full period


@pytest.mark.parametrize("text", ALL)
def test_no_problem_is_in_training_and_held_out_whatever_seed(text):
    generator = one(text)
    learned = {p.identity for seed in (0, 1) for p in first(text, 1000, seed=seed)}
    asked = {p.identity for seed in (0, 5) for p in held_out(generator, 0, 100, seed, 0.1)}
    assert len(asked) >= 40
    assert not learned & asked
    assert not any(is_held_out(identity, 0.1) for identity in learned)


def test_problems_that_give_each_other_away_are_on_one_side():
    learned = {p.prompt for p in first("addition:digits=2", 15_000)}
    asked = [p.prompt for p in held_out(one("addition:digits=2"), 0, 300, 0, 0.1)]
    turned = {"+".join(reversed(prompt[:-1].split("+"))) + "=" for prompt in asked}
    assert not turned & learned
    assert not set(asked) & learned
    identities = {form: {p.identity for p in first(f"addition:format={form}", 500)} for form in FORMATS}
    assert len(set(map(frozenset, identities.values()))) == 1  # the same problems, written differently
    chains = [{p.identity for p in first(f"lego:depth={depth}", 500)} for depth in (1, 5)]
    assert chains[0] == chains[1]
    states = [
        {state for p in problems for state in (p.prompt + p.completion).split(",")}
        for problems in (first("random:bits=16", 3000), held_out(one("random:bits=16"), 0, 300, 0, 0.1))
    ]
    assert not states[0] & states[1]


def test_what_is_exchanged_in_an_aggregated_calculation_is_the_same_problem():
    by_identity = collections.defaultdict(set)
    for prompt, completion, identity in first("aggregated:digits=1", 8000):
        by_identity[identity].add((prompt, completion))
    assert any(len(found) > 2 for found in by_identity.values())
    assert all(len({answer for _, answer in found}) == 1 for found in by_identity.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adition", r"unknown skill 'adition'; did you mean addition\?"),
        (
            "addition:format=plane",
            r"skill 'addition:format=plane': format is 'plane'; did you mean plain\?",
        ),
        ("addition:digit=3", r"unknown key digit; did you mean digits\?"),
        ("addition:digits=0", "digits is 0, expected at least 1"),
        ("addition:digits=two", "digits is 'two', expected a whole number"),
        ("addition:", r"is not of the form \[NAME=\]KIND\[:key=value"),
        ("=addition", r"is not of the form \[NAME=\]KIND"),
        ("addition:digits", "override 'digits' is not of the form key=value"),
        ("aggregated:format=detailed", "format is 'detailed'; expected one of plain, reversed"),
        ("aggregated:operations=1", "operations is 1, expected at least 2"),
        ("parity:tasks=9,bits=4,size=2", "tasks is 9, but 2 of 4 bits can be chosen in only 6 ways"),
        ("parity:size=40", "size is 40, expected at most 32"),
        ("lego:depth=6", "depth is 6, expected 1 to the length of the chain, 5"),
        ("random:multiplier=6", "multiplier is 6, which leaves 2 divided by 4; expected 1, for example 5"),
        ("random:bits=10", "bits is 10, which leaves 2 divided by 4; expected 0, for example 8"),
    ],
)
def test_a_skill_that_cannot_be_made_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_skill(text)


def test_all_stands_for_a_domain_of_each_value():
    assert list(parse_skill("addition:format=all")) == [f"addition-{form}" for form in FORMATS]
    assert list(parse_skill("chain=lego:depth=all,length=3")) == ["chain-1", "chain-2", "chain-3"]
    assert parse_skill("sums=addition:digits=2")["sums"].digits == 2
    assert set(KINDS) >= {"addition", "parity", "lego", "random"}


def test_a_side_without_problems_is_an_error():
    with pytest.raises(ConfigError, match=r"addition-plain: none of 20,000 problems is a held-out one; raise"):
        list(held_out(one("addition:digits=1"), 0, 5, 0, 1e-6))
    with pytest.raises(ConfigError, match=r"is a training one; lower the share that is held out \(1\)"):
        next(training(one("addition:digits=1"), 0, 1.0))


def test_fewer_held_out_problems_than_asked_for_are_given_once_each():
    few = list(held_out(one("addition:digits=1"), 0, 500, 0, 0.2))
    assert 0 < len(few) < 30
    assert len({p.identity for p in few}) == len(few)
