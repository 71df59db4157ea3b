"""The command of `detector/commands/compare_recipes.py`; `python tools/compare_recipes.py --help`."""

from detector.commands import cli, compare_recipes

if __name__ == "__main__":
    cli.run(compare_recipes.main)
