
# A verified point tells whether both sites hold the same, by reading them.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('verify', segments => 1, conf => q{
autovacuum = off
multisite.consistency_point_interval = '300ms'
});

$c->start_source;
foreach my $id ($c->ids)
{
	$c->sql($id, q{
		CREATE TABLE counter (client int PRIMARY KEY, n int);
		INSERT INTO counter SELECT i, 0 FROM generate_series(1, 3) i;
		CREATE SCHEMA "odd 'schema";
		CREATE TABLE "odd 'schema"."T""1" (a timestamptz, b float8, c bytea, d money, e interval);
		INSERT INTO "odd 'schema"."T""1" SELECT now(), 1.0 / i, '\xdeadbeef', i, '1 day' FROM generate_series(1, 100) i;
		CREATE TABLE quiet (t text);
		INSERT INTO quiet SELECT 'untouched row ' || i FROM generate_series(1, 1000) i;
		CREATE TABLE part (a int) PARTITION BY RANGE (a);
		CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (1000);
		INSERT INTO part SELECT generate_series(1, 500);
		CREATE UNLOGGED TABLE unlogged (a int);
		INSERT INTO unlogged VALUES (1);
		SELECT lo_from_bytea(0, 'large');
		CREATE TABLE trap (a int);
		INSERT INTO trap VALUES (1);
		CREATE FUNCTION trap_text(trap) RETURNS text LANGUAGE sql AS $$SELECT (1 / 0)::text$$;
		CREATE CAST (trap AS text) WITH FUNCTION trap_text(trap)});
	$c->sql($id, 'CREATE DATABASE "other db"');
	$c->source($id)->safe_psql('other db', 'CREATE TABLE here (a int); INSERT INTO here VALUES (42)');
	# text of the same value may differ by role and database
	$c->sql($id, q{ALTER DATABASE "other db" SET timezone = 'Asia/Tokyo'});
}
$c->start_remote;
$c->wait_applied($c->create_point);

# each client counts in one transaction after the other, on all segments
my @writers = map { Session->new($c->source($_)) } $c->ids;
sub begin_load
{
	$_->begin(q{
		SET statement_timeout = '20s';
		DO $$BEGIN LOOP
			UPDATE counter SET n = n + 1; COMMIT;
			EXIT WHEN EXISTS (SELECT FROM pg_tables WHERE tablename = 'stop');
		END LOOP; END$$}) foreach @writers;
}

sub end_load
{
	$c->sql($_, 'CREATE TABLE stop ()') foreach $c->ids;
	unlike($_->end, qr/ERROR/, 'the load went on') foreach @writers;
	$c->sql($_, 'DROP TABLE stop') foreach $c->ids;
}

sub verify
{
	my ($point, $columns, $tables) = @_;
	return $c->remote_sql(-1, "SELECT $columns FROM multisite_verify('$point'"
		  . ($tables ? ", '$tables'" : '') . ')');
}

begin_load();
foreach my $round (1 .. 4)
{
	$c->remote_sql(-1, 'SELECT multisite_pause()');
	$c->sql(-1, "SELECT multisite_create_verified_point('v$round')");
	is(verify("v$round", q{count(*) FILTER (WHERE result <> 'equal')}), '0', "both sites are equal at v$round");
}
$c->remote_sql(-1, 'SELECT multisite_pause()');
my $point = $c->sql(-1, 'SELECT multisite_create_verified_point()');
end_load();
is( verify($point, q{string_agg(format('%s %s %s %s', segment_id, database, table_name, result), E'\n')
		FILTER (WHERE table_name NOT LIKE 'multisite.%')}),
	join("\n", map {;
			"$_ other db pg_catalog.pg_largeobject equal", "$_ other db public.here equal", "$_ postgres \"odd 'schema\".\"T\"\"1\" equal",
			"$_ postgres pg_catalog.pg_largeobject equal", "$_ postgres public.counter equal",
			"$_ postgres public.part1 equal", "$_ postgres public.quiet equal", "$_ postgres public.trap equal" } $c->ids),
	'all tables of all databases that WAL carries are compared');
ok($c->sql(-1, 'SELECT min(n) FROM counter') > 100, 'there was a load');

# --- without a pause: the site waits for the point

my $verifier = Session->new($c->remote(-1));
$verifier->begin(q{SELECT segment_id, source_rows, remote_rows, result FROM multisite_verify('awaited', '{public.quiet}')});
$c->wait_for($c->remote(-1), q{SELECT reason = 'a session verifies a consistency point'
	FROM multisite_status WHERE worker = 'orchestrator'});
pass('the status says why nothing is released');
my ($out, $err);
$c->remote(-1)->psql('postgres', q{SELECT * FROM multisite_verify('awaited')}, stderr => \$err);
like($err, qr/another session verifies a consistency point/, 'one session at a time');
$c->sql(-1, q{SELECT multisite_create_verified_point('awaited', '{public.quiet}')});
is($verifier->end, "-1|1000|1000|equal\n0|1000|1000|equal", 'a table can be chosen, and the verification begun first');

# --- a session that leaves lets the site go on

$verifier->begin(q{SELECT * FROM multisite_verify('never made')});
$c->wait_for($c->remote(-1), q{SELECT state = 'paused' FROM multisite_status WHERE worker = 'orchestrator'});
$c->remote_sql(-1, 'SELECT pg_terminate_backend(' . $verifier->pid . ')');
$verifier->end;
$c->sql(0, 'UPDATE counter SET n = 0');
$c->wait_for($c->remote(0), 'SELECT sum(n) = 0 FROM counter');
pass('the end of a verifying session lets the site go on');

# --- what is refused

sub refused
{
	my ($node, $sql, $expected, $what) = @_;
	my ($out, $err);
	isnt($node->psql('postgres', $sql, stdout => \$out, stderr => \$err), 0, $what);
	like($err, $expected, 'and says why');
}

refused($c->remote(-1), q{SELECT multisite_verify('v1')}, qr/"v1" is passed.*HINT:  Call multisite_pause/s, 'a passed point is refused');
refused($c->remote(-1), q{SELECT multisite_verify('nowhere', timeout => '100ms')}, qr/"nowhere" is not staged yet/, 'an unknown point is given up');
refused($c->source(-1), q{SELECT multisite_create_verified_point('none', '{public.nowhere}')}, qr/there is no table to verify/, 'a table that is nowhere');
refused($c->source(-1), q{SELECT multisite_create_verified_point('awaited')}, qr/"awaited" exists already/, 'a name that was used');
refused($c->source(0), q{SELECT multisite_create_verified_point()}, qr/not the coordinator/, 'a segment');
refused($c->source(-1), q{SELECT multisite_verify('v1')}, qr/no remote coordinator/, 'the source');

# --- a difference is found: bytes of a table, changed on the remote disk

$c->sql(0, 'CHECKPOINT');
$c->wait_applied($c->create_point);
$c->remote_sql(0, 'CHECKPOINT');
my $file = $c->remote(0)->data_dir . '/' . $c->remote_sql(0, q{SELECT pg_relation_filepath('quiet')});
$c->remote(0)->stop;
open(my $f, '+<:raw', $file) or die "$file: $!";
my $bytes = do { local $/; <$f> };
my $at = index($bytes, 'untouched row 7');
cmp_ok($at, '>', 0, 'the row is in its file');
seek($f, $at, 0);
print $f 'u';
seek($f, $at + 14, 0);
print $f '8';
close($f);
$c->remote(0)->start;
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(-1, q{SELECT multisite_create_verified_point('tampered')});
my $found = q{SELECT string_agg(format('%s %s %s %s %s', segment_id, table_name, source_rows, remote_rows, result), ' ')
	FILTER (WHERE result <> 'equal') FROM multisite_verify('tampered')};
if ($c->remote_sql(0, 'SHOW data_checksums') eq 'on')
{
	# the default of PostgreSQL 18: its own check comes first
	refused($c->remote(-1), $found, qr/segment 0 .*could not read its tables.*invalid page/s, 'a damaged page is found');
}
else
{
	is($c->remote_sql(-1, $found), '0 public.quiet 1000 1000 different', 'a difference is found, with its segment and table');
}

# --- a segment that nobody registered is not left out silently

$c->sql(-1, q{SELECT multisite_remove_segment(0, 'dr')});
$c->wait_applied($c->create_point);
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(-1, q{SELECT multisite_create_verified_point('unregistered')});
refused($c->remote(-1), q{SELECT multisite_verify('unregistered')}, qr/1 segments of site "dr" are registered, but the point has 2/,
	'a segment that is not registered');

done_testing();
