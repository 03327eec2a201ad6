
# A source segment fails over to its standby: the remote follows to the new
# timeline, and the old primary, when it comes back, is refused.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('failover', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('one'));

# a standby at the source site, by streaming replication
my $old = $c->source(0);
my $standby = $c->source_standby(0);
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 1000)');
$old->wait_for_catchup($standby->name, 'flush', $old->lsn('flush'));
$c->wait_published(0);

# some WAL that a point covers, some that none does, then the end
$c->wait_applied($c->create_point('two'));
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 200000)');
$old->wait_for_catchup($standby->name, 'flush', $old->lsn('flush'));
$c->fail_over(0, $standby);
$c->sql(0, 'INSERT INTO t VALUES (-1)');
my $point = $c->create_point('three');
$c->wait_applied($point);
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'the remote has followed to the new timeline');
is($c->remote_sql(0, q{SELECT timeline FROM multisite_status WHERE worker = 'receiver'}), '2', 'which is 2');

# the old primary comes back and would publish, too
$old->start;
$c->wait_for($old, q{SELECT last_error LIKE '%is on timeline 2 already%' FROM multisite_status WHERE worker = 'publisher'});
pass('the old primary is refused');
$old->safe_psql('postgres', 'INSERT INTO t SELECT generate_series(1, 100)');
$c->sql($_, 'INSERT INTO t VALUES (-2)') foreach $c->ids;
$c->wait_applied($c->create_point('four'));
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'and nothing of it reaches the remote');

# the remote's own restart on the new timeline, and promotion
$c->remote(0)->restart;
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 100000)');
$c->wait_applied($c->create_point('five'));
my $digest = $c->digest($standby, 't');
$c->cut_source;
my ($name) = $c->promote;
is($name, 'five', 'promoted');
is($c->digest($c->remote(0), 't'), $digest, 'at the point, on a third timeline');

done_testing();
