#!/usr/bin/env bash
# Creates a consistency point by hand and waits until the remote site has
# applied it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "A consistency point"
point=$(sql "$(source_port -1)" "SELECT multisite_create_consistency_point(${1:+'$1'})")
sql "$(source_port -1)" "SELECT multisite_wait_for_consistency_point('$point')" | grep -qx t ||
	die "the remote site did not apply \"$point\""
table "$(source_port -1)" "SELECT name, state, barrier_ms, skew_ms,
	1000 * extract(epoch FROM published_at - created_at)::numeric(9,4) AS published_ms,
	1000 * extract(epoch FROM applied_at - created_at)::numeric(9,4) AS applied_ms
	FROM multisite_consistency_points WHERE name = '$point'"
