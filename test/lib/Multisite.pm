
=pod

=head1 NAME

Multisite - clusters with a remote site, for tests

=head1 SYNOPSIS

  use Multisite;

  my $c = Multisite->new('story', segments => 3);
  $c->start_source;
  $c->start_remote;
  $c->sql(0, 'CREATE TABLE t (a int)');
  my $point = $c->create_point;
  $c->wait_applied($point);
  $c->cut_source;
  $c->promote;
  is($c->remote_sql(0, 'SELECT count(*) FROM t'), '0');

=head1 DESCRIPTION

A segment is a PostgreSQL::Test::Cluster node; -1 is the coordinator.  Topics
are of the suite's broker, and their names differ from test to test and from
run to run.

=cut

package Multisite;

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $instance = 0;

# Behind that of PostgreSQL::Test::Cluster, which would begin anywhere: ports
# that are not reserved one by one (Kafka.pm) must not be another test's.
INIT
{
	$PostgreSQL::Test::Cluster::last_port_assigned = $ENV{MULTISITE_FIRST_PORT} if $ENV{MULTISITE_FIRST_PORT};
}

=pod

=head2 Multisite->new($name, %options)

segments: how many besides the coordinator (0).  conf: more lines for every
postgresql.conf.  durable: 1 to leave fsync on, for tests that cut the power.
brokers: other ones than the suite's.
init: more arguments for initdb.

=cut

sub new
{
	my ($class, $name, %options) = @_;
	my $self = {
		name => $name,
		cluster => sprintf('%s_%d_%d_%d', $name, time(), $$, $instance++),
		segments => $options{segments} // 0,
		conf => $options{conf} // '',
		durable => $options{durable} // 0,
		init => $options{init} // [],
		brokers => $options{brokers} // $ENV{MULTISITE_BROKERS},
		source => {},
		remote => {},
	};
	die "MULTISITE_BROKERS is not set: use test/run" unless $self->{brokers};
	return bless $self, $class;
}

sub ids
{
	my ($self) = @_;
	return (-1 .. $self->{segments} - 1);
}

sub source { my ($self, $id) = @_; return $self->{source}{$id}; }
sub remote { my ($self, $id) = @_; return $self->{remote}{$id}; }

sub node_name
{
	my ($self, $site, $id) = @_;
	return join('_', $self->{name}, $site, $id < 0 ? 'coordinator' : "seg$id");
}

# Makes a source segment, not yet started.
sub init_source
{
	my ($self, $id) = @_;
	my $node = PostgreSQL::Test::Cluster->new($self->node_name('main', $id));

	$node->init(allows_streaming => 1, extra => $self->{init});
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'multisite_repl'
shared_buffers = 32MB
max_prepared_transactions = 50
max_connections = 60
wal_retrieve_retry_interval = 5s
multisite.cluster_name = '$self->{cluster}'
multisite.site_name = 'main'
multisite.segment_id = $id
multisite.brokers = '$self->{brokers}'
multisite.replication_factor = 1
multisite.publish = on
restart_after_crash = on
});
	$node->append_conf('postgresql.conf', 'fsync = ' . ($self->{durable} ? 'on' : 'off'));
	$node->append_conf('postgresql.conf', $self->{conf});
	$self->{source}{$id} = $node;
	return $node;
}

sub start_source
{
	my ($self) = @_;
	foreach my $id ($self->ids)
	{
		$self->init_source($id)->start;
		$self->sql($id, 'CREATE EXTENSION multisite_repl');
	}
	$self->register($_, 'main') foreach grep { $_ >= 0 } $self->ids;
	$self->wait_published($_) foreach $self->ids;
}

sub conninfo
{
	my ($self, $node) = @_;
	return $node->connstr('postgres');
}

sub register
{
	my ($self, $id, $site) = @_;
	my $node = $site eq 'main' ? $self->source($id) : $self->remote($id);
	my $conninfo = $self->conninfo($node);

	$conninfo =~ s/'/''/g;
	$self->sql(-1, "SELECT multisite_add_segment($id, '$conninfo', '$site')");
}

# The publisher has nothing left to publish.
sub wait_published
{
	my ($self, $id) = @_;
	$self->wait_for($self->source($id), q{
		SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'});
}

=pod

=head2 $c->init_remote($id, %options)

Makes a remote segment from a base backup, not yet started.  site: its name.
source_site: that which it follows; from: the server that it is a copy of.
conf: more lines for its postgresql.conf.

=cut

sub init_remote
{
	my ($self, $id, %options) = @_;
	my $site = $options{site} // 'dr';
	my $source_site = $options{source_site} // 'main';
	my $name = $self->node_name($site, $id);
	my $node = PostgreSQL::Test::Cluster->new($options{node_name} // $name);
	my $source = $options{from} // $self->source($id);
	my $backup = 'backup_' . $node->name;

	$source->backup($backup);
	$node->init_from_backup($source, $backup);
	$node->set_standby_mode;
	$node->append_conf('postgresql.conf', qq{
multisite.site_name = '$site'
multisite.source_site = '$source_site'
});
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	$self->{remote}{$id} = $node if $site eq 'dr';
	return $node;
}

sub start_remote
{
	my ($self, %options) = @_;
	$self->init_remote($_, %options)->start foreach $self->ids;
	$self->register($_, 'dr') foreach grep { $_ >= 0 } $self->ids;
}

=pod

=head2 $c->sql($id, $sql), $c->remote_sql($id, $sql)

Runs SQL on a source segment or a remote one and returns its output.

=cut

sub sql
{
	my ($self, $id, $sql) = @_;
	return $self->source($id)->safe_psql('postgres', $sql);
}

sub remote_sql
{
	my ($self, $id, $sql) = @_;
	return $self->remote($id)->safe_psql('postgres', $sql);
}

# Waits until a query gives true; on failure shows what the workers say.
sub wait_for
{
	my ($self, $node, $query, $expected) = @_;
	my $reached;

	# IPC::Run, but for its newest versions, dies if a psql that cannot connect
	# ends before it has read the query
	until (eval { $reached = $node->poll_query_until('postgres', $query, $expected // 't'); 1 })
	{
		die $@ unless $@ =~ /Broken pipe/;
	}
	return 1 if $reached;
	diag($node->name . " does not get there: $query");
	diag($node->safe_psql('postgres', 'SELECT worker, state, reason, last_error FROM multisite_status'));
	die "timed out";
}

sub create_point
{
	my ($self, $name) = @_;
	return $self->sql(-1, 'SELECT multisite_create_consistency_point('
		  . (defined $name ? "'$name'" : '') . ')');
}

# Waits until a point has a state on the remote coordinator: on all segments.
sub wait_applied
{
	my ($self, $point, $state) = @_;
	$state //= 'applied';
	my $reached = $self->remote_sql(-1,
		"SELECT multisite_wait_for_consistency_point('$point', '$state', '$PostgreSQL::Test::Utils::timeout_default s')");

	return 1 if $reached eq 't';
	diag($self->remote_sql(-1, 'SELECT * FROM multisite_segments'));
	diag($self->remote_sql(-1, 'SELECT worker, state, reason, last_error FROM multisite_status'));
	die "point $point is not $state on the remote site";
}

=pod

=head2 $c->promote($point)

Promotes the remote site; returns the point's name and the NOTICEs.

=cut

sub promote
{
	my ($self, $point) = @_;
	my ($out, $err);
	my $status = $self->remote(-1)->psql('postgres',
		'SELECT multisite_promote(' . (defined $point ? "'$point'" : '') . ')',
		stdout => \$out, stderr => \$err);

	return ($out, $err) if $status == 0;
	die "promotion failed: $err";
}

# Ends a server as a power cut would: all of its processes, without a signal
# that it could handle.
sub cut
{
	my ($self, $node) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

	# it must not start more while we look
	kill 'STOP', $postmaster;
	my @children = split /\s+/, `pgrep -P $postmaster`;
	kill 'KILL', $postmaster, @children;
	foreach my $pid ($postmaster, @children)
	{
		usleep(10_000) while kill(0, $pid) && !is_zombie($pid);
	}
	# both name the postmaster, which may be a zombie until somebody reaps it
	unlink $node->data_dir . '/postmaster.pid';
	unlink sprintf('%s/.s.PGSQL.%d.lock', $node->host, $node->port);
	$node->{_pid} = undef;
}

sub is_zombie
{
	my ($pid) = @_;
	open(my $stat, '<', "/proc/$pid/stat") or return 1;
	return (<$stat> // ') Z') =~ /\) Z/;
}

=pod

=head2 $c->source_standby($id), $c->fail_over($id, $standby)

Gives a source segment a streaming standby at its own site; lets that one take
the segment over after a power cut of the primary.

=cut

sub source_standby
{
	my ($self, $id) = @_;
	my $primary = $self->source($id);
	my $standby = PostgreSQL::Test::Cluster->new("$self->{name}_standby");

	$primary->backup('for_standby');
	$standby->init_from_backup($primary, 'for_standby', has_streaming => 1);
	$standby->start;
	return $standby;
}

# Stages a point, named "lost", that a standby of this segment's source lacks,
# at a site that is paused before it.  Returns the standby, to fail over to.
sub stage_lost_point
{
	my ($self, $id) = @_;
	my $old = $self->source($id);
	my $standby = $self->source_standby($id);

	$self->wait_applied($self->create_point('two'));
	$old->wait_for_catchup($standby->name, 'flush', $old->lsn('flush'));
	$standby->stop('fast');
	$self->remote_sql(-1, 'SELECT multisite_pause()');
	$self->sql($id, 'INSERT INTO t VALUES (2)');
	$self->create_point('lost');
	$self->wait_applied('lost', 'staged');
	return $standby;
}

sub fail_over
{
	my ($self, $id, $standby) = @_;

	$self->cut($self->source($id));
	# one that was down to lag behind
	$standby->start unless $standby->{_pid};
	$standby->promote;
	$self->{source}{$id} = $standby;
	$self->register($id, 'main');
	$self->wait_published($id);
}

sub cut_source
{
	my ($self) = @_;
	$self->cut($self->source($_)) foreach $self->ids;
}

=pod

=head2 $c->digest($node, $table)

What a table holds, as a number of rows and a checksum of all of them.

=cut

sub digest
{
	my ($self, $node, $table) = @_;
	return $node->safe_psql('postgres',
		# of digests, since a text has 1 GB at most
		"SELECT count(*), md5(coalesce(string_agg(md5(t::text), '' ORDER BY md5(t::text)), '')) FROM $table t");
}

1;
