#!/usr/bin/env bash
# Promotes the remote site at the last point that all of its segments have:
# the segments first, the coordinator last.  It still runs in utility role.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Promotion of the remote site"
point=$(utility "$(remote_port -1)" "SELECT multisite_promote()")
echo "every server accepts writes, at consistency point \"$point\""
