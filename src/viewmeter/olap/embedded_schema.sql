-- What the store keeps beside the rollups. The rollup tables are derived from the catalogue (embedded_tables.py).
-- Keys are kept by the code that writes (one writer a table, under a lock): DuckDB's indexes would refuse a key that is
-- deleted and inserted in one transaction.

CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);

-- One row a micro-batch of the speed layer, in the same transaction as its rows: exactly once by construction.
CREATE TABLE IF NOT EXISTS commits (
    number       BIGINT NOT NULL PRIMARY KEY,
    at_ms        BIGINT NOT NULL,
    positions    VARCHAR NOT NULL,  -- JSON: partition -> last applied offset
    watermark_ms BIGINT NOT NULL
);

-- Which hours an append touched, and its commit: added in its transaction, merged by compaction. -1: load().
CREATE TABLE IF NOT EXISTS speed_hours (hour_ms BIGINT NOT NULL, number BIGINT NOT NULL);

-- Hours that batch rows answer for. What was appended behind `seen_commit` makes the hour stale.
CREATE TABLE IF NOT EXISTS closed_hours (
    hour_ms         BIGINT NOT NULL,
    archive_version BIGINT NOT NULL,
    seen_commit     BIGINT NOT NULL,
    at_ms           BIGINT NOT NULL,
    kept            BOOLEAN NOT NULL
);
CREATE TABLE IF NOT EXISTS stale_marks (hour_ms BIGINT NOT NULL);

-- Days, weeks and months that have their rows (or have none to have).
CREATE TABLE IF NOT EXISTS built_periods (
    kind     VARCHAR NOT NULL,
    zone     VARCHAR NOT NULL,
    start_ms BIGINT NOT NULL,
    end_ms   BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS tenant_zones (
    tenant_id VARCHAR NOT NULL,
    zone      VARCHAR NOT NULL,
    from_ms   BIGINT NOT NULL,  -- days of this zone that begin here or later hold the tenant
    step_ms   BIGINT NOT NULL   -- how long the tenant's hour rows may be, so that days consist of whole ones
);

-- Rises with every change to closed hours, built periods, zones and reach: what is known of coverage may be kept by it.
CREATE TABLE IF NOT EXISTS batch_state (version BIGINT NOT NULL);

-- How far back a table reaches: moved before rows are deleted, so that nothing is answered from what has holes.
CREATE TABLE IF NOT EXISTS reach (name VARCHAR NOT NULL, from_ms BIGINT NOT NULL);

-- Distinct viewers of plays by the hour; their counts by day and month (channel_id '' = all of the tenant;
-- bots: false, true, any = who was counted); and in which weeks they were there (bots left out).
CREATE TABLE IF NOT EXISTS viewers (
    hour_ms     BIGINT NOT NULL,
    tenant_id   VARCHAR NOT NULL,
    channel_id  VARCHAR NOT NULL,
    video_id    VARCHAR NOT NULL,
    is_bot      BOOLEAN NOT NULL,
    viewer_hash BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS viewer_counts (
    kind       VARCHAR NOT NULL,
    zone       VARCHAR NOT NULL,
    time_ms    BIGINT NOT NULL,
    tenant_id  VARCHAR NOT NULL,
    channel_id VARCHAR NOT NULL,
    bots       VARCHAR NOT NULL,
    viewers    BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS viewer_weeks (
    zone        VARCHAR NOT NULL,
    week_ms     BIGINT NOT NULL,
    tenant_id   VARCHAR NOT NULL,
    channel_id  VARCHAR NOT NULL,
    viewer_hash BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS job_runs (
    number   BIGINT NOT NULL,
    job      VARCHAR NOT NULL,
    start_ms BIGINT NOT NULL,
    end_ms   BIGINT NOT NULL,
    began_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    state    VARCHAR NOT NULL,
    rows     BIGINT NOT NULL,
    details  VARCHAR NOT NULL   -- JSON
);
