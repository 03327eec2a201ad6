#!/usr/bin/env bash
# Promotes the remote site at the last point that all of its segments have.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

say "Promotion of the remote site"
begin=$(now)
point=$(as_server psql -XAtq -v ON_ERROR_STOP=1 -h "$dir" -p "$(remote_port -1)" -U postgres -d postgres \
	-c "SELECT multisite_promote()")
echo "$point" | as_server tee "$dir/promoted_at_point" >/dev/null
for id in "${segments[@]}"; do
	sql "$(remote_port $id)" "CREATE TABLE after_promotion (a int); DROP TABLE after_promotion"
done
since "$begin" | as_server tee "$dir/rto" >/dev/null
echo "every segment accepts writes, at consistency point \"$point\", after $(cat "$dir/rto") s"
