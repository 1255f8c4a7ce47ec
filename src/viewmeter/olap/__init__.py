"""The serving layer's time-series store: its protocol, and the implementations beside it."""
