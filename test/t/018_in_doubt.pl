
# Prepared transactions that a promotion leaves: what has ended on one segment
# ends in the same way on the others, and nothing else is touched.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Multisite;

my $c = Multisite->new('doubt', segments => 2);
my $odd_database = q{o'ther "db"};
my $odd_gid = q{it's "odd" \\ and more};

$c->start_source;
foreach my $id ($c->ids)
{
	$c->sql($id, 'CREATE TABLE t (what text)');
	$c->sql($id, q{CREATE DATABASE "o'ther ""db"""});
	$c->source($id)->safe_psql($odd_database, 'CREATE TABLE t (what text)');
}

sub literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub prepare
{
	my ($gid, $ids, $database) = @_;
	my $g = literal($gid);

	$c->source($_)->safe_psql($database // 'postgres', "BEGIN; INSERT INTO t VALUES ($g); PREPARE TRANSACTION $g")
	  foreach @$ids;
}

sub finish
{
	my ($how, $gid, $ids, $database) = @_;
	$c->source($_)->safe_psql($database // 'postgres', "$how PREPARED " . literal($gid)) foreach @$ids;
}

# Ends the receiver the hard way; its server goes through crash recovery.
sub kill_receiver
{
	my ($id) = @_;
	my $pid = $c->remote_sql($id, q{SELECT pid FROM multisite_status WHERE worker = 'receiver'});

	kill 'KILL', $pid;
	$c->wait_for($c->remote($id), "SELECT pid <> $pid FROM multisite_status WHERE worker = 'receiver'");
}

sub staged_up_to_now
{
	my ($id) = @_;
	my $lsn = $c->sql($id, 'SELECT pg_current_wal_flush_lsn()');

	$c->wait_for($c->remote($id), "SELECT staged_lsn >= '$lsn' FROM multisite_status WHERE worker = 'receiver'");
}

# What the remote coordinator says, one line a row.
sub in_doubt
{
	my ($where) = @_;
	return $c->remote_sql(-1, 'SELECT segment_id, verdict, prepared_on, committed_on, rolled_back_on, absent_on'
		  . " FROM multisite_in_doubt WHERE $where ORDER BY segment_id");
}

sub fails
{
	my ($sql, $pattern, $what, %options) = @_;
	my ($status, $out, $err) = $c->remote(-1)->psql($options{database} // 'postgres', $sql);
	like($err, $pattern, $what);
}

# --- before the base backups: one in its state file

prepare('before backup', [ 0, 1 ]);
$c->sql($_, 'CHECKPOINT') foreach $c->ids;
$c->start_remote;
$c->wait_applied($c->create_point('first'));

# --- prepared long before, and many others finished since

prepare('old', [ 0, 1 ]);
prepare('older than the log', [ 0, 1 ]);
finish('COMMIT', 'old', [1]);
finish('COMMIT', 'before backup', [0]);
foreach my $id (0, 1)
{
	$c->source($id)->safe_psql('postgres', join("\n", map {
		"BEGIN; INSERT INTO t VALUES ('many'); PREPARE TRANSACTION 'many $_'; "
		  . ($_ % 2 ? 'COMMIT' : 'ROLLBACK') . " PREPARED 'many $_';" } 1 .. 1000));
}
$c->wait_applied($c->create_point('second'));

# --- a log that has become long is shortened, and the unfinished ones stay

my $log_file = $c->remote(0)->data_dir . '/pg_wal/multisite/twophase';
$c->remote(0)->stop;
my $log = slurp_file($log_file);
my $entries = substr($log, 8);
append_to_file($log_file, $entries x (34e6 / length($entries)));
cmp_ok(-s $log_file, '>', 32 * 1024 * 1024, 'the log is long');
$c->remote(0)->start;
finish('COMMIT', 'older than the log', [0]);
$c->wait_applied($c->create_point('third'));
cmp_ok(-s $log_file, '<', 16 * 1024 * 1024, 'and was shortened');

# --- the rest, with a receiver killed between PREPARE and COMMIT PREPARED,
# between COMMIT PREPARED and the point, and between the point and the promotion

prepare('commit', [ -1, 0, 1 ]);
prepare('rollback', [ -1, 0 ]);
prepare('unknown', [ 0, 1 ]);
prepare('contradiction', [ -1, 0, 1 ]);
prepare($odd_gid, [ 0, 1 ]);
prepare('elsewhere', [ 0, 1 ], $odd_database);
prepare('reused', [ 0, 1 ]);
finish('COMMIT', 'reused', [ 0, 1 ]);
prepare('reused', [0]);
staged_up_to_now(1);
kill_receiver(1);
finish('COMMIT', 'commit', [1]);
finish('ROLLBACK', 'rollback', [-1]);
finish('COMMIT', 'contradiction', [0]);
finish('ROLLBACK', 'contradiction', [1]);
finish('COMMIT', $odd_gid, [1]);
finish('COMMIT', 'elsewhere', [1], $odd_database);
staged_up_to_now($_) foreach $c->ids;
kill_receiver(1);
my $point = $c->create_point('last');
# behind the point: does not count
finish('COMMIT', 'unknown', [1]);
$c->wait_applied($point);
staged_up_to_now(1);
fails('SELECT * FROM multisite_in_doubt', qr/this site is not promoted/, 'not while it follows');
kill_receiver(1);
$c->wait_for($c->remote(1), q{SELECT released_lsn IS NOT NULL FROM multisite_status WHERE worker = 'receiver'});
$c->cut_source;
is(($c->promote)[0], $point, 'promoted');

# --- what is listed

is(in_doubt(q{gid = 'commit'}), "-1|commit|{-1,0}|{1}|{}|{}\n0|commit|{-1,0}|{1}|{}|{}", 'committed on one');
is(in_doubt(q{gid = 'rollback'}), '0|rollback|{0}|{}|{-1}|{1}', 'rolled back on one');
is(in_doubt(q{gid = 'unknown'}), "0|unknown|{0,1}|{}|{}|{-1}\n1|unknown|{0,1}|{}|{}|{-1}",
	'committed behind the point only');
is(in_doubt(q{gid = 'contradiction'}), '-1|contradiction|{-1}|{0}|{1}|{}', 'ended in both ways');
is(in_doubt(q{gid = 'old'}), '0|commit|{0}|{1}|{}|{-1}', 'committed long ago');
is(in_doubt(q{gid = 'before backup'}), '1|commit|{1}|{0}|{}|{-1}', 'prepared before the base backup');
is(in_doubt(q{gid = 'older than the log'}), '1|commit|{1}|{0}|{}|{-1}', 'prepared before the log was shortened');
is(in_doubt(q{gid = 'reused'}), '0|unknown|{0}|{}|{}|{-1,1}', 'the outcome of an earlier one of its gid does not count');
like($c->remote_sql(-1, q{SELECT reason FROM multisite_in_doubt WHERE gid = 'reused'}),
	qr/^no other segment knows how it has ended; segment 1 committed one of this gid at .*, before this one was prepared$/,
	'and the reason says so');
is($c->remote_sql(-1, q{SELECT reason FROM multisite_in_doubt WHERE gid = 'contradiction'}),
	'committed on segment 0, but rolled back on segment 1', 'the reason of a contradiction');
is($c->remote_sql(-1, q{SELECT database, owner = current_user, prepared_at < now() FROM multisite_in_doubt WHERE gid = 'elsewhere'}),
	"$odd_database|t|t", 'its database, its owner, and when');
my $all = $c->remote_sql(-1, 'SELECT count(*) FROM multisite_in_doubt');
is($all, 12, 'and no others');

# what came again, or lay behind the point, is not in the log
is($c->remote_sql(1, q{SELECT gid, outcome, outcomes FROM multisite.prepared_outcomes('last', '{old,unknown,commit,rollback}') ORDER BY gid}),
	"commit|committed|1\nold|committed|1", 'a segment knows each outcome once, and none from behind the point');

# --- it never leaves out a segment

my $address = $c->conninfo($c->remote(1));
my $wrong = $c->conninfo($c->remote(0));
$_ = literal($_) foreach $address, $wrong;
$c->remote(1)->stop;
foreach my $sql ('SELECT * FROM multisite_in_doubt', 'SELECT * FROM multisite_resolve_in_doubt()')
{
	fails($sql, qr/segment 1 of site "dr" could not be reached.*HINT:.*multisite_add_segment\(1, conninfo\)/s,
		"a segment is down: $sql");
}
$c->remote(1)->start;
$c->remote_sql(-1, 'SELECT multisite_remove_segment(1)');
fails('SELECT * FROM multisite_in_doubt',
	qr/"last" has 3 segments, but 2 of site "dr" are registered.*Registered, with the coordinator: -1, 0\. Missing: 1\./s,
	'a segment is not registered');
$c->remote_sql(-1, "SELECT multisite_add_segment(1, $wrong)");
fails('SELECT * FROM multisite_resolve_in_doubt()',
	qr/segment 1 of site "dr" could not be used.*leads to segment 0 of site "dr"/s, 'a segment has a wrong address');
$c->remote_sql(-1, "SELECT multisite_add_segment(1, $address)");
fails('SELECT * FROM multisite.in_doubt()', qr/the registry of segments is in database "postgres"/,
	'in another database', database => $odd_database)
  if $c->remote(-1)->psql($odd_database, 'CREATE EXTENSION multisite_repl') == 0;
my ($status, $out, $err) = $c->remote(0)->psql('postgres', 'SELECT * FROM multisite_in_doubt');
like($err, qr/this server is segment 0, not the coordinator/, 'not on another segment');
($status, $out, $err) = $c->remote(0)->psql('postgres', q{SELECT * FROM multisite.prepared_outcomes('first', '{}')});
like($err, qr/promoted at consistency point "last", not at "first"/, 'a segment tells where it was promoted');

# --- who may

$c->remote_sql(-1, q{CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE resolver; CREATE SCHEMA evil;
	GRANT ALL ON SCHEMA evil TO watcher;
	CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN RAISE EXCEPTION 'as %', current_user; END$$;
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq)});
is($c->remote_sql(-1, 'SET ROLE watcher; SET search_path = evil, public, pg_catalog; SELECT count(*) FROM multisite_in_doubt'),
	$all, 'pg_monitor looks, and runs nothing of its own as superuser');
fails('SET ROLE watcher; SELECT * FROM multisite_resolve_in_doubt()', qr/permission denied/, 'and resolves nothing');
fails('SET ROLE resolver; SELECT * FROM multisite_in_doubt', qr/permission denied/, 'others do not look');
fails(q{SELECT * FROM multisite_resolve_in_doubt('-1 s')}, qr/a timeout must not be negative/, 'a negative timeout');

# --- resolve

$c->remote_sql(-1, 'GRANT EXECUTE ON FUNCTION multisite_resolve_in_doubt(interval) TO resolver');
is( $c->remote_sql(-1, q{SET ROLE resolver; SELECT gid, segment_id, action, done, error IS NULL FROM multisite_resolve_in_doubt()
		ORDER BY action, gid COLLATE "C", segment_id}),
	join("\n",
		'before backup|1|commit|t|t', 'commit|-1|commit|t|t', 'commit|0|commit|t|t', 'elsewhere|0|commit|t|t',
		"$odd_gid|0|commit|t|t", 'old|0|commit|t|t', 'older than the log|1|commit|t|t',
		'contradiction|-1|left|f|f', 'reused|0|left|f|f', 'unknown|0|left|f|f', 'unknown|1|left|f|f',
		'rollback|0|rollback|t|t'),
	'resolved by the rule, the rest is left and listed');
is($c->remote_sql(-1, q{SELECT gid, segment_id, action, done FROM multisite_resolve_in_doubt() ORDER BY gid, segment_id}),
	"contradiction|-1|left|f\nreused|0|left|f\nunknown|0|left|f\nunknown|1|left|f", 'a second call finds the rest only');
foreach my $id (0, 1)
{
	is($c->remote_sql($id, q{SELECT string_agg(DISTINCT what, ', ' ORDER BY what) FROM t
			WHERE what NOT IN ('many', 'reused', 'contradiction')}),
		"before backup, commit, $odd_gid, old, older than the log", "segment $id has what was committed, once all is resolved");
	is($c->remote($id)->safe_psql($odd_database, 'SELECT what FROM t'), 'elsewhere', 'in the other database, too');
}
is($c->remote_sql(-1, q{SELECT what FROM t}), 'commit', 'and so has the coordinator');

# --- the operator ends the rest; after a restart it is still known

$c->remote_sql($_, q{ROLLBACK PREPARED 'unknown'}) foreach 0, 1;
$c->remote_sql(0, q{ROLLBACK PREPARED 'reused'});
$c->remote($_)->restart foreach $c->ids;
is(in_doubt('true'), '-1|contradiction|{-1}|{0}|{1}|{}', 'the log outlives a restart');

# a transaction whose end cannot be carried out is listed as such
$c->remote_sql(-1, q{ROLLBACK PREPARED 'contradiction'});
is($c->remote_sql(-1, 'SELECT count(*) FROM multisite_resolve_in_doubt()'), '0', 'nothing is in doubt any more');

done_testing();
