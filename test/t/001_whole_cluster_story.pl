
# The whole story: a coordinator and three segments are replicated under load,
# the source site is lost, and the remote site is promoted at its last
# consistency point: what was written before it is there, what was written
# after it is not, on every segment.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('story', segments => 3);
my %digest;

$c->start_source;
$c->sql($_, 'CREATE TABLE ledger (n serial PRIMARY KEY, what text)') foreach $c->ids;
$c->start_remote;

is($c->sql(0, q{SELECT count(*) FROM pg_stat_replication
	WHERE application_name = 'multisite' AND state = 'streaming'}),
	'1', 'the publisher is a replication client of its server');
my $seen = q{SELECT string_agg(backend_type, ', ' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'multisite%'};
$c->wait_for($c->source(-1), "SELECT ($seen) = 'multisite points, multisite publisher'");
is($c->remote_sql(-1, $seen), '', 'pg_stat_activity has the workers with a connection only');
$c->wait_for($c->remote(-1), q{SELECT reason LIKE 'not yet consistent%' FROM multisite_status
	WHERE worker = 'receiver'});
my ($status, $out, $err) = $c->remote(-1)->psql('postgres', 'SELECT multisite_promote()');
like($err, qr/not yet consistent/, 'and is not promoted before its first point');

# a load that goes on all the time
my @load;
foreach my $id ($c->ids)
{
	my $node = $c->source($id);
	push @load,
	  IPC::Run::start(
		[ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c',
			q{DO $$BEGIN FOR i IN 1..1000000 LOOP
				INSERT INTO ledger (what) VALUES (repeat('x', 200)); COMMIT; END LOOP; END$$} ],
		'>', '/dev/null', '2>', '/dev/null');
}

my @points = map { $c->create_point } 1 .. 5;
$c->wait_applied($points[-1]);
is($c->sql(-1, "SELECT multisite_wait_for_consistency_point('$points[-1]')"),
	't', 'the source hears that the point is applied');
is($c->remote_sql(-1, q{SELECT count(*) FROM multisite_consistency_points WHERE state = 'applied'}),
	'5', 'all five points are applied');
is($c->remote_sql($_, "SELECT restore_point_at IS NOT NULL FROM multisite_consistency_points
	WHERE name = '$points[-1]'"), 't', "segment $_ shows the time of its restore point")
  foreach $c->ids;

# the load pauses around the last point, so that its state can be written down
my $loading = q{FROM pg_stat_activity WHERE query LIKE 'DO %' AND pid <> pg_backend_pid()};
$c->sql($_, "SELECT pg_terminate_backend(pid) $loading") foreach $c->ids;
$c->wait_for($c->source($_), "SELECT count(*) = 0 $loading") foreach $c->ids;
$_->finish foreach @load;
$digest{$_} = $c->digest($c->source($_), 'ledger') foreach $c->ids;
unlike($digest{$_}, qr/^0\|/, "segment $_ was loaded") foreach $c->ids;
my $last = $c->create_point('before_the_fire');
$c->sql($_, q{INSERT INTO ledger (what) SELECT 'after the point' FROM generate_series(1, 1000)})
  foreach $c->ids;
# which the remote site has, too, so that it could go too far
foreach my $id ($c->ids)
{
	my $end = $c->sql($id, 'SELECT pg_current_wal_flush_lsn()');

	$c->wait_for($c->remote($id), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
}
$c->wait_applied($last, 'staged');
$c->cut_source;

my ($name, $notices) = $c->promote;
is($name, $last, 'promoted at the last point');
like($notices, qr/segment $_ accepts writes/, "NOTICE about segment $_") foreach 0 .. 2;
foreach my $id ($c->ids)
{
	is($c->remote_sql($id, 'SELECT pg_is_in_recovery()'), 'f', "segment $id is promoted");
	is($c->digest($c->remote($id), 'ledger'), $digest{$id}, "segment $id holds exactly the point");
	$c->remote_sql($id, q{INSERT INTO ledger (what) VALUES ('a new life')});
	my $log = slurp_file($c->remote($id)->logfile);
	unlike($log, qr/waiting for WAL to become available/, "segment $id kept its log quiet");
	unlike($log, qr/invalid record length/, "segment $id kept its log quiet about the ends of points");
}
($name, $notices) = $c->promote;
is($name, $last, 'promoting again names the point');

# the new source goes on under its own name, with the addresses registered for it
$c->wait_for($c->remote(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
is($c->remote_sql(-1, q{SELECT multisite_create_consistency_point('second_life')}),
	'second_life', 'the promoted site makes points of its own');
is($c->remote_sql(-1, q{SELECT segments FROM multisite_consistency_points WHERE name = 'second_life'}),
	'4', 'on all of its segments');

done_testing();
