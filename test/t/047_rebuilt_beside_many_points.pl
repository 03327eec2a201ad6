
# A remote segment that is built anew reads no more old points than its history
# can hold, however many there are.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

use constant MANY => 10_000;

my $c = Multisite->new('many');

$c->start_source;
$c->sql(-1, 'CREATE TABLE t AS SELECT 1 AS a');
$c->create_point('first');

# and many more with nothing written between
$c->source(-1)->stop;
system_or_bail("$ENV{MULTISITE_SRC}/test/faults/pipe", $c->{brokers}, "$c->{cluster}.main.points", 'points', 0, MANY);
$c->source(-1)->start;

$c->init_remote(-1)->start;
my $point = $c->create_point('last');
cmp_ok($c->sql(-1, "SELECT id FROM multisite_consistency_points WHERE name = 'last'"), '>', MANY, 'the source counts them');
$c->wait_applied($point);
my $node = $c->remote(-1);
$c->wait_for($node, q{SELECT count(*) = 4096 FROM multisite_consistency_points});
is($c->remote_sql(-1, q{SELECT string_agg(DISTINCT state, ' ') FROM multisite_consistency_points WHERE name <> 'last'}), 'passed',
	'the remote knows as many as it can hold, and that they are none of its own');
cmp_ok($c->remote_sql(-1, q{SELECT messages FROM multisite_status WHERE worker = 'receiver'}), '<', MANY * 0.8,
	'it has not read them all');
is($c->remote_sql(-1, 'SELECT passed_point FROM multisite_segments WHERE site = \'dr\' AND segment_id = -1'), 'added 10001',
	'the newest that it cannot reach');

done_testing();
