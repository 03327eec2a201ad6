
# While the barrier is up nothing becomes durable, and all the rest goes on;
# it always comes down.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('barrier');
my $node = $c->init_source(-1);

$node->append_conf('postgresql.conf', "multisite.publish = off\nwal_level = logical");
$node->start;
$c->sql(-1, 'CREATE EXTENSION multisite_repl; CREATE TABLE t (a int); CREATE INDEX ON t (a)');

my $raiser = Session->new($node);
my @waiters = map { Session->new($node) } 1 .. 8;

sub raise_barrier
{
	my ($ms) = @_;
	is($raiser->query('SELECT multisite.barrier_raise(' . ($ms // 60000) . ')'), '', 'raised');
}

sub lower_barrier
{
	$raiser->query('SELECT multisite.barrier_lower()');
}

# The backend waits, and not for a lock.  Servers before 17 have no better name
# for that.
my $barrier_event;

sub waits
{
	my ($session, $what) = @_;
	$barrier_event //= $c->sql(-1, 'SHOW server_version_num') >= 170000 ? 'MultisiteBarrier' : 'Extension';
	$c->wait_for($node, "SELECT wait_event_type = 'Extension' AND wait_event = '$barrier_event' AND state = 'active'
		FROM pg_stat_activity WHERE pid = " . $session->pid);
	ok(!$session->done, "$what waits");
}

# --- what waits, and what does not

$waiters[0]->query(q{BEGIN; INSERT INTO t VALUES (0); PREPARE TRANSACTION 'p0'});
$waiters[0]->query(q{BEGIN; INSERT INTO t VALUES (0); PREPARE TRANSACTION 'p1'});
$waiters[3]->query('BEGIN; INSERT INTO t VALUES (3)');
raise_barrier();
is($waiters[7]->query('SELECT count(*) FROM t'), '0', 'a read goes on, its commit, too');
is($waiters[7]->query('BEGIN; INSERT INTO t VALUES (7); ROLLBACK; SELECT 1'), "BEGIN\nINSERT 0 1\nROLLBACK\n1", 'a rollback goes on');
is($waiters[3]->query('INSERT INTO t VALUES (3)'), 'INSERT 0 1', 'a statement in a transaction goes on');
my %what = (
	0 => 'INSERT INTO t VALUES (1)',
	1 => q{COMMIT PREPARED 'p0'},
	2 => q{ROLLBACK PREPARED 'p1'},
	3 => 'COMMIT',
	5 => 'DO $$BEGIN INSERT INTO t VALUES (5); COMMIT; END$$',
	6 => 'BEGIN; SAVEPOINT a; INSERT INTO t VALUES (6); RELEASE a; COMMIT',
);
my $prepare = q{BEGIN; INSERT INTO t VALUES (4); PREPARE TRANSACTION 'p4'};
$waiters[$_]->begin($what{$_}) foreach sort keys %what;
waits($waiters[$_], $what{$_}) foreach sort keys %what;
is($waiters[7]->query('SELECT count(*) FROM t'), '0', 'nothing is committed');
# a commit that is waited for, in a server with a transaction manager, may need it
like($waiters[7]->query(q{BEGIN; INSERT INTO t VALUES (7); PREPARE TRANSACTION 'p7'}), qr/^PREPARE TRANSACTION$/m,
	'while the segments are drained a transaction can be prepared');
my $restore_point = $raiser->query(q{SELECT lsn FROM multisite.write_restore_point('cut')});
like($restore_point, qr{^[0-9A-F]+/[0-9A-F]+$}, 'a restore point is written');
$what{4} = $prepare;
$waiters[4]->begin($prepare);
waits($waiters[4], "from then on $prepare");
lower_barrier();
$waiters[$_]->end foreach sort keys %what;
is($c->sql(-1, 'SELECT count(*) FROM t'), '6', 'all of them went on');
is($c->sql(-1, q{SELECT string_agg(gid, ' ' ORDER BY gid) FROM pg_prepared_xacts}), 'p4 p7', 'the prepared ones, too');
$c->sql(-1, q{COMMIT PREPARED 'p4'});
$c->sql(-1, q{ROLLBACK PREPARED 'p7'});

# --- where their commit records are: none lies before the restore point

my ($out) = run_command([ 'pg_waldump', '-p', $node->data_dir . '/pg_wal', '-r', 'Transaction', '-s', $restore_point,
	'-e', $c->sql(-1, 'SELECT pg_current_wal_flush_lsn()') ]);
my @after = $out =~ /desc: (COMMIT|PREPARE|COMMIT_PREPARED|ROLLBACK_PREPARED|ABORT_PREPARED) /g;
cmp_ok(scalar(@after), '>=', 8, 'every commit record of a waiter lies behind the restore point');

# --- commands that commit in several transactions, or hold locks
#
# One at a time, beside a plain writer: two of them can deadlock without any
# barrier, such as CREATE INDEX CONCURRENTLY with VACUUM FULL of the same
# table, or with the creation of a logical slot.

foreach my $command (
	'VACUUM FULL t',
	'CREATE INDEX CONCURRENTLY t_a ON t (a)',
	'CREATE DATABASE other',
	'BEGIN; LOCK TABLE t; INSERT INTO t VALUES (9); COMMIT',
	'VACUUM FULL pg_class',
	q{SELECT pg_create_logical_replication_slot('l', 'pgoutput')})
{
	raise_barrier(500);
	$waiters[0]->begin('INSERT INTO t VALUES (8)');
	$waiters[1]->begin($command);
	$waiters[2]->begin('INSERT INTO t VALUES (8)');
	unlike($_->end, qr/ERROR/, "no deadlock with $command") foreach @waiters[ 0 .. 2 ];
}
like(slurp_file($node->logfile), qr/commit barrier came down after multisite.barrier_timeout/, 'it came down by its timeout');
my $late = $raiser->query(q{SELECT multisite.write_restore_point('too late')});
like($late, qr/the commit barrier came down before/, 'and no restore point is written after that');

# --- waiters answer cancel and terminate

raise_barrier();
$waiters[0]->begin('INSERT INTO t VALUES (100)');
waits($waiters[0], 'a commit');
$c->sql(-1, 'SELECT pg_cancel_backend(' . $waiters[0]->pid . ')');
like($waiters[0]->end, qr/canceling statement due to user request/, 'a waiting commit can be cancelled');
$waiters[1]->begin('INSERT INTO t VALUES (100)');
waits($waiters[1], 'a commit');
$c->sql(-1, 'SELECT pg_terminate_backend(' . $waiters[1]->pid . ')');
like($waiters[1]->end, qr/terminating connection/, 'and terminated');
is($c->sql(-1, 'SELECT count(*) FROM t WHERE a = 100'), '0', 'neither is committed');

# --- one at a time, and it comes down with its session

like($waiters[2]->query('SELECT multisite.barrier_raise(1000)'), qr/the commit barrier is up already/, 'a second one is refused');
$waiters[2]->query('SELECT multisite.barrier_lower()');
$waiters[3]->begin('INSERT INTO t VALUES (101)');
waits($waiters[3], 'a commit, although another session lowered "its" barrier,');
$c->sql(-1, 'SELECT pg_terminate_backend(' . $raiser->pid . ')');
is($waiters[3]->end, 'INSERT 0 1', 'the end of the raising session lowers it');

# --- a commit that waits for a standby has written its record

$raiser = Session->new($node);
$node->append_conf('postgresql.conf', q{synchronous_standby_names = 'nobody'});
$node->reload;
$c->wait_for($node, q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
my $stuck = Session->new($node);
$stuck->begin('INSERT INTO t VALUES (102)');
$c->wait_for($node, q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $stuck->pid);
is($raiser->query('SELECT multisite.barrier_raise(60000)'), '', 'a commit that waits for a standby is in nobody\'s way');
my $behind = $raiser->query(q{SELECT lsn FROM multisite.write_restore_point('with it')});
lower_barrier();
($out) = run_command([ 'pg_waldump', '-p', $node->data_dir . '/pg_wal', '-r', 'Transaction', '-s', $restore_point, '-e', $behind ]);
my $xid = $c->sql(-1, q{SELECT backend_xid FROM pg_stat_activity WHERE pid = } . $stuck->pid);
like($out, qr/tx: +$xid, .*desc: COMMIT /, 'its record lies before the restore point');
ok(!$stuck->done, 'and it still waits');

# unless its end has to be seen: by the snapshots of a verified point
my $stuck_pid = $stuck->pid;
like($raiser->query('SELECT multisite.barrier_raise(300, true)'), qr/commits under way did not end in 300 ms.*Process $stuck_pid is committing/s,
	'a raiser who must wait for it gives up in time');
is($c->sql(-1, 'SET synchronous_commit = local; INSERT INTO t VALUES (103) RETURNING a'), '103',
	'and the barrier is down again');

done_testing();
