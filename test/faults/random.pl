
# Faults of all kinds, combined at random, on both sites and on Kafka, while
# clients write.  After each round the remote must stand at a consistent cut,
# and at the end, promoted, it must equal the source at the last point.
#
# MULTISITE_SEED repeats a run; MULTISITE_TEST_LONG (test/run --long) runs for
# many rounds, MULTISITE_ROUNDS for so many, MULTISITE_SECONDS until the round
# in which so many have passed; MULTISITE_FAULTS names the faults to choose from.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Load;
use Multisite;

my $seed = $ENV{MULTISITE_SEED} // int(rand(2**31));
my $rounds = $ENV{MULTISITE_ROUNDS} // ($ENV{MULTISITE_TEST_LONG} ? 100 : 3);
# many rounds may share a machine with other work
my $patience = $ENV{MULTISITE_TEST_LONG} ? 4 : 1;
my ($kafka, $c, $load);
my (%injected, $points, $bytes);

srand($seed);
diag("seed $seed, $rounds rounds (MULTISITE_SEED=$seed repeats it)");

# ------------------------------------------------------------------------
# Steps
# ------------------------------------------------------------------------

sub start_cluster
{
	$kafka = Kafka->new(nodes => 3, links => [ 'main', 'dr' ],
		# short files, so that what is pruned leaves the disk
		config => "min.insync.replicas=2\ndefault.replication.factor=3\nlog.segment.bytes=16777216\n" .
		  "log.retention.check.interval.ms=10000\nlog.segment.delete.delay.ms=1000");
	$c = Multisite->new('faults', segments => 2, durable => 1, brokers => $kafka->brokers('main'),
		# small WAL segments, so that many releases go over several
		init => [ '--wal-segsize=1' ],
		conf => q{
multisite.replication_factor = 3
multisite.barrier_timeout = '2s'
multisite.prune = on
multisite.prune_margin = '16MB'
max_wal_size = 32MB
min_wal_size = 2MB
checkpoint_timeout = 30s
});
	$c->start_source;
	$load = Load->new($c);
	$c->start_remote(conf => "multisite.brokers = '" . $kafka->brokers('dr') . "'\n");
	$c->source(-1)->append_conf('postgresql.conf', "multisite.consistency_point_interval = '300ms'");
	$c->source(-1)->reload;
}

sub pause { usleep(1_000_000 * rand($_[0])); }
sub any { return $_[ int(rand(@_)) ]; }

# All that a fault may have stopped runs again.
sub heal
{
	$_->set('pass') foreach $kafka->links('main'), $kafka->links('dr');
	$kafka->start_all;
	foreach my $node (map { ($c->source($_), $c->remote($_)) } $c->ids)
	{
		$node->start unless defined $node->{_pid};
	}
}

# A point that is made now arrives, without any operator.
sub new_point_arrives
{
	my ($what) = @_;
	my $until = time() + 150 * $patience;
	my $name;

	# the worker may be in its pause after a failure, or its server in recovery
	until ($name = eval { $c->create_point })
	{
		if (time() > $until)
		{
			diag($@);
			BAIL_OUT("$what, seed $seed: no point can be made");
		}
		usleep(200_000);
	}
	foreach my $try (1 .. 3 * $patience)
	{
		return $name if eval { $c->remote_sql(-1, "SELECT multisite_wait_for_consistency_point('$name', 'applied', '60 s')") eq 't' };
	}
	diag(eval { $c->remote_sql(-1, 'SELECT site, segment_id, state, reason, staged_point, applied_point, heard_at FROM multisite_segments') } // $@);
	diag($_->name . ': ' . (eval { $_->safe_psql('postgres', 'SELECT worker, state, reason, last_error FROM multisite_status') } // $@))
	  foreach map { ($c->source($_), $c->remote($_)) } $c->ids;
	BAIL_OUT("$what, seed $seed: point $name is not applied");
}

# The remote stands still at a point, and that is a consistent cut.
sub check_cut
{
	my ($what) = @_;
	my $name = $c->remote_sql(-1, 'SELECT multisite_pause()');

	$c->wait_applied($name);
	foreach my $id ($c->ids)
	{
		$c->wait_for($c->remote($id), "SELECT lsn = pg_last_wal_replay_lsn() FROM multisite_consistency_points WHERE name = '$name'");
	}
	is(join(', ', $load->torn(map { $c->remote($_) } $c->ids)), '', "$what: no chain is torn ($load->{links} links)");
	$c->remote_sql(-1, 'SELECT multisite_resume()');
}

# ------------------------------------------------------------------------
# Faults
# ------------------------------------------------------------------------

# The hard way; its server goes through crash recovery.
sub kill_worker
{
	my ($node, $worker) = @_;
	my $pid = eval { $node->safe_psql('postgres', "SELECT pid FROM multisite_status WHERE worker = '$worker'") };

	kill 'KILL', $pid if $pid;
	return $pid;
}

# As a power cut: all processes of these servers.
sub cut_servers { $c->cut($_) foreach grep { defined $_->{_pid} } @_; }

sub leader { return $kafka->leader("$c->{cluster}.main.wal.0") // 0; }

my %fault = (
	publisher => sub { kill_worker($c->source(any($c->ids)), 'publisher') },
	points => sub { kill_worker($c->source(-1), 'points') },
	receiver => sub { kill_worker($c->remote(any($c->ids)), 'receiver') },
	orchestrator => sub { kill_worker($c->remote(-1), 'orchestrator') },

	# again and again, to come in the middle of releases and of points
	receivers_in_a_row => sub { for (1 .. 6) { kill_worker($c->remote(any($c->ids)), 'receiver'); pause(0.7); } },
	points_in_a_row => sub { for (1 .. 4) { kill_worker($c->source(any($c->ids)), any('publisher', 'points')); pause(0.7); } },

	source_server => sub { cut_servers($c->source(any($c->ids))) },
	remote_server => sub { cut_servers($c->remote(any($c->ids))) },
	source_site => sub { cut_servers(map { $c->source($_) } $c->ids) },
	remote_site => sub { cut_servers(map { $c->remote($_) } $c->ids) },

	# while it writes a restartpoint, for which it must have seen a checkpoint
	restartpoint => sub {
		my $id = any($c->ids);
		my $node = $c->remote($id);

		eval {
			$c->sql($id, 'CHECKPOINT');
			$c->wait_applied($c->create_point);
		};
		my $session = eval { $node->background_psql('postgres', on_error_stop => 0) } or return;
		$session->query_until(qr/begun/, "\\echo begun\nCHECKPOINT;\n");
		pause(0.1);
		cut_servers($node);
		eval { $session->{run}->kill_kill(grace => 1) };
	},

	broker => sub { $kafka->kill(int(rand(3))) },
	leaders_broker => sub { $kafka->kill(leader()) },
	two_brokers => sub { my $n = int(rand(3)); $kafka->kill($_) foreach grep { $_ != $n } 0 .. 2; pause($ENV{MULTISITE_TEST_LONG} ? 60 : 5); },
	broker_term => sub { $kafka->kill(int(rand(3)), 'TERM') },

	source_cut_off => sub { $_->set('cut') foreach $kafka->links('main') },
	remote_cut_off => sub { $_->set('cut') foreach $kafka->links('dr') },
	source_stalls => sub { $_->set('stall') foreach $kafka->links('main') },
	remote_stalls => sub { $_->set('stall') foreach $kafka->links('dr') },
	one_link_stalls => sub { ($kafka->links(any('main', 'dr')))[ int(rand(3)) ]->set('stall') },
	connections_end => sub { foreach my $link ($kafka->links(any('main', 'dr'))) { $link->set('cut'); $link->set('pass'); } },
	slow_link => sub { $_->set('delay', 0.1 + rand(0.2)) foreach $kafka->links(any('main', 'dr')) });

# ------------------------------------------------------------------------
# The run
# ------------------------------------------------------------------------

my @choice = sort keys %fault;
@choice = split /[ ,]+/, $ENV{MULTISITE_FAULTS} if $ENV{MULTISITE_FAULTS};
my $begin = time();

start_cluster();
$load->start;
new_point_arrives('before');

# each kind comes once before any comes twice
my @deck;
foreach my $round (1 .. $rounds)
{
	my @names;

	if (time() - $begin > ($ENV{MULTISITE_SECONDS} // 1e9))
	{
		$rounds = $round - 1;
		last;
	}

	foreach (1 .. 1 + int(rand(3)))
	{
		@deck = sort { $a->[0] <=> $b->[0] } map { [ rand(), $_ ] } @choice unless @deck;
		push @names, (pop @deck)->[1];
	}
	my $what = "round $round (@names)";
	note(sprintf('%.0f s: %s', time() - $begin, $what));
	foreach my $name (@names)
	{
		pause(1);
		$fault{$name}->();
		$injected{$name}++;
	}
	pause(3);
	heal();
	new_point_arrives($what);
	check_cut($what);
	is(join(', ', $load->stuck(120 * $patience)), '', "$what: all clients go on");
}
$load->stop;

# what clients know to be committed is on the source
my %known = $load->known;
is(join(', ', $load->torn(map { $c->source($_) } $c->ids)), '', 'the source has all links');
cmp_ok($load->{max}{$_} // 0, '>=', $known{$_}, "and all that client $_ knows of") foreach sort keys %known;

# no more points by themselves: autovacuum commits, too
$c->source(-1)->append_conf('postgresql.conf', 'multisite.consistency_point_interval = 0');
$c->source(-1)->reload;
$c->wait_for($c->source(-1), q{SELECT reason = 'waits for multisite_create_consistency_point()'
	FROM multisite_status WHERE worker = 'points'});

# the last point, and a promotion in the middle of which servers die
my $last = new_point_arrives('end');
my %digest = map { $_ => $c->digest($c->source($_), 'link') } $c->ids;
$bytes = 0;
$bytes += $c->sql($_, 'SELECT coalesce(sum(length(t::text)), 0) FROM link t') foreach $c->ids;
$points = $c->sql(-1, 'SELECT max(id) FROM multisite_consistency_points');
$c->cut_source;
my $promoter = $c->remote(-1)->background_psql('postgres', on_error_stop => 0);
$promoter->query_until(qr/begun/, "\\echo begun\nSELECT multisite_promote();\n");
pause(0.3);
cut_servers($c->remote(any(0 .. $c->{segments} - 1)));
pause(0.3);
cut_servers($c->remote(-1)) if rand() < 0.5;
heal_remote();
eval { $promoter->{run}->kill_kill(grace => 1) };

# nobody saw whether it was decided; asking again is always right
my $name;
foreach my $try (1 .. 10)
{
	last if eval { ($name) = $c->promote; 1 };
	note($@);
	usleep(500_000);
}
is($name, $last, 'promoted at the last point');
foreach my $id ($c->ids)
{
	$c->wait_for($c->remote($id), 'SELECT NOT pg_is_in_recovery()');
	is($c->digest($c->remote($id), 'link'), $digest{$id}, "segment $id equals the source at that point");
	$c->remote_sql($id, 'CREATE TABLE writable (a int)');
}
is(join(', ', $load->torn(map { $c->remote($_) } $c->ids)), '', 'no chain is torn');

my $n = 0;
$n += $_ foreach values %injected;
my %found;
foreach my $node (map { ($c->source($_), $c->remote($_)) } $c->ids)
{
	my $log = slurp_file($node->logfile);

	$found{'releases interrupted'} += () = $log =~ /finishes the release/g;
	$found{'points given up'} += () = $log =~ /could not (?:be reached|raise|write|lower)|before the restore point was written|commit barrier came down/g;
	$found{'crash recoveries'} += () = $log =~ /automatic recovery in progress|entering standby mode/g;
	$found{'panics'} += () = $log =~ /PANIC:/g;
	$found{'restartpoints interrupted'} += (() = $log =~ /restartpoint starting/g) - (() = $log =~ /restartpoint complete/g);
	$found{'places found anew'} += () = $log =~ /found its place/g;
}
is($found{panics}, 0, 'no server panicked');
diag(sprintf('seed %d: %d faults of %d kinds in %d rounds, %.0f s; %d points; %d links; %d bytes compared; %s',
	$seed, $n, scalar keys %injected, $rounds, time() - $begin, $points, $load->{links}, $bytes,
	join(', ', map { "$_: $found{$_}" } sort keys %found)));

done_testing();

sub heal_remote
{
	foreach my $node (map { $c->remote($_) } $c->ids)
	{
		$node->start unless defined $node->{_pid};
	}
}
