"""Viewmeter: self-hosted streaming analytics for video."""

__version__ = "0.1.0"
