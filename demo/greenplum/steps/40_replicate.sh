#!/usr/bin/env bash
# Starts the remote site, the coordinator in utility role: its catalog names
# the source's segments.  Then tables of each kind, with some data.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Replication"
for id in 0 1 2; do
	start_in execute "$(data_directory dr $id)"
done
start_in utility "$(data_directory dr -1)"
wait_until "$(remote_port -1)" "SELECT state IN ('waiting', 'running') FROM multisite_status WHERE worker = 'receiver'" "the receiver"

gp "$(source_port -1)" "
	CREATE TABLE sales (id int, day date, amount numeric) DISTRIBUTED BY (id);
	CREATE TABLE sales_row (LIKE sales) WITH (appendonly = true) DISTRIBUTED BY (id);
	CREATE TABLE sales_column (LIKE sales) WITH (appendonly = true, orientation = column) DISTRIBUTED BY (id);
	CREATE TABLE region (id int, name text) DISTRIBUTED REPLICATED;
	INSERT INTO sales SELECT i, date '2026-01-01' + i % 300, i % 1000 FROM generate_series(1, 50000) i;
	INSERT INTO sales_row SELECT * FROM sales;
	INSERT INTO sales_column SELECT * FROM sales;
	INSERT INTO region SELECT i, 'region ' || i FROM generate_series(1, 10) i"
gp_table "$(source_port -1)" "SELECT gp_segment_id AS content, count(*) AS sales FROM sales GROUP BY 1 ORDER BY 1"
