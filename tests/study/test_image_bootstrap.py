"""Intervals over the images, of classifiers whose accuracy on all possible images is known."""

import numpy as np
import pytest

from detector.evaluation import SavedEvaluation, save_accuracies
from detector.evaluation.saved_evaluation import ShareResampler
from detector.study.answer import find_answer
from detector.study.collect import collect_results
from detector.study.image_bootstrap import load_evaluations, resample_images
from detector.study.plan import find_run_folder
from detector.study.text import describe_method, format_text
from tests.study.made_up import make_study, write_run

IMAGES = 200


def draw_hits(rng, accuracy, difficulty):
    """Hits of a network in images of uniform `difficulty` [n], float64 [n]."""
    own = rng.random(len(difficulty)) < 0.3
    return (np.where(own, rng.random(len(difficulty)), difficulty) < accuracy).astype(float)


def write_evaluation(path, hits, ids=None):
    ids = np.arange(len(hits)) if ids is None else ids
    save_accuracies(path, ids, np.zeros(len(hits), int), {"top1": hits})


def make_evaluation(hits):
    return SavedEvaluation(("top1",), len(hits), {}, ShareResampler(hits[:, None]))


def test_intervals_cover_the_truth_in_95_percent(rng):
    """In 150 draws of the images, the networks as they are."""
    covered = []
    for _ in range(150):
        difficulty = rng.random(IMAGES)
        evaluations = {
            (arm, (0, None)): make_evaluation(draw_hits(rng, accuracy, difficulty))
            for arm, accuracy in (("mish", 0.8), ("relu", 0.75))
        }
        samples = resample_images(evaluations, resamples=200, seed=len(covered))
        low, high = samples.find_intervals("relu", "mish")["top1"]
        covered.append(low <= -0.05 <= high)
    assert 0.91 <= np.mean(covered) <= 0.99


@pytest.fixture
def study_folder(tmp_path, rng):
    """Three seeds of two arms; relu is wrong in 10 % of the images in which mish is right."""
    study = make_study(cfg="cnn6-mish-cls")
    for seed in study.seeds:
        hits = (rng.random(IMAGES) < 0.8).astype(float)
        for arm in study.arms:
            own = hits * (rng.random(IMAGES) < 0.9) if arm.name == "relu" else hits
            run = next(r for r in study.list_runs() if r.arm == arm and r.seed == seed)
            folder = find_run_folder(tmp_path, run)
            write_run(folder, [0.5])
            folder.results.write_text(f"epoch,loss_cls,seconds,top1\n1,0.3,2,{own.mean()}\n")
            write_evaluation(folder.evaluation, own)
    return study, tmp_path


def answer_study(study, folder):
    results = collect_results(study, folder)
    samples = resample_images(load_evaluations(folder, results), resamples=100)
    return find_answer(study, results, images=samples)


def test_a_study_has_an_interval_over_its_images(study_folder):
    answer = answer_study(*study_folder)
    (only,) = answer.comparisons["top1"]
    assert only.images is not None
    assert only.images[0] < only.mean < only.images[1] < 0
    assert answer.num_images == IMAGES
    assert "resamples the 200 validation images: it covers what other images" in format_text(answer)
    assert "what other seeds would show on these validation images" in describe_method(answer)
    assert answer.as_json()["comparisons"][0]["images"] == list(only.images)


def test_other_images_give_no_interval(study_folder):
    study, folder = study_folder
    write_evaluation(
        find_run_folder(folder, study.list_runs()[3]).evaluation,
        np.ones(IMAGES),
        np.arange(1, IMAGES + 1),
    )
    answer = answer_study(study, folder)
    assert answer.comparisons["top1"][0].images is None
    assert "No intervals over images: the runs were evaluated on different" in format_text(answer)


def test_runs_of_older_versions_have_no_evaluation(study_folder):
    study, folder = study_folder
    for run in study.list_runs()[:5]:
        find_run_folder(folder, run).evaluation.unlink()
    answer = answer_study(study, folder)
    assert answer.comparisons["top1"][0].images is None
