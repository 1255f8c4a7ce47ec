"""The speed layer's live counters: their protocol, and the implementations beside it."""
