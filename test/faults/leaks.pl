
# No worker grows: not with the number of points, nor with that of connections
# that were lost and made anew.  What is counted exactly (open files, threads,
# memory contexts of the workers that have a database) must be the same at the
# end; a process's private memory, which librdkafka's buffers and malloc() make
# noisy, must not go on growing, in long runs.
#
# MULTISITE_LEAKS_DIR is where plots are left (test/leaks), MULTISITE_LEAKS_ONLY
# a pattern of the phases to run.

use strict;
use warnings;

use List::Util qw(max min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Kafka;
use Multisite;
use Session;

my $long = $ENV{MULTISITE_TEST_LONG};
my $only = $ENV{MULTISITE_LEAKS_ONLY} // '';
# bytes a unit by which memory contexts may grow, and private memory in long runs
my ($context_growth, $private_growth) = (2, 1024);

# so that a connection that was cut is made anew at once
my $kafka = Kafka->new(links => [ 'main', 'dr' ]);
my $c = Multisite->new('leaks', segments => 1, brokers => $kafka->brokers('main'), conf => q{
autovacuum = off
checkpoint_timeout = 1h
multisite.publisher_memory = 64MB
multisite.kafka_options = 'reconnect.backoff.ms=20;reconnect.backoff.max.ms=50'
});

$c->start_source;
$c->sql($_, 'CREATE TABLE t (n serial)') foreach $c->ids;
$c->sql(-1, q{CREATE PROCEDURE load() LANGUAGE plpgsql AS
	'BEGIN LOOP INSERT INTO t DEFAULT VALUES; COMMIT; PERFORM pg_sleep(0.02); END LOOP; END'});
$c->start_remote(conf => sprintf("multisite.brokers = '%s'\n", $kafka->brokers('dr')));
$c->wait_applied($c->create_point);

my @nodes = map { $c->source($_), $c->remote($_) } $c->ids;
my (%pid, %node);

foreach my $node (@nodes)
{
	my $at = $node->name =~ s/^leaks_//r =~ tr/_/ /r;

	foreach my $row (split /\n/, $node->safe_psql('postgres', 'SELECT worker, pid FROM multisite_status WHERE pid IS NOT NULL'))
	{
		my ($worker, $pid) = split /\|/, $row;

		next unless $pid;
		$pid{"$worker, $at"} = $pid;
		$node{"$worker, $at"} = $node;
	}
}
is(scalar(keys %pid), 6, 'six workers') or diag(join("\n", %pid));

# ----------------------------------------------------------------------------
# Samples
# ----------------------------------------------------------------------------

# Private memory in kB, open files, threads.
sub look
{
	my ($pid) = @_;
	my ($private) = (0);

	$private += $_ foreach slurp_file("/proc/$pid/smaps_rollup") =~ /^Private_\w+:\s+(\d+) kB/mg;
	my ($threads) = slurp_file("/proc/$pid/status") =~ /^Threads:\s+(\d+)/m;
	my @files = glob("/proc/$pid/fd/*");
	return { private => $private, threads => $threads, files => scalar(@files) };
}

# What is used of all memory contexts, where the server can say it.  The least
# of some samples: in the middle of a point the worker has what it needs for it.
sub contexts
{
	my ($samples, $enough) = @_;
	my %least;

	for (1 .. $samples)
	{
		my %used = contexts_now();

		$least{$_} = min($used{$_}, $least{$_} // $used{$_}) foreach keys %used;
		last if $enough && !grep { $least{$_} >= $enough->{$_} } keys %least;
		usleep(20_000);
	}
	return %least;
}

sub contexts_now
{
	my %used;

	foreach my $worker (grep { /^(publisher|points)/ } keys %pid)
	{
		my ($node, $pid) = ($node{$worker}, $pid{$worker});
		my $begin = -s $node->logfile;

		return if $node->safe_psql('postgres', 'SHOW server_version_num') < 140000;
		$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
		$node->wait_for_log(qr/\[$pid\].*Grand total: /, $begin);
		($used{$worker}) = slurp_file($node->logfile, $begin) =~ /\[$pid\].*Grand total: .* (\d+) used/;
	}
	return %used;
}

my %plots;

sub say_it
{
	my ($line) = @_;

	diag($line);
	append_to_file("$ENV{MULTISITE_LEAKS_DIR}/report", "$line\n") if $ENV{MULTISITE_LEAKS_DIR};
}

# Runs a phase: step() does some of what may leak, and returns how many.  slack
# is how much memory contexts may differ with what a worker is just doing.
sub phase
{
	my ($name, $what, $wanted, $step, $slack) = @_;
	my $done = 0;

	return if $name !~ /$only/;
	my $sampled = 0;
	my ($begin, %before, %contexts, %after, %middle);
	my $started = time();

	while ($done < $wanted)
	{
		$done += $step->();
		# after the first fifth all buffers have been used
		next if $done < $wanted / 5;
		if (!defined $begin)
		{
			$begin = $done;
			%contexts = contexts(5);
			%before = map { $_ => look($pid{$_}) } keys %pid;
		}
		next if $done < $sampled + $wanted / 100;
		$sampled = $done;
		push @{ $plots{$name}{$_} }, [ $done, look($pid{$_})->{private} / 1024 ] foreach keys %pid;
	}
	say_it(sprintf('%s: %d %s in %.0f s', $name, $done, $what, time() - $started));
	ok($done >= $wanted, "$name: $done $what");

	# all is well after it, and what a step had opened is closed
	$c->wait_applied($c->create_point);
	my $growth = ($slack // 256) + $context_growth * ($done - $begin);
	my %limit = map { $_ => $contexts{$_} + $growth } keys %contexts;
	my %used = contexts(50, \%limit);
	foreach my $worker (sort keys %pid)
	{
		my $settled = 100;
		my $now;

		# a connection that is being made has its socket
		do { $now = look($pid{$worker}) }
		  until ($now->{files} <= $before{$worker}{files} && $now->{threads} <= $before{$worker}{threads}) || $settled-- == 0 || usleep(100_000) < 0;
		# a broker more that librdkafka has got to know is no leak
		my $few = 1 + ($done - $begin) / 20;
		cmp_ok($now->{files}, '<=', $before{$worker}{files} + 3 * $few, "$name: $worker has no more files open");
		cmp_ok($now->{threads}, '<=', $before{$worker}{threads} + $few, "$name: $worker has no more threads");
		cmp_ok($used{$worker}, '<', $limit{$worker},
			"$name: memory contexts of $worker do not grow")
		  if $used{$worker};

		# the least of the first third of the samples, and that of the last third
		my @mb = map { $_->[1] } @{ $plots{$name}{$worker} };
		my $third = int(@mb / 3);
		my ($first, $last) = (min(@mb[ 0 .. $third ]), min(@mb[ -$third - 1 .. -1 ]));
		my $each = ($last - $first) * 1024 * 1024 / ($done - $begin) * 1.5;
		cmp_ok($each, '<', $private_growth, "$name: private memory of $worker does not grow") if $long && $name ne 'attempts';
		# what librdkafka's threads leave in malloc()'s arenas is shown, but has no limit
		cmp_ok($now->{private}, '<', 40 * 1024, "$name: $worker has not much private memory") if $name ne 'attempts';
		say_it(sprintf('%-32s %5.1f MB, then %5.1f MB: %6.0f bytes each; contexts %s; %d files, %d threads',
				$worker, $first, $last, $each,
				$used{$worker} ? sprintf('%d, then %d', $contexts{$worker}, $used{$worker}) : '-',
				$now->{files}, $now->{threads}));
	}
	plot($name, $what);
}

# A line for each worker, in the style of test/bench/report.py.
sub plot
{
	my ($name, $what) = @_;
	my $dir = $ENV{MULTISITE_LEAKS_DIR} or return;
	my %series = %{ $plots{$name} };
	my @colours = ('#31688e', '#e08214', '#7fbc41', '#999999', '#8073ac', '#d6604d');
	my $most_x = max(map { $_->[0] } map { @$_ } values %series);
	my $most_y = max(map { $_->[1] } map { @$_ } values %series);
	my $text = sub { sprintf(qq{<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>\n}, @_[0, 1, 3, 4, 2]) };
	my $body = qq{<path d="M60,40 V260 H500" fill="none" stroke="black"/>\n};
	my $n = 0;

	foreach my $i (0 .. 4)
	{
		my ($x, $y) = (60 + 440 * $i / 4, 260 - 210 * $i / 4);

		$body .= sprintf(qq{<path d="M56,%.1f H60 M%.1f,260 V264" stroke="black"/>\n}, $y, $x);
		$body .= $text->(52, $y + 4, sprintf($i == 4 ? '%.1f MB' : '%.1f', $most_y * $i / 4), 'end', 'black');
		$body .= $text->($x, 277, sprintf('%d', $most_x * $i / 4), 'middle', 'black');
	}
	$body .= $text->(500, 294, $what, 'end', 'black');
	foreach my $worker (sort keys %series)
	{
		my $colour = $colours[ $n % @colours ];
		my @places = map { sprintf('%.1f,%.1f', 60 + 440 * $_->[0] / $most_x, 260 - 210 * $_->[1] / $most_y) } @{ $series{$worker} };

		$body .= qq{<polyline points="@places" fill="none" stroke="$colour" stroke-width="2"/>\n};
		$body .= $text->(510, 50 + 18 * $n++, $worker, 'start', $colour);
	}
	append_to_file("$dir/leaks_$name.svg",
		'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="304" viewBox="0 0 720 304" font-family="sans-serif" font-size="12">'
		  . qq{\n<rect width="100%" height="100%" fill="white"/>\n<text x="10" y="20" font-size="14" font-weight="bold">}
		  . "Private memory of the workers: $what</text>\n$body</svg>\n");
}

# ----------------------------------------------------------------------------
# Phases
# ----------------------------------------------------------------------------

# automatic points at their cadence
my $load = Session->new($c->source(-1));
my $last = 'SELECT max(id) FROM multisite_consistency_points';
my $watch = Session->new($c->source(-1));
$load->begin('CALL load()');
$c->sql(-1, q{ALTER SYSTEM SET multisite.consistency_point_interval = '100ms'});
$c->source(-1)->reload;
my $known = $watch->query($last);
phase('points', 'points', $long ? 1250 : 100, sub {
	usleep(100_000);
	my $new = $watch->query($last);
	my $n = $new - $known;

	$known = $new;
	return $n;
});
$c->sql(-1, 'ALTER SYSTEM RESET multisite.consistency_point_interval');
$c->source(-1)->reload;
$c->sql(-1, sprintf('SELECT pg_terminate_backend(%d)', $load->pid));

# connections to Kafka, of all workers
my @links = map { $kafka->links($_) } qw(main dr);
phase('reconnects', 'connections to Kafka', $long ? 12500 : 300, sub {
	my $n = 0;

	usleep(100_000);
	$n += $_->blink foreach @links;
	return $n;
});

# the coordinator's connections to a segment
my $killer = Session->new($c->source(0));
phase('sessions', 'connections of the coordinator', $long ? 1250 : 50, sub {
	my $pids = $killer->query(q{SELECT string_agg(pid::text, ',') FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE application_name = 'multisite' AND backend_type = 'client backend'});
	my $n = () = $pids =~ /\d+/g;

	# PostgreSQL 13 cannot be told to wait for their ends
	usleep(10_000) while $n && $killer->query("SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids)") > 0;
	$watch->query('SELECT multisite_create_consistency_point()');
	return $n;
});

# reloads that change nothing
my @sessions = map { Session->new($_) } @nodes;
phase('reloads', 'reloads of each server', $long ? 1250 : 200, sub {
	usleep(20_000);
	$_->query('SELECT pg_reload_conf()') foreach @sessions;
	return 1;
});

# attempts: all that a worker has, of each worker, and the publishers' walsenders
my $memory = 64;
phase('attempts', 'attempts of all workers', $long ? 100 : 10, sub {
	$memory = 96 - $memory;
	foreach my $node (@nodes)
	{
		$node->append_conf('postgresql.conf', "multisite.publisher_memory = ${memory}MB");
	}
	$_->query('SELECT pg_reload_conf()') foreach @sessions;
	$c->wait_applied($watch->query('SELECT multisite_create_consistency_point()'));
	return 1;
}, 2048);

foreach my $worker (sort keys %pid)
{
	is($node{$worker}->safe_psql('postgres', sprintf(q{SELECT pid FROM multisite_status WHERE worker = '%s'}, $worker =~ s/,.*//r)),
		$pid{$worker}, "$worker is still the same process");
}
done_testing();
