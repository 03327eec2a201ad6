
# A broker that falls silent, at whatever moment of a worker's work, keeps no
# server from a fast shutdown: no question to Kafka waits for its answer longer
# than a worker may look away from its signals.  MULTISITE_SEED repeats a run.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Multisite;

my $seed = $ENV{MULTISITE_SEED} // int(rand(2**31));
my $kafka = Kafka->new;
my $c = Multisite->new('silent', brokers => $kafka->brokers);

srand($seed);
note("seed $seed");
$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->start_remote;
$c->wait_applied($c->create_point('one'));

# what a worker does first, and behind an error, is to ask
my @nodes = ($c->source(-1), $c->remote(-1));
my $longest = 0;
$_->stop foreach @nodes;
my $rounds = $ENV{MULTISITE_TEST_LONG} ? 100 : 10;
foreach my $round (1 .. $rounds)
{
	$_->start foreach @nodes;
	usleep(rand(400_000));
	kill('STOP', $kafka->pid(0));
	usleep(rand(800_000));
	foreach my $node (@nodes)
	{
		my $began = time;

		$node->stop('fast');
		$longest = time - $began if time - $began > $longest;
	}
	kill('CONT', $kafka->pid(0));
}
cmp_ok($longest, '<', 30, 'no shutdown waits for a silent broker') or diag("seed $seed");
note(sprintf('the longest one took %.1f s', $longest));

$_->start foreach @nodes;
$c->sql(-1, 'INSERT INTO t VALUES (1)');
$c->wait_applied($c->create_point('two'));
is($c->remote_sql(-1, 'SELECT count(*) FROM t'), '1', 'and all goes on when it answers again');

done_testing();
