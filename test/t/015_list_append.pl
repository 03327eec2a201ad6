
# List-append, Elle's workload in small: values are appended to lists that are
# spread over the segments.  At every point what is there is a prefix of the
# real-time order (an append that ended before another one began is there if
# that other one is), and each list is a prefix of the list at the end.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Checker;
use Multisite;

my $c = Multisite->new('lists', segments => 3);
my $checker = Checker->new($c, clients => 6);
my @ids = $c->ids;
my @looks;
# an append writes its list anew, so a long run needs more of them
my $keys = $ENV{MULTISITE_TEST_LONG} ? 1000 : 5;

$c->start_source;
$c->sql($_, qq{CREATE TABLE list (k int PRIMARY KEY, v text[] NOT NULL DEFAULT '{}')
		WITH (vacuum_truncate = off, toast.vacuum_truncate = off);
	INSERT INTO list SELECT generate_series(1, $keys)}) foreach @ids;
$c->start_remote;
$checker->start(
	sub {
		my ($client, $sessions, $n, $log) = @_;
		my $id = $ids[ int(rand(@ids)) ];
		my $k = 1 + int(rand($keys));

		$log->("begin ${client}_$n");
		return 0 unless $sessions->{$id}->query("UPDATE list SET v = v || '${client}_$n'::text WHERE k = $k") eq 'UPDATE 1';
		$log->("end ${client}_$n");
	});

sub lists
{
	my ($read) = @_;
	my %lists;
	foreach my $id (@ids)
	{
		foreach my $row (split /\n/, $read->($id, q{SELECT k, array_to_string(v, ' ') FROM list}))
		{
			my ($k, $v) = split /\|/, $row;
			$lists{"$id/$k"} = $v // '';
		}
	}
	return \%lists;
}

$checker->each_point($checker->points(20),
	sub { push @looks, [ $_[0], lists(sub { $c->remote_sql(@_) }) ]; });
$checker->stop;
my $final = lists(sub { $c->sql(@_) });

my (%began, %ended);
foreach my $line ($checker->logged)
{
	$began{$1} = $line->[1] if $line->[2] =~ /^begin (\S+)/;
	$ended{$1} = $line->[1] if $line->[2] =~ /^end (\S+)/;
}
foreach my $look (@looks)
{
	my ($point, $lists) = @$look;
	my %present = map { $_ => 1 } map { split / / } values %$lists;
	my $newest = 0;
	my @missing;
	my @not_prefix = grep { index("$final->{$_} ", $lists->{$_} eq '' ? '' : "$lists->{$_} ") != 0 } keys %$lists;

	foreach (keys %present) { $newest = $began{$_} if $began{$_} > $newest; }
	@missing = grep { !$present{$_} && $ended{$_} < $newest } keys %ended;
	is(join(' ', @missing), '', "$point: " . scalar(keys %present) . ' appends, a prefix of the real-time order');
	is(join(' ', @not_prefix), '', "$point: each list is a prefix of the final one");
}
cmp_ok(scalar(keys %ended), '>', 100, 'there were appends');

done_testing();
