
=pod

=head1 NAME

Checker - clients that write to all segments, and what a point must hold

=head1 DESCRIPTION

A checker runs clients as processes of their own, each with a session to
every source segment.  A client writes down what it did in a file, each line
before or after the statement that it is about, and ends when its stop file
appears.  Meanwhile the test makes points, and after each one looks at the
remote site, whose segments all stand at that point until the next one.

=cut

package Checker;

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use Session;

sub new
{
	my ($class, $cluster, %options) = @_;
	my $seed = $ENV{MULTISITE_SEED} // int(rand(2**31));

	note("seed $seed (MULTISITE_SEED repeats it)");
	return bless {
		c => $cluster,
		clients => $options{clients} // 4,
		seed => $seed,
		dir => PostgreSQL::Test::Utils::tempdir(),
		pids => [],
	}, $class;
}

# How many points to look at: a few, or for minutes.
sub points
{
	my ($self, $few) = @_;
	return $ENV{MULTISITE_TEST_LONG} ? $few * 40 : $few;
}

=pod

=head2 $checker->start($step)

Each client calls $step->($client, $sessions, $n, $log) with n = 1, 2, ..., where
$sessions->{$id} is its session to a segment and $log->($line) writes a line.
The step returns false to end.

=cut

sub start
{
	my ($self, $step) = @_;

	foreach my $client (1 .. $self->{clients})
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		if ($pid)
		{
			push @{ $self->{pids} }, $pid;
			next;
		}
		eval {
			srand($self->{seed} + $client);
			open(my $file, '>', "$self->{dir}/client$client") or die $!;
			$file->autoflush(1);
			my %sessions = map { $_ => Session->new($self->{c}->source($_)) } $self->{c}->ids;
			for (my $n = 1; !-e "$self->{dir}/stop"; $n++)
			{
				last unless $step->($client, \%sessions, $n,
					sub { printf $file "%.6f %s\n", time(), $_[0]; });
			}
		};
		warn $@ if $@;
		# neither destructors nor END blocks: the servers are the parent's
		POSIX::_exit($@ ? 1 : 0);
	}
}

sub stop
{
	my ($self) = @_;

	append_to_file("$self->{dir}/stop", '');
	foreach my $pid (@{ $self->{pids} })
	{
		waitpid($pid, 0);
		is($?, 0, 'a client ended well');
	}
	$self->{pids} = [];
}

# What the clients wrote: a list of [client, time, line].
sub logged
{
	my ($self) = @_;
	my @lines;

	foreach my $client (1 .. $self->{clients})
	{
		next unless -e "$self->{dir}/client$client";
		foreach my $line (split /\n/, slurp_file("$self->{dir}/client$client"))
		{
			push @lines, [ $client, $1, $2 ] if $line =~ /^([\d.]+) (.*)$/;
		}
	}
	return @lines;
}

=pod

=head2 $checker->each_point($number, $look)

Makes that many points while the clients work, and calls $look->($name, $k)
when the remote site stands at each.  A long run ends after 30 minutes, or
MULTISITE_SECONDS, in any case.  The tables that it reads need
vacuum_truncate = off: a lock that VACUUM had at the point would hold up the
reader, and so the next point.

=cut

sub each_point
{
	my ($self, $number, $look) = @_;
	my $end = time() + ($ENV{MULTISITE_SECONDS} // 1800);

	foreach my $k (1 .. $number)
	{
		if ($ENV{MULTISITE_TEST_LONG} && time() > $end)
		{
			note(($k - 1) . ' points in this time');
			last;
		}
		my $name = $self->{c}->create_point;
		$self->{c}->wait_applied($name);
		last unless $look->($name, $k);
	}
}

# A column of a query on every remote segment: (id => [values]).
sub remote_columns
{
	my ($self, $sql) = @_;
	return map { $_ => [ split /\n/, $self->{c}->remote_sql($_, $sql) ] } $self->{c}->ids;
}

1;
