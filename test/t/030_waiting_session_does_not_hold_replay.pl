
# A session of the remote site that waits for replay must not hold it up by its
# own snapshot, not even when replay has met that snapshot before it was let go.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;
use Session;

my $c = Multisite->new('waits');

$c->start_source;
$c->sql(-1, q{CREATE FUNCTION read_after(point text) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		reached boolean;
	BEGIN
		reached := multisite_wait_for_consistency_point(point, 'applied', '60 s');
		RETURN (SELECT count(CASE WHEN i = 1 THEN pg_advisory_lock(2)::text ELSE '' END) FROM u);
	END $$});
$c->sql(-1, q{CREATE FUNCTION waits_within(point text) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
	DECLARE
		r record;
	BEGIN
		FOR r IN SELECT multisite_wait_for_consistency_point(point, 'applied', '3 s') LOOP
		END LOOP;
		RETURN (SELECT count(*) FROM v);
	END $$});
$c->sql(-1, 'CREATE TABLE v AS SELECT i FROM generate_series(1, 1000) i');
$c->sql(-1, 'CREATE TABLE u AS SELECT i FROM generate_series(1, 1000) i');
$c->sql(-1, 'CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i');
$c->start_remote(conf => 'max_standby_archive_delay = -1');
$c->wait_applied($c->create_point('one'));
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(-1, $_) foreach 'DELETE FROM t', 'VACUUM t';
$c->wait_applied($c->create_point('two'), 'staged');

# it waits in its arguments first, with a snapshot that sees the rows
my $holder = Session->new($c->remote(-1));
$holder->query('SELECT pg_advisory_lock(1)');
my $waiter = Session->new($c->remote(-1));
$waiter->begin(q{SELECT multisite_wait_for_consistency_point('two',
	CASE WHEN pg_advisory_lock(1) IS NULL THEN '' ELSE 'applied' END, '60 s')});
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'});

$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'startup' AND wait_event = 'RecoveryConflictSnapshot'});
ok(!$waiter->done, 'replay waits for the snapshot, and the session for its lock');

$holder->query('SELECT pg_advisory_unlock(1)');
is($waiter->end, 't', 'once the session waits for the point it lets replay go on');
is($c->remote_sql(-1, 'SELECT count(*) FROM t'), '0', 'to that point');

# what reads behind a wait is a query like any other, in the same statement, too
$c->remote_sql(-1, 'SELECT multisite_pause()');
$holder->query('SELECT pg_advisory_lock(2)');
my $reader = Session->new($c->remote(-1));
$reader->begin(q{SELECT read_after('two')});
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory'});
$c->sql(-1, $_) foreach 'DELETE FROM u', 'VACUUM u';
$c->wait_applied($c->create_point('three'), 'staged');
$c->remote_sql(-1, 'SELECT multisite_resume()');
$c->wait_for($c->remote(-1), q{SELECT
	EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryConflictSnapshot') OR
	EXISTS (SELECT FROM multisite_consistency_points WHERE name = 'three' AND state = 'applied')});
is($c->remote_sql(-1, q{SELECT state FROM multisite_consistency_points WHERE name = 'three'}), 'released',
	'replay waits for a function that reads behind its wait');
$holder->query('SELECT pg_advisory_unlock(2)');
is($reader->end, '1000', 'which sees what it has begun to read');
$c->wait_applied('three');

# nor is what surrounds a wait overtaken by it, whose snapshot a function's cursor may share
$c->remote_sql(-1, 'SELECT multisite_pause()');
$c->sql(-1, $_) foreach 'DELETE FROM v', 'VACUUM v';
$c->wait_applied($c->create_point('four'), 'staged');
$reader->begin(q{SELECT waits_within('four'), (SELECT count(*) FROM v)});
$c->wait_for($c->remote(-1), q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%waits_within%' AND wait_event_type = 'Extension'
	AND pid <> pg_backend_pid()});
$c->remote_sql(-1, 'SELECT multisite_resume()');
is($reader->end, '1000|1000', 'nor is a statement overtaken within which a function waits');
$c->wait_applied('four');

done_testing();
