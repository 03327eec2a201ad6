
=pod

=head1 NAME

GreenplumBank - clients of a Greenplum cluster, and what a point must hold

=head1 DESCRIPTION

Transfers between accounts on different segments, by distributed transactions
of the coordinator, and between them commits of a single segment.  A client
counts its commits: step n + 1 begins when step n has ended, whatever segments
they are on, so a point that has the one has the other.

=cut

package GreenplumBank;

use strict;
use warnings;

my $accounts = 40;
my $total = 100 * $accounts;

# Makes the tables, on the source.
sub new
{
	my ($class, $cluster, %options) = @_;
	my $self = bless { c => $cluster, clients => $options{clients} // 4 }, $class;

	$cluster->sql("
		CREATE TABLE account (id int, balance bigint NOT NULL) DISTRIBUTED BY (id);
		INSERT INTO account SELECT i, 100 FROM generate_series(1, $accounts) i;
		CREATE TABLE leg (account int, client int, n int, amount bigint NOT NULL) DISTRIBUTED BY (account);
		CREATE TABLE step (client int, n int) DISTRIBUTED BY (n)");
	return $self;
}

sub start
{
	my ($self) = @_;

	$self->{c}->start_clients($self->{clients}, sub {
		my ($session, $client, $n) = @_;
		my $from = 1 + int(rand($accounts));
		my $to = 1 + ($from + int(rand($accounts - 1))) % $accounts;
		my $amount = 1 + int(rand(10));

		# the first is one segment's alone, and is committed there by one phase
		return $session->("INSERT INTO step VALUES ($client, " . (2 * $n - 1) . ')') eq '' && $session->("BEGIN;
			UPDATE account SET balance = balance - $amount WHERE id = $from;
			UPDATE account SET balance = balance + $amount WHERE id = $to;
			INSERT INTO leg VALUES ($from, $client, $n, -$amount), ($to, $client, $n, $amount);
			INSERT INTO step VALUES ($client, " . (2 * $n) . ");
			COMMIT") !~ /ERROR:  (?!deadlock)/;
	});
}

# A query on each remote segment by itself: all rows.
sub remote_rows
{
	my ($self, $sql) = @_;
	my $c = $self->{c};

	return map { split /\n/, $c->query($c->server('dr', $_), $sql) } $c->primaries;
}

# What is wrong with the state at which the remote site stands, in words.
sub torn
{
	my ($self) = @_;
	my $sum = 0;
	my (%steps, %legs, @torn);

	$sum += $_ foreach $self->remote_rows('SELECT sum(balance) FROM account');
	push @torn, "the total is $sum" if $sum != $total;
	$legs{$_}++ foreach $self->remote_rows('SELECT client, n FROM leg');
	push @torn, map { "transfer $_ has one leg" } grep { $legs{$_} != 2 } keys %legs;
	foreach my $line ($self->remote_rows('SELECT client, n FROM step'))
	{
		my ($client, $n) = split /\|/, $line;
		$steps{$client}{$n} = 1;
	}
	# a step of an even number is a transfer, which a deadlock may have undone
	foreach my $client (keys %steps)
	{
		my ($latest) = sort { $b <=> $a } keys %{ $steps{$client} };

		push @torn, map { "client $client has step $latest and not $_" }
		  grep { !$steps{$client}{$_} } map { 2 * $_ - 1 } 1 .. ($latest + 1) / 2;
		push @torn, map { "client $client has step $_ and not its transfer" }
		  grep { $_ % 2 == 0 && !$legs{"$client|" . $_ / 2} } keys %{ $steps{$client} };
	}
	return @torn;
}

1;
