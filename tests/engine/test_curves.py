import math

import pytest

from detector.engine import SCHEDULES, Schedule, make_lr_curve
from detector.errors import UserError


def values(made, final):
    return [made(i / 100, final) for i in range(101)]


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_every_curve_is_a_fraction_and_ends_at_the_final_one(name, final):
    curve = values(make_lr_curve(name), final)
    assert all(0 <= value <= 1 + 1e-12 for value in curve)
    assert max(curve) == pytest.approx(1.0)
    assert curve[-1] == pytest.approx(1.0 if name == "constant" else final)
    if name != "one_cycle":
        assert curve[0] == 1.0
        assert curve == sorted(curve, reverse=True)


def test_the_default_schedule_is_a_cosine():
    """Bit-identical to what it was before there were other schedules."""
    schedule = Schedule(7, 3, 0.01, 0.1, 0.9, 0, 0.8, 0.1, 1)
    for batch in range(22):
        share = (1 + math.cos(math.pi * (batch / 21))) / 2
        assert schedule.settings_at(batch).lr == 0.01 * (0.1 + (1 - 0.1) * share)


def test_linear_and_polynomial():
    assert make_lr_curve("linear")(0.25, 0.2) == pytest.approx(0.8)
    assert values(make_lr_curve("polynomial", power=1.0), 0.2) == pytest.approx(
        values(make_lr_curve("linear"), 0.2)
    )
    assert make_lr_curve("polynomial", power=2.0)(0.5, 0.0) == pytest.approx(0.25)


def test_steps_have_equal_ratios():
    step = make_lr_curve("step", milestones=(0.8, 0.9))
    assert [step(p, 0.01) for p in (0.0, 0.79, 0.8, 0.9, 1.0)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.01]
    )


def test_one_cycle_goes_up_and_down():
    curve = values(make_lr_curve("one_cycle", peak=0.25, start=0.1), 0.01)
    assert curve[0] == pytest.approx(0.1)
    assert curve[25] == pytest.approx(1.0)
    assert curve[:26] == sorted(curve[:26])
    assert curve[25:] == sorted(curve[25:], reverse=True)


def test_the_warm_up_applies_to_every_curve():
    schedule = Schedule(10, 1, 0.1, 0.0, 0.9, 4, 0.8, 0.0, 1, make_lr_curve("constant"))
    assert [schedule.settings_at(batch).lr for batch in range(6)] == pytest.approx(
        [0, 0.025, 0.05, 0.075, 0.1, 0.1]
    )


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("cosin", {}, "unknown schedule 'cosin'; did you mean cosine"),
        ("cosine", {"power": 1}, r"schedule cosine: no parameter 'power' \(has none\)"),
        ("polynomial", {"pwer": 1}, "no parameter 'pwer'; did you mean power"),
        ("polynomial", {"power": -1}, "power must be greater than 0"),
        ("polynomial", {"power": "two"}, "schedule polynomial: "),
        ("step", {"milestones": (80, 90)}, "fractions of training, between 0 and 1"),
        ("step", {"milestones": 0.5}, "schedule step: "),
        ("one_cycle", {"peak": 1.0}, r"peak must be in \(0, 1\)"),
    ],
)
def test_mistakes(name, parameters, message):
    with pytest.raises(UserError, match=message) as caught:
        make_lr_curve(name, **parameters)
    assert "\n" not in str(caught.value)
