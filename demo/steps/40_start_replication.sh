#!/usr/bin/env bash
# Starts the remote servers, which begin to read from Kafka.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Replication starts"
for id in "${segments[@]}"; do
	start_server "$dir/dr_$(segment_name $id)"
done
for id in "${segments[@]}"; do
	wait_for "$(remote_port $id)" "SELECT state = 'waiting' FROM multisite_status WHERE worker = 'receiver'" "the receiver"
done
table "$(remote_port -1)" "SELECT worker, state, reason FROM multisite_status WHERE state <> 'stopped'"
