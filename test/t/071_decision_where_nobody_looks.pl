
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
# Kafka forget the last decisions; then the point is decided, and the topic has
# as many messages as the segment knew of.  Returns the point.
sub decide_elsewhere
{
	my ($away) = @_;
	my $size = $kafka->log_size(0, $topic);
	my $point;

	$c->wait_applied($c->create_point) for 1 .. 3;
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	$point = $c->create_point;
	$c->wait_applied($point, 'staged');
	$c->wait_for($c->remote(0), q{SELECT state = 'paused' FROM multisite_status WHERE worker = 'receiver'});
	my $known = scalar $kafka->messages($topic);

	$away->();
	$kafka->forget_behind(0, $topic, $size);
	$c->wait_applied($point, 'released');
	my $now = scalar $kafka->messages($topic);
	my $pause = 1;
	for (; $now < $known - 1 || $pause == 0; $now++, $pause = !$pause)
	{
		$c->remote_sql(-1, $pause ? 'SELECT multisite_pause()' : 'SELECT multisite_resume()');
	}
	return ($point, $known, scalar $kafka->messages($topic));
}

# one that is down was at the newest decision, and is so again
my ($point, $known, $now) = decide_elsewhere(sub { $c->remote(0)->stop });
is($now, $known - 1, 'what a segment that is down would read next is not there');
$c->remote(0)->start;
$c->wait_applied($point);
pass('it carries out the newest decision');

# one that goes on waits for the next one
my $receiver = $c->remote_sql(0, q{SELECT pid FROM multisite_status WHERE worker = 'receiver'});
($point, $known, $now) = decide_elsewhere(sub { kill 'STOP', $receiver });
$c->remote_sql(-1, 'SELECT multisite_pause()');
is(scalar $kafka->messages($topic), $known, 'there are as many decisions as the segment has read');
kill 'CONT', $receiver;
$c->wait_applied($point);
pass('it carries out the newest decision');

done_testing();
