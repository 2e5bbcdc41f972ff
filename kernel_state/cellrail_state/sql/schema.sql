-- The catalog: an index of the journals. Everything here can be rebuilt from them.

CREATE TABLE migrations (
    number INTEGER PRIMARY KEY
);

-- how far each journal has been read
CREATE TABLE journals (
    run_id VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    ended BOOLEAN NOT NULL
);

CREATE TABLE runs (
    run_id VARCHAR NOT NULL,
    flow VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    cause VARCHAR NOT NULL,
    origin VARCHAR,
    from_step VARCHAR,
    started DOUBLE NOT NULL,
    ended DOUBLE,
    parameters JSON NOT NULL,
    labels JSON NOT NULL,
    notebook_hash VARCHAR NOT NULL,
    notebook_path VARCHAR NOT NULL,
    kernel VARCHAR NOT NULL,
    python VARCHAR NOT NULL,
    packages JSON NOT NULL,
    host VARCHAR NOT NULL,
    command VARCHAR NOT NULL,
    cwd VARCHAR NOT NULL,
    -- of a tick: its instant (UTC), digest of its inputs, trigger:ID or backfill:ID, digest of what
    -- was run; claim: place among the claims of the tick
    tick VARCHAR,
    inputs VARCHAR,
    fired_by VARCHAR,
    claim INTEGER,
    source VARCHAR,
    -- while a process drove it: without the time that it was suspended, or had no owner
    seconds DOUBLE,
    -- what searches look through, in lower case: id, kind, cause, origin, labels, parameters
    searched VARCHAR
);

-- a step in a run, and the job that stands for it (its own, or a kept one)
CREATE TABLE steps (
    run_id VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    name VARCHAR NOT NULL,
    cell_id VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    kept VARCHAR,
    accepted BOOLEAN NOT NULL,
    cause VARCHAR NOT NULL,
    job_id VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    source_hash VARCHAR NOT NULL,
    options VARCHAR NOT NULL
);

-- one execution of one step
CREATE TABLE jobs (
    job_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    status VARCHAR NOT NULL,
    accepted BOOLEAN NOT NULL,
    cause VARCHAR NOT NULL,
    error VARCHAR,
    message VARCHAR,
    traceback VARCHAR,
    started DOUBLE NOT NULL,
    seconds DOUBLE NOT NULL,
    capture_seconds DOUBLE NOT NULL,
    stored_bytes BIGINT NOT NULL,
    not_restorable VARCHAR NOT NULL,
    execution_count INTEGER,
    outputs JSON,
    written JSON NOT NULL
);

-- what each job changed in the namespace
CREATE TABLE variables (
    job_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    preview VARCHAR NOT NULL,
    component VARCHAR
);

-- a wait of a run: for a person (suspend), to execute a step again (rerun), for time (sleep, retry);
-- status: waiting, resume, timeout, cancel, or void
CREATE TABLE waits (
    wait_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    step INTEGER NOT NULL,
    label VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    asked DOUBLE NOT NULL,
    until DOUBLE,
    on_timeout VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    who VARCHAR NOT NULL,
    woken DOUBLE,
    data VARCHAR
);
