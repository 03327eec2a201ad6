
=pod

=head1 NAME

GreenplumBank - clients of a Greenplum cluster, and what a point must hold

=head1 DESCRIPTION

Transfers between accounts on different segments, by distributed transactions
of the coordinator, and between them commits of a single segment, which
Greenplum commits there by one phase.  A client counts its commits: step n + 1
begins when step n has ended, whatever segments they are on, so a point that
has the one has the other.

=cut

package GreenplumBank;

use strict;
use warnings;

my $accounts = 40;

# of so many steps one is a transfer, the last
my $round = 5;

# Makes the tables, on the source.
sub new
{
	my ($class, $cluster, %options) = @_;
	my $self = bless {
		c => $cluster,
		clients => $options{clients} // 4,
		total => 100 * $accounts,
	}, $class;

	$cluster->sql("
		CREATE TABLE account (id int, balance bigint NOT NULL) DISTRIBUTED BY (id);
		INSERT INTO account SELECT i, 100 FROM generate_series(1, $accounts) i;
		CREATE TABLE leg (account int, client int, n int, amount bigint NOT NULL) DISTRIBUTED BY (account);
		CREATE TABLE step (client int, n int) DISTRIBUTED BY (n)");
	return $self;
}

sub total { my ($self) = @_; return $self->{total}; }

sub start
{
	my ($self) = @_;

	$self->{c}->start_clients($self->{clients}, sub {
		my ($session, $client, $n) = @_;
		my $from = 1 + int(rand($accounts));
		my $to = 1 + ($from + int(rand($accounts - 1))) % $accounts;
		my %amounts = ($from => -1 - int(rand(10)));
		my $last = $round * $n;

		foreach my $step ($last - $round + 1 .. $last - 1)
		{
			return 0 unless $session->("INSERT INTO step VALUES ($client, $step)") eq '';
		}
		$amounts{$to} = -$amounts{$from};
		# in the order of accounts, so that no two wait for each other
		return $session->('BEGIN;' . join('', map {
			"UPDATE account SET balance = balance + $amounts{$_} WHERE id = $_;
			INSERT INTO leg VALUES ($_, $client, $n, $amounts{$_});" } sort { $a <=> $b } keys %amounts) .
			"INSERT INTO step VALUES ($client, $last);
			COMMIT") eq '';
	});
}

=pod

=head2 GreenplumBank->conf

What a bank wants in postgresql.conf: without it one UPDATE locks the whole
table, so that all clients soon stand in line.

=cut

sub conf { return "gp_enable_global_deadlock_detector = on\n"; }

=pod

=head2 $bank->torn(%instead)

What is wrong with the state of the remote site, in words; nothing of it if
that is a consistent cut.  Asks each segment by itself; %instead names other
servers for some content ids.

=cut

sub torn
{
	my ($self, %instead) = @_;
	my $c = $self->{c};
	my @servers = map { $instead{$_} // $c->server('dr', $_) } $c->primaries;
	my $rows = sub {
		my ($sql) = @_;
		return map { split /\n/, $c->query($_, $sql) } @servers;
	};
	my $sum = 0;
	my (%steps, %legs, @torn);

	$sum += $_ foreach $rows->('SELECT sum(balance) FROM account');
	push @torn, "the total is $sum" if $sum != $self->{total};
	$legs{$_}++ foreach $rows->('SELECT client, n FROM leg');
	push @torn, map { "transfer $_ has $legs{$_} legs" } grep { $legs{$_} != 2 } sort keys %legs;
	foreach my $line ($rows->('SELECT client, n FROM step'))
	{
		my ($client, $n) = split /\|/, $line;
		$steps{$client}{$n} = 1;
	}
	foreach my $client (sort { $a <=> $b } keys %steps)
	{
		my ($latest) = sort { $b <=> $a } keys %{ $steps{$client} };

		push @torn, map { "client $client has step $latest and not $_" } grep { !$steps{$client}{$_} } 1 .. $latest;
		push @torn, map { "client $client has step $_ and not its transfer" }
		  grep { $_ % $round == 0 && !$legs{"$client|" . $_ / $round} } sort { $a <=> $b } keys %{ $steps{$client} };
	}
	return @torn;
}

1;
