#!/usr/bin/env bash
# 50_point.sh [NAME]: creates a consistency point, and waits until the remote
# site has applied it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "A consistency point"
point=$(gp "$(source_port -1)" "SELECT multisite_create_consistency_point(${1:+'$1'})")
[ "$(gp "$(source_port -1)" "SELECT multisite_wait_for_consistency_point('$point')")" = t ] ||
	die "the remote site did not apply \"$point\""
gp_table "$(source_port -1)" "SELECT name, state, segments, barrier_ms, skew_ms FROM multisite_consistency_points WHERE name = '$point'"
PGOPTIONS="-c gp_role=utility" gp_table "$(remote_port -1)" "SELECT segment_id, state, applied_lsn, applied_point
	FROM multisite_segments WHERE site = 'dr' ORDER BY segment_id"
