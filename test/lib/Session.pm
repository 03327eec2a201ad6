
=pod

=head1 NAME

Session - a psql session that a test talks to step by step

=head1 SYNOPSIS

  my $s = Session->new($node);
  is($s->query('SELECT 1'), '1');
  $s->begin('COMMIT');				# does not wait
  ok(!$s->done);
  is($s->end, 'COMMIT');			# waits

=cut

package Session;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

sub new
{
	my ($class, $node, $database) = @_;
	my $self = { in => '', out => '', n => 0, node => $node };

	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAt', '-d', $node->connstr($database // 'postgres'), '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>&1');
	bless $self, $class;
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

sub pid { return $_[0]->{pid}; }

# Sends statements; end() has their output.
sub begin
{
	my ($self, $sql) = @_;

	$self->{mark} = sprintf('--done-%d--', ++$self->{n});
	$self->{out} = '';
	$self->{in} .= "$sql;\n\\echo $self->{mark}\n";
	$self->{run}->pump_nb;
}

sub done
{
	my ($self) = @_;

	# a psql whose backend was terminated ends, too, at a moment of its own
	eval { $self->{run}->pump_nb if $self->{run}->pumpable; };
	return $self->{out} =~ /^\Q$self->{mark}\E$/m;
}

# Waits for the end of what was begun; its output, errors included.
sub end
{
	my ($self) = @_;
	my $tries = 100 * $PostgreSQL::Test::Utils::timeout_default;

	until ($self->done)
	{
		die "no answer in " . $self->{node}->name if --$tries < 0;
		# the backend may have been terminated
		last unless $self->{run}->pumpable;
		usleep(10_000);
	}
	my $out = $self->{out};
	$out =~ s/^\Q$self->{mark}\E\n?//m;
	chomp $out;
	return $out;
}

sub query
{
	my ($self, $sql) = @_;
	$self->begin($sql);
	return $self->end;
}

sub quit
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	$self->{run}->finish;
}

1;
