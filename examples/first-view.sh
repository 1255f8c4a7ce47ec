#!/usr/bin/env bash
# Sends the events of one view and asks for its numbers. Needs a running Viewmeter and its two keys:
#   PK=pk_… SK=sk_… examples/first-view.sh [http://127.0.0.1:8080]
set -euo pipefail
url=${1:-http://127.0.0.1:8080}
: "${PK:?an ingest key, as the first start of viewmeter up prints it}" "${SK:?a secret key, from the same place}"
view="view-$(date +%s)-$$"
now=$(($(date +%s) * 1000))

event() { # event SEQ TYPE MS_AGO
  printf '{"type":"%s","ts":%d,"view_id":"%s","seq":%d,"channel_id":"my-channel","video_id":"%s"}' \
    "$2" "$((now - $3))" "$view" "$1" "of-$view"
}

# Asked for, 1 s of startup, 10 s played, 2 s of rebuffering, 7 s played.
events="[$(event 0 request 20000),$(event 1 play 19000),$(event 2 buffer 9000),$(event 3 play 7000),$(event 4 exit 0)]"
curl -sS --fail-with-body "$url/api/v1/events/beacon?key=$PK" \
  -H 'Content-Type: application/json' -H 'Prefer: return=representation' -d "$events"
echo

# Wait until what is on disk is counted, then ask.
curl -sS --fail-with-body -X POST "$url/api/v1/admin/flush" -H "Authorization: Bearer $SK"
echo
metrics=plays,watch_time_ms,rebuffer_ratio,startup_time_avg_ms
curl -sS --fail-with-body -H "Authorization: Bearer $SK" \
  "$url/api/v1/analytics/query?video_id=of-$view&time_range=24h&granularity=total&metrics=$metrics"
echo
