
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

# What a look has more than the one before, so that a long run needs no memory
# and time for all of the lists at each of its points.
my %before;
my @looks;

sub look
{
	my ($point, $lists) = @_;
	my (@new, @not_prefix);

	foreach my $list (sort keys %$lists)
	{
		my $old = $before{$list} // '';

		if (index("$lists->{$list} ", $old eq '' ? '' : "$old ") == 0)
		{
			push @new, split(/ /, substr($lists->{$list}, length $old));
		}
		else
		{
			push @not_prefix, $list;
		}
	}
	%before = %$lists;
	is(join(' ', @not_prefix), '', "$point: each list of the point before is a prefix of what it is now");
	push @looks, [ $point, grep { $_ ne '' } @new ];
}

$checker->each_point($checker->points(20), sub { look($_[0], lists(sub { $c->remote_sql(@_) })); });
$checker->stop;
look('the end', lists(sub { $c->sql(@_) }));

my (%began, %ended);
foreach my $line ($checker->logged)
{
	$began{$1} = $line->[1] if $line->[2] =~ /^begin (\S+)/;
	$ended{$1} = $line->[1] if $line->[2] =~ /^end (\S+)/;
}
my @in_order = sort { $ended{$a} <=> $ended{$b} } keys %ended;
my %present;
my $newest = 0;
foreach my $look (@looks)
{
	my ($point, @new) = @$look;
	my @missing;

	foreach (@new)
	{
		$present{$_} = 1;
		$newest = $began{$_} if $began{$_} > $newest;
	}
	# what was there stays, so each is looked for once
	while (@in_order && $ended{ $in_order[0] } < $newest)
	{
		my $append = shift @in_order;

		push @missing, $append unless $present{$append};
	}
	is(join(' ', @missing), '', "$point: " . scalar(keys %present) . ' appends, a prefix of the real-time order');
}
cmp_ok(scalar(keys %ended), '>', 100, 'there were appends');

done_testing();
