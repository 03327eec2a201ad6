
# DDL and bulk operations under load: dumps of both sites at the same point
# are equal, on every segment.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Checker;
use Multisite;

my $c = Multisite->new('ddl', segments => 1);
my $checker = Checker->new($c, clients => 3);
my @ids = $c->ids;

$c->start_source;
$c->sql($_, q{
	CREATE TABLE kept (id serial PRIMARY KEY, what text, n int DEFAULT 0);
	INSERT INTO kept (what) SELECT md5(i::text) FROM generate_series(1, 5000) i;
	CREATE SEQUENCE numbers}) foreach @ids;
$c->start_remote;

sub dump_of
{
	my ($node) = @_;
	my ($out, $err) = run_command([ 'pg_dump', '-d', $node->connstr('postgres'), '--no-sync' ]);
	$out =~ s/^\\(un)?restrict .*\n//mg;
	# a standby's sequences are ahead by what the source has in reserve, as
	# they would be after a crash (SEQ_LOG_VALS in sequence.c)
	$out =~ s/^(SELECT pg_catalog\.setval\('[^']+'), \d+/$1/mg;
	return $out;
}

# each client has tables of its own, so that they do not wait for each other
my @steps = (
	sub { "CREATE TABLE c$_[0]_$_[1] (a int PRIMARY KEY, b text); INSERT INTO c$_[0]_$_[1] SELECT i, repeat('b', 50) FROM generate_series(1, 500) i" },
	sub { "DROP TABLE IF EXISTS c$_[0]_@{[abs($_[1] - 9)]}" },
	sub { "ALTER TABLE kept ADD COLUMN c$_[0]_$_[1] int DEFAULT $_[1]" },
	sub { "ALTER TABLE kept DROP COLUMN IF EXISTS c$_[0]_@{[abs($_[1] - 8)]}" },
	sub { 'VACUUM FULL kept' },
	sub { "CREATE INDEX CONCURRENTLY i$_[0]_$_[1] ON kept (what, n)" },
	sub { "DROP INDEX CONCURRENTLY IF EXISTS i$_[0]_@{[abs($_[1] - 10)]}" },
	sub { "COPY (SELECT i, 'copied' FROM generate_series(1, 1000) i) TO PROGRAM 'cat > /dev/null'" },
	sub { "SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))" },
	sub { q{SELECT nextval('numbers') FROM generate_series(1, 50)} },
	sub { "CREATE TABLE t$_[0]_$_[1] AS SELECT * FROM kept; TRUNCATE t$_[0]_$_[1]; DROP TABLE t$_[0]_$_[1]" },
	sub { 'UPDATE kept SET n = n + 1 WHERE id % 7 = ' . ($_[1] % 7) },
	sub { 'BEGIN; DELETE FROM kept WHERE id % 11 = 3; ROLLBACK' },
	sub { "CREATE UNLOGGED TABLE u$_[0]_$_[1] (a int); DROP TABLE u$_[0]_$_[1]; CREATE TEMP TABLE x$_[0]_$_[1] (a int)" },
);

$checker->start(
	sub {
		my ($client, $sessions, $n) = @_;
		my $id = $ids[ int(rand(@ids)) ];

		# deadlocks and lock timeouts among the clients are theirs to bear
		$sessions->{$id}->query($steps[ int(rand(@steps)) ]->($client, $n));
		return 1;
	});
# a transaction that is under way at a point may have its table locked there
$checker->each_point(
	$checker->points(15),
	sub {
		foreach my $id (@ids)
		{
			my ($status, $out, $err) = $c->remote($id)->psql('postgres', q{SET lock_timeout = '100ms'; SELECT count(*) FROM kept});
			like("$out$err", qr/^\d+$|lock timeout/, "segment $id can be read at $_[0]");
		}
		return 1;
	});
$checker->stop;

my $point = $c->create_point('dumped');
$c->wait_applied($point);
foreach my $id (@ids)
{
	my $source = dump_of($c->source($id));
	my $remote = dump_of($c->remote($id));

	cmp_ok(length($source), '>', 100_000, "segment $id: there is something to dump");
	ok($source eq $remote, "segment $id: both sites dump the same");
}
$c->cut_source;
my %before = map { $_ => dump_of($c->remote($_)) } @ids;
$c->promote;
foreach my $id (@ids)
{
	ok(dump_of($c->remote($id)) eq $before{$id}, "segment $id: and the same after promotion");
}

done_testing();
