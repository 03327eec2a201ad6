
# Kafka loses messages that it had acknowledged, as an unclean leader election
# does.  The publisher fills the pipe again from its own WAL, and a remote that
# had read further goes on by itself: a pipe is read by LSN, not by offset.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;
use Pipe;

my $kafka = Kafka->new;
my $c = Multisite->new('lossy', segments => 1, brokers => $kafka->brokers);
my $pipe = "$c->{cluster}.main.wal.0";
my %topic = (
	pipe => $pipe,
	points => "$c->{cluster}.main.points",
	release => "$c->{cluster}.main.dr.release");

sub equal
{
	my ($what) = @_;

	# the point that notices the loss fails, and says so
	my $point;
	for (1 .. 20)
	{
		$c->wait_for($c->source(-1), q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
		last if $point = eval { $c->create_point };
		like($@, qr/Kafka/, "$what: a point fails, because of Kafka");
	}
	$c->wait_applied($point);
	is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "$what: segment $_ equals the source") foreach $c->ids;
}

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->start_remote;
equal('before');

# many messages of one size, then fewer bigger ones in their place, so that no
# offset means what it meant before
my $size = $kafka->log_size(0, $pipe);
for my $i (1 .. 30)
{
	$c->sql(0, "INSERT INTO t VALUES ($i)");
}
$c->wait_published(0);
my $end = $c->sql(0, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for($c->remote(0), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
my $before = scalar $kafka->messages($pipe);
$kafka->forget_behind(0, $pipe, $size);
cmp_ok(scalar $kafka->messages($pipe), '<', $before, 'Kafka has lost messages of the pipe that the remote had read');
$c->sql(0, 'INSERT INTO t SELECT generate_series(1, 100000)');
equal('pipe');
$c->wait_published(0);

# of what is there now, each message continues what came before it
my @pipe = $kafka->messages($pipe);
my (undef, @problems) = Pipe::follow(@pipe);
cmp_ok(scalar(grep { $_->{kind} eq 'wal' } @pipe), '>', 10, 'the pipe is full again');
is(join("\n", @problems), '', 'and has no gap');

# the same for the topics of decisions
foreach my $topic (qw(release points))
{
	$size = $kafka->log_size(0, $topic{$topic});
	$c->sql($_, 'INSERT INTO t VALUES (0)') foreach $c->ids;
	$c->wait_applied($c->create_point) for 1 .. 3;
	$kafka->forget_behind(0, $topic{$topic}, $size);
	$c->sql($_, 'INSERT INTO t VALUES (1)') foreach $c->ids;
	equal($topic);
}

done_testing();
