
=pod

=head1 NAME

Greenplum - a Greenplum cluster with a remote site, for tests

=head1 SYNOPSIS

  use Greenplum;

  my $c = Greenplum->new('story', segments => 3);
  $c->start_source;
  $c->sql('CREATE TABLE t (a int) DISTRIBUTED BY (a)');
  $c->start_remote;
  my $point = $c->create_point;
  $c->wait_applied($point);
  $c->cut_source;
  $c->promote;
  $c->configure;
  is($c->remote_sql('SELECT count(*) FROM t'), '0');

=head1 DESCRIPTION

The clusters are made by hand, with initdb, as Greenplum's own demo cluster is
made: a server is a hash with its content id, dbid, directory, port and role.
PostgreSQL's test modules are not used: a Greenplum installation seldom has
them, and under Greenplum 7's names.  The programs are those of PATH.

=cut

package Greenplum;

use strict;
use warnings;

use Cwd ();
use File::Path ();
use File::Temp ();
use IO::Socket::INET;
use IPC::Run;
use POSIX ();
use Test::More;
use Time::HiRes qw(time usleep);

our $timeout = $ENV{PG_TEST_TIMEOUT_DEFAULT} // 180;

my $instance = 0;
my @started;

=pod

=head2 Greenplum->new($name, %options)

segments: how many primaries besides the coordinator (3).  mirrors: 1 to give
each of them a mirror; standby: 1 to give the coordinator one.  conf: more lines for every postgresql.conf.

=cut

sub new
{
	my ($class, $name, %options) = @_;
	my $self = bless {
		name => $name,
		cluster => sprintf('gp_%s_%d_%d_%d', $name, time(), $$, $instance++),
		segments => $options{segments} // 3,
		mirrors => $options{mirrors} // 0,
		standby => $options{standby} // 0,
		conf => $options{conf} // '',
		dir => Cwd::abs_path($ENV{TESTDATADIR} // '.') . "/$name",
		# the path of a socket must be short
		sockets => File::Temp::tempdir(CLEANUP => 1),
		main => {},
		dr => {},
		mirror => {},
	}, $class;

	die "MULTISITE_BROKERS is not set: use test/run --greenplum" unless $ENV{MULTISITE_BROKERS};
	File::Path::make_path($self->{dir});
	return $self;
}

sub ids { my ($self) = @_; return (-1 .. $self->{segments} - 1); }
sub primaries { my ($self) = @_; return (0 .. $self->{segments} - 1); }

# The servers of a site: main, dr or mirror.
sub server { my ($self, $site, $id) = @_; return $self->{$site}{$id}; }

my %taken;

sub free_port
{
	while (1)
	{
		my $port = 10000 + int(rand(10000));

		next if $taken{$port}++;
		return $port
		  if IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1);
	}
}

=pod

=head2 command($program, @arguments)

Runs a program that must work; returns its output.

=cut

sub command
{
	my (@command) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err)
	  or die "@command: $out$err";
	chomp $out;
	return $out;
}

sub append
{
	my ($file, $text) = @_;
	open(my $out, '>>', $file) or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
}

sub slurp
{
	my ($file) = @_;
	open(my $in, '<', $file) or return '';
	local $/;
	return <$in>;
}

# Describes a server; dbids are the same at both sites, but for mirrors'.
sub describe
{
	my ($self, $site, $id) = @_;
	my $name = $id < 0 ? 'coordinator' : "seg$id";

	return $self->{$site}{$id} = {
		name => "${site}_$name",
		content => $id,
		dbid => $id + 2 + ($site ne 'mirror' ? 0 : $id < 0 ? ($self->{mirrors} + 1) * $self->{segments} + 1 : $self->{segments}),
		dir => "$self->{dir}/${site}_$name",
		log => "$self->{dir}/${site}_$name.log",
		port => free_port(),
		host => $self->{sockets},
		role => $id < 0 ? 'dispatch' : 'execute',
	};
}

=pod

=head2 start($server), stop($server, $mode), cut($server)

Starts a server in its role; ends it; ends it as a power cut would.

=cut

sub start
{
	my ($self, $server) = @_;

	push @started, $server unless grep { $_ == $server } @started;
	# by it a coordinator reaches itself, which some queries need
	local $ENV{PGHOST} = $server->{host};
	# not a child of ours that could hold our output open
	return if system("pg_ctl -D '$server->{dir}' -l '$server->{log}' -w -t $timeout "
		  . "-o '-c gp_role=$server->{role}' start </dev/null >/dev/null 2>&1") == 0;
	die "$server->{name} does not start:\n" . substr(slurp($server->{log}), -3000);
}

sub starts
{
	my ($self, $server) = @_;
	return eval { $self->start($server); 1 } ? 1 : 0;
}

sub stop
{
	my ($self, $server, $mode) = @_;
	command('pg_ctl', '-D', $server->{dir}, '-m', $mode // 'fast', '-w', '-t', $timeout, 'stop');
}

sub postmaster
{
	my ($server) = @_;
	my ($pid) = slurp("$server->{dir}/postmaster.pid") =~ /^(\d+)/;
	return $pid;
}

sub is_gone
{
	my ($pid) = @_;
	return 1 unless kill(0, $pid);
	return slurp("/proc/$pid/stat") =~ /\) Z/ ? 1 : 0;
}

sub cut
{
	my ($self, $server) = @_;
	my $postmaster = postmaster($server);

	# it must not start more while we look
	kill 'STOP', $postmaster;
	my @children = split /\s+/, `pgrep -P $postmaster`;
	kill 'KILL', $postmaster, @children;
	foreach my $pid ($postmaster, @children)
	{
		usleep(10_000) until is_gone($pid);
	}
	unlink "$server->{dir}/postmaster.pid", "$server->{host}/.s.PGSQL.$server->{port}.lock";
}

sub cut_source
{
	my ($self) = @_;
	$self->cut($_) foreach values %{ $self->{main} }, values %{ $self->{mirror} };
}

# What is still running when a test ends.
END
{
	my $status = $?;

	foreach my $server (@started)
	{
		my $pid = postmaster($server);
		next if !$pid || is_gone($pid);
		system("pg_ctl -D '$server->{dir}' -m immediate stop >/dev/null 2>&1");
	}
	$? = $status;
}

=pod

=head2 $c->psql($server, $sql, %options)

(output, errors, status) of a session; role: dispatch or utility (default: the
server's own, utility on a segment).  query() dies unless it works.

=cut

sub psql
{
	my ($self, $server, $sql, %options) = @_;
	my $role = $options{role} // ($server->{role} eq 'dispatch' ? 'dispatch' : 'utility');
	my ($out, $err) = ('', '');

	# a session may only choose utility; a coordinator dispatches by itself
	local $ENV{PGOPTIONS} = ($role eq 'utility' ? '-c gp_role=utility' : '') . ($options{options} // '');
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $self->connstr($server), '-f', '-' ],
		'<', \$sql, '>', \$out, '2>', \$err);
	my $status = $?;
	chomp $out;
	return ($out, $err, $status);
}

sub connstr { my ($self, $server) = @_; return "host=$server->{host} port=$server->{port} dbname=postgres"; }

sub query
{
	my ($self, $server, $sql, %options) = @_;
	my ($out, $err, $status) = $self->psql($server, $sql, %options);

	die "$server->{name}: $sql\n$err" if $status != 0;
	return $out;
}

# On the source and on the remote coordinator, in their role.
sub sql { my ($self, $sql) = @_; return $self->query($self->{main}{-1}, $sql); }
sub remote_sql { my ($self, $sql) = @_; return $self->query($self->{dr}{-1}, $sql); }

# Waits until a query, the last of some, gives true; on failure shows what the workers say.
sub wait_for
{
	my ($self, $server, $query, %options) = @_;
	my $until = time() + $timeout;
	my ($out, $err);

	while (time() < $until)
	{
		($out, $err) = $self->psql($server, $query, %options);
		return 1 if $out =~ /^t\z/m;
		usleep(100_000);
	}
	diag("$server->{name} does not get there: $query");
	diag($err) if $err;
	diag(($self->psql($server, 'SELECT worker, state, reason, last_error FROM multisite_status', role => 'utility'))[0]);
	die "timed out";
}

=pod

=head2 $c->start_source, $c->start_remote

A cluster that publishes; and its copy, from base backups, that follows it.

=cut

# initdb is slow, and a directory can be copied: each test takes the same ones
sub initialize
{
	my ($server) = @_;
	my $template = Cwd::abs_path("$ENV{TESTDIR}/..") . "/greenplum_initdb.$server->{content}";

	if (!-d $template)
	{
		command('initdb', '-D', "$template.new", '-E', 'UTF8', '--locale=C', '--no-sync', '-k');
		rename "$template.new", $template or die "$template: $!";
	}
	command('cp', '-a', $template, $server->{dir});
}

sub init_source
{
	my ($self, $id) = @_;
	my $server = $self->describe('main', $id);

	initialize($server);
	append("$server->{dir}/internal.auto.conf", "gp_dbid=$server->{dbid}\n");
	append("$server->{dir}/pg_hba.conf", <<"EOC");
local all all trust
host all all 127.0.0.1/32 trust
local replication all trust
host replication all 127.0.0.1/32 trust
EOC
	append("$server->{dir}/postgresql.conf", <<"EOC");
gp_contentid = $id
port = $server->{port}
listen_addresses = '127.0.0.1'
unix_socket_directories = '$server->{host}'
shared_buffers = 32MB
max_connections = 60
max_prepared_transactions = 60
wal_level = replica
max_wal_senders = 10
wal_retrieve_retry_interval = 5s
fsync = off
logging_collector = off
log_min_messages = log
gp_fts_probe_interval = 10
shared_preload_libraries = 'multisite_repl'
multisite.cluster_name = '$self->{cluster}'
multisite.site_name = 'main'
multisite.brokers = '$ENV{MULTISITE_BROKERS}'
multisite.replication_factor = 1
multisite.publish = on
$self->{conf}
EOC
	return $server;
}

sub start_source
{
	my ($self) = @_;
	my $coordinator = $self->{main}{-1} = $self->init_source(-1);

	$self->init_source($_) foreach $self->primaries;
	$coordinator->{role} = 'utility';
	$self->start($coordinator);
	foreach my $id ($self->ids)
	{
		my $s = $self->{main}{$id};
		$self->query($coordinator, "SELECT gp_add_segment($s->{dbid}::int2, $id\::int2, 'p', 'p', "
			  . "'s', 'u', $s->{port}, '127.0.0.1', '127.0.0.1', '$s->{dir}')");
	}
	$self->stop($coordinator);
	$coordinator->{role} = 'dispatch';
	$self->start($self->{main}{$_}) foreach $self->primaries, -1;
	$self->add_mirror($_) foreach $self->{mirrors} ? $self->primaries : ();
	$self->add_mirror(-1) if $self->{standby};
	$self->sql('CREATE EXTENSION multisite_repl');
	$self->wait_published($_) foreach $self->ids;
}

# As Greenplum's tools make one: a copy that streams, by the name that it
# knows a mirror by.
sub add_mirror
{
	my ($self, $id) = @_;
	my $primary = $self->{main}{$id};
	my $mirror = $self->describe('mirror', $id);

	command('pg_basebackup', '-h', '127.0.0.1', '-p', $primary->{port}, '-D', $mirror->{dir}, '-c', 'fast',
		'--no-sync', '--wal-method=stream', '--create-slot', '--slot=internal_wal_replication_slot', '-R',
		'--target-gp-dbid', $mirror->{dbid});
	append("$mirror->{dir}/postgresql.conf", "port = $mirror->{port}\n");
	if ($id < 0)
	{
		$self->query($primary, "SELECT gp_add_master_standby('127.0.0.1', '127.0.0.1', '$mirror->{dir}', $mirror->{port})",
			role => 'utility');
		# Greenplum tells distributed transactions of one start from those of
		# another by the second
		sleep 1;
		$self->start($mirror);
		$self->wait_for($primary, q{SELECT bool_or(sync_state = 'sync') FROM pg_stat_replication});
		return;
	}
	$self->start($mirror);
	$self->query($self->{main}{-1}, "SELECT gp_add_segment_mirror($id\::int2, '127.0.0.1', '127.0.0.1', "
		  . "$mirror->{port}, '$mirror->{dir}')", role => 'utility');
	$self->wait_for($self->{main}{-1}, "SELECT gp_request_fts_probe_scan();
		SELECT bool_and(mode = 's') FROM gp_segment_configuration WHERE content = $id");
}

# The publisher has nothing left to publish.
sub wait_published
{
	my ($self, $id) = @_;
	$self->wait_for($self->{main}{$id}, q{
		SELECT state = 'waiting' FROM multisite_status WHERE worker = 'publisher'}, role => 'utility');
}

sub init_remote
{
	my ($self, $id) = @_;
	my $source = $self->{main}{$id};
	my $server = $self->describe('dr', $id);

	command('pg_basebackup', '-h', '127.0.0.1', '-p', $source->{port}, '-D', $server->{dir}, '-c', 'fast',
		'--no-sync', '--target-gp-dbid', $server->{dbid});
	append("$server->{dir}/postgresql.conf", <<"EOC");
port = $server->{port}
hot_standby = on
multisite.site_name = 'dr'
multisite.source_site = 'main'
EOC
	# what the source's fault tolerance has set for its own mirrors
	append("$server->{dir}/postgresql.auto.conf", "synchronous_standby_names = ''\n");
	append("$server->{dir}/standby.signal", '');
	$server->{role} = 'utility' if $id < 0;
	return $server;
}

sub start_remote
{
	my ($self) = @_;
	$self->start($self->init_remote($_)) foreach $self->primaries, -1;
}

=pod

=head2 $c->copy_remote($id)

A copy of a remote segment as it is now, on a port of its own, that is not
started; it goes no further, since it does without the extension.

=cut

sub copy_remote
{
	my ($self, $id) = @_;
	my $server = $self->{dr}{$id};
	my $copy = { %$server, name => "copy_$server->{name}", dir => "$self->{dir}/copy_$server->{name}", port => free_port() };

	$copy->{log} = "$copy->{dir}.log";
	$self->stop($server);
	command('cp', '-a', $server->{dir}, $copy->{dir});
	$self->start($server);
	append("$copy->{dir}/postgresql.conf", "port = $copy->{port}\nshared_preload_libraries = ''\n");
	return $copy;
}

=pod

=head2 $c->delay_restore_point($id, $seconds)

Makes a source segment's restore points late, by a wrapper around the function
that writes them: what makes a point has to hold for all that time.

=cut

sub delay_restore_point
{
	my ($self, $id, $seconds) = @_;

	$self->query($self->{main}{$id}, "
		ALTER FUNCTION pg_catalog.pg_create_restore_point(text) RENAME TO pg_create_restore_point_now;
		CREATE FUNCTION pg_catalog.pg_create_restore_point(name text) RETURNS pg_lsn LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM pg_sleep($seconds);
			RETURN pg_catalog.pg_create_restore_point_now(name);
		END \$\$", options => ' -c allow_system_table_mods=on');
}

=pod

=head2 Points and promotion, as in Multisite.pm

=cut

sub create_point
{
	my ($self, $name) = @_;
	return $self->sql('SELECT multisite_create_consistency_point(' . (defined $name ? "'$name'" : '') . ')');
}

sub wait_applied
{
	my ($self, $point, $state) = @_;
	$state //= 'applied';
	my $reached = $self->remote_sql("SELECT multisite_wait_for_consistency_point('$point', '$state', '$timeout s')");

	return 1 if $reached eq 't';
	diag($self->remote_sql('SELECT * FROM multisite_segments'));
	diag($self->remote_sql('SELECT worker, state, reason, last_error FROM multisite_status'));
	die "point $point is not $state on the remote site";
}

sub promote
{
	my ($self, $point) = @_;
	my ($out, $err, $status) = $self->psql($self->{dr}{-1},
		'SELECT multisite_promote(' . (defined $point ? "'$point'" : '') . ')');

	return ($out, $err) if $status == 0;
	die "promotion failed: $err";
}

# Writes the remote site's addresses into the promoted coordinator's catalog.
sub rewrite_catalog
{
	my ($self) = @_;
	my $sql = "DELETE FROM gp_segment_configuration WHERE role = 'm';\n";

	foreach my $id ($self->ids)
	{
		my $s = $self->{dr}{$id};
		$sql .= "UPDATE gp_segment_configuration SET dbid = $s->{dbid}, port = $s->{port}, hostname = '127.0.0.1', "
		  . "address = '127.0.0.1', datadir = '$s->{dir}', preferred_role = 'p', mode = 'n', status = 'u' "
		  . "WHERE content = $id;\n";
	}
	$self->query($self->{dr}{-1}, $sql, options => ' -c allow_system_table_mods=on');
}

sub configure
{
	my ($self) = @_;
	my $coordinator = $self->{dr}{-1};

	$self->rewrite_catalog;
	$self->remote_sql('SELECT multisite_accept_configuration()');
	$self->stop($coordinator);
	$coordinator->{role} = 'dispatch';
	$self->start($coordinator);
}

# What a table holds, seen from a coordinator and on each segment: of a
# replicated table the coordinator reads one segment only.
sub digest
{
	my ($self, $site, $table) = @_;
	return join("\n", map {
		$self->query($self->{$site}{$_},
			"SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM $table t") } $self->ids);
}

=pod

=head2 $c->start_clients($n, $step), $c->stop_clients

Processes that each call $step->($session, $client, $n) again and again, with
a session on the source coordinator, until it returns false.  $session->($sql)
returns the output, errors included.

=cut

sub start_clients
{
	my ($self, $clients, $step) = @_;

	unlink "$self->{dir}/stop";
	foreach my $client (1 .. $clients)
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		if ($pid)
		{
			push @{ $self->{clients} }, $pid;
			next;
		}
		eval {
			my ($in, $out) = ('', '');
			local $ENV{PGOPTIONS} = '';
			my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $self->connstr($self->{main}{-1}), '-f', '-' ],
				'<', \$in, '>', \$out, '2>&1');
			my $session = sub {
				my ($sql) = @_;
				$out = '';
				$in .= "$sql;\n\\echo --done--\n";
				until ($out =~ s/^--done--\n//m)
				{
					die "the session ended: $out" unless $psql->pumpable;
					$psql->pump;
				}
				chomp $out;
				return $out;
			};
			srand($$);
			for (my $n = 1; !-e "$self->{dir}/stop"; $n++)
			{
				last unless $step->($session, $client, $n);
			}
		};
		append("$self->{dir}/client$client", $@) if $@;
		# neither destructors nor END blocks: the servers are the parent's
		POSIX::_exit($@ ? 1 : 0);
	}
}

# Returns how many ended by an error, which is normal if the source was cut.
sub stop_clients
{
	my ($self) = @_;
	my $failed = 0;

	append("$self->{dir}/stop", '');
	foreach my $pid (splice @{ $self->{clients} })
	{
		waitpid($pid, 0);
		$failed++ if $? != 0;
	}
	return $failed;
}

1;
