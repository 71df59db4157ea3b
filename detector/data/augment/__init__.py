"""Augmentations: each draws its parameters, then applies them to a sample.

Read `streams` first (where random numbers come from), then `geometry` (letterbox, affine, flip),
`mosaic`, `mix` (CutMix, MixUp, paste, erase) and `color`. `albumentations_adapter` runs the transforms
of that library. `train_set` calls all of them in order.
"""
