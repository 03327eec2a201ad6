
=pod

=head1 NAME

Load - clients that outlive their servers

=head1 DESCRIPTION

As in CausalChain, client c commits link (c, n) on segment n modulo the number
of segments, and link n + 1 only once it knows that n is committed.  But these
clients expect servers to die: they connect again, look whether the link in
question is there, and go on.  Each link comes with some padding, so that WAL
segments fill up.  What a client knows to be committed it writes down.

=cut

package Load;

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use Session;

sub new
{
	my ($class, $c, %options) = @_;
	my $self = bless { c => $c, clients => $options{clients} // 3, dir => PostgreSQL::Test::Utils::tempdir(), pids => [] }, $class;

	$c->sql($_, 'CREATE TABLE link (chain int, n int, padding text, PRIMARY KEY (chain, n)) WITH (vacuum_truncate = off)') foreach $c->ids;
	return $self;
}

sub start
{
	my ($self) = @_;

	foreach my $client (1 .. $self->{clients})
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		if ($pid) { push @{ $self->{pids} }, $pid; next; }
		eval { $self->work($client) };
		warn $@ if $@;
		POSIX::_exit($@ ? 1 : 0);
	}
}

# Runs a statement; undef if there is no server to run it.
sub run
{
	my ($self, $sessions, $id, $sql) = @_;
	my $out = eval {
		$sessions->{$id} //= Session->new($self->{c}->source($id));
		$sessions->{$id}->query($sql);
	};

	# psql may put the place in its input before an error
	return $out if defined $out && $out =~ /^(INSERT 0 1|\d+|.*ERROR:  duplicate key.*)$/s;
	if (my $session = delete $sessions->{$id})
	{
		eval { $session->{run}->kill_kill(grace => 1) };
	}
	usleep(200_000);
	return;
}

sub work
{
	my ($self, $client) = @_;
	my @ids = $self->{c}->ids;
	my %sessions;
	my $known = 0;

	open(my $file, '>', "$self->{dir}/client$client") or die $!;
	$file->autoflush(1);
	# the last link must be known to be there, or not, before the end
	until (-e "$self->{dir}/stop")
	{
		my $n = $known + 1;
		my $padding = $n % 10 ? 100 : 5000;
		my $out = $self->run(\%sessions, $ids[ $n % @ids ], "INSERT INTO link
			SELECT $client, $n, string_agg(md5((i * $n)::text), '') FROM generate_series(1, $padding) i");

		# a duplicate: it was committed, and the reply was lost
		next unless defined $out && ($out eq 'INSERT 0 1' || $out =~ /duplicate key/);
		$known = $n;
		print $file "$n\n";
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
}

# Waits until each client has come further since it was asked last: commits go
# on.  Returns those that do not within so many seconds.
sub stuck
{
	my ($self, $seconds) = @_;
	my $tries = 5 * $seconds;
	my %before = %{ $self->{known} // {} };

	foreach my $try (1 .. $tries)
	{
		my %known = $self->known;
		my @stuck = grep { $known{$_} <= ($before{$_} // 0) } sort keys %known;

		unless (@stuck) { $self->{known} = \%known; return; }
		return @stuck if $try == $tries;
		usleep(200_000);
	}
}

# The last link of each client that it knows to be committed.
sub known
{
	my ($self) = @_;
	return map { $_ => (split /\n/, slurp_file("$self->{dir}/client$_"))[-1] // 0 } 1 .. $self->{clients};
}

# What is wrong with the chains that some servers hold: a link is there only if
# all before it are.  Sets {links}.
sub torn
{
	my ($self, @nodes) = @_;
	my (%count, %max);

	foreach my $node (@nodes)
	{
		foreach my $row (split /\n/, $node->safe_psql('postgres', 'SELECT chain, count(*), max(n) FROM link GROUP BY 1'))
		{
			my ($chain, $count, $max) = split /\|/, $row;

			$count{$chain} += $count;
			$max{$chain} = $max if $max > ($max{$chain} // 0);
		}
	}
	$self->{links} = 0;
	$self->{links} += $_ foreach values %count;
	$self->{max} = \%max;
	return map { "chain $_: $count{$_} links of $max{$_}" } grep { $count{$_} != $max{$_} } sort keys %count;
}

1;
