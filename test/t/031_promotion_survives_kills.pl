
# A promotion that is decided is carried out, whatever dies in the middle of
# it, and with Kafka away for a part of it; nobody has to do anything.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('promokill', segments => 1, durable => 1, brokers => $kafka->brokers);

$c->start_source;
$c->sql($_, 'CREATE TABLE t AS SELECT generate_series(1, 1000) AS a') foreach $c->ids;
$c->start_remote;
my $point = $c->create_point;
$c->wait_applied($point);
my %digest = map { $_ => $c->digest($c->source($_), 't') } $c->ids;
$c->cut_source;

# holds a segment's recovery, so that it cannot end before we say so
sub startup_pid
{
	my ($node) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my ($pid) = `pgrep -P $postmaster -f startup` =~ /(\d+)/;

	return $pid;
}
my $startup = startup_pid($c->remote(0));
ok(kill('STOP', $startup), 'recovery of segment 0 is held');

my $promoter = $c->remote(-1)->background_psql('postgres', on_error_stop => 0);
$promoter->query_until(qr/begun/, "\\echo begun\nSELECT multisite_promote();\n");
$c->wait_for($c->remote(-1), q{SELECT state = 'promoting' AND reason = 'waits for recovery to end'
	FROM multisite_segments WHERE site = 'dr' AND segment_id = 0});
$kafka->kill(0);
kill('CONT', $startup);
$c->wait_for($c->remote(0), 'SELECT NOT pg_is_in_recovery()');
pass('segment 0 accepts writes; Kafka is away, so nobody knows');

# the server goes down before it could tell, and so does the coordinator
$c->wait_for($c->remote(0), q{SELECT reason ~ 'promoted at consistency point'
	FROM multisite_status WHERE worker = 'receiver'});
$c->cut($c->remote($_)) foreach $c->ids;
$kafka->start(0);
$c->remote($_)->start foreach $c->ids;

$c->wait_for($c->remote(-1), 'SELECT NOT pg_is_in_recovery()');
pass('the coordinator follows');
foreach my $id ($c->ids)
{
	$c->wait_for($c->remote($id), "SELECT reason = 'this segment was promoted at consistency point \"$point\"'
		FROM multisite_status WHERE worker = 'receiver'");
	is($c->digest($c->remote($id), 't'), $digest{$id}, "segment $id is at the point");
}
my ($name, $notices) = $c->promote;
is($name, $point, 'asking again says at which point');

done_testing();
