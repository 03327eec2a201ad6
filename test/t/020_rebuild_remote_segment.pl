
# A remote segment that is lost and built anew from a base backup joins again
# by itself; until then no point is released without it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('rebuild', segments => 2);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS a') foreach $c->ids;
$c->wait_applied($c->create_point('first'));

$c->cut($c->remote(1));
$c->sql($_, 'INSERT INTO t SELECT generate_series(1, 1000)') foreach $c->ids;
$c->create_point('without');
is($c->remote_sql(-1, q{SELECT multisite_wait_for_consistency_point('without', 'released', '2 s')}), 'f',
	'no point is released while a segment is lost');
$c->wait_for($c->remote(-1), q{SELECT reason ~ '"without" waits for segment 1' FROM multisite_status WHERE worker = 'orchestrator'});
pass('and the orchestrator says for which it waits');

$c->wait_for($c->source(-1), q{SELECT slowest_segment = 1 AND reason LIKE 'point "without" waits for segment 1,%' AND rpo_seconds > 1
	FROM multisite_estimates WHERE site = 'dr'});
pass('so do the estimates at the source');

# a new base backup of the same segment, under another directory and port
$c->init_remote(1, node_name => 'rebuilt')->start;
$c->wait_for($c->remote(1), q{SELECT reason LIKE 'not yet consistent%' FROM multisite_status WHERE worker = 'receiver'});
$c->sql($_, 'INSERT INTO t SELECT generate_series(1, 1000)') foreach $c->ids;
my $point = $c->create_point('again');
$c->wait_applied($point);
foreach my $id ($c->ids)
{
	is($c->remote_sql($id, 'SELECT count(*) FROM t'), '3000', "segment $id is at the new point");
}
is($c->remote_sql(1, q{SELECT state FROM multisite_consistency_points WHERE name = 'without'}), 'passed',
	'the point before its base backup is passed there');
$c->wait_for($_, q{SELECT reason = 'the newest point is applied' AND applied_point = 'again'
	FROM multisite_estimates WHERE site = 'dr'}) foreach $c->source(-1), $c->remote(-1);
pass('both sites estimate from the new point');
$c->cut_source;
my ($name) = $c->promote;
is($name, 'again', 'the site is promoted with it');
is($c->remote_sql(1, 'SELECT count(*), pg_is_in_recovery() FROM t'), '3000|f', 'and the rebuilt segment is, too');

done_testing();
