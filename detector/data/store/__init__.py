"""Where images and annotations are kept: `index` (flat arrays), their caches, image files."""
