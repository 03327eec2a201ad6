
# A single server is a cluster of one: no segment is registered anywhere.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('one');

$c->start_source;
is($c->sql(-1, 'SELECT count(*) FROM multisite_segments'), '0', 'no segment is registered');
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t AS SELECT generate_series(1, 100) AS a');
my $point = $c->create_point('only');
is($point, 'only', 'the point has the name it was given');
$c->wait_applied($point);
is($c->remote_sql(-1, 'SELECT count(*) FROM t'), '100', 'the remote has what was written before the point');
is($c->sql(-1, q{SELECT segments FROM multisite_consistency_points WHERE name = 'only'}), '1', 'of one segment');

# the pg_stat_replication columns carry the remote's progress
$c->wait_for($c->source(-1), q{SELECT replay_lsn >= (SELECT lsn FROM multisite_consistency_points
	WHERE name = 'only') FROM pg_stat_replication WHERE application_name = 'multisite'});
pass('pg_stat_replication shows what the remote has applied');

$c->sql(-1, 'INSERT INTO t SELECT 1');
my $end = $c->sql(-1, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for($c->remote(-1), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
$c->cut_source;
my ($name) = $c->promote;
is($name, 'only', 'promoted at the point');
is($c->remote_sql(-1, 'SELECT count(*) FROM t'), '100', 'what came after it is not there');

done_testing();
