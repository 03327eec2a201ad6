
# A primary is lost and its mirror takes over, as Greenplum's fault tolerance
# service decides; the mirror goes on publishing, and the remote segment follows
# it to its timeline.  Publishing does not weaken what a mirror is for.

use strict;
use warnings;

use Test::More;

use Greenplum;

my $c = Greenplum->new('failover', segments => 2, mirrors => 1);

$c->start_source;
$c->sql('CREATE TABLE t (a int, b text) DISTRIBUTED BY (a)');
$c->start_remote;
$c->sql(q{INSERT INTO t SELECT i, 'before' FROM generate_series(1, 2000) i});
$c->wait_applied($c->create_point('before'));

# commits wait for the mirror, not for Kafka
my $primary = $c->server('main', 0);
is($c->query($primary, 'SHOW synchronous_standby_names'), '*', 'the primary has a synchronous mirror');
is($c->query($primary, q{SELECT string_agg(application_name, ',' ORDER BY application_name)
		FROM pg_stat_replication WHERE sync_state = 'sync'}), 'gp_walreceiver', 'which is the mirror alone');
is($c->sql(q{SELECT string_agg(application_name || ' ' || sync_state, ', ' ORDER BY application_name)
		FROM gp_stat_replication WHERE gp_segment_id = 0}), 'gp_walreceiver sync, multisite potential', 'and gp_stat_replication says so, too');

$c->sql(q{INSERT INTO t SELECT i, 'behind the point' FROM generate_series(1, 1000) i});
$c->cut($primary);
$c->{main}{0} = delete $c->{mirror}{0};
$c->wait_for($c->server('main', -1), q{SELECT gp_request_fts_probe_scan();
	SELECT count(*) = 1 FROM gp_segment_configuration WHERE content = 0 AND role = 'p' AND preferred_role = 'm'});
$c->wait_for($c->server('main', -1), q{SELECT count(*) = 3000 FROM t});
$c->wait_published(0);

$c->sql(q{INSERT INTO t SELECT i, 'after the failover' FROM generate_series(1, 1000) i});
my $digest = $c->digest('main', 't');
$c->create_point('after');
$c->wait_applied('after');
is($c->query($c->server('dr', 0), q{SELECT timeline FROM multisite_status WHERE worker = 'receiver'}), '2',
	'the remote segment follows to the new timeline');
is($c->query($c->server('dr', 1), q{SELECT timeline FROM multisite_status WHERE worker = 'receiver'}), '1',
	'the other one stays on its own');
is($c->sql(q{SELECT segments FROM multisite_consistency_points WHERE name = 'after'}), '3', 'the point has all segments');

$c->sql('DELETE FROM t');
$c->cut_source;
my ($name) = $c->promote;
is($name, 'after', 'promoted at the point after the failover');
my ($out, $err);
$c->rewrite_catalog;
$c->query($c->server('dr', -1), q{INSERT INTO gp_segment_configuration
	SELECT 99::int2, 1::int2, 'm', 'm', 'n', 'd', 1, address, address, '/nowhere' FROM gp_segment_configuration
	WHERE content = 1}, options => ' -c allow_system_table_mods=on');
($out, $err) = $c->psql($c->server('dr', -1), 'SELECT multisite_accept_configuration()');
like($err, qr/gp_segment_configuration has 1 mirrors/, 'a mirror is the source\'s');
# Greenplum's catalog knows the source's mirror by another dbid
$c->rewrite_catalog;
$c->query($c->server('dr', -1), "UPDATE gp_segment_configuration SET dbid = $c->{main}{0}{dbid} WHERE content = 0",
	options => ' -c allow_system_table_mods=on');
($out, $err) = $c->psql($c->server('dr', -1), 'SELECT multisite_accept_configuration()');
like($err, qr/gp_segment_configuration has dbid $c->{main}{0}{dbid} for content 0/, 'a dbid is the source\'s');
$c->configure;
is($c->digest('dr', 't'), $digest, 'the remote cluster is exactly at it');
$c->remote_sql(q{INSERT INTO t SELECT i, 'a new life' FROM generate_series(1, 1000) i});
is($c->remote_sql('SELECT count(*) FROM t'), '5000', 'and is writable without mirrors');

done_testing();
