
=pod

=head1 NAME

Kafka - a Kafka cluster of a test's own, to be hurt

=head1 SYNOPSIS

  my $kafka = Kafka->new(nodes => 3);
  my $c = Multisite->new('x', brokers => $kafka->brokers);
  $kafka->kill(0);
  $kafka->start(0);

=head1 DESCRIPTION

Real brokers, by test/kafka/broker.  They end with the test.  With links =>
['main', 'dr'] each node has a listener of its own for each of these names,
behind a Link, and brokers($name) is the address list of those: so one site
can be cut off while the other is not.  The same with packets => [...], for
the one node and the one PacketLink that a test has; port($name) is its rule's.

=cut

package Kafka;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use Link;
use Pipe;

my @all;

sub new
{
	my ($class, %options) = @_;
	my $self = bless {
		dir => $options{dir} // PostgreSQL::Test::Utils::tempdir(),
		nodes => $options{nodes} // 1,
		links => {},
		script => "$ENV{MULTISITE_SRC}/test/kafka/broker",
	}, $class;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my @listeners;
	my $block = $port;

	# blocks of ports, since each node adds its number
	foreach my $name (@{ $options{links} // [] })
	{
		my ($from, $to) = ($block + 10, $block + 20);

		$block = $to;

		push @listeners, "$name:$to:$from";
		$self->{links}{$name} = [ map { Link->new($from + $_, $to + $_) } 0 .. $self->{nodes} - 1 ];
		$self->{addresses}{$name} = join(',', map { '127.0.0.1:' . ($from + $_) } 0 .. $self->{nodes} - 1);
	}
	foreach my $name (@{ $options{packets} // [] })
	{
		$block += 10;
		push @listeners, "$name:$block:$block:0.0.0.0:$PacketLink::peer";
		$self->{port}{$name} = $block;
		$self->{addresses}{$name} = "$PacketLink::peer:$block";
	}
	local $ENV{KAFKA_LISTENERS} = join(' ', @listeners);
	local $ENV{KAFKA_CONFIG} = $options{config} // '';
	push @all, $self;
	($self->{brokers}, my $err) = run_command([ $self->{script}, 'start', $self->{dir}, $port, $self->{nodes} ]);
	die "no broker: $err" unless $self->{brokers} =~ /:\d+$/;
	return $self;
}

# The address list; of a link, if one is named.
sub brokers
{
	my ($self, $link) = @_;
	return defined $link ? $self->{addresses}{$link} : $self->{brokers};
}

sub port { my ($self, $link) = @_; return $self->{port}{$link}; }

# The Link objects of that name, one for each node.
sub links { my ($self, $name) = @_; return @{ $self->{links}{$name} }; }

sub command
{
	my ($self, $command, @arguments) = @_;
	my ($out, $err) = run_command([ $self->{script}, $command, $self->{dir}, @arguments ]);

	# a tool may have complaints beside its answer; a broker must do as it is told
	die "broker $command: $err" if $? != 0 && $command ne 'tool';
	return $out;
}

sub kill { my ($self, $node, $signal) = @_; $self->command('node-kill', $node, $signal // 'KILL'); }
sub start { my ($self, $node) = @_; $self->command('node-start', $node); }

sub pid
{
	my ($self, $node) = @_;
	my $file = "$self->{dir}/node$node/pid";

	return unless -e $file;
	my ($pid) = slurp_file($file) =~ /(\d+)/;
	return $pid;
}

# Starts what does not run; all at once, since a quorum forms only together.
sub start_all
{
	my ($self) = @_;
	my @pids;

	foreach my $node (0 .. $self->{nodes} - 1)
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		exec($self->{script}, 'node-start', $self->{dir}, $node) or POSIX::_exit(1) unless $pid;
		push @pids, $pid;
	}
	waitpid($_, 0) foreach @pids;
}

sub tool { my ($self, $class, @arguments) = @_; return $self->command('tool', "org.apache.kafka.tools.$class", @arguments); }

# Sets a topic's settings: "name=value,..."; or deletes them: "name,...".
sub configure
{
	my ($self, $topic, $settings) = @_;
	$self->command('tool', 'kafka.admin.ConfigCommand', '--alter', '--topic', $topic,
		$settings =~ /=/ ? '--add-config' : '--delete-config', $settings);
}

# Deletes a topic's messages before an offset, as retention does.
sub delete_before
{
	my ($self, $topic, $offset) = @_;
	my $file = "$self->{dir}/delete.json";

	unlink $file;
	append_to_file($file, qq({"partitions": [{"topic": "$topic", "partition": 0, "offset": $offset}], "version": 1}));
	$self->tool('DeleteRecordsCommand', '--offset-json-file', $file);
}

# The messages of a topic: a list of {offset, kind, epoch, lsn, length}.
sub messages { my ($self, $topic) = @_; return Pipe::messages($self->{brokers}, $topic); }

# Appends a copy of a message to its topic; how: see test/faults/pipe.c.
sub copy
{
	my ($self, $topic, $offset, $how) = @_;
	PostgreSQL::Test::Utils::system_or_bail("$ENV{MULTISITE_SRC}/test/faults/pipe", $self->{brokers}, $topic, 'copy', $offset, $how);
}

# The nodes of a topic's only partition: the one that leads it, undef if none
# does, and lists of those that have it and of those in sync.
sub nodes_of
{
	my ($self, $topic) = @_;
	my ($out) = run_command([ "$ENV{MULTISITE_SRC}/test/faults/pipe", $self->{brokers}, $topic, 'describe' ]);
	my ($leader, $replicas, $in_sync) = $out =~ /^(-?\d+) ([\d,]*) ([\d,]*)$/m or return;

	return ($leader < 0 ? undef : $leader, [ split /,/, $replicas ], [ split /,/, $in_sync ]);
}

sub leader { my ($self, $topic) = @_; return ($self->nodes_of($topic))[0]; }

# How many bytes a node holds of a topic; forgets all behind that many, as the
# cluster does when a replica without the newest messages becomes the leader.
sub log_file { my ($self, $node, $topic) = @_; return "$self->{dir}/node$node/data/$topic-0/" . '0' x 20 . '.log'; }
sub log_size { my ($self, $node, $topic) = @_; return -s $self->log_file($node, $topic); }

sub forget_behind
{
	my ($self, $node, $topic, $size) = @_;
	$self->kill($node);
	truncate($self->log_file($node, $topic), $size) or die $!;
	$self->start($node);
}

sub stop
{
	my ($self) = @_;
	$self->command('stop');
	$_->end foreach map { @$_ } values %{ $self->{links} };
	@all = grep { $_ != $self } @all;
}

my $parent = $$;

END
{
	my $status = $?;

	if ($$ == $parent)
	{
		$_->stop foreach @all;
	}
	$? = $status;
}

1;
