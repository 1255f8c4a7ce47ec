#!/bin/sh
# One view from nothing to an answer, with curl alone.
#
#   examples/first-view.sh pk_… sk_… [http://127.0.0.1:8080]
#
# Sends a view of 20 s with a stall of 2 s, waits until it is counted, and asks for it. Needs sh, date and curl.
set -eu

PK=${1:?the ingest key (pk_…) comes first}
SK=${2:?the secret key (sk_…) comes second}
URL=${3:-http://127.0.0.1:8080}

now=$(($(date +%s) * 1000))
view="example-$now"

# The fields that every event has. A view is known by view_id; seq numbers its events 0, 1, 2… .
event() { # type, seconds ago, seq
    printf '{"type":"%s","ts":%d,"seq":%d,"view_id":"%s","video_id":"my-video","channel_id":"my-channel"}' \
        "$1" $((now - $2 * 1000)) "$3" "$view"
}

post() { # events, separated by commas
    curl -sS --fail-with-body -o /dev/null -w "POST %{url} -> %{http_code}\n" \
        "$URL/api/v1/events/beacon?key=$PK&t=$(($(date +%s) * 1000))" -H 'Content-Type: application/json' -d "[$1]"
}

post "$(event request 20 0),$(event play 19 1)"
post "$(event buffer 9 2),$(event play 7 3),$(event exit 0 4)"

# An event is in every answer about a second after its 204. A script does not guess: flush answers when it is.
curl -sS --fail-with-body -o /dev/null -X POST "$URL/api/v1/admin/flush" -H "Authorization: Bearer $SK"

# 17 s watched, 2 s rebuffered: a ratio of 2 / 19. Run it twice and it is 2 plays of the same ratio.
curl -sS --fail-with-body "$URL/api/v1/analytics/query" -H "Authorization: Bearer $SK" \
    -H 'Content-Type: application/json' -d '{
      "video_id": "my-video", "time_range": "24h", "granularity": "total",
      "metrics": ["plays", "watch_time_ms", "rebuffer_ratio", "startup_time_avg_ms", "lost_events"]}'
echo
