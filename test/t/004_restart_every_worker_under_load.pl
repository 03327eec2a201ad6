
# Every server of both sites is restarted, and every worker killed, in the
# middle of a load: no gap, no duplicate, and the remote equals the source.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('restart', segments => 1, durable => 1);
my $worker_pid = q{SELECT pid FROM multisite_status WHERE worker = '%s'};

$c->start_source;
$c->sql($_, 'CREATE TABLE t (n serial PRIMARY KEY, what text)') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point);

sub load
{
	my ($rows) = @_;
	$c->sql($_, "INSERT INTO t (what) SELECT md5(i::text) FROM generate_series(1, $rows) i") foreach $c->ids;
}

# Ends a worker the hard way; its server goes through crash recovery.
sub kill_worker
{
	my ($node, $worker) = @_;
	my $pid = $node->safe_psql('postgres', sprintf($worker_pid, $worker));

	like($pid, qr/^\d+$/, $node->name . ": the $worker runs");
	load(5000);
	kill 'KILL', $pid;
	$c->wait_for($node, "SELECT pid <> $pid FROM multisite_status WHERE worker = '$worker'");
}

sub point_arrives
{
	my ($what) = @_;
	my $point;

	# right after a crash the coordinator may not be ready yet
	$c->wait_for($c->source(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
	$point = $c->create_point;
	$c->wait_applied($point);
	pass("$what: the next point arrives");
}

foreach my $node (map { $c->source($_) } $c->ids)
{
	kill_worker($node, 'publisher');
	point_arrives($node->name . ', publisher killed');
	load(20000);
	$node->restart;
	point_arrives($node->name . ' restarted');
}
kill_worker($c->source(-1), 'points');
point_arrives('point manager killed');

foreach my $node (map { $c->remote($_) } $c->ids)
{
	kill_worker($node, 'receiver');
	point_arrives($node->name . ', receiver killed');
	load(20000);
	$node->restart;
	point_arrives($node->name . ' restarted');
}
kill_worker($c->remote(-1), 'orchestrator');
point_arrives('orchestrator killed');

# a power cut at both sites while WAL is under way
load(50000);
$c->cut($c->remote($_)) foreach $c->ids;
$c->cut($c->source($_)) foreach $c->ids;
$c->source($_)->start foreach $c->ids;
$c->remote($_)->start foreach $c->ids;
point_arrives('power cut at both sites');

foreach my $id ($c->ids)
{
	is($c->digest($c->remote($id), 't'), $c->digest($c->source($id), 't'), "segment $id equals the source");
	is($c->remote_sql($id, q{SELECT last_error FROM multisite_status WHERE worker = 'receiver' AND last_error ~ 'WAL'}),
		'', "segment $id saw no gap");
}

# the pipe itself: each message continues the one before it
$c->wait_published($_) foreach $c->ids;
is($c->sql($_, q{SELECT state FROM multisite_status WHERE worker = 'publisher'}), 'waiting', "publisher $_ is well")
  foreach $c->ids;

done_testing();
