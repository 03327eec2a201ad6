
# The whole story on Greenplum: a coordinator and three primaries are
# replicated under load, the source site is lost, the remote site is promoted
# at its last point, gets its own segments' addresses, and runs: what was
# written before the point is there, what was written after it is not.

use strict;
use warnings;

use Test::More;

use Greenplum;

my $c = Greenplum->new('story');
my @tables = ('heap', 'by_b', 'everywhere', 'ao_row', 'ao_column');

$c->start_source;
is($c->sql('SHOW multisite.segment_id'), '-1', 'the coordinator is segment -1');
is($c->query($c->server('main', $_), 'SHOW multisite.segment_id'), $_, "content $_ is segment $_") foreach $c->primaries;
is($c->sql(q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		JOIN gp_distribution_policy ON localoid = c.oid WHERE nspname = 'multisite'}),
	'0', 'the tables of the extension are the coordinator\'s own');
$c->sql('CREATE TABLE heap (a int, b text) DISTRIBUTED BY (a)');
$c->start_remote;

# a point needs nobody to register the segments
$c->sql(q{INSERT INTO heap SELECT i, 'before' FROM generate_series(1, 10000) i});
my $point = $c->create_point('first');
is($point, 'first', 'a point is made');
is($c->sql(q{SELECT segments FROM multisite_consistency_points WHERE name = 'first'}), '4', 'of all segments');
$c->wait_applied('first');
is($c->sql(q{SELECT multisite_wait_for_consistency_point('first')}), 't', 'the source hears that it is applied');
my ($out, $err, $status) = $c->psql($c->server('main', -1), q{SELECT multisite_create_consistency_point('first')});
like($err, qr/consistency point "first" exists already/, 'a name is used once');

# tables of each kind, made after the base backups
$c->sql(q{
	CREATE TABLE by_b (a int, b text) DISTRIBUTED BY (b);
	CREATE TABLE everywhere (a int, b text) DISTRIBUTED REPLICATED;
	CREATE TABLE ao_row (a int, b text) WITH (appendonly = true) DISTRIBUTED BY (a);
	CREATE TABLE ao_column (a int, b text) WITH (appendonly = true, orientation = column) DISTRIBUTED BY (a);
	CREATE INDEX ON ao_column (a)});
$c->sql("INSERT INTO $_ SELECT i, 'row ' || i FROM generate_series(1, 5000) i") foreach @tables;
$c->wait_applied($c->create_point('tables'));

# a load on several segments, and points meanwhile
$c->start_clients(3, sub {
	my ($session, $client, $n) = @_;
	my $table = $tables[$n % @tables];
	return $session->("INSERT INTO $table SELECT i, 'load $client' FROM generate_series($n, $n + 50) i") eq '';
});
my $last;
$last = $c->create_point foreach 1 .. 5;
$c->wait_applied($last);
is($c->stop_clients, 0, 'no client saw an error');
cmp_ok($c->sql(q{SELECT max(barrier_ms) FROM multisite_consistency_points}), '<', 5000, 'no barrier timed out');
$c->sql(q{DELETE FROM ao_row WHERE a % 7 = 0; UPDATE ao_column SET b = 'changed' WHERE a % 5 = 0; VACUUM ao_row});

# the last point, and what comes too late for it
my %digest = map { $_ => $c->digest('main', $_) } @tables;
$c->create_point('before_the_fire');
$c->sql("INSERT INTO $_ SELECT i, 'after the point' FROM generate_series(1, 1000) i") foreach @tables;
$c->wait_published($_) foreach $c->ids;
$c->wait_applied('before_the_fire', 'staged');

# a copy of a coordinator must not reach the source's segments
my $coordinator = $c->server('dr', -1);
my $refused = qr/this coordinator must not start in dispatch role/;
$c->stop($coordinator);
$coordinator->{role} = 'dispatch';
ok(!$c->starts($coordinator), 'the remote coordinator refuses dispatch role');
like(Greenplum::slurp($coordinator->{log}), $refused, 'and says why');
$coordinator->{role} = 'utility';
$c->start($coordinator);
$c->cut_source;

my ($name, $notices) = $c->promote;
is($name, 'before_the_fire', 'promoted at the last point');
like($notices, qr/segment $_ accepts writes/, "NOTICE about segment $_") foreach $c->primaries;
($out, $err) = $c->psql($coordinator, 'SELECT multisite_accept_configuration()');
like($err, qr/does not name this server as the coordinator/, 'the source\'s addresses are not accepted');
$c->stop($coordinator);
$coordinator->{role} = 'dispatch';
ok(!$c->starts($coordinator), 'the promoted coordinator refuses dispatch role, too');
$coordinator->{role} = 'utility';
$c->start($coordinator);
like($c->query($coordinator, q{SELECT reason FROM multisite_status WHERE worker = 'points'}),
	qr/utility role/, 'and makes no points in utility role');

# one of the segments is wrong: the source's of another content id would do as well
$c->rewrite_catalog;
my ($one, $other) = map { $c->server('dr', $_)->{port} } 0, 1;
my $swap = sub {
	$c->query($coordinator, "UPDATE gp_segment_configuration SET port = CASE port WHEN $one THEN $other ELSE $one END
		WHERE port IN ($one, $other)", options => ' -c allow_system_table_mods=on');
};
$swap->();
($out, $err) = $c->psql($coordinator, 'SELECT multisite_accept_configuration()');
like($err, qr/segment 0 of site "dr" could not be used/, 'a wrong address is found');
$swap->();
$c->configure;

is($c->digest('dr', $_), $digest{$_}, "table $_ holds exactly the point") foreach @tables;
# a control: one row of one segment is not as it was
foreach my $table (@tables)
{
	$c->query($c->server('dr', 2), "DELETE FROM $table WHERE a IN (SELECT a FROM $table LIMIT 1)");
	isnt($c->digest('dr', $table), $digest{$table}, "and it is seen if a segment lacks a row of $table");
}
is($c->remote_sql('SELECT count(*) FROM gp_dist_random(\'pg_prepared_xacts\')'), '0', 'nothing is in doubt');
$c->remote_sql("INSERT INTO $_ SELECT i, 'a new life' FROM generate_series(1, 1000) i") foreach @tables;
$c->remote_sql('CREATE TABLE later (a int) DISTRIBUTED BY (a); INSERT INTO later SELECT generate_series(1, 100)');
is($c->remote_sql('SELECT count(*) FROM later'), '100', 'the remote cluster is writable');
# the coordinator was restarted meanwhile, which tells once where the WAL ends
foreach my $id ($c->primaries)
{
	my $log = Greenplum::slurp($c->server('dr', $id)->{log});
	unlike($log, qr/waiting for WAL to become available/, "segment $id kept its log quiet");
	unlike($log, qr/invalid record length/, "segment $id kept its log quiet about the ends of points");
}

# it is a source now, with points of its own
$c->wait_for($coordinator, q{SELECT state = 'waiting' FROM multisite_status WHERE worker = 'points'});
is($c->remote_sql(q{SELECT multisite_create_consistency_point('second_life')}), 'second_life',
	'the promoted site makes points');
is($c->remote_sql(q{SELECT segments FROM multisite_consistency_points WHERE name = 'second_life'}), '4',
	'on all of its segments');
$c->stop($c->server('dr', $_)) foreach -1, $c->primaries;

done_testing();
