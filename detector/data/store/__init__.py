"""An index of a data set, image files, and caches of both.

Read `index` first (a split as flat arrays), then `image_files` and `image_sizes` (how files are read),
`index_cache` (indices on disk), and `image_store` (decoded images in memory or on disk; `free_memory`
limits it). `fingerprint` identifies the data of a run.
"""
