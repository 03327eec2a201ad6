#!/usr/bin/env bash
# 80_configure.sh [MAPPING]: makes a cluster of the promoted servers.
#
# Writes the addresses of the mapping file (content|host|address|port|directory)
# into the coordinator's gp_segment_configuration, without the source's
# mirrors, lets multisite_repl see that they are right, and restarts the
# coordinator in dispatch role.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

mapping=${1:-$mapping}
say "The remote cluster gets its own segments"
{
	echo "BEGIN; DELETE FROM gp_segment_configuration WHERE role = 'm';"
	as_server cat "$mapping" | while IFS='|' read -r content host address port directory; do
		# the source's dbid is another one if a mirror has taken over there
		dbid=$(PGOPTIONS="-c gp_role=utility" as_server psql -XAtq -h "$address" -p "$port" -d postgres -c "SHOW gp_dbid" </dev/null)
		echo "UPDATE gp_segment_configuration SET dbid = $dbid, hostname = '$host', address = '$address', port = $port,
			datadir = '$directory', preferred_role = 'p', mode = 'n', status = 'u' WHERE content = $content;"
	done
	echo "COMMIT;"
} | as_server env PGOPTIONS="-c gp_role=utility -c allow_system_table_mods=on" \
	psql -Xq -v ON_ERROR_STOP=1 -h "$dir" -p "$(remote_port -1)" -d postgres
# no mirror is left that a commit could wait for
for id in 0 1 2; do
	utility "$(remote_port $id)" "ALTER SYSTEM RESET synchronous_standby_names"
	utility "$(remote_port $id)" "SELECT pg_reload_conf()" >/dev/null
done
# refuses if one address leads to another server
echo "servers of this site: $(utility "$(remote_port -1)" "SELECT multisite_accept_configuration()")"
stop_server "$(data_directory dr -1)"
start_in dispatch "$(data_directory dr -1)"
gp_table "$(remote_port -1)" "SELECT dbid, content, role, status, address, port FROM gp_segment_configuration ORDER BY content"
