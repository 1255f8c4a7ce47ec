"""What real players get wrong, by name: which player, what it does, and how it is mended.

In: nothing. Out: `QUIRKS`. Promised: whatever `cmcd.py` treats otherwise than the standard says has a row here and is
counted under its name (`viewmeter_cmcd_quirks_total`), except where the row says that a record alone cannot show it.
Seen in 51 recordings of November 2026; a quirk is recognised by the shape of a record, never by the player's name,
since no record carries that.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Quirk(NamedTuple):
    """One row. `counted`: a record shows it by itself."""

    player: str
    does: str
    mended: str
    counted: bool = True


QUIRKS: Final[dict[str, Quirk]] = {
    "default_keys": Quirk(
        "dash.js 5.2.1 without `enabledKeys` on the target",
        "sends `e`, `ts` and `v` alone: no `sid`, no `sn`",
        "not: it belongs to no view. Rejected with the name of the setting",
    ),
    "no_states": Quirk(
        "Shaka 5.2.12, release builds",
        "loses `sta` to its minifier: no `ps` and no `sta` ever",
        "the record is `blind`: played time and stalls are unknown, never 0",
    ),
    "startup_without_states": Quirk(
        "Shaka 5.2.12, release builds",
        "tells the first frame by `msd` only",
        "the record with `msd` is the `play`, with that `startup_ms`",
    ),
    "msd_beside_states": Quirk(
        "dash.js 5.2.1",
        "sends an `msd` of 1 to 63 ms, where startup took 0.6 to 2.2 s; also more than once",
        "ignored wherever the player tells its state: `p` says it better",
    ),
    "fatal_that_recovers": Quirk(
        "dash.js 5.2.1",
        "says `sta=f` and plays on 0.4 s later",
        "an error of unknown fatality: a failure only if nothing is played after it",
    ),
    "error_without_code": Quirk(
        "Shaka 5.2.12",
        "sends `e=e` without the required `ec`, one for each retry, recoverable ones too",
        "an error of unknown fatality, without a code",
    ),
    "bare_list": Quirk(
        "dash.js 5.2.1 (`ec=27`), encoders of version 1 (`br=932`)",
        "writes one value where the standard has a list",
        "read as a list of one",
    ),
    "heartbeat_not_playing": Quirk(
        "hls.js 1.7.4, dash.js 5.2.1",
        "goes on with `e=t` in pause, in a stall, after the end and after a fatal error",
        "`other`: it keeps presence and `sn`, and is no proof of playing",
    ),
    "absolute_ttfb": Quirk(
        "dash.js 5.2.1",
        "sends the wall clock as `ttfb` in nearly every `rr`",
        "ignored (above 10 minutes it is no duration); no figure here uses `ttfb`",
    ),
    "state_on_response": Quirk(
        "dash.js 5.2.1",
        "puts a stale `sta` on responses: three stalls would become nine",
        "only `ps` moves the state",
        counted=False,
    ),
    "out_of_order": Quirk(
        "hls.js 1.7.4, dash.js 5.2.1, Shaka 5.2.12",
        "POSTs overtake each other, and `ts` of a response is when it was asked for",
        "a view's events are ordered by `sn`; an instant never goes back",
        counted=False,
    ),
    "no_fatal_error": Quirk(
        "hls.js 1.7.4",
        "reports a fatal network error as a stall without an end, then heartbeats in it",
        "not: destroy the player when it raises a fatal error",
        counted=False,
    ),
    "own_seek": Quirk(
        "dash.js 5.2.1",
        "jumps over a small gap in the media and says `r`, `p` without `k`",
        "not: a stall of under 100 ms more",
        counted=False,
    ),
    "pause_before_end": Quirk(
        "dash.js 5.2.1, hls.js 1.7.4",
        "says `a` a few ms before `e`",
        "not: one pause more; the times are right",
        counted=False,
    ),
    "early_play": Quirk(
        "Shaka 5.2.12, debug builds",
        "says `p` up to 0.8 s early, and `r` before a seek",
        "not: only attempts and plays of these builds are promised",
        counted=False,
    ),
    "repeats_on_410": Quirk(
        "dash.js 5.2.1, Shaka 5.2.12",
        "repeat every report for ever when they are answered 410",
        "410 is never answered; what is sent twice counts once (`sid`, `sn`)",
        counted=False,
    ),
    "trailing_line_feed": Quirk(
        "hls.js 1.7.4, dash.js 5.2.1, Shaka 5.2.12",
        "end the last record with LF, which the validator of their own library calls an error",
        "LF, CRLF and blank lines are taken",
        counted=False,
    ),
}
"""Name to row; the name is the label of the metric."""
