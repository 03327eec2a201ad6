
=pod

=head1 NAME

PacketLink - a network link that loses and delays packets

=head1 SYNOPSIS

  use PacketLink;				# before PostgreSQL::Test::Cluster

  plan skip_all => $PacketLink::missing if $PacketLink::missing;
  my $link = PacketLink->new;
  my $kafka = Kafka->new(packets => ['main', 'dr']);
  $link->set($kafka->port('dr'), loss => 0.02, delay => 50);
  $link->set($kafka->port('dr'), loss => 1);		# silence
  $link->set($kafka->port('dr'));
  is($link->dropped, 17);

=head1 DESCRIPTION

Where Link relays bytes, this drops the packets themselves, by test/faults/lossy,
which says how: so retransmissions, and connections that are opened into
nothing, are the kernel's own.  It needs a network namespace, so the test runs
again in one of its own, where nothing of the machine's network is to be seen;
needs no root where user namespaces are allowed.  $missing says why not.

=cut

package PacketLink;

use strict;
use warnings;

use IPC::Open2;
use Test::More;

our ($missing, $peer);

BEGIN
{
	my $own = '10.77.0.1';
	$peer = '10.77.0.2';		# packets to it come back to $own

	my $try = 'ip link add ms0 type veth peer name ms1';
	my @unshare = ('unshare', '-Unc', '--keep-caps');

	if ($ENV{MULTISITE_OWN_NETWORK})
	{
		foreach my $command ('ip link set lo up', $try, "ip address add $own/24 dev ms0",
			'ip link set ms0 up', 'ip link set ms1 up',
			"ip neighbour add $peer lladdr 02:00:00:00:00:02 dev ms0 nud permanent")
		{
			system("$command 2>&1") == 0 or die "$command failed";
		}
	}
	elsif (!-x "$ENV{MULTISITE_SRC}/test/faults/lossy")
	{
		$missing = 'no link that loses packets on this system';
	}
	elsif (system(@unshare, 'sh', '-c', "$try 2>/dev/null >&2") != 0)
	{
		$missing = 'no right to make network namespaces and links, or no ip command';
	}
	else
	{
		$ENV{MULTISITE_OWN_NETWORK} = 1;
		exec(@unshare, $^X, (map { "-I$_" } @INC), $0) or die "could not exec: $!";
	}
}

sub new
{
	my ($class) = @_;
	my $seed = $ENV{MULTISITE_SEED} // int(rand(2**31));
	my ($out, $in);

	note("seed of the link's losses: $seed (MULTISITE_SEED)");
	my $pid = open2($out, $in, "$ENV{MULTISITE_SRC}/test/faults/lossy", $seed);
	return bless { in => $in, out => $out, pid => $pid, rules => {}, counts => [ 0, 0 ] }, $class;
}

# What happens to the packets from and to a port from now on.  delay is in
# milliseconds, each way.
sub set
{
	my ($self, $port, %rule) = @_;
	my $in = $self->{in};
	my $out = $self->{out};

	$self->{rules}{$port} = \%rule;
	printf $in "%d %f %f\n", $port, $rule{loss} // 0, $rule{delay} // 0;
	$in->flush;
	my $answer = <$out> // die 'the link has ended';
	$self->{counts} = [ split ' ', $answer ];
}

# How many packets were lost so far.
sub dropped
{
	my ($self) = @_;
	my ($port) = keys %{ $self->{rules} };

	$self->set($port, %{ $self->{rules}{$port} });
	return $self->{counts}[1];
}

1;
