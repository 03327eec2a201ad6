
# Kafka loses decisions that a segment had read, and puts the next ones in their
# place, while the segment does not look: there is nothing at the offset at which
# it goes on, and nothing tells it so.  It carries out the newest one all the
# same, be it down meanwhile or only too slow to notice.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('unheard', segments => 1, brokers => $kafka->brokers);
my $topic = "$c->{cluster}.main.dr.release";

$c->start_source;
$c->start_remote;
$c->wait_applied($c->create_point);

# Leaves a point undecided, has the segment end, or be held, by $away, and
# Kafka forget the last decisions; then the point is decided, and others follow
# until the topic has $less messages less than the segment knew of.
sub decide_elsewhere
{
	my ($less, $away) = @_;
	my $size = $kafka->log_size(0, $topic);
	my $point;

	$c->wait_applied($c->create_point) for 1 .. 3;
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	$point = $c->create_point;
	$c->wait_applied($point, 'staged');
	$c->wait_for($c->remote(0), q{SELECT state = 'paused' FROM multisite_status WHERE worker = 'receiver'});
	my $wanted = scalar($kafka->messages($topic)) - $less;

	$away->();
	$kafka->forget_behind(0, $topic, $size);
	$c->wait_applied($point, 'released');
	for my $i (1 .. $wanted - scalar $kafka->messages($topic))
	{
		$c->remote_sql(-1, $i % 2 ? 'SELECT multisite_pause()' : 'SELECT multisite_resume()');
	}
	is(scalar $kafka->messages($topic), $wanted, 'the topic ends where the segment reads on');
	return $point;
}

# one that is down was at the newest decision, and is so again
my $point = decide_elsewhere(1, sub { $c->remote(0)->stop });
$c->remote(0)->start;
$c->wait_applied($point);
pass('one that was down carries out the newest decision');
$c->remote_sql(-1, 'SELECT multisite_resume()');

# one that goes on waits for the next one
my $receiver = $c->remote_sql(0, q{SELECT pid FROM multisite_status WHERE worker = 'receiver'});
$point = decide_elsewhere(0, sub { kill 'STOP', $receiver });
kill 'CONT', $receiver;
$c->wait_applied($point);
pass('one that was slow carries out the newest decision');

done_testing();
