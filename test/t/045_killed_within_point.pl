
# Processes and servers are killed while a point is made: before and after a
# segment raises its barrier, writes its restore point, and lowers its barrier.
# That point is given up and never seen at the remote site, commits and points
# go on by themselves, and no transaction is torn.
#
# --long: each step with each kind of death; otherwise each step with one.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Load;
use Multisite;
use Session;

my $seed = $ENV{MULTISITE_SEED} // int(rand(2**31));
my $c = Multisite->new('withinpoint', segments => 2, durable => 1, conf => q{
autovacuum = off
multisite.barrier_timeout = '20s'
});
my @ids = $c->ids;

note("seed $seed (MULTISITE_SEED)");
$c->start_source;
my $load = Load->new($c);
$c->start_remote;

# A segment's functions wait for locks: 1 before and 2 after raise, and so on.
my @steps = ('before raise', 'after raise', 'before write', 'after write', 'before lower', 'after lower');
$c->sql(0, q{
	ALTER EXTENSION multisite_repl DROP FUNCTION multisite.barrier_raise(int, boolean);
	ALTER FUNCTION multisite.barrier_raise(int, boolean) RENAME TO barrier_raise_now;
	CREATE FUNCTION multisite.barrier_raise(timeout_ms int, completely boolean) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(1);
		PERFORM multisite.barrier_raise_now(timeout_ms, completely);
		PERFORM pg_advisory_xact_lock_shared(2);
	END $$;
	ALTER EXTENSION multisite_repl DROP FUNCTION multisite.write_restore_point(text);
	ALTER FUNCTION multisite.write_restore_point(text) RENAME TO write_restore_point_now;
	CREATE FUNCTION multisite.write_restore_point(name text, OUT lsn pg_lsn, OUT timeline int) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(3);
		SELECT * INTO lsn, timeline FROM multisite.write_restore_point_now(name);
		PERFORM pg_advisory_xact_lock_shared(4);
	END $$;
	ALTER EXTENSION multisite_repl DROP FUNCTION multisite.barrier_lower();
	ALTER FUNCTION multisite.barrier_lower() RENAME TO barrier_lower_now;
	CREATE FUNCTION multisite.barrier_lower() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(5);
		PERFORM multisite.barrier_lower_now();
		PERFORM pg_advisory_xact_lock_shared(6);
	END $$;});

my $waiting = q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted};
my %death = (
	'point manager' => sub { kill 'KILL', $c->sql(-1, q{SELECT pid FROM multisite_status WHERE worker = 'points'}) },
	"segment's session" => sub { kill 'KILL', $c->sql(0, $waiting) },
	"coordinator's server" => sub { $c->cut($c->source(-1)) },
	"segment's server" => sub { $c->cut($c->source(0)) },
	'source site' => sub { $c->cut_source });
my @kinds = sort keys %death;

# A point that is made now arrives, without any operator.
sub point_arrives
{
	my ($what) = @_;
	my $until = time() + 120;
	my $point;

	until ($point = eval { $c->create_point })
	{
		die "$what: no point can be made: $@" if time() > $until;
		usleep(200_000);
	}
	$c->wait_applied($point);
	return $point;
}

sub kill_within
{
	my ($step, $kind) = @_;
	my $what = "$kind killed $steps[$step]";
	my $name = join('_', 'given_up', $step, $kind =~ s/\W/_/gr);
	my $holder = Session->new($c->source(0));
	my $creator = Session->new($c->source(-1));

	$holder->query('SELECT pg_advisory_lock(' . ($step + 1) . ')');
	$creator->begin("SELECT multisite_create_consistency_point('$name')");
	$c->wait_for($c->source(0), 'SELECT count(*) > 0 FROM pg_locks WHERE locktype = \'advisory\' AND NOT granted');
	$death{$kind}->();
	like($creator->end, qr/ERROR|server closed|connection/, "$what: its caller is told");
	# whoever waits for the lock and was not killed goes on
	eval { $_->{run}->kill_kill(grace => 1) } foreach $holder, $creator;
	foreach my $node (map { $c->source($_) } @ids)
	{
		$node->start unless defined $node->{_pid};
	}
	my $point = point_arrives($what);
	is($c->remote_sql(-1, "SELECT count(*) FROM multisite_consistency_points WHERE name = '$name'"), '0',
		"$what: that point is not known at the remote site");
	foreach my $id (@ids)
	{
		$c->wait_for($c->remote($id), "SELECT lsn = pg_last_wal_replay_lsn() FROM multisite_consistency_points WHERE name = '$point'");
	}
	is(join(', ', $load->torn(map { $c->remote($_) } @ids)), '', "$what: no chain is torn ($load->{links} links)");
}

point_arrives('before');
$load->start;
foreach my $step (0 .. $#steps)
{
	kill_within($step, $_) foreach $ENV{MULTISITE_TEST_LONG} ? @kinds : $kinds[ ($seed + $step) % @kinds ];
}
$load->stop;
my %known = $load->known;
my $point = point_arrives('end');
is($c->digest($c->remote($_), 'link'), $c->digest($c->source($_), 'link'), "segment $_ equals the source") foreach @ids;
$load->torn(map { $c->source($_) } @ids);
cmp_ok($load->{max}{$_} // 0, '>=', $known{$_}, "and all that client $_ knows of") foreach sort keys %known;

done_testing();
