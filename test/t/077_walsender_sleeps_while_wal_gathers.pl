
# A busy server's flushes do not wake the publisher's walsender one by one while
# the publisher gathers; what is committed last is published all the same, with
# nothing behind it and none of the walsender's timeouts to wake it; and the
# server is told what is published while such a load lasts.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

use constant SECONDS => 5;

plan skip_all => 'there is no /proc to see a process sleep' unless -r "/proc/$$/status";

my $kafka = Kafka->new;
my $c = Multisite->new('asleep', brokers => $kafka->brokers,
	conf => "autovacuum = off\nwal_sender_timeout = 0\nmultisite.consistency_point_interval = 0");
my $source;

$c->start_source;
$source = $c->source(-1);
$c->sql(-1, 'CREATE TABLE t (a int); CREATE TABLE said (commits int, age float)');
$c->start_remote;
$c->wait_applied($c->create_point);

my $status = sprintf('/proc/%d/status',
	$c->sql(-1, q{SELECT pid FROM pg_stat_replication WHERE application_name = 'multisite'}));

# How often it went to sleep.
sub sleeps
{
	return slurp_file($status) =~ /^voluntary_ctxt_switches:\s+(\d+)/m ? $1 : die "no $status";
}

# Commits with pauses of so many seconds.  Returns how often, and how old the
# publisher's last status update was at most.
sub load_source
{
	my ($pause) = @_;

	return split(/\|/, $c->sql(-1, sprintf(q{
		DO $$
		DECLARE
			began timestamptz := clock_timestamp();
			commits int := 0;
			age interval := '0';
		BEGIN
			WHILE clock_timestamp() < began + '%d s' LOOP
				INSERT INTO t VALUES (commits);
				COMMIT;
				PERFORM pg_sleep(%s);
				commits := commits + 1;
				age := greatest(age, (SELECT clock_timestamp() - greatest(reply_time, began) FROM pg_stat_replication
									  WHERE application_name = 'multisite'));
			END LOOP;
			INSERT INTO said VALUES (commits, extract(epoch FROM age));
		END $$;
		DELETE FROM said RETURNING commits, age;
	}, SECONDS, $pause)));
}

# with time for it to go to sleep between two commits
my $before = sleeps();
my ($commits) = load_source(0.0002);
my $sleeps = sleeps() - $before;
note("$commits commits, the walsender slept $sleeps times");
# besides, the publisher wakes it some twenty times a second
cmp_ok($sleeps, '<', $commits / 3 + 80 * SECONDS, 'flushes do not wake it one by one');

# with none, so that it never ends to send
my ($more, $age) = load_source(0);
note("$more commits, the last update was $age s old at most");
cmp_ok($age, '<', SECONDS / 2, 'the publisher tells what is published while the load lasts');

# the publisher sends a status update of its own each 10 s, which wakes the walsender, too
foreach my $i (1 .. 5)
{
	my $began = time;
	# the second comes while the publisher gathers
	my $end = $c->sql(-1, "INSERT INTO t VALUES (-$i); INSERT INTO t VALUES (-$i); SELECT pg_current_wal_flush_lsn()");

	$c->wait_for($source, qq{SELECT flush_lsn >= '$end' FROM pg_stat_replication WHERE application_name = 'multisite'});
	cmp_ok(time - $began, '<', 6, "burst $i: its last commit is published, and the server is told, at once");
}

ok(-r $status, 'it was the same walsender all the time');

$c->wait_applied($c->create_point);
is($c->digest($c->remote(-1), 't'), $c->digest($source, 't'), 'the remote equals the source');

done_testing();
