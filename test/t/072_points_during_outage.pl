
# While Kafka is away the source goes on making points: a remote site can end
# at one of the midst of the outage, exactly.  A segment that fails meanwhile,
# or a reload, costs none of those that wait; an end of the coordinator does, and
# then no view claims that they were published.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('points_wait', segments => 1, brokers => $kafka->brokers, conf => q{
autovacuum = off
multisite.consistency_point_interval = '200ms'
});
my @ids = $c->ids;
my $n = 0;
my %held;						# the counter at each of these points

# Commits the next number everywhere; returns the automatic point behind it.
sub next_point
{
	$n++;
	$c->sql($_, "UPDATE t SET n = $n") foreach @ids;
	my $now = $c->sql(-1, 'SELECT clock_timestamp()');
	# so that there is one, though the last may have these commits
	$c->sql(-1, 'UPDATE other SET n = n');
	$c->wait_for($c->source(-1), "SELECT max(created_at) > '$now' FROM multisite_consistency_points");
	my $point = $c->sql(-1, 'SELECT name FROM multisite_consistency_points ORDER BY id DESC LIMIT 1');
	$held{$point} = $n;
	return $point;
}

sub state_of { return $c->sql(-1, "SELECT state FROM multisite_consistency_points WHERE name = '$_[0]'"); }

sub published
{
	my @points = @_;
	my $list = join(', ', map { "'$_'" } @points);

	$c->wait_for($c->source(-1), "SELECT count(published_at) = @{[ scalar @points ]} FROM multisite_consistency_points WHERE name IN ($list)");
}

$c->start_source;
foreach my $id (@ids)
{
	$c->sql($id, "CREATE TABLE $_ AS SELECT 0 AS n") foreach 't', 'other';
}
$c->start_remote;
$c->wait_applied($c->create_point('before'));
$c->remote_sql(-1, 'SELECT multisite_pause()');

$kafka->kill(0);
my @points = map { next_point() } 1 .. 8;
is(join(' ', map { state_of($_) } @points), join(' ', ('created') x 8), 'points are made while Kafka is away');
$c->wait_for($c->source(-1), q{SELECT state = 'blocked' AND reason ~ '^Kafka does not acknowledge: .*; \d+ consistency points wait to be published$'
	FROM multisite_status WHERE worker = 'points'});
pass('and the worker says that they wait');

$c->source(0)->stop('immediate');
$c->sql(-1, 'UPDATE t SET n = n');
$c->wait_for($c->source(-1), q{SELECT state = 'failed' AND reason LIKE 'segment 0 could not%' FROM multisite_status WHERE worker = 'points'});
$c->source(0)->start;
$c->wait_for($c->source(-1), q{SELECT state = 'blocked' FROM multisite_status WHERE worker = 'points'});
push @points, next_point();

# a setting of the other workers ends the attempt, not what waits
$c->source(-1)->append_conf('postgresql.conf', q{multisite.publisher_memory = '32MB'});
$c->source(-1)->reload;
$c->wait_for($c->source(-1), q{SELECT state IN ('connecting', 'failed') FROM multisite_status WHERE worker = 'points'});

$kafka->start(0);
published(@points);
pass('all are published when it is back');
$c->wait_applied($points[-1], 'staged');
my $same = sprintf('SELECT id, name, lsn FROM multisite_consistency_points WHERE name IN (%s) ORDER BY published_at, id',
	join(', ', map { "'$_'" } @points));
is($c->remote_sql(-1, $same), $c->sql(-1, $same =~ s/published_at, //r), 'in order, under their numbers');
$c->wait_for($c->source(-1), q{SELECT state = 'waiting' AND failing_since IS NULL FROM multisite_status WHERE worker = 'points'});
my @complaints = slurp_file($c->source(-1)->logfile) =~ /multisite points (?:failed|works)/g;
cmp_ok(scalar(@complaints), '<=', 5, 'and the log has only what became of the segment and of the attempt');

# what waits in memory ends with the coordinator
$kafka->kill(0);
my @lost = map { next_point() } 1 .. 3;
$c->cut($c->source(-1));
$c->source(-1)->start;
# the worker has to read them from its file
$c->wait_for($c->source(-1), "SELECT state = 'created' FROM multisite_consistency_points WHERE name = '$lost[0]'");
pass('nobody knows yet');
$kafka->start(0);
my $after = $c->create_point('after');
published($after);
is(join(' ', map { state_of($_) } @lost), 'passed passed passed', 'points that were lost with the coordinator will never be published');
my ($status, $out, $err) = $c->source(-1)->psql('postgres', "SELECT multisite_wait_for_consistency_point('$lost[0]', 'published')");
like($err, qr/is passed.*DETAIL:.*never published/s, 'and whoever waits for one is told');
$c->wait_applied('after', 'staged');
is($c->remote_sql(-1, sprintf('SELECT count(*) FROM multisite_consistency_points WHERE name IN (%s)', join(', ', map { "'$_'" } @lost))), '0',
	'the remote site has never heard of them');
is($c->remote_sql(-1, q{SELECT id FROM multisite_consistency_points WHERE name = 'after'}),
	$c->sql(-1, q{SELECT id FROM multisite_consistency_points WHERE name = 'after'}), 'and their numbers are not used again');

# something comes in between in the topic, but has not the next point's number
my $topic = "$c->{cluster}.main.points";
$kafka->copy($topic, ($kafka->messages($topic))[-1]{offset}, 'same');
my $beside = next_point();
published($beside);
like(slurp_file($c->source(-1)->logfile), qr/multisite points failed: the number of a consistency point was used before/, 'a message of somebody else is noticed');
unlike(state_of($beside), qr/passed/, 'but the point beside it counts, and is shown so');

$c->cut_source;
my ($point) = $c->promote($points[3]);
is($point, $points[3], 'the site ends at a point of the midst of the outage');
is($c->remote_sql($_, 'SELECT n FROM t'), $held{$point}, "segment $_ has what that point holds") foreach @ids;

done_testing();
