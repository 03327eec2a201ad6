
# The slot is lost.  Dropped, while the server still has the WAL that the pipe
# needs next: the publisher makes a new one and goes on.  Invalidated by
# max_slot_wal_keep_size while Kafka is away: a named error says so, and what
# the remote has stays good.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

my $kafka = Kafka->new;
my $c = Multisite->new('slot', brokers => $kafka->brokers, init => ['--wal-segsize=1'], conf => q{
max_wal_size = 8MB
min_wal_size = 2MB
autovacuum = off
});
my $lost = q{SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'multisite_main' AND wal_status <> 'lost'};

$c->start_source;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->start_remote;
$c->wait_applied($c->create_point);

sub equal
{
	my ($what) = @_;
	$c->sql(-1, 'INSERT INTO t VALUES (1)');
	$c->wait_for($c->source(-1), q{SELECT state = 'waiting' AND published_lsn >= pg_current_wal_flush_lsn()
		FROM multisite_status WHERE worker = 'publisher'});
	my $point = $c->create_point;
	$c->wait_applied($point);
	is($c->digest($c->remote(-1), 't'), $c->digest($c->source(-1), 't'), "$what: the remote equals the source");
	return $point;
}

# dropped by somebody, while the publisher is off
$c->source(-1)->append_conf('postgresql.conf', 'multisite.publish = off');
$c->source(-1)->reload;
$c->wait_for($c->source(-1), q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'multisite_main'});
$c->sql(-1, q{SELECT pg_drop_replication_slot('multisite_main')});
$c->sql(-1, 'INSERT INTO t SELECT generate_series(1, 1000)');
$c->source(-1)->append_conf('postgresql.conf', 'multisite.publish = on');
$c->source(-1)->reload;
my $point = equal('slot dropped');

my $digest = $c->digest($c->source(-1), 't');

# invalidated while Kafka is away
$c->source(-1)->append_conf('postgresql.conf', 'max_slot_wal_keep_size = 1MB');
$c->source(-1)->reload;
$kafka->kill(0);
$c->sql(-1, 'INSERT INTO t SELECT generate_series(1, 20000)') for 1 .. 5;
$c->sql(-1, 'CHECKPOINT') for 1 .. 2;
$kafka->start(0);
$c->wait_for($c->source(-1), q{SELECT state = 'failed' AND
	(reason LIKE 'replication slot "multisite_main" has lost WAL that Kafka does not have%' OR reason LIKE '%has already been removed%')
	FROM multisite_status WHERE worker = 'publisher'});
pass('WAL that Kafka does not have is lost: a named error');
$c->sql(-1, 'INSERT INTO t VALUES (2)');
pass('the source goes on working');
$c->cut_source;
my ($name) = $c->promote;
is($name, $point, 'the remote is promoted at its last point');
is($c->digest($c->remote(-1), 't'), $digest, 'and is at that point');

done_testing();
