
# Kafka answers what came by one connection in its order, and a fetch at the end
# of a topic waits for half a second.  No worker stands still for that long each
# time it looks for new sites, or whether a topic has more than it got: such
# questions go by another connection.  librdkafka's own log says how long Kafka
# took for each.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use Kafka;
use Multisite;

my $kafka = Kafka->new(nodes => $ENV{MULTISITE_TEST_LONG} ? 3 : 1,
	config => "broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\nauto.leader.rebalance.enable=false");
my $c = Multisite->new('questions', brokers => $kafka->brokers, conf => qq{
log_min_messages = debug1
multisite.kafka_options = 'debug=protocol'
multisite.replication_factor = @{[ $ENV{MULTISITE_TEST_LONG} ? 3 : 1 ]}
});

$c->start_source;
$c->start_remote;
$c->wait_applied($c->create_point('one'));

# How long Kafka took for each request of a kind, in ms, in this part of the logs.
sub answers
{
	my ($kind, %from) = @_;
	# librdkafka 1.6 has another name for one
	my %named = (Metadata => 'Metadata', ListOffsets => 'ListOffsets|Offset');
	my @ms;

	foreach my $node ($c->source(-1), $c->remote(-1))
	{
		my $log = substr(slurp_file($node->logfile), $from{ $node->name });
		push @ms, $log =~ /librdkafka: RECV: .*Received (?:$named{$kind})Response .*rtt ([\d.]+)ms/g;
	}
	@ms = sort { $a <=> $b } @ms;
	return @ms;
}

# what they ask to begin with finds no fetch that waits, or many
my %from = map { $_->name => -s $_->logfile } $c->source(-1), $c->remote(-1);
my %wanted = (Metadata => 8, ListOffsets => 4);
my @kinds = sort keys %wanted;

# the look for more comes every 30 s, at topics of which nothing has come since
my $until = time + 180;
usleep(500_000) while time < $until && grep { answers($_, %from) < $wanted{$_} } @kinds;
foreach my $kind (@kinds)
{
	my @ms = answers($kind, %from);

	cmp_ok(scalar(@ms), '>=', $wanted{$kind}, "$kind is asked for") or next;
	my $most = $ms[ 0.7 * @ms ];
	note(sprintf('%s: %d answers, %.1f / %.1f / %.1f ms', $kind, scalar(@ms), $ms[0], $most, $ms[-1]));
	# one or two may have met a pause of a busy machine
	cmp_ok($most, '<', 250, "$kind is answered at once");
}

# Leaders change: who asks by a client that does not read the topic has to find
# that out, and asks the new one.
if ($ENV{MULTISITE_TEST_LONG})
{
	my $points = "$c->{cluster}.main.points";
	my $old = $kafka->leader($points);

	$kafka->kill($old);
	$until = time + 60;
	usleep(200_000) while time < $until && ($kafka->leader($points) // $old) == $old;
	isnt($kafka->leader($points), $old, 'another broker leads');
	$kafka->start($old);
	# one look each fails; the next two find the new leaders
	usleep(35_000_000);
	%from = map { $_->name => -s $_->logfile } $c->source(-1), $c->remote(-1);
	usleep(65_000_000);
	cmp_ok(scalar(answers('ListOffsets', %from)), '>=', 2 * $wanted{ListOffsets}, 'the new leaders are asked');
}

done_testing();
