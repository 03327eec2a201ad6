
# A source segment fails over past a timeline number that is taken: another
# server was promoted beside the same archive.  The remote follows over the gap.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('gap', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('one'));

# what the stray server has left behind, as the standby has it from the archive
my $old = $c->source(0);
my $standby = $c->source_standby(0);
my $fork = $old->lsn('flush');
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 1000)');
$c->wait_applied($c->create_point('two'));
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 100000)');
$old->wait_for_catchup($standby->name, 'replay', $old->lsn('flush'));
append_to_file($standby->data_dir . '/pg_wal/00000002.history', "1\t$fork\tno recovery target specified\n");

$c->fail_over(0, $standby);
like($c->sql(0, 'SELECT pg_walfile_name(pg_current_wal_lsn())'), qr/^00000003/, 'the source is on timeline 3');
$c->sql(0, 'INSERT INTO t VALUES (-1)');
$c->wait_applied($c->create_point('three'));
is($c->remote_sql(0, q{SELECT timeline FROM multisite_status WHERE worker = 'receiver'}), '3', 'the remote has followed');
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'and has all');

# from its last restartpoint, which is on timeline 1
$c->cut($c->remote(0));
$c->remote(0)->start;
$c->sql(0, 'INSERT INTO t VALUES (-2)');
$c->wait_applied($c->create_point('four'));
is($c->digest($c->remote(0), 't'), $c->digest($standby, 't'), 'also after a restart');

$c->cut_source;
my ($name) = $c->promote;
is($name, 'four', 'promoted');
like($c->remote_sql(0, 'SELECT pg_walfile_name(pg_current_wal_lsn())'), qr/^00000004/, 'on a timeline of its own');
is($c->remote_sql(0, 'SELECT min(a), count(*) FROM t'), '-2|101002', 'at the point');

done_testing();
