
# A real unclean leader election with three brokers: of the pipe's two replicas
# one misses the newest messages, the other one, which alone has acknowledged
# them, dies, and the first becomes the leader.  What the remote had read and
# Kafka has lost is filled in again by the publisher, from its slot's margin.
# If more than that is lost the publisher says so by name, and the remote stays
# at what it has; nothing is lost in silence.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Multisite;
use Pipe;

my $kafka = Kafka->new(nodes => 3, config => "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500");
my $c = Multisite->new('unclean', segments => 1, brokers => $kafka->brokers, init => ['--wal-segsize=1'], conf => q{
multisite.replication_factor = 2
multisite.compression = 'none'
autovacuum = off
max_wal_size = 8MB
min_wal_size = 2MB
});
my $pipe = "$c->{cluster}.main.wal.0";

sub wait_until
{
	my ($what, $is_so) = @_;
	my $until = time() + $PostgreSQL::Test::Utils::timeout_default;

	until (eval { $is_so->() })
	{
		die "timed out: $what" if time() > $until;
		usleep(200_000);
	}
}

sub published
{
	$c->wait_for($c->source(0), q{SELECT state = 'waiting' AND published_lsn >= pg_current_wal_flush_lsn()
		FROM multisite_status WHERE worker = 'publisher'});
}

sub read_by_remote
{
	my $end = $c->sql(0, 'SELECT pg_current_wal_flush_lsn()');
	$c->wait_for($c->remote(0), "SELECT staged_lsn >= '$end' FROM multisite_status WHERE worker = 'receiver'");
}

# Loses what is written by the code: only the leader has it, and that one dies.
# Returns it, and the last message that it had.
sub lose
{
	my ($write) = @_;
	my ($leader, $replicas, $in_sync);

	wait_until('both replicas are in sync', sub {
		($leader, $replicas, $in_sync) = $kafka->nodes_of($pipe);
		return defined $leader && @$in_sync == 2;
	});
	my ($other) = grep { $_ != $leader } @$replicas;
	$kafka->kill($other);
	wait_until('one is in sync', sub { "@{ ($kafka->nodes_of($pipe))[2] }" eq $leader });
	$write->();
	published();
	read_by_remote();
	my $last = ($kafka->messages($pipe))[-1];
	$kafka->kill($leader);
	$kafka->start($other);
	wait_until('the other one leads', sub { ($kafka->leader($pipe) // -1) == $other });
	return ($leader, $last);
}

# A point that is made now arrives; those that fail meanwhile say why.
sub point_arrives
{
	my $until = time() + 150;
	my $point;

	until ($point = eval { $c->create_point })
	{
		die "no point can be made: $@" if time() > $until || $@ !~ /Kafka|work|answer/;
		usleep(200_000);
	}
	$c->wait_applied($point);
	return $point;
}

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int, b text)') foreach $c->ids;
$kafka->configure($pipe, 'unclean.leader.election.enable=true');
$c->start_remote;
point_arrives();

# within the margin
my ($dead, $last) = lose(sub {
	for my $i (1 .. 20) { $c->sql(0, "INSERT INTO t SELECT $i, md5(i::text) FROM generate_series(1, 50) i"); }
});
ok(!(grep { $_->{offset} == $last->{offset} && $_->{lsn} == $last->{lsn} && $_->{epoch} == $last->{epoch} } $kafka->messages($pipe)),
	'the new leader does not have what the old one had acknowledged');
$kafka->start($dead);
$c->sql(0, q{INSERT INTO t VALUES (0, 'after')});
my $point = point_arrives();
is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "filled in again: segment $_ equals the source") foreach $c->ids;
my (undef, @problems) = Pipe::follow($kafka->messages($pipe));
is(join("\n", @problems), '', 'the pipe has no hole');

# more than the margin, and the source has removed it
$point = point_arrives();
my $digest = $c->digest($c->source(0), 't');
($dead) = lose(sub {
	$c->sql(0, "INSERT INTO t SELECT i, repeat(md5(i::text), 5) FROM generate_series(1, 50000) i");
	published();
	$c->sql(0, 'CHECKPOINT') for 1 .. 2;
});
$c->wait_for($c->source(0), q{SELECT state = 'failed' AND
	(reason LIKE 'replication slot "multisite_main" has lost WAL that Kafka does not have%' OR reason LIKE '%has already been removed%')
	FROM multisite_status WHERE worker = 'publisher'});
pass('more than the margin: the publisher says that WAL is lost');
$kafka->start($dead);
is($c->digest($c->remote(0), 't'), $digest, 'the remote is at its last point');
$c->cut_source;
my ($name) = $c->promote;
is($name, $point, 'and can be promoted there');
is($c->digest($c->remote(0), 't'), $digest, 'with all that it holds');

done_testing();
