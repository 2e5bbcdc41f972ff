-- How long a run was driven. Before, what passed while it was suspended was not told apart.

ALTER TABLE runs ADD COLUMN seconds DOUBLE;
UPDATE runs SET seconds = ended - started;
