
=pod

=head1 NAME

Link - a network link that a test can hurt

=head1 SYNOPSIS

  my $link = Link->new($listen_port, $target_port);
  $link->set('stall');				# bytes stop, connections stay
  $link->set('cut');				# connections end, new ones are refused
  $link->set('delay', 0.2);			# each byte comes that much later
  $link->set('pass');
  my $n = $link->blink;				# connections end, new ones are welcome

=head1 DESCRIPTION

A TCP relay in a process of its own, which needs no rights, unlike tc.  A
stalled link is what a router that silently drops packets looks like: nothing
arrives, and nobody is told.  It ends with the test, since it then reads the
end of its commands.

=cut

package Link;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

my %commands;					# of all links, which a new one must not hold open

sub new
{
	my ($class, $listen, $target) = @_;
	my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $listen, Listen => 100, ReuseAddr => 1)
	  or die "could not listen on port $listen: $!";
	my ($in, $out, $answer, $say);

	pipe($in, $out) or die $!;
	pipe($answer, $say) or die $!;
	my $pid = fork();
	die "could not fork: $!" unless defined $pid;
	unless ($pid)
	{
		close $_ foreach values %commands, $out, $answer;
		$SIG{$_} = 'IGNORE' foreach qw(PIPE INT TERM);
		eval { relay($server, $target, $in, $say); };
		warn $@ if $@;
		POSIX::_exit(0);
	}
	close $in;
	close $say;
	close $server;
	$out->autoflush(1);
	$commands{$pid} = $out;
	return bless { pid => $pid, commands => $out, answers => $answer }, $class;
}

sub set
{
	my ($self, @command) = @_;
	my $commands = $self->{commands};

	print $commands "@command\n";
	# so that what follows is under the new rule
	sysread($self->{answers}, my $answer, 1) or die 'the link has ended';
}

# Ends all connections, and says how many there were.
sub blink
{
	my ($self) = @_;
	my $commands = $self->{commands};
	my $n = '';

	print $commands "blink\n";
	sysread($self->{answers}, $n, 10, length $n) or die 'the link has ended' until $n =~ /\.$/;
	return $n + 0;
}

sub end
{
	my ($self) = @_;

	return unless $self->{pid};
	delete $commands{ $self->{pid} };
	close $self->{commands};
	# clients that the test has forked may hold its commands open
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	$self->{pid} = 0;
}

# The relay.  Each socket has a peer, and a queue of [time, bytes] for it.
sub relay
{
	my ($server, $target, $in, $say) = @_;
	my ($mode, $delay) = ('pass', 0);
	my (%peer, %queue, %handle);
	my $drop = sub {
		my @ends = ($_[0], $peer{ $_[0] });
		foreach my $fd (@ends)
		{
			next unless defined $fd && $handle{$fd};
			close delete $handle{$fd};
			delete $peer{$fd};
			delete $queue{$fd};
		}
	};
	my $adopt = sub {
		my ($socket) = @_;
		$socket->blocking(0);
		setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
		$handle{ fileno $socket } = $socket;
		$queue{ fileno $socket } = [];
		return fileno $socket;
	};

	while (1)
	{
		my $now = time();
		my ($read, $write) = (IO::Select->new($in), IO::Select->new);
		my $timeout;

		$read->add($server) unless $mode eq 'stall';
		unless ($mode eq 'stall')
		{
			foreach my $fd (keys %handle)
			{
				my $queue = $queue{ $peer{$fd} };
				# no more than a window's worth waits
				$read->add($handle{$fd}) if @$queue < 256;
				next unless @{ $queue{$fd} };
				my $left = $queue{$fd}[0][0] - $now;
				if ($left <= 0) { $write->add($handle{$fd}); }
				else { $timeout = $left if !defined $timeout || $left < $timeout; }
			}
		}
		my ($readable, $writable) = IO::Select->select($read, $write, undef, $timeout);

		foreach my $socket (@{ $readable // [] })
		{
			if ($socket == $in)
			{
				return unless sysread($in, my $line, 4096);
				if ($line =~ /^blink/)
				{
					syswrite($say, (keys(%handle) / 2) . '.');
					$drop->($_) foreach keys %handle;
					last;
				}
				($mode, my $value) = split ' ', $line;
				$delay = $mode eq 'delay' ? $value : 0;
				if ($mode eq 'cut')
				{
					$drop->($_) foreach keys %handle;
				}
				syswrite($say, '.');
				last;			# what was ready may be gone
			}
			if ($socket == $server)
			{
				my $client = $server->accept or next;
				my $to = $mode eq 'cut' ? undef :
				  IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $target);

				# nobody listens behind: as if it were refused here
				unless ($to) { close $client; next; }
				my ($a, $b) = ($adopt->($client), $adopt->($to));
				@peer{ $a, $b } = ($b, $a);
				next;
			}
			my $fd = fileno $socket;
			next unless defined $fd && $handle{$fd};
			my $got = sysread($socket, my $bytes, 65536);
			next if !defined $got && $!{EAGAIN};
			if ($got) { push @{ $queue{ $peer{$fd} } }, [ time() + $delay, $bytes ]; }
			else { $drop->($fd); }
		}
		foreach my $socket (@{ $writable // [] })
		{
			my $fd = fileno $socket;
			next unless defined $fd && $handle{$fd} && @{ $queue{$fd} };
			my $sent = syswrite($socket, $queue{$fd}[0][1]);
			next if !defined $sent && $!{EAGAIN};
			if (!defined $sent) { $drop->($fd); next; }
			if ($sent < length $queue{$fd}[0][1]) { substr($queue{$fd}[0][1], 0, $sent) = ''; }
			else { shift @{ $queue{$fd} }; }
		}
	}
}

1;
