
# Receivers are killed at each step of a release: before its intent is written,
# between the intent and the renames, between those and the tail, within the
# tail, before the eight bytes that connect it, after them, at the end.  What
# the server would recover to at that moment, without the extension, is the
# point before or the new one; with it the release is finished, and the site
# equals the source.
#
# --long: each step on each segment; otherwise each on one of them.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Multisite;

my $library = "$ENV{MULTISITE_SRC}/test/faults/killat.so";
plan skip_all => 'nothing can be preloaded on this system' unless -e $library;

my $c = Multisite->new('within', segments => 2, durable => 1, init => ['--wal-segsize=1'], conf => q{
autovacuum = off
max_wal_size = 32MB
min_wal_size = 2MB
});
my @ids = $c->ids;
my %file = map { $_ => PostgreSQL::Test::Utils::tempdir() . '/kill' } @ids;
my ($n, %at) = (0);

$c->start_source;
$c->sql($_, 'CREATE TABLE t (a int, b text)') foreach @ids;
$c->init_remote($_, conf => "restart_after_crash = off\n") foreach @ids;
$c->register($_, 'dr') foreach grep { $_ >= 0 } @ids;
start($_) foreach @ids;
$c->wait_applied($c->create_point);

sub start
{
	my ($id) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{MULTISITE_KILL_AT} = $file{$id};
	$c->remote($id)->start;
}

# For a server that was killed.
sub forget_pid
{
	my ($id) = @_;
	my $node = $c->remote($id);

	$node->{_pid} = undef;
	unlink $node->data_dir . '/postmaster.pid';
}

sub dead
{
	my ($id) = @_;
	my ($pid) = split /\n/, (eval { slurp_file($c->remote($id)->data_dir . '/postmaster.pid') } // return 1);
	return !kill(0, $pid) || Multisite::is_zombie($pid);
}

# The receivers of these segments are killed at these steps of one release, or
# at none; returns the steps that each took.
sub release
{
	my (%step) = @_;
	my (%from, %to);

	$n++;
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	# some whole WAL segments, and a part of one
	$c->sql($_, "INSERT INTO t SELECT $n, repeat(md5((i * $n)::text), 20) FROM generate_series(1, 3000) i") foreach @ids;
	my $point = $c->create_point;
	$c->wait_applied($point, 'staged');
	foreach my $id (@ids)
	{
		$from{$id} = $c->remote_sql($id, 'SELECT pg_last_wal_replay_lsn()');
		$c->wait_for($c->remote($id), "SELECT count(*) = 1 FROM multisite_consistency_points WHERE name = '$point'");
		$to{$id} = $c->remote_sql($id, "SELECT lsn FROM multisite_consistency_points WHERE name = '$point'");
		unlink "$file{$id}.log";
	}
	append_to_file($file{$_}, ($step{$_} // '') . "\n") foreach @ids;
	# the coordinator may die before it has answered
	my $resumed = eval { $c->remote_sql(-1, 'SELECT multisite_resume()'); 1 };
	my $asked = time();

	my %left = map { $_ => 1 } @ids;
	my $until = time() + 2 * $PostgreSQL::Test::Utils::timeout_default;
	while (%left)
	{
		foreach my $id (keys %left)
		{
			delete $left{$id} if dead($id) ||
			  (eval { $c->remote_sql($id, 'SELECT pg_last_wal_replay_lsn()') } // '') eq $to{$id};
		}
		if (!$resumed && dead(-1) && time() > $asked + 10)
		{
			# it died at its step when WAL came that nobody waits for, before it was asked
			unlink $file{-1};
			forget_pid(-1);
			start(-1);
			$resumed = eval { $c->remote_sql(-1, 'SELECT multisite_resume()'); 1 };
			$left{-1} = 1;
		}
		die 'no receiver came to its step' if time() > $until;
		usleep(50_000);
	}
	# what follows the release, up to its end
	my %steps;
	foreach my $id (@ids)
	{
		$c->wait_for($c->remote($id), "SELECT released_lsn = '$to{$id}' FROM multisite_status WHERE worker = 'receiver'") unless dead($id);
	}
	$c->wait_applied($point) unless grep { dead($_) } @ids;
	foreach my $id (@ids)
	{
		my @log = split /\n/, (eval { slurp_file("$file{$id}.log") } // '');
		$steps{$id} = [ map { s/[0-9A-F]{24}/0/r } @log ];
		unlink $file{$id};
	}

	my @dead = grep { dead($_) } @ids;
	foreach my $id (@dead)
	{
		my $node = $c->remote($id);

		$at{ $steps{$id}[-1] }++;
		forget_pid($id);
		# to what recovery gets without us
		$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
		$node->start;
		$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
			WHERE backend_type = 'startup' AND wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')})
		  or die 'recovery does not come to its end';
		my $lsn = $c->remote_sql($id, 'SELECT pg_last_wal_replay_lsn()');
		ok($lsn eq $from{$id} || $lsn eq $to{$id}, "segment $id, killed at $step{$id}: recovery ends at a point")
		  or diag("it ends at $lsn, the points are $from{$id} and $to{$id}");
		$node->stop;
		$node->append_conf('postgresql.conf', "shared_preload_libraries = 'multisite_repl'");
	}
	start($_) foreach @dead;
	$c->wait_applied($point);
	is($c->digest($c->remote($_), 't'), $c->digest($c->source($_), 't'), "point $n: segment $_ equals the source") foreach @ids;
	return %steps;
}

# what the steps are, with nobody killed: each once, in their order
my %steps = release();
my @all;
foreach my $id (@ids)
{
	my %count;
	my @steps = map { ++$count{$_} . " $_" } @{ $steps{$id} };

	note("segment $id: " . join(', ', @steps));
	foreach my $step (@steps) { push @all, $step unless grep { $_ eq $step } @all; }
}

# the steps that docs/architecture.md has; what is staged meanwhile is none
my @documented = ('write pg_wal/multisite/state', 'truncate pg_wal/multisite/tail.tmp', 'write pg_wal/multisite/tail.tmp',
	'rename pg_wal/multisite/tail.tmp', 'rename pg_wal/multisite/0', 'write pg_wal/0', 'connect pg_wal/0', 'unlink pg_wal/multisite/0');
@all = grep { !/write pg_wal\/multisite\/0/ } @all;
while (@all)
{
	if ($ENV{MULTISITE_TEST_LONG})
	{
		my $step = shift @all;
		release(map { $_ => $step } @ids);
	}
	else
	{
		release(map { my $step = shift @all; defined $step ? ($_ => $step) : () } @ids);
	}
}
ok($at{$_}, "killed at: $_ (" . ($at{$_} // 0) . ' times)') foreach @documented;
my $finished = 0;
foreach my $id (@ids)
{
	$finished += () = slurp_file($c->remote($id)->logfile) =~ /finishes the release/g;
}
cmp_ok($finished, '>=', 3, "releases that were finished at the next start: $finished");

done_testing();
