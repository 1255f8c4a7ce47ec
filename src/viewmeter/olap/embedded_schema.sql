-- What the store keeps beside the rollups. The rollup tables are derived from the catalogue (embedded_sql.py).

CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL);

-- One row a micro-batch of the speed layer, in the same transaction as its rows: exactly once by construction.
CREATE TABLE IF NOT EXISTS commits (
    number       BIGINT NOT NULL PRIMARY KEY,
    at_ms        BIGINT NOT NULL,
    positions    VARCHAR NOT NULL,  -- JSON: partition -> last applied offset
    watermark_ms BIGINT NOT NULL
);
