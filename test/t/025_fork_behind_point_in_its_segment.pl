
# The source fails over in the very WAL segment in which a point lies that is
# staged and not released, behind it: the site can be promoted at that point.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('fork', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('one'));

my $old = $c->source(0);
my $standby = $c->source_standby(0);
$c->sql(0, 'SELECT pg_switch_wal()');
$c->sql(0, 'INSERT INTO t VALUES (1)');
$c->wait_applied($c->create_point('two'));
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(0, 'INSERT INTO t VALUES (2)');
$c->create_point('x');
$c->wait_published(0);
$c->sql(0, 'INSERT INTO t VALUES (3)');
$old->wait_for_catchup($standby->name, 'flush', $old->lsn('flush'));
$c->fail_over(0, $standby);
$c->sql(0, 'INSERT INTO t VALUES (4)');
$c->wait_published(0);
$c->wait_for($c->remote(0), q{SELECT timeline = 2 FROM multisite_status WHERE worker = 'receiver'});
$c->wait_applied('x', 'staged');
my ($name) = $c->promote('x');
is($name, 'x', 'promoted at the point before the fork');
is($c->remote_sql(0, 'SELECT max(a) FROM t'), '2', 'the segment is exactly there');

done_testing();
