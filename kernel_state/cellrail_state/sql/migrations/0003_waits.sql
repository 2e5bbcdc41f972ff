-- What runs wait for. No run of an older version has waited, so nothing is read anew.

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
