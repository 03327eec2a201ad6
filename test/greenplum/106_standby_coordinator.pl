
# The coordinator has a standby, and the publisher does not take its place:
# commits wait for the standby, whatever the publisher says.  When the standby
# has been promoted it publishes, and the remote coordinator follows it.

use strict;
use warnings;

use Test::More;

use Greenplum;

my $c = Greenplum->new('standby', segments => 2, standby => 1);

$c->start_source;
$c->sql('CREATE TABLE t (a int, b text) DISTRIBUTED BY (a)');
$c->start_remote;
$c->sql(q{INSERT INTO t SELECT i, 'before' FROM generate_series(1, 2000) i});
$c->wait_applied($c->create_point('before'));

my $coordinator = $c->server('main', -1);
is($c->sql(q{SELECT string_agg(application_name || ' ' || state || ' ' || sync_state, ', ' ORDER BY application_name)
		FROM pg_stat_replication}), 'gp_walreceiver streaming sync, multisite startup async', 'the standby alone is synchronous');

# a standby that does not answer, while Kafka does
my ($receiver) = split /\s+/, `pgrep -P @{[ Greenplum::postmaster($c->server('mirror', -1)) ]} -f 'walreceiver|wal receiver'`;
ok($receiver, 'the standby has a receiver');
kill 'STOP', $receiver;
$c->start_clients(1, sub {
	my ($session) = @_;
	return $session->('CREATE TABLE waits (a int) DISTRIBUTED BY (a)') ne '';
});
$c->wait_for($coordinator, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'}, role => 'utility');
my $end = $c->query($coordinator, 'SELECT pg_current_wal_flush_lsn()', role => 'utility');
$c->wait_for($coordinator, "SELECT published_lsn >= '$end' FROM multisite_status WHERE worker = 'publisher'", role => 'utility');
is($c->query($coordinator, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}, role => 'utility'), '1',
	'a commit waits for the standby, though Kafka has it');
kill 'CONT', $receiver;
is($c->stop_clients, 0, 'and ends when that has it');

# the standby takes over, as by gpactivatestandby
$c->sql(q{INSERT INTO t SELECT i, 'behind the point' FROM generate_series(1, 1000) i});
$c->cut($coordinator);
$coordinator = $c->{main}{-1} = delete $c->{mirror}{-1};
Greenplum::command('pg_ctl', '-D', $coordinator->{dir}, '-w', '-t', $Greenplum::timeout, 'promote');
$c->wait_for($coordinator, q{SELECT count(*) = 3000 FROM t});
$c->wait_published(-1);
$c->sql(q{INSERT INTO t SELECT i, 'after the failover' FROM generate_series(1, 1000) i});
my $digest = $c->digest('main', 't');
$c->create_point('after');
$c->wait_applied('after');
is($c->remote_sql(q{SELECT timeline FROM multisite_status WHERE worker = 'receiver'}), '2',
	'the remote coordinator follows to the new timeline');

$c->sql('DELETE FROM t');
$c->cut_source;

# the remote coordinator is a copy of the one that the catalog no longer knows,
# and would end its recovery by a FATAL
my $remote = $c->server('dr', -1);
my ($out, $err) = $c->psql($remote, 'SELECT multisite_promote()');
like($err, qr/this server is not the coordinator that its gp_segment_configuration names/, 'it is not promoted as it is');
like($err, qr/Write gp_dbid = $coordinator->{dbid} into internal.auto.conf/, 'and says what to do');
$c->stop($remote);
$remote->{dbid} = $coordinator->{dbid};
Greenplum::append("$remote->{dir}/internal.auto.conf", "gp_dbid=$remote->{dbid}\n");
$c->start($remote);
my ($name) = $c->promote;
is($name, 'after', 'promoted at the point after the failover');
$c->configure;
is($c->digest('dr', 't'), $digest, 'the remote cluster is exactly at it');

done_testing();
