
# A busy server's flushes do not wake the publisher's walsender one by one while
# the publisher gathers; what is committed last is published all the same, with
# nothing behind it and none of the walsender's timeouts to wake it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

use constant COMMITS => 10_000;

my $kafka = Kafka->new;
my $c = Multisite->new('asleep', brokers => $kafka->brokers,
	conf => "autovacuum = off\nwal_sender_timeout = 0\nmultisite.consistency_point_interval = 0");
my $source;

$c->start_source;
$source = $c->source(-1);
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->start_remote;
$c->wait_applied($c->create_point);

my $status = sprintf('/proc/%d/status',
	$c->sql(-1, q{SELECT pid FROM pg_stat_replication WHERE application_name = 'multisite'}));

# How often it went to sleep.
sub sleeps
{
	return slurp_file($status) =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die "no $status";
}

my $before = sleeps();
$c->sql(-1, 'DO $$ BEGIN FOR i IN 1 .. ' . COMMITS . ' LOOP INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$');
my $sleeps = sleeps() - $before;
note(COMMITS . " commits, the walsender slept $sleeps times");
cmp_ok($sleeps, '<', COMMITS / 4, 'flushes do not wake it one by one');

# the publisher sends a status update of its own each 10 s, which wakes it, too
my $began = time;
foreach my $i (1 .. 5)
{
	my $end = $c->sql(-1, "INSERT INTO t VALUES (-$i); SELECT pg_current_wal_flush_lsn()");

	$c->wait_for($source, qq{SELECT flush_lsn >= '$end' FROM pg_stat_replication WHERE application_name = 'multisite'});
}
cmp_ok(time - $began, '<', 20, 'commits one by one are published, and the server is told, at once');

$c->wait_applied($c->create_point);
is($c->digest($c->remote(-1), 't'), $c->digest($source, 't'), 'the remote equals the source');

done_testing();
