
# A release makes nothing faster while recovery is still busy with the last one,
# so it waits then; a promotion does not mind, and ends at what is staged.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('busy', brokers => $kafka->brokers);

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');
# recovery waits that long at each commit, with what follows still to come
my $remote = $c->init_remote(-1, conf => q{recovery_min_apply_delay = '8s'});
$remote->start;

sub delay
{
	my ($delay) = @_;
	$c->remote_sql(-1, qq{ALTER SYSTEM SET recovery_min_apply_delay = '$delay'});
	$remote->reload;
	return;
}

sub commits
{
	$c->sql(-1, 'INSERT INTO t VALUES (0)');
	$c->sql(-1, 'INSERT INTO t SELECT generate_series(1, 40000)');
	return;
}

commits();
$c->wait_applied($c->create_point('first'));
is($c->remote_sql(-1, q{SELECT max(replay_bytes_per_second) BETWEEN 1 AND 1024 * 1024 FROM multisite_segments}), 't', 'recovery is slow');

delay('60s');
commits();
$c->wait_applied($c->create_point('second'), 'released');
commits();
$c->wait_applied($c->create_point('third'), 'staged');
$c->wait_for($c->remote(-1), q{SELECT reason = 'point "third" is staged, and waits until recovery on a segment is nearly done with the last one'
	FROM multisite_status WHERE worker = 'orchestrator'});
is($c->remote_sql(-1, q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY id) FROM multisite_consistency_points WHERE name <> 'first'}),
	'second released, third staged', 'the third is not released while recovery is busy with the second');
delay('0');
$c->wait_applied('third');
pass('it is once recovery needs it');

# which was fast; be slow again
delay('8s');
commits();
$c->wait_applied($c->create_point('fourth'));
delay('20s');
commits();
$c->wait_applied($c->create_point('fifth'), 'released');
commits();
$c->wait_applied($c->create_point('sixth'), 'staged');
my $state = $c->remote_sql(-1, q{SELECT state FROM multisite_consistency_points WHERE name = 'sixth'});
my ($point) = $c->promote;
is("$state, $point", 'staged, sixth', 'a promotion goes by what is staged');
is($c->remote_sql(-1, 'SELECT count(*) FROM t'), $c->sql(-1, 'SELECT count(*) FROM t'), 'and the site has all of it');

done_testing();
