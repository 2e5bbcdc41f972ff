-- The ticks that runs are of. No run of an older version is of one, so nothing is read anew.

ALTER TABLE runs ADD COLUMN tick VARCHAR;
ALTER TABLE runs ADD COLUMN inputs VARCHAR;
ALTER TABLE runs ADD COLUMN fired_by VARCHAR;
ALTER TABLE runs ADD COLUMN claim INTEGER;
ALTER TABLE runs ADD COLUMN source VARCHAR;
