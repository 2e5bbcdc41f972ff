-- name: newest_runs
-- Runs that fit, newest first.
SELECT run_id, flow, kind, status, cause, origin, from_step, started, ended,
       parameters::VARCHAR AS parameters, labels::VARCHAR AS labels, seconds
FROM runs
WHERE ($flow IS NULL OR flow = $flow)
  AND ($status IS NULL OR status = $status)
  AND ($since IS NULL OR started >= $since)
  AND ($labels IS NULL OR json_contains(labels, $labels))
  AND ($parameters IS NULL OR json_contains(parameters, $parameters))
ORDER BY run_id DESC
LIMIT $limit

-- name: fitting_runs
-- The runs that fit a search. EVERY_WORD: a condition for each word of it.
SELECT *
FROM runs
WHERE ($flow IS NULL OR flow = $flow) AND EVERY_WORD

-- name: page_of_runs
-- A page of them.
SELECT run_id, flow, kind, status, cause, origin, from_step, started, ended,
       parameters::VARCHAR AS parameters, labels::VARCHAR AS labels, seconds
FROM (FITTING_RUNS)
WHERE ($status IS NULL OR status = $status)
ORDER BY SORT_KEY
LIMIT $limit OFFSET $offset

-- name: count_runs
-- How many of them there are of each status.
SELECT status, count(*) AS runs FROM (FITTING_RUNS) GROUP BY status

-- name: runs_of_ticks
-- The runs of a flow's ticks in a range (stamps, both inclusive), oldest first.
SELECT run_id, status, tick, inputs, coalesce(fired_by, '') AS fired_by,
       coalesce(claim, 1) AS claim, coalesce(source, '') AS source
FROM runs
WHERE flow = $flow AND tick BETWEEN $first AND $last
ORDER BY run_id

-- name: fired_and_not_ended
-- The runs that a trigger or backfill has fired and that have not come to an end, oldest first.
SELECT run_id, flow, status, tick, inputs
FROM runs
WHERE fired_by = $by AND status NOT IN ('success', 'failed', 'cancelled')
ORDER BY run_id

-- name: ended_by
-- How many runs of a trigger or backfill have come to an end since a moment.
SELECT count(*) AS runs FROM runs WHERE fired_by = $by AND ended >= $since

-- name: causes
-- Why these runs are what they are, in words.
SELECT run_id, cause FROM runs WHERE run_id IN (SELECT unnest($runs))

-- name: flows
-- The flows that were run lately, newest first.
SELECT flow FROM runs GROUP BY flow ORDER BY max(run_id) DESC LIMIT 100

-- name: fired_newest
-- The newest run of each trigger, and how many of its runs have not come to an end.
SELECT fired_by, max(run_id) AS run_id, arg_max(status, run_id) AS status,
       arg_max(tick, run_id) AS tick,
       count(*) FILTER (status NOT IN ('success', 'failed', 'cancelled')) AS active
FROM runs
WHERE fired_by LIKE 'trigger:%'
GROUP BY fired_by

-- name: read_so_far
-- How far each journal has been read.
SELECT run_id, bytes FROM journals

-- name: read_of_some
-- How far the journals have been read that may have changed: these, and those that have not ended.
SELECT run_id, bytes FROM journals WHERE NOT ended OR run_id IN (SELECT unnest($runs))

-- name: count_jobs
-- How many jobs are known of runs that are read again.
SELECT run_id, count(*) AS jobs FROM jobs WHERE run_id IN (SELECT unnest($runs)) GROUP BY run_id

-- name: count_journals
-- How many journals are known.
SELECT count(*) AS runs FROM journals

-- name: forget_runs
-- Drop what is known of runs that are read anew.
DELETE FROM runs WHERE run_id IN (SELECT unnest($runs))

-- name: forget_steps
-- Drop the steps of runs that are read anew.
DELETE FROM steps WHERE run_id IN (SELECT unnest($runs))

-- name: forget_jobs
-- Drop the jobs of runs that are read anew.
DELETE FROM jobs WHERE run_id IN (SELECT unnest($runs))

-- name: forget_variables
-- Drop the variables of jobs of runs that are read anew.
DELETE FROM variables
WHERE job_id IN (SELECT job_id FROM jobs WHERE run_id IN (SELECT unnest($runs)))

-- name: forget_waits
-- Drop the waits of runs that are read anew.
DELETE FROM waits WHERE run_id IN (SELECT unnest($runs))

-- name: forget_journals
-- Drop how far runs were read.
DELETE FROM journals WHERE run_id IN (SELECT unnest($runs))

-- name: migrations
-- The migrations that were applied.
SELECT number FROM migrations

-- name: record_migration
-- A migration was applied.
INSERT INTO migrations VALUES ($number)

-- name: columns
-- The columns of a table with their types.
DESCRIBE SELECT * FROM TABLE_NAME

-- name: rename_flow
-- Runs of a flow that has got another id since.
UPDATE runs SET flow = $new WHERE flow = $old AND started < $time

-- name: running
-- Runs without a last word.
SELECT run_id FROM runs WHERE status = 'running'

-- name: interrupt_runs
-- Runs whose owners are gone (never committed).
UPDATE runs SET status = 'interrupted' WHERE run_id IN (SELECT unnest($runs))

-- name: interrupt_steps
-- The steps that were executing when their owners went (never committed).
UPDATE steps SET status = 'failed', cause = 'interrupted'
WHERE status = 'running' AND run_id IN (SELECT unnest($runs))

-- name: digest_of_table
-- A table's content, whatever its order.
SELECT count(*) AS rows, sum(hash(t)) AS digest FROM TABLE_NAME AS t

-- name: make_state
-- What outlives runs, as the ledger has it (never committed): state, resource or variable.
CREATE TEMP TABLE state (
    kind VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    value JSON,
    secret BOOLEAN NOT NULL,
    run_id VARCHAR,
    who VARCHAR NOT NULL,
    changed DOUBLE NOT NULL
)
