
# All servers of a cluster under valgrind's memcheck, by test/valgrind: some
# dozen points, and the workers' attempts begun anew.  No error with a frame
# of ours, and nothing of ours that is definitely lost more than once or twice.

use strict;
use warnings;

use File::Copy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

plan skip_all => 'test/valgrind runs it' unless $ENV{MULTISITE_VALGRIND};
plan skip_all => 'valgrind is not installed' if system('valgrind --version >/dev/null 2>&1') != 0;

my $points = 30;
my $attempts = 6;
my $logs = "$ENV{TESTDIR}/valgrind";
my $bin = PostgreSQL::Test::Utils::tempdir();
my $c = Multisite->new('valgrind', segments => 1, conf => q{
autovacuum = off
checkpoint_timeout = 1h
wal_sender_timeout = 10min
wal_receiver_timeout = 10min
multisite.barrier_timeout = 60s
multisite.publisher_memory = 64MB
});

$c->init_source($_)->start foreach $c->ids;
$c->sql($_, 'CREATE EXTENSION multisite_repl; CREATE TABLE t (n serial, what text)') foreach $c->ids;
$c->register(0, 'main');
$c->wait_published($_) foreach $c->ids;
$c->init_remote($_) foreach $c->ids;

# From here on pg_ctl starts a postgres beside itself that is valgrind's.
my $bindir = $ENV{PATH} =~ s/:.*//r;
mkdir $logs or die $!;
copy("$bindir/pg_ctl", "$bin/pg_ctl") or die $!;
append_to_file("$bin/postgres", "#!/bin/sh
case \$1 in
	-V) exec $bindir/postgres -V ;;
esac
exec valgrind --quiet --leak-check=full --show-leak-kinds=definite --num-callers=60 --fullpath-after= --error-limit=no \\
	--suppressions=$ENV{MULTISITE_SRC}/test/valgrind.suppressions --log-file=$logs/%p.log $bindir/postgres \"\$@\"
");
chmod 0755, "$bin/pg_ctl", "$bin/postgres";
$ENV{PATH} = "$bin:$ENV{PATH}";

my @nodes = map { $c->source($_), $c->remote($_) } $c->ids;
$_->stop foreach grep { $_->{_pid} } @nodes;
$_->start foreach @nodes;

# few sessions, since each is a process that valgrind slows down
my %session = map { $_->name => Session->new($_) } @nodes;
my $source = $session{ $c->source(-1)->name };
my $remote = $session{ $c->remote(-1)->name };

is($source->query(q{SELECT multisite_add_segment(0, '} . ($c->conninfo($c->remote(0)) =~ s/'/''/gr) . q{', 'dr')}), '',
	'the remote segment is registered');

sub point_arrives
{
	my $point = $source->query('SELECT multisite_create_consistency_point()');

	return $remote->query("SELECT multisite_wait_for_consistency_point('$point', 'applied', '600 s')") eq 't';
}

my $applied = 0;

foreach my $i (1 .. $points)
{
	$session{ $c->source($_)->name }->query("INSERT INTO t (what) SELECT repeat('x', 100) FROM generate_series(1, 50)") foreach $c->ids;
	$applied++ if point_arrives();
}
is($applied, $points, "$points points are applied");

# each worker ends its attempt and begins another
my $memory = 64;
$applied = 0;
foreach my $i (1 .. $attempts)
{
	$memory = 96 - $memory;
	foreach my $node (@nodes)
	{
		$node->adjust_conf('postgresql.conf', 'multisite.publisher_memory', "${memory}MB");
		$session{ $node->name }->query('SELECT pg_reload_conf()');
	}
	$applied++ if point_arrives();
}
is($applied, $attempts, "a point is applied after each of $attempts new beginnings");

# what they show, too
is($session{ $_->name }->query('SELECT count(*) > 0 FROM multisite_status'), 't', $_->name . ' has workers') foreach @nodes;
is($remote->query('SELECT count(*) > 0 FROM multisite_consistency_points'), 't', 'the remote knows points');
$_->quit foreach values %session;
$_->stop foreach @nodes;

# ----------------------------------------------------------------------------
# Reports: blocks of lines, each with a stack
# ----------------------------------------------------------------------------

my ($files, @errors, @lost, $others) = (0);

foreach my $file (glob("$logs/*.log"))
{
	my $block = '';

	$files++;
	foreach (split(/\n/, slurp_file($file) . "\n=="))
	{
		my $line = s/^[=-]+\d*[=-]* ?//r;

		if ($line ne '') { $block .= "$line\n"; next; }
		# our files are in src itself, the server's below directories of it
		if ($block =~ m{multisite_repl\.so|\bsrc/\w+\.c:\d+\)})
		{
			if ($block =~ /([\d,]+) (?:\([^)]*\) )?bytes in ([\d,]+) blocks are definitely lost/)
			{
				my $blocks = $2 =~ s/,//gr;

				push @lost, "$file: $block" if $blocks > 2;
				diag("$file: lost once: $block") if $blocks <= 2;
			}
			else { push @errors, "$file: $block"; }
		}
		elsif ($block =~ /^ +at 0x/m) { $others++; }
		$block = '';
	}
}
cmp_ok($files, '>=', 4, "valgrind has watched $files processes");
is(scalar(@errors), 0, 'no error with a frame of ours') or diag(join("\n", @errors));
is(scalar(@lost), 0, 'nothing of ours is lost with each point or attempt') or diag(join("\n", @lost));
diag("$files processes; " . ($others // 0) . ' reports of the server and of libraries alone');
done_testing();
