"""The batch layer: exact rows for whole hours from the raw archive, and what only whole hours and whole views tell."""
