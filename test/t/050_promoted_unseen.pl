
# Servers that are promoted by hand while no receiver follows: in the middle of
# a release, after a restart with Kafka away; and while a session asks what is
# staged.  Each notes at which point it was promoted.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

plan skip_all => 'root can write to any file' if $> == 0;

my $kafka = Kafka->new;
my $c = Multisite->new('unseen', segments => 1, brokers => $kafka->brokers, conf => 'autovacuum = off');

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->sql($_, q{BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'gid'}) foreach $c->ids;
$c->sql(0, q{COMMIT PREPARED 'gid'});
$c->wait_applied($c->create_point('one'));
my $released = $c->remote_sql(0, q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql($_, 'INSERT INTO t VALUES (2)') foreach $c->ids;
$c->wait_applied($c->create_point('two'), 'staged');

# segment 0 cannot carry out the release, which the coordinator does
my $file = $c->remote(0)->data_dir . '/pg_wal/' . $c->sql(0, "SELECT pg_walfile_name('$released')");
chmod(0400, $file);
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($c->remote(0), q{SELECT last_error LIKE 'could not open file%Permission denied' FROM multisite_status WHERE worker = 'receiver'});
$c->wait_for($c->remote(-1), q{SELECT state = 'failed' AND reason LIKE 'could not open file%Permission denied%'
	FROM multisite_segments WHERE site = 'dr' AND segment_id = 0});
pass('the coordinator knows why a release cannot be finished');
$c->wait_for($c->remote(-1), 'SELECT count(*) = 1 FROM t');

$c->cut_source;
$kafka->stop;
$c->remote(0)->restart;
$c->wait_for($c->remote(0), q{SELECT state IN ('connecting', 'failed') FROM multisite_status WHERE worker = 'receiver'});
$c->remote_sql(-1, 'SELECT multisite.staged_points()');
$c->remote($_)->promote foreach $c->ids;

my %point = (-1 => 'two', 0 => 'one');
foreach my $id ($c->ids)
{
	$c->wait_for($c->remote($id), "SELECT reason = 'this segment was promoted at consistency point \"$point{$id}\"'
		FROM multisite_status WHERE worker = 'receiver'");
	pass("segment $id knows at which point it was promoted");
	unlike(slurp_file($c->remote($id)->logfile), qr/terminated by signal/, 'and has not crashed');
	my @staged = grep { /^[0-9A-F]{24}$/ } slurp_dir($c->remote($id)->data_dir . '/pg_wal/multisite');
	is("@staged", '', 'nothing staged is left');
}
is($c->remote_sql(-1, 'SELECT max(a) FROM t'), '2', 'the coordinator is at the new point');
is($c->remote_sql(0, 'SELECT max(a) FROM t'), '1', 'segment 0 at the one before');
is($c->remote_sql(0, q{SELECT state FROM multisite_consistency_points WHERE name = 'two'}), 'passed', 'for which the new one is passed');
is($c->remote_sql(0, q{SELECT gid, outcome FROM multisite.prepared_outcomes('one', ARRAY['gid'])}), 'gid|committed',
	'it knows how transactions ended before it');

$c->remote(0)->restart;
$c->wait_for($c->remote(0), q{SELECT reason = 'this segment was promoted at consistency point "one"'
	FROM multisite_status WHERE worker = 'receiver'});
pass('also after a restart');

done_testing();
