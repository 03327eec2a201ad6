
=pod

=head1 NAME

Pipe - what a pipe has, and whether it is whole

=head1 SYNOPSIS

  my @messages = Pipe::messages($brokers, $topic);
  my ($end, @problems) = Pipe::follow(@messages);

=head1 DESCRIPTION

messages() is a list of {offset, kind, epoch, lsn, length}, read from Kafka by
test/faults/pipe; length is that of the WAL, unpacked.

follow() reads it as a receiver does: WAL of an older claim than the newest one
does not count.  A claim has a greater number than the one before it, and goes
on at the end of what there is, or before it.  Each message of WAL that follows
begins where the one before it ends, to the byte.  Returns where the WAL ends,
and in words what is not so.

=cut

package Pipe;

use strict;
use warnings;

use PostgreSQL::Test::Utils;

sub messages
{
	my ($brokers, $topic) = @_;
	my ($out, $err) = run_command([ "$ENV{MULTISITE_SRC}/test/faults/pipe", $brokers, $topic, 'list' ]);
	my @messages;

	die $err if $err =~ /^pipe: /m;
	foreach my $line (split /\n/, $out)
	{
		my %m;
		@m{qw(offset kind epoch lsn length)} = split / /, $line;
		$m{lsn} = hex $m{lsn} if defined $m{lsn};
		push @messages, \%m;
	}
	return @messages;
}

sub follow
{
	my ($claim, $next);
	my $end = 0;
	my @problems;

	foreach my $m (@_)
	{
		my $what = "$m->{kind} at offset $m->{offset}";

		if ($m->{kind} eq 'claim')
		{
			push @problems, "$what has number $m->{epoch} behind $claim" if defined $claim && $m->{epoch} <= $claim;
			push @problems, sprintf('%s goes on at %X, behind the end at %X', $what, $m->{lsn}, $end) if $end && $m->{lsn} > $end;
			($claim, $next) = ($m->{epoch}, $m->{lsn});
		}
		elsif ($m->{kind} eq 'invalid') { push @problems, $what; }
		elsif (!defined $claim || $m->{epoch} > $claim) { push @problems, "$what has no claim before it"; }
		elsif ($m->{kind} eq 'wal' && $m->{epoch} == $claim)
		{
			push @problems, sprintf('%s begins at %X, not at %X', $what, $m->{lsn}, $next) if $m->{lsn} != $next;
			$next = $m->{lsn} + $m->{length};
			$end = $next if $next > $end;
		}
	}
	return ($end, @problems);
}

1;
