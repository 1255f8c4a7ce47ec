"""The speed layer: events of the log become rollup rows and live figures within a second."""
