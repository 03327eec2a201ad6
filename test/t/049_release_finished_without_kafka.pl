
# A release that a crash interrupts is finished at the next start, with Kafka
# away: the other segments may stand at its point already.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Kafka;
use Multisite;

plan skip_all => 'root can write to any file' if $> == 0;

my $kafka = Kafka->new;
my $c = Multisite->new('finish', brokers => $kafka->brokers, init => ['--wal-segsize=1'], conf => "autovacuum = off\nmin_wal_size = 2MB\n");

$c->start_source;
$c->start_remote;
$c->sql(-1, 'CREATE TABLE t (a int)');
$c->wait_applied($c->create_point('one'));
my $node = $c->remote(-1);
my $from = $c->remote_sql(-1, q{SELECT released_lsn FROM multisite_status WHERE worker = 'receiver'});

# a release of several segments, with a checkpoint in it, that cannot write to
# the first of them: it stops between the intent and what connects it
$c->remote_sql(-1, 'SELECT multisite_pause()');
foreach my $i (1 .. 3)
{
	$c->sql(-1, "INSERT INTO t VALUES ($i)");
	$c->sql(-1, 'SELECT pg_switch_wal()');
}
$c->sql(-1, 'CHECKPOINT');
my $point = $c->create_point('two');
my $to = $c->sql(-1, "SELECT lsn FROM multisite_consistency_points WHERE name = '$point'");
$c->wait_applied($point, 'staged');
my $file = $node->data_dir . '/pg_wal/' . $c->sql(-1, "SELECT pg_walfile_name('$from')");
ok(chmod(0400, $file), 'recovery\'s segment cannot be written');
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($node, q{SELECT last_error LIKE 'could not open file%Permission denied' FROM multisite_status WHERE worker = 'receiver'});
is($c->remote_sql(-1, 'SELECT pg_last_wal_replay_lsn()'), $from, 'the release is interrupted');

$c->cut_source;
$kafka->kill(0);
$c->cut($node);
my $state = $node->data_dir . '/pg_wal/multisite/state';
my $begun = slurp_file($state);
chmod(0600, $file);
$node->start;
$c->wait_for($node, "SELECT pg_last_wal_replay_lsn() = '$to'");
pass('it is finished without Kafka');
is($c->remote_sql(-1, 'SELECT max(a) FROM t'), '3', 'and applied');

# killed before it could note that, with a restartpoint before the next start
$c->remote_sql(-1, 'CHECKPOINT');
ok(!-e $file, 'a restartpoint has removed the segment in which the release began');
$node->stop;
open(my $handle, '+<:raw', $state) or die $!;
print $handle $begun;
close $handle;
$node->start;
$c->wait_for($node, q{SELECT reason NOT LIKE 'waits for recovery%' AND state <> 'starting' FROM multisite_status WHERE worker = 'receiver'});
$kafka->start(0);
$c->source(-1)->start;
$c->sql(-1, 'INSERT INTO t VALUES (4)');
$c->wait_applied($c->create_point('three'));
is($c->remote_sql(-1, 'SELECT max(a) FROM t'), '4', 'the remote goes on from there');

done_testing();
