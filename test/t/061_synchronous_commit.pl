
# With synchronous_standby_names = 'multisite' a commit returns when Kafka has
# it, when the remote site has it on disk, or when a point with it is applied.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Multisite;
use Session;

# Clients that commit one row after the other, and write down, after each reply,
# where WAL was: [client, row, LSN].
sub start_clients
{
	my ($c, $dir, $n) = @_;
	my @pids;

	foreach my $client (1 .. $n)
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			my $session = Session->new($c->source(-1));

			open(my $log, '>', "$dir/client$client") or POSIX::_exit(1);
			$log->autoflush(1);
			for (my $i = 1;; $i++)
			{
				my $reply = $session->query("INSERT INTO t VALUES ($client, $i)");
				POSIX::_exit(0) unless $reply eq 'INSERT 0 1';
				print $log "$i\n";
			}
		}
		push @pids, $pid;
	}
	return @pids;
}

# The newest row of each client that it saw committed.
sub acknowledged
{
	my ($dir) = @_;
	my %rows;

	foreach my $file (glob "$dir/client*")
	{
		my ($client) = $file =~ /client(\d+)$/;
		# a last line without its end was not written in full
		my @lines = slurp_file($file) =~ /^(\d+)\n/mg;
		$rows{$client} = $lines[-1] // 0;
	}
	return %rows;
}

my %seconds;					# of 20 commits, one after the other

sub scenario
{
	my ($durability) = @_;
	my $kafka = Kafka->new;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $c = Multisite->new("sync_$durability", brokers => $kafka->brokers, durable => 1, conf => "
		autovacuum = off
		multisite.durability = $durability");

	$c->start_source;
	$c->sql(-1, 'CREATE TABLE t (client int, i int)');
	$c->start_remote;
	$c->wait_applied($c->create_point);
	$c->source(-1)->append_conf('postgresql.conf', "synchronous_standby_names = 'multisite'");
	$c->source(-1)->reload;
	$c->wait_for($c->source(-1), q{SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'multisite'});
	pass("$durability: pg_stat_replication shows a synchronous standby");

	my $session = Session->new($c->source(-1));
	my $begin = time;
	$session->query('INSERT INTO t VALUES (0, 0)') foreach 1 .. 20;
	$seconds{$durability} = time - $begin;

	my @clients = start_clients($c, $dir, 4);
	$c->wait_for($c->source(-1), 'SELECT count(*) > 60 FROM t');
	usleep(int(rand(300_000)));
	$kafka->kill(0) if $durability eq 'remote';
	$c->cut($c->source(-1));
	waitpid($_, 0) foreach @clients;
	my %rows = acknowledged($dir);
	cmp_ok((sort { $a <=> $b } values %rows)[0], '>', 0, "$durability: each client saw commits");

	# what is staged, Kafka's rest included, is put where recovery finds it:
	# the source itself is gone, so no point will come
	my $remote = $c->remote(-1);
	my $end = '';
	if ($durability eq 'kafka')
	{
		# all that Kafka has is staged once its end does not move
		my $caught_up = q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'receiver'};
		$c->wait_for($remote, $caught_up);
		my $before = '-';
		until ($end eq $before)
		{
			$before = $end;
			usleep(1_000_000);
			$end = $c->remote_sql(-1, q{SELECT staged_lsn FROM multisite_status WHERE worker = 'receiver'});
		}
	}
	$remote->stop('immediate');
	my %staged = staged_rows($remote, $c->{source}{-1});
	foreach my $client (sort keys %rows)
	{
		cmp_ok($staged{$client} // 0, '>=', $rows{$client},
			"$durability: all commits that client $client saw are staged at the remote site ($rows{$client})");
	}
	$kafka->stop;
}

# The newest row of each client whose commit is in the staged WAL.  A copy of the
# remote server gets the staged segments in its pg_wal, and recovers by itself.
sub staged_rows
{
	my ($remote) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($remote->name . '_copy');

	system_or_bail('cp', '-a', $remote->data_dir, $copy->data_dir);
	my $wal = $copy->data_dir . '/pg_wal';
	foreach my $file (glob "$wal/multisite/0000*")
	{
		my ($name) = $file =~ m{([^/]+)$};
		my $staged = slurp_file($file);
		# the first of them begins in the middle: what was released is in pg_wal
		my $released = -e "$wal/$name" ? slurp_file("$wal/$name") : '';
		my $bytes = $staged | $released;
		open(my $f, '>:raw', "$wal/$name") or die $!;
		print $f $bytes;
		close($f);
	}
	unlink $copy->data_dir . '/standby.signal';
	unlink $copy->data_dir . '/postmaster.pid';
	$copy->append_conf('postgresql.conf', "shared_preload_libraries = ''\nsynchronous_standby_names = ''");
	$copy->append_conf('postgresql.conf', 'port = ' . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'");
	my $conf = slurp_file($copy->data_dir . '/postgresql.conf');
	$conf =~ s/^multisite\..*$//mg;
	open(my $f, '>', $copy->data_dir . '/postgresql.conf') or die $!;
	print $f $conf;
	close($f);
	$copy->start;
	my %rows = map { split /\|/ } split /\n/, $copy->safe_psql('postgres', 'SELECT client, max(i) FROM t GROUP BY client');
	$copy->stop;
	return %rows;
}

scenario('kafka');
scenario('remote');
# it was once in a while that the remote site said what it has: 130 times as long
cmp_ok($seconds{remote}, '<', 30 * $seconds{kafka}, 'what waits for the remote site is told as soon as it is there');

# --- remote_apply: a point with it is applied

my $kafka = Kafka->new;
my $c = Multisite->new('sync_apply', brokers => $kafka->brokers, conf => q{
autovacuum = off
multisite.consistency_point_interval = '100ms'});
$c->start_source;
$c->sql(-1, 'CREATE TABLE t (client int, i int)');
$c->start_remote;
$c->wait_applied($c->create_point);
$c->source(-1)->append_conf('postgresql.conf', "synchronous_standby_names = 'multisite'\nsynchronous_commit = remote_apply");
$c->source(-1)->reload;
$c->wait_for($c->source(-1), q{SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'multisite'});
my $session = Session->new($c->source(-1));
foreach my $i (1 .. 10)
{
	is($session->query("INSERT INTO t VALUES (0, $i)"), 'INSERT 0 1', 'a commit returns');
	is($c->remote_sql(-1, 'SELECT max(i) FROM t'), $i, 'and the remote site shows it');
}

is($c->sql(-1, q{SET statement_timeout = '60s'; SELECT multisite_create_consistency_point('named')}), 'named',
	'a point whose name has to be noted does not wait for itself');
cmp_ok($session->query('INSERT INTO t VALUES (0, 0)'), 'eq', 'INSERT 0 1', 'and commits go on');

# a commit that waits can be cancelled, with the native warning
$c->remote(-1)->stop;
$session->begin('INSERT INTO t VALUES (0, 11)');
$c->wait_for($c->source(-1), q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $session->pid);
$c->source(-1)->psql('postgres', 'SELECT pg_cancel_backend(' . $session->pid . ')');
like($session->end, qr/WARNING:  canceling wait for synchronous replication/, 'a wait can be cancelled, with a warning');
$c->remote(-1)->start;

# --- while Kafka is away commits wait; operations.md says how to go on without

$kafka->kill(0);
$session = Session->new($c->source(-1));
$session->begin('INSERT INTO t VALUES (0, 12)');
$c->wait_for($c->source(-1), q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $session->pid);
$c->sql(-1, q{ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()});
is($session->end, 'INSERT 0 1', 'what waits returns without a warning once nothing has to be waited for');
is($session->query('INSERT INTO t VALUES (0, 13)'), 'INSERT 0 1', 'and commits go on without Kafka');

$kafka->start(0);
$c->sql(-1, 'ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()');
$c->wait_for($c->source(-1), q{SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'multisite'});
is($session->query('INSERT INTO t VALUES (0, 14)'), 'INSERT 0 1', 'Kafka is back: a commit waits for it');
is($c->remote_sql(-1, 'SELECT max(i) FROM t'), 14, 'and the remote site shows it');

done_testing();
