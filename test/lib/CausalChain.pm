
=pod

=head1 NAME

CausalChain - commits on one segment after the reply of another

=head1 DESCRIPTION

Client c commits link (c, n) on segment n modulo the number of segments, and
link n + 1 only after the reply for n.  So at a consistent state of the
cluster a link is there only if all links of its chain before it are.

=cut

package CausalChain;

use strict;
use warnings;

use Checker;

sub new
{
	my ($class, $c, %options) = @_;
	my @ids = $c->ids;
	my $self = bless { c => $c, checker => Checker->new($c, %options), torn => 0, links => 0 }, $class;

	$c->sql($_, 'CREATE TABLE link (chain int, n int) WITH (vacuum_truncate = off)') foreach @ids;
	return $self;
}

# Makes a segment's restore points late, by a wrapper around the function that
# writes them: the barrier has to hold for all that time.
sub delay_restore_point
{
	my ($self, $id, $seconds) = @_;

	$self->{c}->sql($id, qq{
		ALTER EXTENSION multisite_repl DROP FUNCTION multisite.write_restore_point(text);
		ALTER FUNCTION multisite.write_restore_point(text) RENAME TO write_restore_point_now;
		CREATE FUNCTION multisite.write_restore_point(name text, OUT lsn pg_lsn, OUT timeline int)
		LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM pg_sleep($seconds);
			SELECT * INTO lsn, timeline FROM multisite.write_restore_point_now(name);
		END \$\$});
}

sub start
{
	my ($self) = @_;
	my @ids = $self->{c}->ids;

	$self->{checker}->start(
		sub {
			my ($client, $sessions, $n) = @_;
			my $id = $ids[ $n % @ids ];
			return $sessions->{$id}->query("INSERT INTO link VALUES ($client, $n)") eq 'INSERT 0 1';
		});
}

# The chains at the remote site that have a link without one before it.
sub torn_chains
{
	my ($self) = @_;
	my %rows = $self->{checker}->remote_columns('SELECT chain, n FROM link');
	my (%count, %max);

	foreach my $row (map { @$_ } values %rows)
	{
		my ($chain, $n) = split /\|/, $row;
		$count{$chain}++;
		$max{$chain} = $n if $n > ($max{$chain} // 0);
	}
	$self->{links} = 0;
	$self->{links} += $_ foreach values %count;
	return grep { $count{$_} != $max{$_} } keys %count;
}

1;
