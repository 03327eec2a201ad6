
# Points by themselves: at their cadence under load, none on an idle cluster,
# and with a reason and a recovery when a segment is down.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Multisite;

my $c = Multisite->new('auto', segments => 2, conf => q{
autovacuum = off
multisite.consistency_point_interval = '200ms'
});
my $count = 'SELECT count(*) FROM multisite_consistency_points';

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->start_remote;

# under load on one segment that is not the coordinator, which lasts 2 s or longer
my $before = $c->sql(-1, $count);
my $begin = time();
$c->sql(1, q{DO $$BEGIN FOR i IN 1..40 LOOP INSERT INTO t VALUES (i); COMMIT; PERFORM pg_sleep(0.05); END LOOP; END$$});
my $made = $c->sql(-1, $count) - $before;
my $most = (time() - $begin) / 0.2 + 2;
cmp_ok($made, '>=', 3, "points are made under load ($made)");
cmp_ok($made, '<=', $most, 'at no more than their interval');
$c->wait_for($c->remote(1), 'SELECT count(*) = 40 FROM t');
pass('all that was committed arrives without a call');

# idle: the point's own record, checkpoints and snapshots of running
# transactions are no reason for a point; the last commits may still be one
for (1 .. 20)
{
	$before = $c->sql(-1, $count);
	$c->sql($_, 'CHECKPOINT') foreach $c->ids;
	$c->sql(-1, 'SELECT pg_sleep(2)');
	last if $c->sql(-1, $count) == $before;
}
is($c->sql(-1, $count), $before, 'an idle cluster makes no points');

# a segment is down
$c->sql(0, 'INSERT INTO t VALUES (1)');
$c->source(1)->stop('immediate');
$c->sql(0, 'INSERT INTO t VALUES (2)');
$c->wait_for($c->source(-1), q{SELECT state = 'failed' AND reason LIKE 'segment 1 could not%'
	FROM multisite_status WHERE worker = 'points'});
pass('the status names the segment that is down');
$c->source(1)->start;
$c->wait_for($c->source(-1), "SELECT ($count) > $before");
$c->wait_for($c->source(-1), q{SELECT failing_since IS NULL FROM multisite_status WHERE worker = 'points'});
my $log = slurp_file($c->source(-1)->logfile);
my @complaints = $log =~ /multisite points failed: segment 1/g;
cmp_ok(scalar(@complaints), '<=', 2, 'the failure is not logged at each attempt');
like($log, qr/multisite points works again/, 'and its end is logged');

# a commit just before a restart
$c->sql(-1, 'INSERT INTO t VALUES (77)');
$c->source(-1)->stop('immediate');
$c->source(-1)->start;
$c->wait_for($c->remote(-1), 'SELECT count(*) = 1 FROM t WHERE a = 77');
pass('what was committed just before a restart arrives, too');

# made longer, then shorter in flight: that is not kept waiting for the longer one
my $interval = q{SELECT current_setting('multisite.consistency_point_interval')};
$c->source(-1)->append_conf('postgresql.conf', q{multisite.consistency_point_interval = '1h'});
$c->source(-1)->reload;
$c->wait_for($c->source(-1), $interval, '1h');
# the time of the point that was due next passes, which nothing tells
$c->sql(-1, 'SELECT pg_sleep(1)');
$c->sql(-1, 'INSERT INTO t VALUES (79)');
$c->source(-1)->append_conf('postgresql.conf', q{multisite.consistency_point_interval = '200ms'});
$c->source(-1)->reload;
$c->wait_for($c->remote(-1), 'SELECT count(*) = 1 FROM t WHERE a = 79');
pass('a shorter interval holds at once');

# switched off in flight, and the history survives a restart
$c->source(-1)->append_conf('postgresql.conf', q{multisite.consistency_point_interval = 0});
$c->source(-1)->restart;
$c->wait_for($c->source(-1), q{SELECT reason LIKE '%multisite_create_consistency_point%' FROM multisite_status WHERE worker = 'points'});
cmp_ok($c->sql(-1, $count), '>', $made, 'the history survives a restart');
my $last = $c->sql(-1, 'SELECT max(id) FROM multisite_consistency_points');
$c->create_point('by_hand');
is($c->sql(-1, q{SELECT id FROM multisite_consistency_points WHERE name = 'by_hand'}), $last + 1,
	'the next point has the next id');

done_testing();
