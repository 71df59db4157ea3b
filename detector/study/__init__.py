"""Studies: the same training with one component changed, over paired seeds, and what the difference is.

Read `plan` first (arms x seeds x folds -> runs and their folders), then `runner` (runs what is not
finished), `collect` (run folders -> numbers), `study_metrics` (which of them), `statistics` (pure
functions over arrays), `answer` (the table and the comparisons), `text` and `page` (terminal, Markdown,
HTML) with its `study_charts`; `image_bootstrap` has the intervals over images, `study_file` reads a
study's YAML and the values in it that are `published`, `job_scripts` has the scripts for schedulers. A
search for settings is `search_space` (the ranges), `search` (Optuna), `trial_process`, `search_report`,
`search_page` and `search_charts`.
"""
