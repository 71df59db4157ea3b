from detector.commands.compare_recipes import RECIPES, find_recipe, format_table
from tests.commands.running import SMALL


def test_the_table():
    rows = [("auto", [0.5, 0.6]), ("siou", [0.4, 0.4])]
    assert format_table(["0", "1"], rows).splitlines() == [
        "| recipe | seed 0 | seed 1 | mean AP | sd | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| auto | 0.500 | 0.600 | 0.550 | 0.071 |  |",
        "| siou | 0.400 | 0.400 | 0.400 | 0.000 | -0.150 |",
    ]


def test_a_recipe_is_a_name_or_words():
    assert find_recipe("siou") == RECIPES["siou"]
    assert find_recipe("train.lr=0.1,loss.cls=1.0") == ("train.lr=0.1", "loss.cls=1.0")


def test_an_unknown_recipe(tool, digits_yaml):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, "--recipes", "siuo"]
    status, _, err = tool("compare_recipes", *words)
    assert status == 2
    assert "unknown recipe 'siuo'; did you mean siou?" in err


def test_finished_runs_are_not_repeated(tool, digits_yaml):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, *SMALL]
    words += ["train.epochs=1", "--seeds", 0]
    status, out, err = tool("compare_recipes", *words, "--recipes", "auto")
    assert status == 0, err
    assert "| auto | 0.0" in out
    status, out, err = tool("compare_recipes", *words, "--recipes", "auto", "train.lr=0.02")
    assert status == 0, err
    assert "already finished: 1 of 1 epochs" in out
    assert "| train.lr=0.02 | 0.0" in out
