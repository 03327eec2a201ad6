
# A message in a pipe that is not ours stops the receiver by name; nothing of
# it is applied, and the site can still be promoted at its last point.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('foreign', segments => 1);

$c->start_source;
$c->start_remote;
$c->sql($_, 'CREATE TABLE t (a int)') foreach $c->ids;
$c->wait_applied($c->create_point('good'));
$c->source(0)->stop;

# Kafka 4 moved the class
my $in = "this is no WAL\n";
my $sent;
foreach my $class ('org.apache.kafka.tools.ConsoleProducer', 'kafka.tools.ConsoleProducer')
{
	$sent ||= IPC::Run::run([ "$ENV{MULTISITE_SRC}/test/kafka/broker", 'tool', $ENV{MULTISITE_KAFKA_DIR},
		$class, '--topic', "$c->{cluster}.main.wal.0" ], '<', \$in);
}
die 'could not send the message' unless $sent;
$c->wait_for($c->remote(0), q{SELECT state = 'failed' AND reason LIKE 'invalid message in Kafka topic%no multisite header%'
	FROM multisite_status WHERE worker = 'receiver'});
pass('the receiver stops, and says at which message');
$c->wait_for($c->remote(-1), q{SELECT state = 'failed' FROM multisite_segments WHERE site = 'dr' AND segment_id = 0});
pass('the coordinator knows');

is($c->remote_sql(0, q{SELECT count(*) FROM multisite_consistency_points WHERE state = 'applied'}), '1',
	'what was applied before stays');

$c->source(0)->start;
$c->wait_for($c->source(0), q{SELECT last_error LIKE 'invalid message in Kafka topic%' FROM multisite_status WHERE worker = 'publisher'});
pass('the publisher does not write behind it');

# the source is lost now, of all times
$c->cut_source;
my ($name) = $c->promote;
is($name, 'good', 'the site is promoted at its last point all the same');
is($c->remote_sql(0, 'SELECT pg_is_in_recovery()'), 'f', 'the segment with the broken pipe, too');

done_testing();
