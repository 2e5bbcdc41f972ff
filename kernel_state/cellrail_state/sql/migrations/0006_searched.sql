-- What searches look through, joined once when it is written and not for each search.

ALTER TABLE runs ADD COLUMN searched VARCHAR;
UPDATE runs SET searched = lower(concat_ws(
    chr(10), run_id, kind, cause, coalesce(origin, ''), labels::VARCHAR, parameters::VARCHAR
));
